"""ConvMAE pretraining: one forward and backward pass (kind ``image/convmae``)."""

from __future__ import annotations

from typing import Any

from golden import build, mae
from golden.case import Case, CaseFault, Hparams, pair
from golden.results import Results

REQUIRED = (
    "norm_eps qkv_bias drop_path_rate dropout in_chans img_size patch_size embed_dim depth "
    "num_heads decoder_embed_dim decoder_depth decoder_num_heads mlp_ratio norm_pix_loss "
    "cblock_norm_eps patch_embed_norm_eps mask_ratio batch dwconv_kernel loss_kind norm_pix_eps "
    "patch_norm_variance pred_tokens_stored"
)
BASE = {"kind": "convvit", "image_size": 224}  # the defaults of the section are the base model


def pretrain(case: Case) -> Results:
    """The tensors of an ``image/convmae`` case."""
    hparams = case.hparams
    hparams.require(REQUIRED)
    build.refuse_drop_path(case)
    decoder = build.decoder_keys(hparams, hparams["mlp_ratio"][0])
    document = build.autoencoder_document("convmae", hparams, encoder_keys(hparams), decoder)
    method = build.method_of(document)
    run, results = mae.run_case(case, method)
    # The stored rows are few, so the training path's masked ones take the place of the others.
    visible = run.mask.gather(run.prediction, "visible")
    assert run.output.prediction is not None
    prediction = run.mask.assemble(visible, run.output.prediction)
    results.tensors["pred_first4tokens"] = prediction[:, : hparams["pred_tokens_stored"]]
    grid = tuple(method.grid)
    results.facts["hparams.mask_grid"] = (grid, pair(hparams.get("mask_grid", list(grid))))
    return results


def encoder_keys(hparams: Hparams) -> dict[str, Any]:
    """`model.encoder` keys of a case of the ConvViT family, whose lists have an item a stage."""
    hparams.only("qkv_bias", True)
    hparams.only("dropout", 0)
    hparams.only("patch_embed_norm_eps", hparams["cblock_norm_eps"])
    strides = hparams["patch_size"]
    sizes = [pair(size) for size in hparams["img_size"]]
    for before, after, stride in zip(sizes, sizes[1:], strides, strict=False):
        if after != (before[0] // stride, before[1] // stride):
            raise CaseFault("hparams.img_size: the sizes do not follow from the patch sizes")
    width, depth, ratio = hparams["embed_dim"], hparams["depth"], hparams["mlp_ratio"]
    return {
        "kind": "convvit",
        "fusion": True,
        "patch_size": strides[0] * strides[1] * strides[2],
        "image_size": sizes[0],
        "in_channels": hparams.get("in_chans", 3),
        "conv_strides": strides[:2],
        "conv_width": width[:2],
        "width": width[2],
        "conv_depth": depth[:2],
        "depth": depth[2],
        "conv_mlp_ratio": ratio[:2],
        "mlp_ratio": ratio[2],
        "conv_kernel": hparams["dwconv_kernel"],
        "conv_norm_eps": hparams["cblock_norm_eps"],
        "norm_eps": hparams["norm_eps"],
        "heads": hparams["num_heads"],
        "drop_path": hparams.get("drop_path_rate", 0.0),
    }


def published_model(name: str, stage: str, pool: str | None) -> dict[str, Any] | None:
    """The recipe document of a released model; ``None`` for a name that is not one."""
    if name != "convvit_base_patch16":
        return None
    if stage == "pretrain":
        return {
            "method": {"name": "convmae"},
            "model": {"encoder": {**BASE, "fusion": True}, "decoder": build.DECODER},
            "mask": {"ratio": 0.75},
            "target": {"normalize": True},
        }
    if stage == "finetune":  # it pools the mean, having no class token
        encoder = {**BASE, "trained_positions": True}
        return {
            "method": {"name": "classify"},
            "model": {"encoder": encoder, "pool": "mean", "head_init_std": 0.01},
            "target": {"classes": 1000},
        }
    return None
