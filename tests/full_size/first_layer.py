#!/usr/bin/env python3
"""Compares phi3-run's hidden states after the first layer of a full-size checkpoint with numpy in float64.

    cargo xtask synth phi-3-mini-4k DIR
    phi3-run logits --model DIR --ids "1 5 9 ..." --hidden --out FILE
    python first_layer.py DIR FILE "1 5 9 ..."

For Phi-3 checkpoints without LongRoPE; needs numpy. Prints the largest difference relative to 1 + |x|, and fails above 2e-4.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np


def header(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def tensor(path, name):
    entries, start = header(path)
    entry = entries[name]
    begin, end = entry["data_offsets"]
    kind = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}[entry["dtype"]]
    data = np.memmap(path, kind, "r", start + begin, ((end - begin) // np.dtype(kind).itemsize,))
    if entry["dtype"] == "BF16":
        data = (data.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(data, np.float64).reshape(entry["shape"])


def weight(folder, name):
    index = folder / "model.safetensors.index.json"
    file = json.loads(index.read_text())["weight_map"][name] if index.exists() else "model.safetensors"
    return tensor(folder / file, name)


def norm(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def first_layer(folder, ids):
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    d, eps, tokens = config["hidden_size"] // heads, config["rms_norm_eps"], len(ids)
    assert config["rope_scaling"] is None, "LongRoPE is not in this script"
    part = lambda name: weight(folder, f"model.layers.0.{name}.weight")
    x = weight(folder, "model.embed_tokens.weight")[ids]

    qkv = norm(x, part("input_layernorm"), eps) @ part("self_attn.qkv_proj").T
    q, k, v = np.split(qkv, [heads * d, (heads + kv_heads) * d], axis=1)
    turn = lambda n: np.repeat(np.arange(tokens)[:, None] * config["rope_theta"] ** (-np.arange(0, d, 2) / d), 1, 0)
    cos, sin = np.cos(np.hstack([turn(0)] * 2)), np.sin(np.hstack([turn(0)] * 2))
    rotate = lambda y: y * cos + np.hstack([-y[:, d // 2:], y[:, :d // 2]]) * sin
    out = np.zeros((tokens, heads * d))
    for h in range(heads):
        kv = h * kv_heads // heads
        scores = rotate(q[:, h * d:][:, :d]) @ rotate(k[:, kv * d:][:, :d]).T / np.sqrt(d)
        i, j = np.indices(scores.shape)
        seen = (j <= i) & (j > i - (config["sliding_window"] or tokens))
        scores = np.where(seen, scores, -np.inf)
        share = np.exp(scores - scores.max(1, keepdims=True))
        out[:, h * d:][:, :d] = share / share.sum(1, keepdims=True) @ v[:, kv * d:][:, :d]
    x1 = x + out @ part("self_attn.o_proj").T

    gate, up = np.split(norm(x1, part("post_attention_layernorm"), eps) @ part("mlp.gate_up_proj").T, 2, axis=1)
    return x, x1 + (gate / (1 + np.exp(-gate)) * up) @ part("mlp.down_proj").T


def main():
    folder, file, ids = Path(sys.argv[1]), sys.argv[2], [int(i) for i in sys.argv[3].split()]
    worst = 0
    for name, want in zip(("hidden.0", "hidden.1"), first_layer(folder, ids)):
        got = tensor(file, name)
        difference = (np.abs(want - got) / (1 + np.abs(want))).max()
        print(f"{name}: largest difference {difference:.2e} (values up to {np.abs(want).max():.2f})")
        worst = max(worst, difference)
    sys.exit(worst > 2e-4)


if __name__ == "__main__":
    main()
