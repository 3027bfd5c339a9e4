"""Open a trained model from a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mimsuite.checkpoints.shapes import Hints
from mimsuite.checkpoints.weights import check_names, read_weights
from mimsuite.config import Resolved
from mimsuite.methods import Method, build


@dataclass(frozen=True)
class Opened:
    """A trained model.

    Attributes:
        method: the method, on the CPU, in eval mode.
        resolved: its recipe.
        origin: the checkpoint directory or file of the weights.
        step: optimizer steps of their training, if known.
        has_decoder: False if the weights cannot reconstruct: encoder-only files, classifiers.
        notes: lines that report what was found, assumed and dropped.
    """

    method: Method
    resolved: Resolved
    origin: str
    step: int | None
    has_decoder: bool
    notes: list[str]


def open_model(path: str | Path, hints: Hints | None = None) -> Opened:
    """Open a run, a checkpoint or a weights file; see
    :func:`~mimsuite.checkpoints.weights.read_weights`.

    Parts that the weights lack (the decoder of an encoder-only file) are initialised with a fixed
    seed. The caller's random state does not change.

    Raises:
        UserError: missing, unusable or damaged weights, or weights that do not fit their recipe.
    """
    weights = read_weights(path, hints)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = build(weights.resolved.recipe)
    notes = list(weights.notes)
    if can_reconstruct(method) and not weights.has_decoder:
        notes.append("decoder: fresh, not trained")
    check_names(method.state_dict(), weights)
    method.load_state_dict(weights.state, strict=False)  # the names were checked
    return Opened(
        method.eval(),
        weights.resolved,
        weights.origin,
        weights.step,
        weights.has_decoder and can_reconstruct(method),
        notes,
    )


def can_reconstruct(method: Method) -> bool:
    """Whether this kind of method reconstructs its input."""
    return type(method).panels is not Method.panels
