"""Training trajectories: optimizer steps by the product's trainer (``*-traj`` kinds).

Only the draws are the stored ones: the masks' noise, and the targets where a case stores soft ones.
"""

from __future__ import annotations

import math
from typing import Any

from golden import build, cae, crossmae, points, video
from golden.case import Case, CaseFault
from golden.results import Results
from golden.trajectory_run import Run, training
from mimsuite.batch import Batch
from mimsuite.masking import TokenMask
from mimsuite.methods import Context
from mimsuite.noise import FixedNoise

_SIZES = "img_size patch_size embed_dim depth num_heads mlp_ratio qkv_bias norm_eps batch "
_OPTIM = "lr min_lr weight_decay betas adam_eps clip_grad epochs warmup_epochs steps "


def pretrain(case: Case) -> Results:
    """An ``image/mae-traj`` case."""
    hparams = case.hparams
    hparams.require(
        _SIZES + _OPTIM + "decoder_embed_dim decoder_depth decoder_num_heads norm_pix_loss "
        "mask_ratio accum_iter micro_steps_per_epoch"
    )
    return _masked_by_noise(case, build.mae_document(hparams))


def _masked_by_noise(case: Case, document: dict[str, Any]) -> Results:
    """A trajectory in which a row of noise masks each micro-batch."""
    hparams = case.hparams
    accumulation, micro_steps = hparams["accum_iter"], hparams["micro_steps_per_epoch"]
    if micro_steps % accumulation:
        raise CaseFault(
            f"hparams.accum_iter: {accumulation} does not divide micro_steps_per_epoch "
            f"{micro_steps}, and the product has no optimizer step across epochs"
        )
    document = document | training(case, accumulation)
    noise = case.input("noise")

    def inject(method: Any) -> None:
        own = method.mask

        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            return own(batch, FixedNoise({"mask": noise[int(batch.keys[0])]}), context)

        method.mask = mask

    run = Run(case, document, micro_steps // accumulation, accumulation, inject)
    tokens = math.prod(run.recipe.model.encoder.grid)
    visible, dropped = run.recipe.mask.visible(tokens), run.recipe.mask.dropped(tokens) or 0
    stated = {
        "num_patches": tokens,
        "len_keep": visible,
        "len_skip": dropped,
        "len_predicted": tokens - visible - dropped,
    }
    for name, own in stated.items():
        if name in hparams:
            run.results.facts[f"hparams.{name}"] = (own, hparams[name])
    return run.judge()


def crossmae_pretrain(case: Case) -> Results:
    """An ``efficient/crossmae-traj`` case."""
    hparams = case.hparams
    hparams.require(crossmae.SIZES + _OPTIM + "accum_iter micro_steps_per_epoch")
    return _masked_by_noise(case, crossmae.document(hparams))


def cae_pretrain(case: Case) -> Results:
    """An ``image/cae-traj`` case."""
    hparams = case.hparams
    hparams.require(
        _SIZES + _OPTIM + "init_values decoder_embed_dim regressor_depth decoder_num_classes "
        "decoder_num_heads decoder_layer_scale_init_value decoder_depth num_mask_patches "
        "align_loss_weight iters_per_epoch"
    )
    document = cae.document(hparams) | training(case, 1, kind="cosine-per-step")
    removed, codes = case.input("mask"), case.input("token_ids").long()

    def inject(method: Any) -> None:
        def prepare(batch: Batch, rows: Any, gather: Any = None) -> Context:
            return Context(rows, prepared={"codes": codes[int(batch.keys[0])]})

        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            row = removed[int(batch.keys[0])]
            return {"image": TokenMask.from_removed(row, method.grid)}

        method.prepare, method.mask = prepare, mask

    run = Run(case, document, hparams["iters_per_epoch"], 1, inject)
    run.results.tensors["loss_align_weighted"] = run.results.tensors["term.alignment"]
    return run.judge()


def video_pretrain(case: Case) -> Results:
    """A ``video/pretrain-traj`` case."""
    hparams = case.hparams
    hparams.require(
        video.PRETRAIN + "lr min_lr weight_decay betas adam_eps clip_grad epochs warmup_epochs "
        "steps iters_per_epoch"
    )
    document = video.document(hparams) | training(case, 1, kind="cosine-per-step")

    def inject(method: Any) -> None:
        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            return {"clip": video.mask_of(case, method, int(batch.keys[0]))}

        method.mask = mask

    run = Run(case, document, hparams["iters_per_epoch"], 1, inject, ("video", "clip"))
    method: Any = run.trainer.method
    run.results.facts |= video.facts(case, method, video.mask_of(case, method, 0))
    return run.judge()


def point_pretrain(case: Case) -> Results:
    """A ``point/cmae-traj`` case."""
    hparams = case.hparams
    hparams.require(
        "config batch npoints steps_per_epoch lr weight_decay betas adam_eps schedule_epochs "
        "warmup_epochs min_lr warmup_lr clip_grad steps step_per_update"
    )
    hparams.only("step_per_update", 1)
    hparams.skip("epochs_run")  # steps say it
    case.hparams.only("drop_path", 0)
    document = points.trajectory_document(hparams)
    masks = {"view1": case.input("mask1"), "view2": case.input("mask2")}

    def inject(method: Any) -> None:
        own = method.mask

        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            step = int(batch.keys[0])
            stored = {view: mask[step] for view, mask in masks.items()}
            return own(batch, points.mask_noise(stored), context)

        method.mask = mask

    run = Run(case, document, hparams["steps_per_epoch"], 1, inject, ("points", "points"))
    tensors = run.results.tensors
    tensors["loss_recon"] = tensors["term.chamfer"]
    tensors["loss_contras"] = tensors["term.consistency"]
    # The means of a batch norm follow a bias before it, which nothing but rounding moves.
    run.idle = frozenset(
        f"MAE_encoder.encoder.{part}.1.running_mean" for part in ("first_conv", "second_conv")
    )
    return run.judge()


def finetune(case: Case) -> Results:
    """An ``image/mae-ft-traj`` case."""
    hparams = case.hparams
    hparams.require(_SIZES + _OPTIM + "global_pool num_classes steps_per_epoch layer_decay")
    accumulation = hparams.get("accum_iter", 1)
    hparams.only("accum_iter", 1)
    document = build.classify_document(hparams) | training(case, accumulation)
    soft: Any = case.tensors.get("targets_soft")
    if soft is not None:
        hparams.only("label_smoothing", None, 0.0)  # a soft target already holds it

    def inject(method: Any) -> None:
        def prepare(batch: Batch, rows: Any, gather: Any = None) -> Context:
            target = soft[int(batch.keys[0])]
            return Context(rows, prepared={"image": batch.image, "target": target})

        if soft is not None:
            method.prepare = prepare

    return Run(case, document, hparams["steps_per_epoch"], accumulation, inject).judge()
