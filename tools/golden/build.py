"""From a case's hyperparameters to a method, through the recipe that a user would write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from golden.case import Case, CaseFault, Hparams, pair
from golden.fills import det_images, det_noise, fill
from mimsuite import methods
from mimsuite.config import Resolved, from_document
from mimsuite.errors import MimsuiteError
from mimsuite.methods import Method

# What a published model name stands for: width, depth, heads (arXiv:2010.11929, table 1).
SIZES = {
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
    "huge": {"width": 1280, "depth": 32, "heads": 16},
}
DECODER = {"width": 512, "depth": 8, "heads": 16}  # of every size (arXiv:2111.06377, section 4)


def encoder_keys(hparams: Hparams) -> dict[str, Any]:
    """`model.encoder` keys of a case of the ViT family."""
    hparams.only("qkv_bias", True)
    hparams.only("dropout", 0)
    return {
        "patch_size": _side(hparams["patch_size"]),
        "image_size": pair(hparams["img_size"]),
        "in_channels": hparams.get("in_chans", 3),
        "width": hparams["embed_dim"],
        "depth": hparams["depth"],
        "heads": hparams["num_heads"],
        "mlp_ratio": hparams["mlp_ratio"],
        "norm_eps": hparams["norm_eps"],
        "drop_path": hparams.get("drop_path_rate", hparams.get("drop_path", 0.0)),
    }


def refuse_drop_path(case: Case) -> None:
    """Drop path draws from noise that no case stores; idle in eval mode."""
    if case.document.get("mode") != "eval":
        case.hparams.only("drop_path_rate", 0)
        case.hparams.only("drop_path", 0)


def mae_document(hparams: Hparams) -> dict[str, Any]:
    """The recipe of an MAE case, as the document that `config.yaml` of a run holds."""
    decoder = decoder_keys(hparams, hparams["mlp_ratio"])
    return autoencoder_document("mae", hparams, encoder_keys(hparams), decoder)


def decoder_keys(hparams: Hparams, mlp_ratio: float) -> dict[str, Any]:
    """`model.decoder` keys of MAE's decoder; ``mlp_ratio`` where the case does not tell its own."""
    return {
        "width": hparams["decoder_embed_dim"],
        "depth": hparams["decoder_depth"],
        "heads": hparams["decoder_num_heads"],
        "mlp_ratio": hparams.get("decoder_mlp_ratio", mlp_ratio),
    }


def autoencoder_document(
    method: str,
    hparams: Hparams,
    encoder: dict[str, Any],
    decoder: dict[str, Any],
    loss: str = "mse_masked_mean",
) -> dict[str, Any]:
    """The recipe of a case with MAE's mask, target and loss."""
    hparams.only("loss_kind", loss)
    normalize = hparams.get("norm_pix_loss", True)
    if normalize:
        hparams.only("norm_pix_eps", 1e-6)
        hparams.only("patch_norm_variance", "unbiased")
    else:  # they say nothing then
        hparams.skip("norm_pix_eps", "patch_norm_variance")
    return {
        "method": {"name": method},
        "model": {"encoder": encoder, "decoder": decoder},
        "mask": {"ratio": hparams["mask_ratio"]},
        "target": {"normalize": normalize},
        **idle_sections(),
    }


def classify_document(hparams: Hparams) -> dict[str, Any]:
    """The recipe of a fine-tuning case: everything is trained, positions too."""
    hparams.only("loss_kind", "cross_entropy")
    smoothing = hparams.get("label_smoothing", None) or 0.0
    model = {
        "encoder": {**encoder_keys(hparams), "trained_positions": True},
        "pool": "mean" if hparams["global_pool"] else "cls",
        "head_init_std": 0.01,  # every case brings its weights
    }
    return {
        "method": {"name": "classify"},
        "model": model,
        "target": {"classes": hparams["num_classes"], "label_smoothing": smoothing},
        **idle_sections(),
    }


def idle_sections() -> dict[str, Any]:
    """Sections that a recipe must have and a single forward pass does not read."""
    return {
        "optim": {"lr": 1e-3},
        "schedule": {"epochs": 1},
        "train": {
            "global_batch": 2,
            "precision": "fp32",
            "device": str(torch.get_default_device()),
        },
    }


def method_of(document: dict[str, Any], *, meta: bool = False) -> Any:
    """The method, of whatever class, that the product builds from a recipe document.

    Args:
        meta: without memory for the weights, to count and name them.

    Raises:
        CaseFault: the product's own check of the recipe refuses it.
    """
    with torch.device("meta") if meta else torch.get_default_device():
        return methods.build(resolve(document).recipe)


def resolve(document: dict[str, Any]) -> Resolved:
    """The recipe, checked by the product."""
    try:
        return from_document(document)
    except (MimsuiteError, ValidationError) as error:
        fault = " ".join(str(error).split())
        raise CaseFault(f"hparams: the product refuses this recipe: {fault}") from None


def load(method: Method, case: Case, prefix: str = "state.") -> None:
    """Load the case's weights, stored or by rule, through the importer of published weights."""
    if "fill" in case.document:
        published = method.export_reference()
        state = fill(case.document["fill"], {name: t.shape for name, t in published.items()})
    else:
        state = case.inputs(prefix)
    load_published(method, state)


def load_published(method: Method, state: dict[str, Tensor]) -> None:
    """A published state, strictly."""
    method.load_state_dict(type(method).import_reference(state), strict=True)


def published_names(method: Method) -> dict[str, str]:
    """Our parameter and buffer names -> the published ones."""
    published = method.export_reference()
    names = {id(tensor): name for name, tensor in published.items()}
    # All at once: it takes several names to tell the layout.
    ours = type(method).import_reference(published)
    return {name: names[id(tensor)] for name, tensor in ours.items()}


def gradients(method: Method) -> dict[str, Tensor]:
    """``grad.<published name>`` of every parameter that has a gradient."""
    names = published_names(method)
    return {
        f"grad.{names[name]}": parameter.grad
        for name, parameter in method.named_parameters()
        if parameter.grad is not None
    }


def images(case: Case) -> Tensor:
    """The case's images, stored or by rule."""
    return _given(case, "imgs", "det_images", lambda: det_images(_batch(case), _square(case)))


def noise(case: Case, tokens: int) -> Tensor:
    """The case's masking noise (B, N), stored or by rule."""
    return _given(case, "noise", "det_noise", lambda: det_noise(_batch(case), tokens))


def _given(case: Case, name: str, rule: str, make: Any) -> Tensor:
    if name not in case.hparams:
        return case.input(name)
    case.hparams.only(name, rule)
    return make()


def _batch(case: Case) -> int:
    return case.hparams["batch"]


def _square(case: Case) -> int:
    height, width = pair(case.hparams["img_size"])
    if height != width:
        raise CaseFault("hparams.img_size: det_images is defined for squares only")
    return height


def _side(patch: int | Sequence[int]) -> int:
    height, width = pair(patch)
    if height != width:
        raise CaseFault(f"hparams.patch_size: {[height, width]} is not built, only squares are")
    return height
