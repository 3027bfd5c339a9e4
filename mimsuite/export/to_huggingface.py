"""Hugging Face transformers: a folder that ``from_pretrained`` opens without a network.

* an autoencoder becomes ``ViTMAEForPreTraining`` or ``VideoMAEForPreTraining`` (their encoders also
  open as ``ViTMAEModel`` and ``VideoMAEModel``);
* V-JEPA 2, its target encoder and its predictor, becomes ``VJEPA2Model``;
* an encoder alone, or one of rectangular images, which ViTMAE cannot hold, becomes ``ViTModel``,
  ``BeitModel`` (CAE), ``IJepaModel`` (without class token) or ``VideoMAEModel``;
* a classifier becomes ``ViTForImageClassification``, ``BeitForImageClassification`` or
  ``VideoMAEForVideoClassification``.

If transformers is installed, the result is opened and compared before it gets its final name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mimsuite.checkpoints.opened import Opened
from mimsuite.config.keys.section import height_width
from mimsuite.config.keys.shared import Recipe
from mimsuite.errors import MimsuiteError
from mimsuite.export.check import Outputs, agree
from mimsuite.export.hf_forms import Form, form_of, refuse_huggingface
from mimsuite.weights.files import listed
from mimsuite.weights.native import contiguous

__all__ = ["FILES", "refuse_huggingface", "write_huggingface"]

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")

_BILINEAR, _BICUBIC = 2, 3  # PIL's numbers


def write_huggingface(opened: Opened, out: Path) -> list[str]:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json`` into ``out``.

    Raises:
        MimsuiteError: transformers computes other tokens.
    """
    form = form_of(opened)
    stride = getattr(opened.resolved.recipe.augment, "stride", None)
    clips = {} if stride is None else {"sampling_rate": stride}
    _write_json(out / "config.json", {**form.config, **clips})
    _write_json(out / "preprocessor_config.json", _preprocessor(opened.resolved.recipe))
    save_file(contiguous(form.tensors), out / "model.safetensors", metadata={"format": "pt"})
    options = "".join(f", {key}={value!r}" for key, value in form.options.items())
    return [
        f"from transformers import {form.name}",
        f"model = {form.name}.from_pretrained(PATH{options})",
        *(f"# {note}" for note in form.notes),
        _check(opened, form, out),
    ]


def _check(opened: Opened, form: Form, folder: Path) -> str:
    """Load the folder and compare: no missing or unexpected keys, equal tokens and class scores."""
    try:
        import transformers
        from transformers.utils import logging
    except ImportError:
        return "not checked: transformers is not installed"
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            model, report = getattr(transformers, form.name).from_pretrained(
                folder, output_loading_info=True, local_files_only=True, **form.options
            )
    finally:
        logging.set_verbosity(verbosity)
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := report.get(fault):
            names = listed(sorted(map(str, names)))
            raise MimsuiteError(f"transformers has {fault.replace('_', ' ')}: {names}; not written")
    model.eval()
    outputs = Outputs(opened.method)
    sample = outputs.example()
    taken = sample.transpose(1, 2) if outputs.view == "clip" else sample  # frames first
    with torch.no_grad():
        pairs = [(_tokens(model, taken), outputs.tokens(sample))]
        if "classifier.weight" in form.tensors:
            pairs.append((model(taken).logits, outputs.logits(sample)))
    return agree("transformers", *pairs)


def _tokens(model: Any, sample: Tensor) -> Tensor:
    """(B, C + N, D) tokens of the encoder, unmasked and in raster order."""
    encoder = getattr(model, model.base_model_prefix, model)
    if model.config.model_type != "vit_mae":
        return encoder(sample).last_hidden_state
    encoder.config.mask_ratio = 0.0
    count = encoder.embeddings.position_embeddings.shape[1] - 1
    return encoder(sample, noise=torch.arange(float(count))[None]).last_hidden_state


def _preprocessor(recipe: Recipe) -> dict[str, Any]:
    height, width = height_width(recipe.model.encoder.image_size)
    clips = recipe.recipe.modality == "video"
    size = {"height": height, "width": width}
    if clips and height == width:
        cut = {"size": {"shortest_edge": height}, "do_center_crop": True, "crop_size": size}
    else:
        cut = {"size": size, **({"do_center_crop": False} if clips else {})}
    return {
        "image_processor_type": "VideoMAEImageProcessor" if clips else "ViTImageProcessor",
        "do_resize": True,
        **cut,
        "resample": _BILINEAR if clips else _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(recipe.augment.mean),
        "image_std": list(recipe.augment.std),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
