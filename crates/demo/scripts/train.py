#!/usr/bin/env python3
"""Trains the demo model from scratch on the CPU: transformers' Phi3ForCausalLM, bf16 autocast.

    python train.py --corpus corpus/train.jsonl --tokenizer ../model --out ../model --minutes 30

Documents are packed whole into rows of 512 tokens; answers and plain text count in the loss. Matrices are trained with Muon,
embedding and norms with AdamW; the learning rate follows a cosine over the given minutes. A checkpoint is written every few
minutes and at the end.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Phi3Config, Phi3ForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ROW, BLOCK, VOCAB = 512, 128, 2112
EOT, ASSISTANT, SYSTEM, USER = 2080, 2081, 2086, 2090


def config():
    """config.json with the fields of the published Phi-3 files."""
    return {
        "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0,
        "eos_token_id": EOT, "hidden_act": "silu", "hidden_size": 256, "initializer_range": 0.02, "intermediate_size": 672,
        "max_position_embeddings": 4096, "model_type": "phi3", "num_attention_heads": 8, "num_hidden_layers": 5, "num_key_value_heads": 2,
        "original_max_position_embeddings": 4096, "pad_token_id": EOT, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": None,
        "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.43.3", "use_cache": True, "vocab_size": VOCAB,
    }


def render(doc):
    if "text" in doc:
        return doc["text"] + "<|endoftext|>"
    return "".join(f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in doc["messages"]) + "<|endoftext|>"


def attention(module, q, k, v, mask, scaling=None, dropout=0.0, **_):
    """Causal attention over blocks of rows; grouped heads share one product. Rows are shorter than the sliding window."""
    b, h, t, d = q.shape
    g = k.shape[1]
    r = h // g
    q = (q * scaling).reshape(b * g, r, t, d)
    k, v = k.reshape(b * g, t, d), v.reshape(b * g, t, d)
    out = []
    for s in range(0, t, BLOCK):
        e = min(t, s + BLOCK)
        w = torch.bmm(q[:, :, s:e].reshape(b * g, r * (e - s), d), k[:, :e].transpose(1, 2)).view(b * g, r, e - s, e)
        hidden = torch.arange(e)[None, :] > torch.arange(s, e)[:, None]
        w = torch.softmax(w.float().masked_fill(hidden, float("-inf")), -1).to(v.dtype)
        out.append(torch.bmm(w.view(b * g, r * (e - s), e), v[:, :e]).view(b * g, r, e - s, d))
    return torch.cat(out, 2).view(b, h, t, d).transpose(1, 2).contiguous(), None


def tokens(path, tok, cache, without=()):
    if cache.exists() and cache.stat().st_mtime > path.stat().st_mtime:
        z = np.load(cache)
        return z["ids"], z["ends"]
    ids, ends, n = [], [], 0
    docs = [d for d in map(json.loads, open(path, encoding="utf-8")) if d["kind"] not in without]
    for i in range(0, len(docs), 5000):
        for e in tok.encode_batch([render(d) for d in docs[i : i + 5000]]):
            ids.append(np.array(e.ids, dtype=np.uint16))
            n += len(e.ids)
            ends.append(n)
    ids, ends = np.concatenate(ids), np.array(ends)
    np.savez(cache, ids=ids, ends=ends)
    return ids, ends


def rows(ids, ends, rng):
    """Packs whole documents, first fit, into rows of ROW + 1 tokens; -1 marks unused positions."""
    starts = np.concatenate([[0], ends[:-1]])
    order = list(range(len(ends)))
    rng.shuffle(order)
    bins, out = [], []
    for i in order:
        d = ids[starts[i] : ends[i]][: ROW + 1]
        for b in bins:
            if b[0] + len(d) <= ROW + 1:
                b[0] += len(d)
                b[1].append(d)
                break
        else:
            bins.append([len(d), [d]])
            if len(bins) > 48:
                full = max(range(len(bins)), key=lambda j: bins[j][0])
                out.append(bins.pop(full)[1])
    out += [b[1] for b in bins]
    rng.shuffle(out)
    x = np.full((len(out), ROW + 1), -1, dtype=np.int64)
    for i, ds in enumerate(out):
        c = np.concatenate(ds)
        x[i, : len(c)] = c
    return x


def targets(b):
    """Targets: answers and plain text; messages of user and system are ignored (-1)."""
    mark = np.where((b == USER) | (b == SYSTEM), 1, np.where((b == ASSISTANT) | (b == EOT), 2, 0))
    at = np.maximum.accumulate(np.where(mark > 0, np.arange(b.shape[1]), 0), axis=1)
    counted = np.take_along_axis(mark, at, axis=1)[:, :-1] != 1
    return torch.from_numpy(np.where(counted, b[:, 1:], -1))


def save(model, out):
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config(), indent=2) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--corpus", type=Path, required=True)
    ap.add_argument("--tokenizer", type=Path, default=Path("../model"))
    ap.add_argument("--out", type=Path, default=Path("../model"))
    ap.add_argument("--minutes", type=float, default=30)
    ap.add_argument("--batch", type=int, default=8)
    ap.add_argument("--lr", type=float, default=2.5e-3)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    ap.add_argument("--init", type=Path, help="continue from this checkpoint (a .pt file written by this program)")
    ap.add_argument("--warmup", type=int, default=150)
    ap.add_argument("--without", nargs="*", default=[], help="kinds of documents to leave out")
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tok = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    ids, ends = tokens(args.corpus, tok, args.corpus.with_suffix(".".join(["", *args.without, "npz"])), args.without)
    print(f"{len(ends)} documents, {len(ids) / 1e6:.2f} M tokens", flush=True)
    ALL_ATTENTION_FUNCTIONS.register("rows", attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register("rows", lambda *a, **k: None)
    c = config()
    model = Phi3ForCausalLM(Phi3Config(**{k: v for k, v in c.items() if k not in ("torch_dtype", "transformers_version", "architectures")}, attn_implementation="rows"))
    model = model.float()
    for name, p in model.named_parameters():  # outputs into the residual stream start smaller
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * c["num_hidden_layers"]))
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.3f} M parameters", flush=True)
    mats = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    if args.optimizer == "muon":
        opts = [torch.optim.Muon(mats, lr=args.lr, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
                torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]
    else:
        opts = [torch.optim.AdamW([{"params": mats, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.95), fused=True)]
    used = 0.0
    if args.init:
        state = torch.load(args.init)
        model.load_state_dict(state["model"])
        for o, s in zip(opts, state["opts"]):
            o.load_state_dict(s)
        used = state["used"]

    def loss_of(x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=x, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.float().view(-1, VOCAB), y.reshape(-1), ignore_index=-1)

    step_fn = torch.compile(loss_of)
    start = last = None
    step = seen = 0
    recent, saved = [], 0.0
    while True:
        data = rows(ids, ends, rng)
        for i in range(0, len(data) - args.batch + 1, args.batch):
            b = torch.from_numpy(data[i : i + args.batch])
            x, y = b[:, :-1].clamp(min=0), targets(data[i : i + args.batch])
            now = time.time()
            if start is None and step == 2:  # compiling does not count
                start = last = now
            done = used + (0 if start is None else now - start)
            progress = done / (args.minutes * 60)
            if progress >= 1:
                save(model, args.out)
                torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "used": done}, args.out / "last.pt")
                print(f"done: {step} steps, {seen / 1e6:.2f} M tokens, {done / 60:.1f} minutes", flush=True)
                return
            lr = args.lr * min(1.0, (step + 1) / args.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
            for o in opts:
                for g in o.param_groups:
                    g["lr"] = lr
            loss = step_fn(x, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for o in opts:
                o.step()
                o.zero_grad()
            recent.append(loss.item())
            step += 1
            n = int((y >= 0).sum())
            seen += n
            if step % 25 == 0:
                print(f"step {step:5} {100 * progress:5.1f}% lr {lr:.5f} loss {np.mean(recent[-25:]):.4f} {seen / 1e6:6.2f} M tokens {25 * args.batch * ROW / (time.time() - last):7.0f} tok/s", flush=True)
                last = time.time()
            if start and time.time() - start - saved > 180:
                saved = time.time() - start
                save(model, args.out)
                torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "used": used + saved}, args.out / "last.pt")


if __name__ == "__main__":
    main()
