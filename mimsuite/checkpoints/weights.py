"""Read weights under our names from a run, a checkpoint, our own file or a published file.

Only this module decides what a path is. Opening a model and initialising from weights both use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimsuite.checkpoints.published import Published, understand
from mimsuite.checkpoints.shapes import Hints
from mimsuite.config import Resolved, from_document, load, with_overrides
from mimsuite.errors import UserError
from mimsuite.methods import build
from mimsuite.paths import expand_path
from mimsuite.train import checkpoint
from mimsuite.weights.files import WeightsFile, listed, read_weights_file
from mimsuite.weights.model_folder import hub_snapshot, is_model_folder
from mimsuite.weights.native import NativeHeader, decode_header

_HUB_NAME = re.compile(r"\w[\w-]*/\w[\w.-]*", re.ASCII)
_NOT_KNOWN = "is not a run, checkpoint or known weights file"


# Parts that only pretraining reads; files of encoders lack them.
_PREDICTING = ("decoder.", "predictor.", "prototypes.", "slow_prototypes.", "clusters.")


@dataclass(frozen=True)
class Weights:
    """Weights and the recipe that describes them.

    Attributes:
        state: tensors under the method's names.
        resolved: the recipe; for a published file, one composed from what the file shows.
        origin: their source, for messages.
        step: optimizer steps of their training, if known.
        has_decoder: whether they can reconstruct.
        published_names: our name -> the file's, for messages about a published file.
        notes: lines that report what was found, assumed and dropped.
        normalisation_known: whether the recipe's ``augment.mean`` and ``std`` are those of their
            training.
    """

    state: dict[str, Tensor]
    resolved: Resolved
    origin: str
    step: int | None = None
    has_decoder: bool = True
    published_names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    normalisation_known: bool = True


def read_weights(path: str | Path, hints: Hints | None = None) -> Weights:
    """Read the weights at ``path``.

    Args:
        path: a run directory (its newest sound checkpoint), a checkpoint directory, a file written
            by ``mimsuite export --format safetensors`` or ``mimsuite import``, or a published
            checkpoint: a file or a Hugging Face folder (see :mod:`mimsuite.checkpoints.published`).
        hints: facts that a published file does not show.

    Raises:
        UserError: missing, unusable or damaged weights; one line that says what was found.
    """
    path = hub_snapshot(Path(expand_path(str(path))))
    hints = hints or Hints()
    if path.is_dir() and (_is_ours(path) or not is_model_folder(path)):
        _refuse_facts(hints, path)
        return _of_checkpoint(path, *_checkpoint_in(path))
    if not path.exists():
        hub = _HUB_NAME.fullmatch(str(path)) and not path.parent.exists()
        raise UserError(
            f"{path}: no such run, checkpoint or weights file"
            + (f"; download a model of huggingface.co first: hf download {path}" if hub else "")
        )
    if (path.parent / "MANIFEST.json").is_file():  # a file inside a checkpoint: read all of it
        _refuse_facts(hints, path)
        return _of_checkpoint(path.parent, path.parent, [])
    file = read_weights_file(path, hints.entry)
    header = decode_header(file.metadata, path)
    if header is None:
        return _of_published(file, hints)
    _refuse_facts(hints, path)
    return _of_native(file, header)


def _refuse_facts(hints: Hints, path: Path) -> None:
    """Refuse facts for weights whose recipe has them all."""
    for name in ("heads", "decoder-heads", "image-size", "entry"):
        if getattr(hints, name.replace("-", "_")) is not None:
            raise UserError(f"--{name} is for published checkpoints; {path} has its own recipe")


def check_names(expected: Mapping[str, Tensor], weights: Weights) -> None:
    """Check that names and shapes of ``weights`` equal those of a model's state.

    Args:
        expected: the model's state dict; may be on the meta device.
        weights: weights to check; if ``has_decoder`` is false they may lack the decoder's tensors.

    Raises:
        UserError: unknown or missing names, or the first shape that differs.
    """

    def name_of(name: str) -> str:
        return weights.published_names.get(name, name)

    unknown = [name_of(name) for name in sorted(weights.state) if name not in expected]
    if unknown:
        raise UserError(
            f"{weights.origin} has {_count(unknown)} that no such model has: {listed(unknown)}"
        )
    optional = () if weights.has_decoder else _PREDICTING
    missing = [n for n in expected if n not in weights.state and not n.startswith(optional)]
    if missing:
        raise UserError(f"{weights.origin} lacks {_count(missing)}: {listed(missing)}")
    for name, tensor in expected.items():
        found = weights.state.get(name, tensor)
        if found.shape != tensor.shape:
            raise UserError(
                f"{weights.origin}: {name_of(name)} has shape {tuple(found.shape)}, its recipe "
                f"makes {tuple(tensor.shape)}"
            )


def _count(names: list[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


# --- runs and checkpoints -----------------------------------------------------------------------


def _is_ours(path: Path) -> bool:
    """Whether a folder is a checkpoint or a run; it may hold other files too."""
    return (path / "MANIFEST.json").is_file() or (path / "config.yaml").is_file()


def _checkpoint_in(path: Path) -> tuple[Path, list[str]]:
    """The checkpoint that a directory is or holds, and notes on damaged ones passed over."""
    if (path / "MANIFEST.json").is_file():
        return path, []
    is_run = (path / "config.yaml").is_file() or (path / "checkpoints").is_dir()
    newest, rejected = checkpoint.newest(path)
    if newest is not None:
        return newest, [f"passed over a damaged checkpoint: {line}" for line in rejected]
    if rejected:
        raise UserError(f"{path} has no sound checkpoint: {'; '.join(rejected)}")
    if is_run:
        raise UserError(f"run {path} has no checkpoint yet: train or resume it first")
    inside = sorted(entry.name for entry in path.iterdir())
    raise UserError(f"{path} {_NOT_KNOWN}: found a folder with {listed(inside) or 'nothing'}")


def _of_checkpoint(path: Path, found: Path, notes: list[str]) -> Weights:
    state = checkpoint.read(found, verified=found != path)  # the search verified it
    resolved = from_document(state.document, str(path))
    if state.ema:
        notes = [*notes, "moving average of the weights used"]
    tensors = dict(state.ema or state.model)
    return Weights(tensors, resolved, str(found), state.step, notes=notes)


# --- files --------------------------------------------------------------------------------------


def _of_native(file: WeightsFile, header: NativeHeader) -> Weights:
    resolved = from_document(header.document, str(file.path))
    return Weights(file.tensors, resolved, str(file.path), header.step, header.has_decoder)


def _of_published(file: WeightsFile, hints: Hints) -> Weights:
    """Read a published file and check it against the model that its shapes describe."""
    count = len(file.tensors)
    file, found = understand(file, hints)
    resolved = _recipe_for(file, found)
    notes = [f"{file.path.name}: {found.layout}, {count} tensors"]
    notes += file.notes + found.notes
    if file.dropped:
        notes.append(f"dropped: {listed(file.dropped, 20)}")
    channels = getattr(resolved.recipe.model.encoder, "in_channels", 3)
    weights = Weights(
        found.state,
        resolved,
        str(file.path),
        has_decoder=found.has_decoder,
        published_names=found.published_names,
        notes=notes,
        normalisation_known=channels == 3 or _has_normalisation(file, channels),
    )
    with torch.device("meta"):  # shapes only
        expected = build(resolved.recipe).state_dict()
    check_names(expected, weights)
    return weights


def _recipe_for(file: WeightsFile, found: Published) -> Resolved:
    """The catalog's recipe for such files, updated with the keys that this file determines."""
    keys: dict[str, Any] = {
        "recipe.title": f"{found.layout}, from {file.path.name}",
        "recipe.published": "",
        "recipe.gpu_hours": "",
        **found.keys,
    }
    if found.keys.get("model.encoder.image_size", 224) != 224:
        keys["augment.eval_resize"] = None  # the recipe's value fits its own image size only
    if "resize" in file.facts:
        keys["augment.eval_resize"] = file.facts["resize"]
    if "interpolation" in file.facts:
        keys["augment.interpolation"] = file.facts["interpolation"]
    channels = found.keys.get("model.encoder.in_channels", 3)
    if channels != 3:
        keys["data.channels"] = {1: "gray", 4: "rgba"}.get(channels, "native")
    if _has_normalisation(file, channels):
        keys["augment.mean"], keys["augment.std"] = file.facts["mean"], file.facts["std"]
    elif channels != 3:  # for three channels the recipe's ImageNet statistics apply
        keys["augment.mean"] = keys["augment.std"] = [0.5] * channels
        found.notes.append(f"augment.mean and std 0.5 assumed, for in_channels {channels}")
    return with_overrides(load(found.recipe), keys, str(file.path))


def _has_normalisation(file: WeightsFile, channels: int) -> bool:
    """Whether the file gives the mean and deviation of each channel in its training."""
    tables = (file.facts.get("mean"), file.facts.get("std"))
    return all(
        isinstance(table, list)
        and len(table) == channels
        and all(isinstance(x, float) for x in table)
        for table in tables
    )
