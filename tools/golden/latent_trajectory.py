"""Trajectories of the methods that predict latents (``latent/*-traj``); see :mod:`.trajectory`."""

from __future__ import annotations

from typing import Any

import torch

from golden import build, capi, data2vec2, ijepa, vjepa
from golden.case import Case
from golden.results import Results
from golden.trajectory_run import Run, training
from mimsuite.batch import Batch
from mimsuite.masking import TokenMask
from mimsuite.methods import Context


def ijepa_pretrain(case: Case) -> Results:
    """A ``latent/ijepa-traj`` case."""
    hparams = case.hparams
    hparams.require(
        ijepa.MODEL + "lr start_lr final_lr weight_decay final_weight_decay betas adam_eps "
        "clip_grad epochs warmup_epochs steps iters_per_epoch ema ipe_scale"
    )
    sections = training(case, 1, kind="cosine-ahead", end="final_lr")
    sections["optim"]["weight_decay_end"] = hparams["final_weight_decay"]
    sections["schedule"] |= {"warmup_lr": hparams["start_lr"], "stretch": hparams["ipe_scale"]}
    contexts, targets = case.input("enc_idx"), case.input("pred_idx")

    def inject(method: Any) -> None:
        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            step = int(batch.keys[0])
            return ijepa.masks_of(contexts[step], targets[step], method.grid)

        method.mask = mask

    document = ijepa.document(hparams) | sections
    run = Run(case, document, hparams["iters_per_epoch"], 1, inject)
    tensors = run.results.tensors
    tensors["wd"] = tensors["weight_decay"]
    method: Any = run.trainer.method
    run.results.facts |= ijepa.facts(case, method)
    return run.judge()


def vjepa_pretrain(case: Case) -> Results:
    """A ``latent/vjepa-traj`` case."""
    hparams = case.hparams
    hparams.require(
        vjepa.MODEL + "lr start_lr final_lr weight_decay final_weight_decay betas adam_eps "
        "clip_grad epochs warmup_epochs steps iters_per_epoch ema ipe_scale lr_schedule"
    )
    hparams.only("lr_schedule", "warmup-cosine", "linear")
    kind = "linear-ahead" if hparams["lr_schedule"] == "linear" else "cosine-ahead"
    sections = training(case, 1, kind=kind, end="final_lr")
    sections["optim"] |= {
        "weight_decay_end": hparams["final_weight_decay"],
        # From the epoch behind the last of the warm-up that is counted from 0
        "clip_from_epoch": int(hparams["warmup_epochs"]) + 1,
        "clip_scope": "parts",
    }
    sections["schedule"] |= {"warmup_lr": hparams["start_lr"], "stretch": hparams["ipe_scale"]}
    kinds = range(hparams["mask_kinds"])
    stored = [(case.input(f"enc_mask.0.{n}"), case.input(f"pred_mask.0.{n}")) for n in kinds]

    def inject(method: Any) -> None:
        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            step = int(batch.keys[0])
            return {
                f"set{number}": TokenMask.from_visible(
                    vjepa.ids_of(seen[step]), method.grid, vjepa.ids_of(asked[step])[None]
                )
                for number, (seen, asked) in enumerate(stored, start=1)
            }

        method.mask = mask

    document = vjepa.document(hparams) | sections
    view = "image" if hparams["image"] else "clip"
    run = Run(case, document, hparams["iters_per_epoch"], 1, inject, ("clips.0", view))
    tensors = run.results.tensors
    tensors["wd"] = tensors["weight_decay"]
    return run.judge()


def data2vec2_pretrain(case: Case) -> Results:
    """A ``latent/data2vec2-traj`` case."""
    hparams = case.hparams
    hparams.require(
        data2vec2.MODEL + "lr min_lr weight_decay betas adam_eps clip_grad max_update "
        "warmup_updates steps ema_decay ema_end_decay ema_anneal_end_step"
    )
    sections = training(case, 1, spans=("max_update", "warmup_updates"))
    sections["optim"]["decay_all"] = True
    sections["schedule"]["warmup_lr"] = hparams["min_lr"]
    removed, fill = case.input("mask"), case.input("mask_noise")

    def inject(method: Any) -> None:
        own = method.prepare

        def prepare(batch: Batch, rows: Any, gather: Any) -> Context:
            stored = fill[int(batch.keys[0])]
            context: Context = own(batch, data2vec2.fill_of(stored, len(batch), method), gather)
            return context

        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            return data2vec2.masks_of(removed[int(batch.keys[0])], len(batch), method.grid)

        method.prepare, method.mask = prepare, mask

    run = Run(case, data2vec2.document(hparams) | sections, 1, 1, inject)
    run.results.tensors["loss_cls"] = run.results.tensors["term.class_token"]
    method: Any = run.trainer.method
    run.results.facts |= data2vec2.facts(case, method)
    return run.judge()


def capi_pretrain(case: Case) -> Results:
    """A ``latent/capi-traj`` case."""
    hparams = case.hparams
    hparams.require(
        capi.MODEL + "steps total_iters weight_decay betas adam_eps clip_grad "
        "clustering_weight_decay patch_embed_lr_mult layernorm_wd_mult lr_schedule "
        "clustering_lr_schedule momentum_schedule"
    )
    build.refuse_drop_path(case)
    hparams.only("rope_lr_mult", 0.0)
    hparams.only("clustering_betas", hparams["betas"])
    document = capi.document(hparams) | capi.training(hparams)
    visible, predicted = case.input("visible_indices"), case.input("predict_indices")
    norms: list[list[float]] = []

    def inject(method: Any) -> None:
        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            step = int(batch.keys[0])
            return {"image": capi.mask_of(visible[step], predicted[step], method)}

        own = method.after_step

        def after_step(progress: Any) -> None:
            norms.append(capi.gradient_norms(method))
            own(progress)

        method.mask, method.after_step = mask, after_step

    run = Run(case, document, 1, 1, inject, load=capi.load)
    tensors = run.results.tensors
    tensors["loss"] = tensors["term.prediction"]
    tensors["loss_clustering"] = tensors["term.clustering"]
    tensors["target_entropy"] = tensors["term.target_entropy"]
    both = torch.tensor(norms, dtype=torch.float64)
    tensors["grad_norm"], tensors["grad_norm_clustering"] = both.unbind(1)
    rates = tensors["lr_groups"][:, [g["own"] is not None for g in run.optimizer_groups()]]
    tensors["lr_clustering"] = rates[:, 0]
    method: Any = run.trainer.method
    run.results.facts |= capi.facts(case, method)
    return run.judge()
