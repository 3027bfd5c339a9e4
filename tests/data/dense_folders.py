"""Small folders in the layouts that dense truth is read from, painted and not rendered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
CLASSES = ["floor", "ball", "box"]
COLOURS = np.array([[90, 90, 90], [210, 60, 50], [50, 80, 200]])
METRES = np.array([4.0, 2.0, 1.0])  # of each class


def painted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 image, (H, W) uint8 classes, (H, W) uint16 millimetres."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for label in (1, 2):
        top, left = rng.integers(0, SIDE - 16, 2)
        mask[top : top + 16, left : left + 16] = label
    pixels = COLOURS[mask] + rng.integers(-20, 20, (SIDE, SIDE, 3))
    return pixels.astype(np.uint8), mask, (METRES[mask] * 1000).astype(np.uint16)


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def scenes(root: Path, train: int = 12, test: int = 6) -> Path:
    """As `data synth scenes` writes them."""
    for split, count in (("train", train), ("test", test)):
        rng = np.random.default_rng(len(split))
        for number in range(count):
            image, mask, depth = painted(rng)
            mask[0] = 255
            depth[0] = 0
            for folder, pixels in (("images", image), ("masks", mask), ("depth", depth)):
                save(pixels, root / folder / split / f"{number:03d}.png")
    facts = {"format": "mimsuite-scenes", "synthetic": True, "classes": CLASSES, "ignore": 255}
    (root / "scenes.json").write_text(json.dumps(facts))
    return root


def ade20k(root: Path, train: int = 6, val: int = 3) -> Path:
    rng = np.random.default_rng(1)
    for split, count in (("training", train), ("validation", val)):
        for number in range(count):
            image, mask, _ = painted(rng)
            save(image, root / "images" / split / f"ADE_{number:03d}.jpg")
            save(mask, root / "annotations" / split / f"ADE_{number:03d}.png")  # 0 is no class
    return root


def voc(root: Path, train: int = 6, val: int = 3) -> Path:
    rng = np.random.default_rng(2)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        names = [f"2007_{split}{number}" for number in range(count)]
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image, mask, _ = painted(rng)
            mask[:2] = 255
            save(image, root / "JPEGImages" / f"{name}.jpg")
            palette = Image.fromarray(mask, "L").convert("P")
            palette.putdata(mask.ravel().tolist())
            palette.putpalette([value for value in range(256) for _ in range(3)])
            (root / "SegmentationClass").mkdir(exist_ok=True)
            palette.save(root / "SegmentationClass" / f"{name}.png")
    return root


def nyuv2(root: Path, train: int = 6, test: int = 3) -> Path:
    rng = np.random.default_rng(3)
    for folder, count in (("sync/den_0001", train), ("official_splits/test/den", test)):
        for number in range(count):
            image, _, depth = painted(rng)
            save(image, root / folder / f"rgb_{number:05d}.jpg")
            save(depth, root / folder / f"sync_depth_{number:05d}.png")
        save(image, root / folder / "rgb_99999.jpg")  # without depth, left out
    return root
