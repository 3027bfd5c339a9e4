"""Synthetic labelled samples, for trying things out without data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mimsuite.data import modalities, open_source
from mimsuite.data.synthetic import clips
from mimsuite.data.synthetic.maker import Maker
from mimsuite.errors import UserError
from mimsuite.noise import keyed_rng

_TEST_EVERY = 5  # every fifth sample of a class is for testing
LEAST = 2  # smallest number of samples: one for training, one for testing
Progress = Callable[[int, int], None]


def makers(*, parts: bool = False) -> dict[str, Maker]:
    """Modality -> maker; ``parts``: the makers of samples with part labels."""
    known = map(modalities.get, modalities.names())
    targets = {one.name: one.parted_maker if parts else one.maker for one in known}
    return {name: modalities.target(of) for name, of in targets.items() if of is not None}


def synthesise(
    modality: str,
    out: Path,
    *,
    count: int = 600,
    size: int | None = None,
    seed: int = 0,
    photos: str | None = None,
    parts: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Write files to ``out/{train,test}/CLASS/``; the same arguments give the same bytes.

    Args:
        modality: one with a maker, or ``scenes``: rendered rooms with class and depth of every
            pixel; see :mod:`mimsuite.data.synthetic.rendered_scenes`.
        count: samples; every fifth of a class is for testing. A small count uses fewer classes,
            so that each class has samples for training and testing.
        size: None: the modality's default.
        photos: a source of images that clips are cut from; None: the embedded drawings.
        parts: write clouds with a part label for every point, furnished rooms with boxes around
            the pieces and a class for every voxel, or scans with label maps.

    Returns:
        number of samples by split.

    Raises:
        UserError: ``out`` exists and is not empty or cannot be written, the modality is unknown,
            size or count is too small, or the photos are unusable.
        DataError: a photo cannot be read.
    """
    if count < LEAST:
        raise UserError(f"--count {count} is too few: {LEAST} or more, to train on and to test")
    if modality == "scenes":
        if photos is not None or parts:
            raise UserError(
                "--photos is for video, --parts for points, grids and scans; this is scenes"
            )
        from mimsuite.data.synthetic.rendered_scenes import SIZE, render_scenes

        return render_scenes(out, count=count, size=size or SIZE, seed=seed, progress=progress)
    if modality not in makers():
        known = ", ".join([*makers(), "scenes"])
        raise UserError(f"no samples of '{modality}' can be made; there are: {known}")
    if parts and modality not in makers(parts=True):
        fits = " and ".join(makers(parts=True))
        raise UserError(f"--parts is for {fits}; this is {modality}")
    maker = makers(parts=parts)[modality]
    size = maker.size if size is None else size
    if size < maker.smallest:
        raise UserError(f"--size {size} is too small for {modality}: {maker.smallest} or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty: name a new folder")
    make = maker.make if photos is None else _over_photos(modality, photos)
    written = {"train": 0, "test": 0}
    classes = maker.classes[: count // LEAST]
    for number in range(count):
        name = classes[number % len(classes)]
        split = "test" if number // len(classes) % _TEST_EVERY == 0 else "train"
        files = {maker.extension: make}
        if maker.label_map is not None:
            files[f"label.{maker.extension}"] = maker.label_map
        folder = out / split / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for extension, content_of in files.items():
                content = content_of(name, split, size, keyed_rng(seed, "synth", number))
                (folder / f"{number:06d}.{extension}").write_bytes(content)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from None
        written[split] += 1
        progress(number + 1, count)
    return written


def _over_photos(modality: str, photos: str) -> Callable[..., bytes]:
    if modality != "video":
        raise UserError(f"--photos is for video; this is {modality}")
    source = open_source(photos)
    if len(source) < _TEST_EVERY:
        raise UserError(f"{photos} has {len(source)} images: {_TEST_EVERY} or more are needed")
    return partial(clips.make, photos=source)
