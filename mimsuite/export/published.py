"""Which published checkpoint a state dict is, and what it is in our terms.

Read are the layouts of facebookresearch/mae (and of timm's ``VisionTransformer``, which are the
same for the encoder):

* encoder only: ``mae_pretrain_vit_{base,large,huge}.pth``
* encoder and decoder: ``mae_pretrain_vit_*_full.pth``, ``mae_visualize_vit_*.pth``, and the
  checkpoints that pretraining writes
* classifier: fine-tuned and linear-probe checkpoints of ``models_vit``
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.export.architecture import Architecture, Hints, infer_decoder, infer_encoder
from mimsuite.export.weights_file import WeightsFile, listed
from mimsuite.methods import Method
from mimsuite.methods.classify import Classifier
from mimsuite.methods.mae import MAE

_MARKS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")

# Checkpoints that are often at hand and are not read, by a part of a name that only they have.
_OTHERS = (
    ("regresser.", "CAE"),
    ("pretext_neck.", "CAE (lxtGH)"),
    ("patch_embed1.", "ConvMAE"),
    ("distill_weights", "MaskAlign"),
    ("to_patch_embedding.", "CRATE"),
    ("encoder.layer.0.attention.", "Hugging Face ViT"),
    ("layers.0.attention.q_proj", "Hugging Face ViT"),
    ("blocks.0.ls1.gamma", "DINOv2"),
    ("relative_position_bias_table", "BEiT or Swin"),
    ("layer4.", "ResNet"),
)


@dataclass(frozen=True)
class Published:
    """A published checkpoint, understood.

    Attributes:
        layout: what it is, in words.
        recipe: catalog recipe whose keys stand for what the file does not tell.
        keys: dotted recipe keys that it does tell.
        state: tensors under our names.
        published_names: our name -> the file's.
        has_decoder: it can reconstruct.
        notes: what was assumed, in words.
    """

    layout: str
    recipe: str
    keys: dict[str, Any]
    state: dict[str, Tensor]
    published_names: dict[str, str]
    has_decoder: bool
    notes: list[str]


def understand(file: WeightsFile, hints: Hints) -> Published:
    """Recognise a checkpoint by its names and read its architecture off its shapes.

    Raises:
        UserError: not one of the layouts above; the message says what it looks like.
    """
    names = file.tensors.keys()
    if not all(mark in names for mark in _MARKS):
        raise UserError(_unknown(file))
    hints = replace(hints, facts=file.facts)
    try:
        encoder = infer_encoder(file.tensors, hints)
        if any(name.startswith("head.") for name in names):
            return _classifier(file, encoder)
        if any(name == "mask_token" or name.startswith("decoder_") for name in names):
            return _autoencoder(file, encoder, infer_decoder(file.tensors, hints))
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from None
    return _encoder_only(file, encoder)


def _autoencoder(file: WeightsFile, encoder: Architecture, decoder: Architecture) -> Published:
    keys = {**_model(encoder), **_model(decoder)}
    notes = [*encoder.assumed, *decoder.assumed]
    ratio, normalize = file.facts.get("mask_ratio"), file.facts.get("norm_pix_loss")
    if isinstance(ratio, float):
        keys["mask.ratio"] = ratio
    if isinstance(normalize, bool):
        keys["target.normalize"] = normalize
    elif "visualize" in file.path.name:
        # The releases meant for pictures were trained on plain pixels; nothing inside says so.
        keys["target.normalize"] = False
        notes.append("target.normalize=false, by the file's name: it predicts plain pixels")
    else:
        keys["target.normalize"] = True
        notes.append("target.normalize=true assumed, as in the released *_full weights")
    recipe = f"image/mae-{_size(encoder)}-in1k"
    return _make(file, MAE, "MAE encoder and decoder", recipe, keys, notes)


def _encoder_only(file: WeightsFile, encoder: Architecture) -> Published:
    recipe = f"image/mae-{_size(encoder)}-in1k"
    notes = list(encoder.assumed)
    return _make(file, MAE, "ViT encoder without decoder", recipe, _model(encoder), notes)


def _classifier(file: WeightsFile, encoder: Architecture) -> Published:
    """A head after a norm of the mean patch token, or on the normed class token."""
    names = file.tensors.keys()
    standardised = "head.0.running_mean" in names
    weight = file.tensors.get("head.1.weight" if standardised else "head.weight")
    if weight is None:
        raise UserError("its classification head is not one linear layer")
    keys = {
        **_model(encoder),
        "model.pool": "mean" if "fc_norm.weight" in names else "cls",
        "model.head": "bn-linear" if standardised else "linear",
        "target.classes": len(weight),
    }
    layout = f"ViT classifier of {len(weight)} classes"
    recipe = f"image/mae-{_size(encoder)}-{'linprobe' if standardised else 'finetune'}-in1k"
    return _make(file, Classifier, layout, recipe, keys, list(encoder.assumed))


def _make(
    file: WeightsFile,
    method: type[Method],
    layout: str,
    recipe: str,
    keys: dict[str, Any],
    notes: list[str],
) -> Published:
    state = method.import_reference(file.tensors)
    names = dict(zip(state, file.tensors, strict=True))
    has_decoder = any(name.startswith("decoder.") for name in state)
    return Published(layout, recipe, keys, state, names, has_decoder, notes)


def _size(encoder: Architecture) -> str:
    """The released size that is nearest: further training takes its settings from there."""
    return {1024: "vitl16", 1280: "vith14"}.get(encoder.keys["encoder.width"], "vitb16")


def _model(architecture: Architecture) -> dict[str, Any]:
    return {f"model.{key}": value for key, value in architecture.keys.items()}


def _unknown(file: WeightsFile) -> str:
    names = list(file.tensors)
    lead = f"{file.path} is not a run, checkpoint or known weights file: "
    likely = _likely(names)
    if likely is not None:
        return f"{lead}it looks like a {likely} checkpoint, which is not read"
    missing = [mark for mark in _MARKS if mark not in file.tensors]
    return f"{lead}found {len(names)} tensors ({listed(names, 3)}) but no {listed(missing, 1)}"


def _likely(names: Iterable[str]) -> str | None:
    text = "\n".join(names)
    return next((label for mark, label in _OTHERS if mark in text), None)
