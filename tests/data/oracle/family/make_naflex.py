#!/usr/bin/env python3
"""The checkpoint and the golden of Phi-4-reasoning-vision: a SigLIP2 tower that takes a picture at its own aspect ratio (naflex), a
projection of two layers, and phi-4's decoder. Beside them, sizes of many pictures with the published settings.

    python make_naflex.py --out checkpoints --ops ops

With `--of DIR` a checkpoint of any size gets a golden of one picture's features, without the decoder: what `cargo xtask synth` wrote, for
`phi3-run verify`.

The reference is transformers' Siglip2VisionModel and Phi3ForCausalLM. What joins them, and the preparation of pictures, is
written from the published behaviour: Pillow's bilinear resize, then arithmetic of numpy in float32.
"""

import argparse
import json
import math
from pathlib import Path

import lib
import numpy as np
import torch
from lib import mg, variants, write_checkpoint, write_golden, write_json
from PIL import Image
from safetensors import safe_open
from transformers import Siglip2VisionConfig, Siglip2VisionModel
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

import refs

NAME, SEED = "phi-4-reasoning-vision", 20260304
PREFIX, PROJECTOR = "model.vision_tower.vision_tower.vision_model.", "model.mm_projector."
# no two sizes are equal; the last of the tower's layers is not used, and the table of positions is smaller and larger than grids
TEXT = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96}
TOWER = {"hidden_size": 24, "intermediate_size": 52, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 4, "num_patches": 25}
BOUNDS = (12, 40)
PICTURES = {"within": (25, 22), "small": (9, 7), "large": (70, 44), "flat": (37, 1), "tall": (6, 101)}
PROMPTS = {
    "one_image": {"parts": [5, "within", 6], "greedy": True, "hidden": True},
    "two_images": {"parts": [4, "large", 2, "flat", 5], "greedy": True},
    "beside": {"parts": ["small", "tall", 3]},
    "text": {"parts": [9], "greedy": True},
}
PUBLISHED = {"patch_size": 16, "min_num_patches": 256, "max_num_patches": 3600}


def config():
    v = TEXT["vocab_size"]
    cfg = variants._phi3(
        TEXT, "Phi-4-reasoning-vision-15B",
        architectures=["Phi4ForCausalLMV"], model_type="phi4-siglip",
        auto_map={"AutoConfig": "modeling_phi4_visionr.Phi4VisionR", "AutoModelForCausalLM": "modeling_phi4_visionr.Phi4ForCausalLMV"},
        bos_token_id=v - 95, eos_token_id=v - 87, pad_token_id=v - 3,
        max_position_embeddings=32768, original_max_position_embeddings=32768, partial_rotary_factor=1.0,
        rope_theta=500000.0, sliding_window=None, transformers_version="4.57.1",
    )
    cfg.update({
        "mm_hidden_size": TOWER["hidden_size"], "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "google/siglip2-so400m-patch16-naflex",
        "min_num_patches": BOUNDS[0], "max_num_patches": BOUNDS[1],
        "tokenizer_model_max_length": 16384, "tokenizer_padding_side": "right", "use_mm_proj": True,
        "vision_config": {
            "attention_dropout": 0.0, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-06,
            "model_type": "siglip2_vision_model", "num_channels": 3, **TOWER,
        },
    })
    return cfg


def preprocessor():
    return {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "image_processor_type": "Siglip2ImageProcessorNoUpscale", "max_num_patches": BOUNDS[1], "min_num_patches": BOUNDS[0],
        "patch_size": TOWER["patch_size"], "processor_class": "Phi4VisionRProcessor", "resample": 2, "rescale_factor": 1 / 255,
    }


