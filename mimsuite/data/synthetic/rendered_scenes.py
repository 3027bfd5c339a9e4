"""Rendered rooms with class, instance and depth of every pixel: a small set for dense tasks that
needs no download. Scores on it say nothing about photographs.

Test scenes contain objects that no training scene contains.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mimsuite.data.synthetic.catalogue_meshes import CLASSES, CatalogueObject, catalogue, credits_of
from mimsuite.data.synthetic.room_plans import Plan, draw_plan
from mimsuite.data.synthetic.tiny_renderer import ROOM, TinyRenderer, View
from mimsuite.errors import UserError
from mimsuite.files import write_atomic
from mimsuite.noise import keyed_rng

SIZE, SMALLEST = 96, 32  # pixels per side
LABELS = ("floor", "wall", *CLASSES)
NOTHING = 255  # label of pixels that show neither room nor furniture
FACTS = "scenes.json"
_TEST_EVERY = 5  # every fifth scene is for testing
_MILLIMETRES = 1000
Progress = Callable[[int, int], None]


def render_scenes(
    out: Path,
    *,
    count: int = 600,
    size: int = SIZE,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Write ``images``, ``masks``, ``instances`` and ``depth``, each with ``train/`` and ``test/``,
    and :data:`FACTS`; the same arguments give the same bytes.

    All files are PNG. Images are RGB. Masks hold indices into :data:`LABELS`; instances are 0 for
    the room and 1 ... for its pieces; both 8 bits. Depth is 16 bits, in millimetres along the
    optical axis; 0 is unknown.

    Returns:
        number of scenes by split.

    Raises:
        UserError: ``out`` exists and is not empty or cannot be written, the size is too small, or
            pybullet or scikit-image is not installed.
    """
    if size < SMALLEST:
        raise UserError(f"--size {size} is too small for scenes: {SMALLEST} or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty: name a new folder")
    written = {"train": 0, "test": 0}
    with TinyRenderer() as renderer:
        objects = catalogue()
        for number in range(count):
            split = "test" if number % _TEST_EVERY == 0 else "train"
            plan = draw_plan(objects[split], keyed_rng(seed, "scene", number))
            try:
                _save(out, split, f"{number:06d}.png", renderer.render(plan, size), plan)
            except OSError as error:
                raise UserError(f"cannot write {out}: {error.strerror or error}") from None
            written[split] += 1
            progress(number + 1, count)
    facts = _facts(objects, written, size, seed)
    write_atomic(out / FACTS, json.dumps(facts, indent=1) + "\n")
    return written


def _save(out: Path, split: str, name: str, view: View, plan: Plan) -> None:
    kinds = [LABELS.index(piece.shape.kind) for piece in plan.pieces]
    labels = np.array([0, 1, 1, *kinds, NOTHING], np.uint8)  # body -1 (nothing) indexes the last
    pieces = np.array([0, 0, 0, *range(1, len(kinds) + 1), 0], np.uint8)
    depth = np.where(view.body < 0, 0, view.depth * _MILLIMETRES).round().astype(np.uint16)
    pictures = {
        "images": view.rgb,
        "masks": labels[view.body],
        "instances": pieces[view.body],
        "depth": depth,
    }
    assert len(labels) == ROOM + len(kinds) + 1
    for folder, pixels in pictures.items():
        path = out / folder / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def _facts(
    objects: dict[str, dict[str, list[CatalogueObject]]],
    written: dict[str, int],
    size: int,
    seed: int,
) -> dict[str, Any]:
    return {
        "format": "mimsuite-scenes",
        "schema": 1,
        "synthetic": True,
        "note": "rendered, not photographed: figures on it say nothing about photographs",
        "renderer": f"pybullet {version('pybullet')}, ER_TINY_RENDERER",
        "seed": seed,
        "size": size,
        "splits": written,
        "classes": list(LABELS),
        "ignore": NOTHING,
        "depth": "millimetres along the optical axis, 0 = none",
        "objects": {
            split: credits_of([one for kind in by_class.values() for one in kind])
            for split, by_class in objects.items()
        },
    }
