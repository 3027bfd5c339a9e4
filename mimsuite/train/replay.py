"""The batch at which training failed, dumped so that the step can be replayed.

Order, crops and masks are functions of seed and step, so pixels, rows and step are all that is
needed. The file is safetensors, in the run directory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.errors import UserError
from mimsuite.files import write_atomic
from mimsuite.methods import build
from mimsuite.noise import Noise
from mimsuite.train import checkpoint
from mimsuite.train.device import choose_device
from mimsuite.train.precision import precision_of
from mimsuite.train.state import load_model
from mimsuite.train.step import run_method

_NAMED = 10  # parameters with a non-finite gradient that are listed


def dump(path: Path, batch: Batch, step: int) -> None:
    """Write a normalised micro-batch of step ``step``, counted from 0."""
    tensors = {f"view.{name}": view for name, view in batch.views.items()}
    tensors["index"] = batch.index
    if batch.label is not None:
        tensors["label"] = batch.label
    facts = {"step": str(step), "keys": json.dumps(batch.keys)}
    content = save({name: t.cpu().contiguous() for name, t in tensors.items()}, metadata=facts)
    write_atomic(path, content)


def replay(path: Path, device: str = "auto") -> dict[str, Any]:
    """Run the dumped batch through the model of the newest checkpoint before its step.

    Args:
        path: a file written by :func:`dump`, in its run directory.

    Returns:
        ``step``, ``checkpoint``, ``keys``, ``loss``, ``terms``, ``grad_norm``, and ``not_finite``:
        the first parameters with a non-finite gradient.

    Raises:
        UserError: there is no such file, or no checkpoint to start from.
    """
    batch, step = _read(path)
    run = path.parent
    recipe = config.load(run / "config.yaml").recipe
    found = checkpoint.newest_before(run / "checkpoints", step + 1)
    if found is None:
        raise UserError(f"{run} has no sound checkpoint of step {step} or before to replay it on")
    state = checkpoint.read(found, verified=True)
    place = choose_device(device)
    method = build(recipe).to(place).train()
    load_model(method, state.model)
    precision = precision_of(recipe, place, state.facts.get("precision", {}))
    batch = batch.to(place)
    with precision.autocast():
        output = run_method(method, batch, Noise(recipe.train.seed, step, batch.index))
    output.loss.backward()
    gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    bad = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
    return {
        "step": step,
        "checkpoint": found.name,
        "keys": batch.keys,
        "loss": float(output.loss),
        "terms": {name: float(value) for name, value in output.terms.items()},
        "grad_norm": float(torch.nn.utils.get_total_norm(list(gradients.values()))),
        "not_finite": bad[:_NAMED],
    }


def _read(path: Path) -> tuple[Batch, int]:
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        views = {n.removeprefix("view."): t for n, t in tensors.items() if n.startswith("view.")}
        keys = json.loads(facts["keys"])
        return Batch(views, tensors["index"], keys, tensors.get("label")), int(facts["step"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no batch that training left behind") from None
    except (OSError, SafetensorError) as fault:
        raise UserError(f"{path} is no batch that training left behind: {fault}") from None