def tensors(cfg):
    w = variants.Weights(SEED, NAME, torch.bfloat16)
    variants.phi3_tensors(cfg, w)
    c, h = cfg["vision_config"], TOWER["hidden_size"]
    w.linear(PROJECTOR + "0", TEXT["hidden_size"], h, 1.2, bias=0.2)
    w.linear(PROJECTOR + "2", TEXT["hidden_size"], TEXT["hidden_size"], 1.2, bias=0.2)
    w.linear(PREFIX + "embeddings.patch_embedding", h, 3 * c["patch_size"] ** 2, 2.0, bias=0.2)
    w.embed(PREFIX + "embeddings.position_embedding", c["num_patches"], h, 0.7)
    for i in range(c["num_hidden_layers"]):
        p = f"{PREFIX}encoder.layers.{i}."
        w.norm(p + "layer_norm1", h, bias=0.1)
        w.norm(p + "layer_norm2", h, bias=0.1)
        for name in ("q_proj", "k_proj", "v_proj"):
            w.linear(p + "self_attn." + name, h, h, 1.3, bias=0.2)
        w.linear(p + "self_attn.out_proj", h, h, 1.2, bias=0.2)
        w.linear(p + "mlp.fc1", c["intermediate_size"], h, 1.2, bias=0.2)
        w.linear(p + "mlp.fc2", h, c["intermediate_size"], 1.2, bias=0.2)
    w.norm(PREFIX + "post_layernorm", h, bias=0.1)
    # the pooling head is in the published file and not used
    p = PREFIX + "head."
    w.put(p + "probe", w.noise(p + "probe", (1, 1, h)))
    w.put(p + "attention.in_proj_weight", w.noise(p + "attention.in_proj_weight", (3 * h, h)) / math.sqrt(h))
    w.put(p + "attention.in_proj_bias", 0.2 * w.noise(p + "attention.in_proj_bias", (3 * h,)))
    w.linear(p + "attention.out_proj", h, h, 1.2, bias=0.2)
    w.norm(p + "layernorm", h, bias=0.1)
    w.linear(p + "mlp.fc1", c["intermediate_size"], h, 1.2, bias=0.2)
    w.linear(p + "mlp.fc2", h, c["intermediate_size"], 1.2, bias=0.2)
    return w.tensors


# --------------------------------------------------------------------------------------------------------------------
# pictures


