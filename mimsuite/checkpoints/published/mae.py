"""The checkpoints of facebookresearch/mae, and of timm's ``VisionTransformer``.

* encoder only: ``mae_pretrain_vit_{base,large,huge}.pth``; timm's encoders have the same names
* encoder and decoder: ``mae_pretrain_vit_*_full.pth``, ``mae_visualize_vit_*.pth``, and the
  checkpoints that pretraining writes
* classifier: fine-tuned and linear-probe checkpoints of ``models_vit``
"""

from __future__ import annotations

from dataclasses import replace

from mimsuite.checkpoints.published.layout import Published, classifier_keys, model_keys, published
from mimsuite.checkpoints.shapes import Architecture, Hints, infer_decoder, infer_encoder
from mimsuite.methods.classify import Classifier
from mimsuite.methods.mae import MAE
from mimsuite.weights.files import WeightsFile

MARKS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    names = file.tensors.keys()
    if not all(mark in names for mark in MARKS):
        return None
    file, notes = _without_projector(file)
    names = file.tensors.keys()
    encoder = infer_encoder(file.tensors, hints)
    encoder = replace(encoder, assumed=[*encoder.assumed, *notes])
    if any(name.startswith("head.") for name in names):
        return _classifier(file, encoder)
    if any(name == "mask_token" or name.startswith("decoder_") for name in names):
        return _autoencoder(file, encoder, infer_decoder(file.tensors, hints))
    return _encoder_only(file, encoder)


def _without_projector(file: WeightsFile) -> tuple[WeightsFile, list[str]]:
    """The file without the MLP that contrastive methods have instead of a classifier."""
    head = [name for name in file.tensors if name.startswith("head.")]
    if not head or {"head.weight", "head.0.running_mean"} & set(head):
        return file, []
    kept = {name: tensor for name, tensor in file.tensors.items() if name not in head}
    return replace(file, tensors=kept), [f"dropped: head ({len(head)} tensors), a projector"]


def _autoencoder(file: WeightsFile, encoder: Architecture, decoder: Architecture) -> Published:
    keys = {**model_keys(encoder), **model_keys(decoder)}
    notes = [*encoder.assumed, *decoder.assumed]
    ratio, normalize = file.facts.get("mask_ratio"), file.facts.get("norm_pix_loss")
    if isinstance(ratio, float):
        keys["mask.ratio"] = ratio
    if isinstance(normalize, bool):
        keys["target.normalize"] = normalize
    elif "visualize" in file.path.name:
        # The releases for visualisation predict plain pixels; only their names show it.
        keys["target.normalize"] = False
        notes.append("target.normalize=false, by the file's name: it predicts plain pixels")
    else:
        keys["target.normalize"] = True
        notes.append("target.normalize=true assumed, as in the released *_full weights")
    recipe = f"image/mae-{_size(encoder)}-in1k"
    return published(file, MAE, "MAE encoder and decoder", recipe, keys, notes)


def _encoder_only(file: WeightsFile, encoder: Architecture) -> Published:
    recipe = f"image/mae-{_size(encoder)}-in1k"
    notes = list(encoder.assumed)
    return published(file, MAE, "ViT encoder without decoder", recipe, model_keys(encoder), notes)


def _classifier(file: WeightsFile, encoder: Architecture) -> Published:
    """A head on the normed mean patch token, or on the normed class token."""
    keys = {**model_keys(encoder), **classifier_keys(file)}
    layout = f"ViT classifier of {keys['target.classes']} classes"
    task = "linprobe" if keys["model.head"] == "bn-linear" else "finetune"
    recipe = f"image/mae-{_size(encoder)}-{task}-in1k"
    return published(file, Classifier, layout, recipe, keys, list(encoder.assumed))


def _size(encoder: Architecture) -> str:
    """The nearest released size; further training takes its settings."""
    return {1024: "vitl16", 1280: "vith14"}.get(encoder.keys["encoder.width"], "vitb16")
