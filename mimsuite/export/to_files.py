"""Files of the suite's own, and of the published code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mimsuite.config.sections import Recipe
from mimsuite.errors import UserError
from mimsuite.export.native import NativeHeader, contiguous, encode_header
from mimsuite.export.opened import Opened


def write_safetensors(opened: Opened, out: Path) -> list[str]:
    """Write all weights and the recipe into one file that every command here opens."""
    header = NativeHeader(opened.resolved.document, opened.step, opened.has_decoder)
    save_file(contiguous(_trained(opened)), out, metadata=encode_header(header))
    return ["mimsuite.load(PATH), or give it to any command in place of a run"]


def write_reference(opened: Opened, out: Path) -> list[str]:
    """Write the layout of the method's published code: ``{"model": ...}``, or safetensors.

    A ``.pth`` also holds ``args``: what its shapes do not tell.

    Raises:
        UserError: the method has no published code.
    """
    try:
        published = opened.method.export_reference()
    except NotImplementedError as error:
        raise UserError(f"{error}: use --format safetensors") from None
    kept = set(_trained(opened))
    ours = opened.method.state_dict()
    names = zip(ours, published.items(), strict=True)
    tensors = contiguous({name: tensor for own, (name, tensor) in names if own in kept})
    if out.name.endswith(".safetensors"):
        save_file(tensors, out, metadata={"format": "pt"})
        return []
    torch.save({"model": tensors, "args": _facts(opened.resolved.recipe)}, out)
    return ["torch.load(PATH, weights_only=True)['model']"]


def _trained(opened: Opened) -> dict[str, Tensor]:
    """The state without a decoder that was never trained."""
    state = opened.method.state_dict()
    if opened.has_decoder:
        return state
    return {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}


def _facts(recipe: Recipe) -> dict[str, Any]:
    """Settings under the names that the published code has for them, where it has."""
    encoder, decoder = recipe.model.encoder, getattr(recipe.model, "decoder", None)
    facts: dict[str, Any] = {
        "num_heads": encoder.heads,
        "input_size": encoder.image_size,
        "mean": list(recipe.augment.mean),
        "std": list(recipe.augment.std),
    }
    if decoder is not None:
        facts["decoder_num_heads"] = decoder.heads
        facts["mask_ratio"] = recipe.mask.ratio
        facts["norm_pix_loss"] = recipe.target.normalize
    return facts
