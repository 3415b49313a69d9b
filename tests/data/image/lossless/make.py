#!/usr/bin/env python3
"""Lossless WebP files by libwebp and the same pictures as PNG: palettes of every packing, caches, many groups of codes.

    python make.py        (numpy, pillow 13.0; writes beside itself)
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent


def pictures(rng):
    width, height = 45, 31
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 5 % 256, y * 7 % 256, (x * y // 5) % 256], 2).astype(np.uint8)
    yield "noise", rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    yield "mixed", (smooth.astype(int) + rng.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)
    for colors in (1, 2, 3, 13, 90):
        palette = rng.integers(0, 256, (colors, 3), dtype=np.uint8)
        yield f"palette-{colors}", palette[rng.integers(0, colors, (height, width))]
    y, x = np.mgrid[0:150, 0:200]
    parts = np.stack([x % 256, (y * 2) % 256, (x + y) % 256], 2).astype(np.uint8)
    parts[75:, :100] = rng.integers(0, 4, (75, 100, 1), dtype=np.uint8) * 80
    parts[:75, 100:, 0] = (np.sin(x[:75, 100:] / 9) * 90 + 128).astype(np.uint8)
    parts[90:130, 120:180] = parts[10:50, 10:70]
    yield "parts", parts


def main():
    for name, picture in pictures(np.random.default_rng(20261128)):
        image = Image.fromarray(picture)
        image.save(HERE / f"{name}.png", optimize=True)
        for method, quality in ((0, 0), (6, 100)):
            data = io.BytesIO()
            image.save(data, format="WEBP", lossless=True, method=method, quality=quality)
            assert (np.asarray(Image.open(data).convert("RGB")) == picture).all()
            (HERE / f"{name}.{method}.webp").write_bytes(data.getvalue())


if __name__ == "__main__":
    main()