def target(width, height, patch_size, min_num_patches, max_num_patches):
    """(width, height) in pixels, whole patches each way. The picture's own number of whole patches, held within the bounds, is
    the most that the grid may have; a bisection of the scale finds the largest such grid."""
    own = max((width // patch_size) * (height // patch_size), 1)
    most = min(max(own, min_num_patches), max_num_patches)

    def patches(scale, side):
        return max(1, math.ceil(side * scale / patch_size))

    low, high = 1e-5 / 10, 100.0
    while high - low >= 1e-5:
        scale = (low + high) / 2
        if patches(scale, height) * patches(scale, width) <= most:
            low = scale
        else:
            high = scale
    return patches(low, width) * patch_size, patches(low, height) * patch_size


def resize(rgb, patch, bounds):
    size = target(rgb.shape[1], rgb.shape[0], patch, *bounds)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


def pixel_values(resized, patch):
    """[patches, patch * patch * 3]: patches row by row, in a patch the rows, in a row the pixels, in a pixel the channels."""
    x = (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
    x = (x - np.full(3, 0.5, np.float32)) / np.full(3, 0.5, np.float32)
    rows, cols = x.shape[0] // patch, x.shape[1] // patch
    return x.reshape(rows, patch, cols, patch, 3).transpose(0, 2, 1, 3, 4).reshape(rows * cols, -1)


def check_against_transformers(rgb, values, patch, bounds):
    """transformers' own processor with the bound of this picture: the same grid and the same values."""
    own = max((rgb.shape[1] // patch) * (rgb.shape[0] // patch), 1)
    most = min(max(own, bounds[0]), bounds[1])
    out = Siglip2ImageProcessorPil(patch_size=patch, max_num_patches=most)(images=Image.fromarray(rgb), return_tensors="np")
    theirs = np.asarray(out["pixel_values"])[0][np.asarray(out["pixel_attention_mask"])[0].astype(bool)]
    assert theirs.shape == values.shape, (theirs.shape, values.shape)
    return float(np.abs(theirs - values).max())


# --------------------------------------------------------------------------------------------------------------------
# the model


def resized_positions(table, spatial_shapes, max_length):
    """As transformers' resize_positional_embeddings for one picture. On the CPU, torch 2.15 enlarges a table to a grid of one column
    wrongly: every row is the first. There the transposed table is resized to the transposed grid, which is the same sum."""
    rows, cols = spatial_shapes[0].tolist()
    turn = (lambda x: x.transpose(-1, -2)) if cols == 1 else (lambda x: x)
    size = (cols, rows) if cols == 1 else (rows, cols)
    x = torch.nn.functional.interpolate(turn(table.permute(2, 0, 1)[None]).contiguous(), size=size, mode="bilinear", align_corners=False, antialias=True)
    x = turn(x)[0].reshape(-1, rows * cols).T[None]
    assert cols == 1 or torch.equal(x, RESIZE(table, spatial_shapes, max_length))
    return x


def tower_tensors(folder):
    out = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as f:
            out.update({name: f.get_tensor(name).float() for name in f.keys() if name.startswith((PREFIX, PROJECTOR))})
    return out


RESIZE = Siglip2VisionEmbeddings.resize_positional_embeddings
Siglip2VisionEmbeddings.resize_positional_embeddings = staticmethod(resized_positions)


class Model:
    def __init__(self, folder, dtype=torch.float32, attn="eager", decoder=True):
        self.cfg = json.loads((folder / "config.json").read_text())
        w = refs.load_tensors(folder, torch.float32) if decoder else tower_tensors(folder)
        self.vocab, self.dtype = self.cfg["vocab_size"], dtype
        if decoder:
            self.open_decoder(w, dtype, attn)
        vc = Siglip2VisionConfig(**{"patch_size": 16, **self.cfg["vision_config"]})
        vc._attn_implementation = attn
        self.tower = Siglip2VisionModel(vc).eval()
        lead = "vision_model." if any(k.startswith("vision_model.") for k in self.tower.state_dict()) else ""
        res = self.tower.load_state_dict({lead + k.removeprefix(PREFIX): v for k, v in w.items() if k.startswith(PREFIX)}, strict=False)
        assert not res.unexpected_keys and not res.missing_keys, res
        self.tower.to(dtype)
        self.embeddings = dict(self.tower.named_modules())[lead + "embeddings"]
        self.w = {k.removeprefix(PROJECTOR): v.to(dtype) for k, v in w.items() if k.startswith(PROJECTOR)}

    def open_decoder(self, w, dtype, attn):
        text = dict(self.cfg, model_type="phi3", architectures=["Phi3ForCausalLM"])
        for key in [k for k in text if k.startswith(("mm_", "vision", "auto_map", "min_num", "max_num", "tokenizer_", "use_mm"))]:
            del text[key]
        cfg = mg.hf_config(text)
        cfg._attn_implementation = attn
        lm = mg.Phi3ForCausalLM(cfg).eval()
        lm.load_state_dict({k: v for k, v in w.items() if not k.startswith((PREFIX, PROJECTOR))}, strict=True)
        self.text = mg.HfModel.__new__(mg.HfModel)
        self.text.model, self.text.layers, self.text.last_norm = lm.to(dtype), lm.model.layers, lm.model.norm

    def positions(self, grid):
        e = self.embeddings
        table = e.position_embedding.weight.reshape(e.position_embedding_size, e.position_embedding_size, -1)
        return e.resize_positional_embeddings(table, torch.tensor([grid]), grid[0] * grid[1])[0]

    def image(self, values, grid, stages=None):
        """[patches, pixels] and (rows, columns) -> [patches, hidden]."""
        n = len(values)
        out = self.tower(
            pixel_values=values[None].to(self.dtype), pixel_attention_mask=torch.ones(1, n, dtype=torch.int64),
            spatial_shapes=torch.tensor([grid]), output_hidden_states=True,
        )
        feats = out.hidden_states[-2][0]
        x = torch.nn.functional.linear(feats, self.w["0.weight"], self.w["0.bias"])
        x = torch.nn.functional.gelu(x)
        x = torch.nn.functional.linear(x, self.w["2.weight"], self.w["2.bias"])
        if stages is not None:
            stages.append((feats, x))
        return x

    def embeds(self, ids, images):
        """`images` is a list of (pixel values, grid); image k fills the places where ids == -(k + 1)."""
        x = self.text.model.model.embed_tokens(ids.clamp(min=0))
        for k, (values, grid) in enumerate(images):
            x[ids == -(k + 1)] = self.image(values, grid)
        return x

    def logits(self, ids, images, hidden=None):
        # the published model hands the embeddings to Phi3ForCausalLM and no mask of its own: causal, pictures included
        return self.text.logits(None, hidden=hidden, embeds=self.embeds(ids, images))

    def generate(self, ids, images, count):
        rows, new, ids = [], [], ids.clone()
        for _ in range(count):
            row = self.logits(ids, images)[-1]
            ids = torch.cat([ids, row.argmax()[None]])
            rows.append(row)
            new.append(row.argmax())
        return torch.stack(new), torch.stack(rows)


def golden(folder):
    model, patch = Model(folder), TOWER["patch_size"]
    out, meta, images = {}, {"images": {}, "prompts": {}, "greedy": {}}, {}
    worst = 0.0
    for name, (width, height) in PICTURES.items():
        rgb = mg.picture(SEED, NAME, name, width, height)
        resized = resize(rgb, patch, BOUNDS)
        values = pixel_values(resized, patch)
        worst = max(worst, check_against_transformers(rgb, values, patch, BOUNDS))
        grid, stages = (resized.shape[0] // patch, resized.shape[1] // patch), []
        values = torch.from_numpy(values.copy())
        model.image(values, grid, stages)
        images[name] = (values, grid)
        out[f"image.{name}.rgb"], out[f"image.{name}.resized_rgb"] = torch.from_numpy(rgb), torch.from_numpy(resized.copy())
        out[f"image.{name}.pixel_values"], out[f"image.{name}.positions"] = values, model.positions(grid)
        out[f"image.{name}.tower_features"], out[f"image.{name}.projected"] = stages[0]
        meta["images"][name] = {"width": width, "height": height, "grid": list(grid), "num_img_tokens": len(values)}
    for name, how in PROMPTS.items():
        use = [part for part in how["parts"] if not isinstance(part, int)]
        for attempt in range(4000):
            parts, k = [], 0
            for j, part in enumerate(how["parts"]):
                if isinstance(part, int):
                    parts.append(mg.random_ids(SEED, NAME, f"{name}/{j}", attempt, part, model.vocab))
                else:
                    k += 1
                    parts.append(torch.full((len(images[part][0]),), -k, dtype=torch.int64))
            ids, mine = torch.cat(parts), [images[u] for u in use]
            if not how.get("greedy"):
                break
            new, rows = model.generate(ids, mine, 12)
            if mg.greedy_margin(rows) >= mg.MIN_MARGIN and len(set(new.tolist())) >= 6:
                break
        else:
            raise SystemExit(f"{name}: no prompt with a safe margin found")
        hidden = [] if how.get("hidden") else None
        out[f"prompt.{name}.input_ids"], out[f"prompt.{name}.logits"] = ids.int(), model.logits(ids, mine, hidden=hidden)
        for i, h in enumerate(hidden or []):
            out[f"prompt.{name}.hidden.{'norm' if i == len(hidden) - 1 else i}"] = h
        meta["prompts"][name] = {"length": len(ids), "attempt": attempt, "images": use}
        if how.get("greedy"):
            out[f"greedy.{name}.ids"], out[f"greedy.{name}.logits"] = new.int(), rows
            meta["greedy"][name] = {"new_tokens": 12, "least_margin": round(mg.greedy_margin(rows), 4)}
    # what other readings of the same file would give, so that a test shows them
    ids, mine = out["prompt.one_image.input_ids"].long(), [images["within"]]
    last = model.tower(
        pixel_values=mine[0][0][None], pixel_attention_mask=torch.ones(1, len(mine[0][0]), dtype=torch.int64),
        spatial_shapes=torch.tensor([mine[0][1]]), output_hidden_states=True,
    ).hidden_states[-1][0]
    meta["difference_of_the_last_layer"] = round(mg.rel(last, out["image.within.tower_features"]), 3)
    floor = {"transformers_processor": worst}
    sdpa = Model(folder, attn="sdpa")
    floor["sdpa"] = mg.rel(sdpa.logits(ids, mine), out["prompt.one_image.logits"])
    meta["noise"] = {k: float(f"{v:.3g}") for k, v in floor.items()}
    return out, meta


def features(folder, width, height):
    """A golden of one picture: its preparation, the tower and the projection."""
    torch.set_num_threads(2)
    model = Model(folder, attn="sdpa", decoder=False)
    patch = model.cfg["vision_config"].get("patch_size", 16)
    rgb = mg.picture(SEED, NAME, "one", width, height)
    resized = resize(rgb, patch, (model.cfg["min_num_patches"], model.cfg["max_num_patches"]))
    values, grid, stages = torch.from_numpy(pixel_values(resized, patch).copy()), (resized.shape[0] // patch, resized.shape[1] // patch), []
    model.image(values, grid, stages)
    out = {"rgb": torch.from_numpy(rgb), "resized_rgb": torch.from_numpy(resized.copy()), "pixel_values": values}
    out.update(positions=model.positions(grid), tower_features=stages[0][0], projected=stages[0][1])
    write_golden(folder, {f"image.one.{k}": v for k, v in out.items()}, {"grid": list(grid)}, variant=NAME)


def sizes():
    """[width, height] -> [width, height] in pixels after resizing, and tokens."""
    cases = [
        (1, 1), (7, 5), (16, 16), (255, 257), (256, 256), (257, 255), (384, 384), (640, 480), (500, 333), (896, 448), (960, 960), (961, 959),
        (1024, 768), (1080, 1920), (1920, 1080), (3000, 2000), (4032, 3024), (4000, 300), (300, 4000), (3000, 1), (1, 3000), (16, 3000),
        (20000, 17), (17, 20000), (57600, 16), (65000, 16), (33, 2), (2, 33), (1, 65535), (65535, 1), (12345, 6789),
    ]
    from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

    out = []
    for settings in (PUBLISHED, {"patch_size": 14, "min_num_patches": 1, "max_num_patches": 7}):
        patch = settings["patch_size"]
        for width, height in cases:
            size = target(width, height, **settings)
            own = max((width // patch) * (height // patch), 1)
            most = min(max(own, settings["min_num_patches"]), settings["max_num_patches"])
            assert size == get_image_size_for_max_num_patches(height, width, patch, most)[::-1], (width, height)
            out.append({**settings, "size": [width, height], "resized": list(size), "tokens": size[0] // patch * (size[1] // patch)})
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path)
    ap.add_argument("--ops", type=Path)
    ap.add_argument("--of", type=Path, help="a folder with config.json and weights")
    ap.add_argument("--size", default="640x480", help="of the picture for --of")
    args = ap.parse_args()
    if args.of:
        return features(args.of, *map(int, args.size.split("x")))
    cfg, folder = config(), args.out / NAME
    v = TEXT["vocab_size"]
    gen = {"_from_model_config": True, "bos_token_id": v - 95, "eos_token_id": v - 87, "pad_token_id": v - 3, "transformers_version": "4.57.1"}
    write_checkpoint(folder, cfg, gen, tensors(cfg), 1)
    write_json(folder / "preprocessor_config.json", preprocessor())
    out, meta = golden(folder)
    reference = "transformers Siglip2VisionModel and Phi3ForCausalLM, joined by make_naflex.py"
    print(write_golden(folder, out, meta, variant=NAME, reference=reference), meta)
    rows = ",\n".join(" " + json.dumps(case) for case in sizes())
    (args.ops / "naflex_sizes.json").write_text(f"[\n{rows}\n]\n")


if __name__ == "__main__":
    main()
