"""Pictures of what a trained model rebuilds: a grid of samples, and each sample on its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from mimsuite.config import Resolved, with_overrides
from mimsuite.console import warn
from mimsuite.data import eval_loader, open_source, source_splits, views_of
from mimsuite.data.decoder import Decoder
from mimsuite.data.modalities import training_decoder
from mimsuite.data.packing.inspection import unused_in
from mimsuite.data.source import Source
from mimsuite.data.sources.files import FileSource, Listing
from mimsuite.errors import DataError, UserError
from mimsuite.methods import Method, build
from mimsuite.report.animation import moving, save_animation
from mimsuite.report.pictures import save_panels
from mimsuite.report.training_pictures import draw_panels

if TYPE_CHECKING:
    import torch

    from mimsuite.batch import Batch
    from mimsuite.checkpoints import Opened
    from mimsuite.config.keys.shared import Recipe


def rebuilding_method(opened: Opened, path: str, ratio: float | None = None) -> Method:
    """The model, ready to reconstruct, masking ``ratio`` of the tokens where that is given.

    Raises:
        UserError: the weights lack a decoder, the method rebuilds nothing, or the ratio is none.
    """
    method = opened.method
    if type(method).panels is Method.panels:
        name = cast("Recipe", method.recipe).method.name
        raise UserError(f"{path}: method '{name}' rebuilds nothing that could be shown")
    if not opened.has_decoder:
        raise UserError(
            f"{path} holds an encoder only, its decoder is missing: reconstruct from the "
            f"pretraining run or a checkpoint of it"
        )
    if ratio is None:
        return method
    changed = build(with_overrides(opened.resolved, {"mask.ratio": ratio}, "--ratio").recipe)
    changed.load_state_dict(method.state_dict())
    return changed.eval()


def load_samples(
    resolved: Resolved,
    inputs: Sequence[str],
    count: int,
    device: torch.device | str,
    split: str | None = None,
) -> Batch:
    """Up to ``count`` samples of files or of one source, normalised, on the device.

    Samples of a source are spread evenly over it, so that sorted classes all get their turn.

    Args:
        split: of a source; ``None`` takes ``eval.split`` where there is one.

    Raises:
        UserError, DataError: nothing there, or nothing that can be read.
    """
    recipe = resolved.recipe
    source, views = _open(inputs, recipe, split), views_of(recipe)
    unused_in(source, views, look=count).warn(source.name)
    positions = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
    loader = eval_loader(source, views, batch=count, positions=positions.tolist())
    batch = next(iter(loader), None)
    for damage in loader.damaged:
        warn(f"left out: {damage}")
    if batch is None:
        raise DataError(f"no sample of {', '.join(inputs)} could be read")
    return views.normalizer(device)(batch)


def save_reconstructions(method: Method, batch: Batch, out: Path, seed: int) -> list[Path]:
    """Write ``grid.png``, and ``01-<key>.png`` ... with one sample each; of clips ``.gif`` too.

    Args:
        batch: normalised, on the method's device.
        seed: of the masks.

    Raises:
        UserError: ``out`` cannot be written.
    """
    panels = draw_panels(method, batch, seed)
    augment = cast("Recipe", method.recipe).augment
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = [save_panels(out / "grid.png", panels, augment.mean, augment.std, len(batch))]
        for i, key in enumerate(batch.keys):
            one = [replace(panel, images=panel.images[i : i + 1]) for panel in panels]
            path = out / f"{i + 1:02d}-{_file_name(key)}.png"
            written.append(save_panels(path, one, augment.mean, augment.std))
            if moving(one):
                written.append(
                    save_animation(path.with_suffix(".gif"), one, augment.mean, augment.std)
                )
    except OSError as error:
        raise UserError(f"cannot write {error.filename or out}: {error.strerror}") from error
    return written


def _open(inputs: Sequence[str], recipe: Recipe, split: str | None) -> Source:
    data = recipe.data
    modality = recipe.recipe.modality
    decoder = training_decoder(modality, data.channels, data.max_pixels)
    others = [item for item in inputs if not _is_sample(item, decoder.extensions)]
    if not others:
        return _of_files(inputs, decoder)
    if len(inputs) > 1:
        raise UserError(
            f"{others[0]} is no {modality} file: --input takes {modality} files, or one source"
        )
    if split is None:
        existing = source_splits(inputs[0], decoder=decoder)
        split = recipe.eval.split if recipe.eval.split in existing else existing[0]
    return open_source(
        inputs[0],
        split,
        modality=modality,
        channels=data.channels,
        verify=data.verify,
        max_pixels=data.max_pixels,
        max_bytes=data.max_bytes,
    )


def _is_sample(path: str, known: Collection[str]) -> bool:
    return Path(path).is_file() and Path(path).suffix.lower().removeprefix(".") in known


def _of_files(paths: Sequence[str], decoder: Decoder) -> Source:
    listing = Listing(paths, [-1] * len(paths), None)
    return FileSource(Path(), listing, name="--input", split="", decoder=decoder)


def _file_name(key: str) -> str:
    """The last part of a sample's key, as a name that every file system takes."""
    stem = key.replace("\\", "/").rstrip("/").rpartition("/")[2]
    stem = stem.rpartition(".")[0] or stem
    return re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII)[:80] or "sample"
