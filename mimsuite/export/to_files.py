"""Export to the suite's own weights file, and to the layout of published code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mimsuite.checkpoints.opened import Opened, open_model
from mimsuite.checkpoints.published import cae, maskalign, video
from mimsuite.config.keys.shared import Recipe
from mimsuite.errors import MimsuiteError, UserError
from mimsuite.export.check import Outputs, agree
from mimsuite.weights.native import NativeHeader, contiguous, encode_header


def write_safetensors(opened: Opened, out: Path) -> list[str]:
    """Write all weights and the recipe into one file that every command of the suite opens."""
    header = NativeHeader(opened.resolved.document, opened.step, opened.has_decoder)
    save_file(contiguous(_trained(opened)), out, metadata=encode_header(header))
    return ["mimsuite.load(PATH), or give it to any command in place of a run"]


def refuse_reference(opened: Opened) -> str | None:
    """Reason why no published layout holds a model; ``None`` where one does."""
    try:
        opened.method.export_reference()
    except NotImplementedError as error:
        return str(error)
    return None


def write_reference(opened: Opened, out: Path) -> list[str]:
    """Write the layout of the method's published code: ``{"model": ...}``, or safetensors.

    ``args`` next to the weights holds settings that cannot be inferred from their shapes.

    Raises:
        MimsuiteError: the model read back from the file computes something else.
    """
    untrained = set() if opened.has_decoder else _addresses(opened.method.state_dict())
    published = opened.method.export_reference()
    tensors = contiguous({n: t for n, t in published.items() if t.data_ptr() not in untrained})
    facts = _facts(opened.resolved.recipe)
    if out.suffix == ".safetensors":
        save_file(tensors, out, metadata={"format": "pt", "args": json.dumps(facts)})
        lines = []
    else:
        torch.save({"model": tensors, "args": facts}, out)
        lines = ["torch.load(PATH, weights_only=True)['model']"]
    return [*lines, _check(opened, out)]


def _addresses(state: dict[str, Tensor]) -> set[int]:
    """Memory addresses of the decoder's tensors, which renaming does not change."""
    return {tensor.data_ptr() for name, tensor in state.items() if name.startswith("decoder.")}


def _check(opened: Opened, path: Path) -> str:
    try:
        reopened = open_model(path)
    except UserError as error:
        raise MimsuiteError(f"{error}: the file cannot be read again; not written") from None
    outputs, again = Outputs(opened.method), Outputs(reopened.method)
    sample = outputs.example()
    return agree("mimsuite import", (again.tokens(sample), outputs.tokens(sample)))


def _trained(opened: Opened) -> dict[str, Tensor]:
    """The state dict, without the decoder if it was never trained."""
    state = opened.method.state_dict()
    if opened.has_decoder:
        return state
    return {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}


def _facts(recipe: Recipe) -> dict[str, Any]:
    """Settings under their names in published code."""
    settings: dict[str, Any] = recipe.model_dump(mode="json")
    facts = {}
    for name, key in (*_FACTS, *cae.FACTS.items()):
        value: Any = settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            facts[name] = value
    for name, (key, words) in (*maskalign.FACTS.items(), *video.FACTS.items()):
        section, _, last = key.partition(".")
        published = {our: word for word, our in words.items()}
        if (value := settings[section].get(last)) in published:
            facts[name] = published[value]
    return facts


# Published name, our key. Of several keys for a name, the last one in the recipe counts.
_FACTS = (
    ("num_heads", "model.encoder.heads"),
    ("input_size", "model.encoder.image_size"),
    ("num_frames", "model.encoder.frames"),
    ("sampling_rate", "augment.stride"),
    ("npoints", "model.encoder.points"),
    ("num_group", "model.encoder.groups"),
    ("group_size", "model.encoder.group_size"),
    ("taps", "model.taps"),
    ("parts", "target.parts"),
    ("decoder_num_heads", "model.regressor.heads"),
    ("decoder_num_heads", "model.decoder.heads"),
    ("decoder_num_heads", "model.predictor.heads"),
    ("mask_ratio", "mask.ratio"),
    ("kept_mask_ratio", "mask.decode_ratio"),
    ("mask_grid", "mask.side"),
    ("decoder_layers", "model.decoder.layers"),  # published code has two settings for it
    ("decoder_mask_ratio", "mask.decoder_ratio"),
    ("norm_pix_loss", "target.normalize"),
    ("normlize_target", "target.normalize"),
    ("mean", "augment.mean"),
    ("std", "augment.std"),
)
