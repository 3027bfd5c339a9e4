"""Optimizer steps on given gradients, and the linear probe (``image/lars``, ``image/linprobe``)."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from golden import build
from golden.case import Case, CaseFault
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.models import Features
from mimsuite.noise import FixedNoise
from mimsuite.train.lars import LARS
from mimsuite.train.optim import build_optimizer, set_lr
from mimsuite.train.precision import Precision
from mimsuite.train.step import train_step


def lars(case: Case) -> Results:
    """Parameters behind each of some optimizer steps with given gradients."""
    hparams = case.hparams
    hparams.require("lr weight_decay momentum trust_coefficient steps optimizer")
    hparams.only("optimizer", "lars")
    parameters = {name: nn.Parameter(t.clone()) for name, t in case.inputs("init.").items()}
    optimizer = LARS(
        parameters.values(),
        lr=hparams["lr"],
        weight_decay=hparams["weight_decay"],
        momentum=hparams["momentum"],
        trust_coefficient=hparams["trust_coefficient"],
    )
    results = Results()
    for step in range(hparams["steps"]):
        given = case.inputs(f"step{step}.grad.")
        if unknown := given.keys() - parameters.keys():
            raise CaseFault(f"inputs: step{step}.grad.{min(unknown)} has no init.*")
        for name, parameter in parameters.items():
            parameter.grad = given[name].clone() if name in given else None
        optimizer.step()
        for name, parameter in parameters.items():
            results.tensors[f"step{step}.after.{name}"] = parameter.detach().clone()
    return results


def linear_probe(case: Case) -> Results:
    """Training steps of the probe's head over given features, then its eval logits."""
    hparams = case.hparams
    hparams.require(
        "lr weight_decay momentum trust_coefficient steps batch embed_dim num_classes bn_eps "
        "bn_momentum bn_affine loss_kind optimizer"
    )
    hparams.only("optimizer", "lars")
    hparams.only("bn_affine", False)
    hparams.only("bn_eps", 1e-6)
    hparams.only("bn_momentum", 0.1)
    features, labels = case.input("features"), case.input("labels")  # (steps, B, D), (steps, B)
    recipe = build.resolve(_document(case)).recipe
    method = build.method_of(_document(case))
    # The features stand in for the frozen encoder's class token.
    method.encoder.encode = MethodType(_features_as_class_token, method.encoder)
    method.head.load_state_dict(case.inputs("init."), strict=True)
    method.train()
    optimizer = build_optimizer(method, recipe)
    for group in optimizer.param_groups:
        group["trust_coefficient"] = hparams["trust_coefficient"]
    set_lr(optimizer, recipe.lr)

    results, seen = Results(), []
    handle = method.head.register_forward_hook(lambda module, args, out: seen.append(out.detach()))
    for step in range(hparams["steps"]):
        batch = Batch.of_images(features[step], labels[step])
        done = train_step(
            method,
            optimizer,
            [batch],
            1,
            noise=lambda batch: FixedNoise({}),
            precision=Precision("fp32", torch.get_default_device()),
        )
        results.tensors[f"step{step}.logits"] = seen[-1]
        results.tensors[f"step{step}.loss"] = done.loss
        for name, value in method.head.state_dict().items():
            results.tensors[f"step{step}.after.{name}"] = value.clone()
    handle.remove()
    method.eval()
    results.tensors["eval_logits"] = method.logits(features[0]).detach()
    results.facts["hparams.batch"] = (features.shape[1], hparams["batch"])
    _find_late_states(case, results)
    return results


def _find_late_states(case: Case, results: Results) -> None:
    """States stored under an earlier step than theirs, as in linprobe-a.

    A stored state says itself how many batches it has seen (``num_batches_tracked``). Where that
    is more than its name says, it is compared with the state behind that many steps; the states
    in between are pinned by the next step's logits, which are taken before the update.
    """
    steps = case.hparams["steps"]
    for step in range(steps):
        prefix = f"step{step}.after."
        stored = case.answers().get(prefix + "0.num_batches_tracked")
        if stored is None or not step + 1 < int(stored) <= steps:
            continue
        late = f"step{int(stored) - 1}.after."
        for name in [name for name in results.tensors if name.startswith(prefix)]:
            results.stored_as[name] = late + name.removeprefix(prefix)
        results.notes.append(
            f"{prefix}* has seen {int(stored)} batches: compared with the state behind {late}"
        )


def _document(case: Case) -> dict[str, Any]:
    hparams = case.hparams
    hparams.only("loss_kind", "cross_entropy")
    encoder = {"image_size": 8, "patch_size": 8, "width": hparams["embed_dim"], "depth": 1}
    optim = {
        "name": "lars",
        "lr": hparams["lr"],
        "weight_decay": hparams["weight_decay"],
        "momentum": hparams["momentum"],
    }
    return {
        "method": {"name": "classify"},
        "model": {
            "encoder": {**encoder, "heads": 1},
            "pool": "cls",
            "freeze": True,
            "head": "bn-linear",
            "head_init_std": 0.01,
        },
        "target": {"classes": hparams["num_classes"]},
        **build.idle_sections(),
        "optim": optim,
    }


def _features_as_class_token(encoder: nn.Module, batch: Batch, **options: Any) -> Features:
    features: Tensor = batch.image  # (B, D)
    return Features(cls=features.unsqueeze(1), tokens=features.unsqueeze(1))
