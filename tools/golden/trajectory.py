"""Training trajectories: optimizer steps by the product's trainer (``*-traj`` kinds).

The trainer is the one that `mimsuite pretrain` and `mimsuite finetune` run, with its own step,
schedule, optimizer, parameter groups, clipping and accumulation. Only the draws are the stored
ones: the masks' noise, and the targets where a case stores soft ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from golden import build, cae, capi, crossmae, data2vec2, ijepa, points, video, vjepa
from golden.case import Case, CaseFault
from golden.results import Results
from golden.trajectory_rules import Group, Record, compare_trajectory, stored_groups
from mimsuite.batch import Batch
from mimsuite.masking import TokenMask
from mimsuite.methods import Context
from mimsuite.noise import FixedNoise
from mimsuite.train.trainer import Trainer

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
    document = document | _training(case, accumulation)
    noise = case.input("noise")

    def inject(method: Any) -> None:
        own = method.mask

        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            return own(batch, FixedNoise({"mask": noise[int(batch.keys[0])]}), context)

        method.mask = mask

    run = _Run(case, document, micro_steps // accumulation, accumulation, inject)
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
    document = cae.document(hparams) | _training(case, 1, kind="cosine-per-step")
    removed, codes = case.input("mask"), case.input("token_ids").long()

    def inject(method: Any) -> None:
        def prepare(batch: Batch, rows: Any, gather: Any = None) -> Context:
            return Context(rows, made={"codes": codes[int(batch.keys[0])]})

        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            row = removed[int(batch.keys[0])]
            return {"image": TokenMask.from_removed(row, method.grid)}

        method.prepare, method.mask = prepare, mask

    run = _Run(case, document, hparams["iters_per_epoch"], 1, inject)
    run.results.tensors["loss_align_weighted"] = run.results.tensors["term.alignment"]
    return run.judge()


def ijepa_pretrain(case: Case) -> Results:
    """A ``latent/ijepa-traj`` case."""
    hparams = case.hparams
    hparams.require(
        ijepa.MODEL + "lr start_lr final_lr weight_decay final_weight_decay betas adam_eps "
        "clip_grad epochs warmup_epochs steps iters_per_epoch ema ipe_scale"
    )
    training = _training(case, 1, kind="cosine-ahead", end="final_lr")
    training["optim"]["weight_decay_end"] = hparams["final_weight_decay"]
    training["schedule"] |= {"warmup_lr": hparams["start_lr"], "stretch": hparams["ipe_scale"]}
    contexts, targets = case.input("enc_idx"), case.input("pred_idx")

    def inject(method: Any) -> None:
        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            step = int(batch.keys[0])
            return ijepa.masks_of(contexts[step], targets[step], method.grid)

        method.mask = mask

    document = ijepa.document(hparams) | training
    run = _Run(case, document, hparams["iters_per_epoch"], 1, inject)
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
    training = _training(case, 1, kind=kind, end="final_lr")
    training["optim"] |= {
        "weight_decay_end": hparams["final_weight_decay"],
        # From the epoch behind the last of the warm-up that is counted from 0
        "clip_from_epoch": int(hparams["warmup_epochs"]) + 1,
        "clip_scope": "parts",
    }
    training["schedule"] |= {"warmup_lr": hparams["start_lr"], "stretch": hparams["ipe_scale"]}
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

    document = vjepa.document(hparams) | training
    view = "image" if hparams["image"] else "clip"
    run = _Run(case, document, hparams["iters_per_epoch"], 1, inject, ("clips.0", view))
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
    training = _training(case, 1, spans=("max_update", "warmup_updates"))
    training["optim"]["decay_all"] = True
    training["schedule"]["warmup_lr"] = hparams["min_lr"]
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

    run = _Run(case, data2vec2.document(hparams) | training, 1, 1, inject)
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

    run = _Run(case, document, 1, 1, inject, load=capi.load)
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


def video_pretrain(case: Case) -> Results:
    """A ``video/pretrain-traj`` case."""
    hparams = case.hparams
    hparams.require(
        video.PRETRAIN + "lr min_lr weight_decay betas adam_eps clip_grad epochs warmup_epochs "
        "steps iters_per_epoch"
    )
    document = video.document(hparams) | _training(case, 1, kind="cosine-per-step")

    def inject(method: Any) -> None:
        def mask(batch: Batch, rows: Any, context: Context) -> Any:
            return {"clip": video.mask_of(case, method, int(batch.keys[0]))}

        method.mask = mask

    run = _Run(case, document, hparams["iters_per_epoch"], 1, inject, ("video", "clip"))
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

    run = _Run(case, document, hparams["steps_per_epoch"], 1, inject, ("points", "points"))
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
    document = build.classify_document(hparams) | _training(case, accumulation)
    soft: Any = case.tensors.get("targets_soft")
    if soft is not None:
        hparams.only("label_smoothing", None, 0.0)  # a soft target already holds it

    def inject(method: Any) -> None:
        def prepare(batch: Batch, rows: Any, gather: Any = None) -> Context:
            target = soft[int(batch.keys[0])]
            return Context(rows, made={"image": batch.image, "target": target})

        if soft is not None:
            method.prepare = prepare

    return _Run(case, document, hparams["steps_per_epoch"], accumulation, inject).judge()


def _training(
    case: Case,
    accumulation: int,
    kind: str = "half-cosine",
    end: str = "min_lr",
    spans: tuple[str, str] = ("epochs", "warmup_epochs"),
) -> dict[str, Any]:
    """The optim, schedule and train sections.

    Args:
        end: the hyperparameter that is the last rate.
        spans: those that are the length of the training and of its warm-up.
    """
    hparams = case.hparams
    build.refuse_drop_path(case)
    return {
        "optim": {
            "name": "adamw",
            "lr": hparams["lr"],
            "betas": hparams["betas"],
            "eps": hparams["adam_eps"],
            "weight_decay": hparams["weight_decay"],
            "layer_decay": hparams.get("layer_decay", None),
            "clip_grad": hparams["clip_grad"],
        },
        "schedule": {
            "kind": kind,
            "epochs": hparams[spans[0]],
            "warmup_epochs": hparams[spans[1]],
            "min_lr": hparams[end],
        },
        "train": {
            "global_batch": hparams["batch"] * accumulation,
            "micro_batch": hparams["batch"],
            "precision": "fp32",
            "device": str(torch.get_default_device()),
        },
    }


@dataclass
class _Run:
    """A trajectory, run on construction."""

    case: Case
    document: dict[str, Any]
    steps_per_epoch: int
    accumulation: int
    inject: Callable[[Any], None]
    fed: tuple[str, str] = ("imgs", "image")  # the stored input, and the view that it is
    idle: frozenset[str] = frozenset()  # published names of the state that only rounding moves
    load: Callable[[Any, Case, str], None] | None = None  # default: `build.load`
    results: Results = field(default_factory=Results)

    def __post_init__(self) -> None:
        resolved = build.resolve(self.document)
        self.recipe = resolved.recipe
        method = build.method_of(self.document)
        (self.load or build.load)(method, self.case, "state0.")
        self.start = {k: v.clone() for k, v in method.export_reference().items()}
        self.names = build.published_names(method)
        self.unused = frozenset(self.names[name] for name in method.unused_parameters())
        self.inject(method)
        absent: Any = None  # no pixels to normalise, no signals
        self.trainer = Trainer(
            method=method,
            resolved=resolved,
            normalize=absent,
            device=torch.get_default_device(),
            steps_per_epoch=self.steps_per_epoch,
            stop=absent,
        )
        self.groups = self._groups()  # as they begin: a decay may be scheduled
        self.columns = self._columns()
        method.train()
        self._train(method)
        self._final(method)

    def _train(self, method: Any) -> None:
        measured: dict[str, list[Any]] = {
            name: [] for name in ("lr", "lr_groups", "loss", "loss_micro", "grad_norm")
        }
        handle = method.register_forward_hook(
            lambda module, args, output: measured["loss_micro"].append(float(output.loss.detach()))
        )
        batches, groups = self._batches(), self.trainer.optimizer.param_groups
        for step in range(self.case.hparams["steps"]):
            for name, value in self.trainer.scheduled_at(step).items():
                measured.setdefault(name, []).append(value)
            done = self.trainer.train_step(batches, self.accumulation)
            measured["lr"].append(groups[0]["lr"] / groups[0]["lr_scale"])
            measured["lr_groups"].append([groups[i]["lr"] for i in self.columns])
            measured["loss"].append(float(done.loss))
            measured["grad_norm"].append(float(done.grad_norm))
            for name, value in done.terms.items():
                measured.setdefault(f"term.{name}", []).append(float(value))
        handle.remove()
        for name, values in measured.items():
            self.results.tensors[name] = torch.tensor(values, dtype=torch.float64)

    def optimizer_groups(self) -> list[Any]:
        """The optimizer's groups in the order of ``lr_groups``."""
        groups = self.trainer.optimizer.param_groups
        return [groups[number] for number in self.columns]

    def _batches(self) -> Iterator[Batch]:
        """The stored micro-batches; a batch's first key is its row in the stored tensors."""
        name, view = self.fed
        samples = self.case.input(name)
        needed = self.case.hparams["steps"] * self.accumulation
        if len(samples) < needed:
            raise CaseFault(f"inputs: {name} holds {len(samples)} micro-batches of {needed}")
        labels = self.case.tensors.get("labels")
        for row in range(needed):
            label = None if labels is None else labels[row]
            batch = Batch.of_views({view: samples[row]}, label)
            yield Batch(batch.views, batch.index, [str(row)] * len(batch), batch.label)

    def _final(self, method: Any) -> None:
        tensors = self.results.tensors
        for name, tensor in method.export_reference().items():
            tensors[f"state_final.{name}"] = tensor
        state = self.trainer.optimizer.state
        for name, parameter in method.named_parameters():
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in state.get(parameter, {}):
                    tensors[f"opt.{moment}.{self.names[name]}"] = state[parameter][moment]

    def judge(self) -> Results:
        """The findings for every stored answer."""
        record = Record(self.results.tensors, self.start, self.groups, self.unused, self.idle)
        self.results.findings += compare_trajectory(self.case, record)
        return self.results

    def _groups(self) -> list[Group]:
        """The optimizer's groups under published names."""
        return [
            Group(
                frozenset(self.names[name] for name in group["names"]),
                group["lr_scale"],
                group["weight_decay"],
            )
            for group in self.trainer.optimizer.param_groups
        ]

    def _columns(self) -> list[int]:
        """Our parameter groups in the order of the case's ``param_groups``, matched by names."""
        ours = [group.names for group in self.groups]
        theirs = [group.names for group in stored_groups(self.case, self.unused)]
        if set(ours) != set(theirs):  # a case without answers, or a finding of its own
            return list(range(len(ours)))
        return [ours.index(names) for names in theirs]
