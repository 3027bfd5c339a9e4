"""Point clouds downstream: classification and part segmentation, one forward and backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden import build
from golden.case import Case, Hparams
from golden.points import batch_of, encoder_keys
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.shared import ScheduleSection
from mimsuite.methods import Method, Output
from mimsuite.noise import FixedNoise
from mimsuite.schedule import rate_at
from mimsuite.train.optim import param_groups

_SIZES = (
    "trans_dim depth num_heads num_group group_size encoder_dims norm_eps bn_eps bn_momentum "
    "mlp_ratio qkv_bias batch npoints drop_path_rate loss_kind "
)


def classify(case: Case) -> Results:
    """The tensors of a ``point/cls`` or ``point/cls_linear`` case."""
    hparams = case.hparams
    hparams.require(_SIZES + "cls_dim head label_smoothing head_hidden head_layers feature_dim")
    results = Results()
    for mode, ending in (("eval", ""), ("train", "_train_nodrop")):
        _classified(case, results, mode, ending, case.input("label"))
    frozen = build.method_of(_document(hparams, freeze=True))
    trained = sum(p.numel() for p in frozen.parameters() if p.requires_grad)
    results.tensors["trainable_when_frozen_count"] = torch.tensor(trained)
    results.facts["hparams.batch"] = (len(case.input("points")), hparams["batch"])
    feature = results.tensors["feature"]
    results.facts["hparams.feature_dim"] = (feature.shape[1], hparams["feature_dim"])
    return results


def classify_pcp(case: Case) -> Results:
    """The tensors of a ``point/pcp_cls`` case: the classifier, its parameter groups and rates."""
    hparams = case.hparams
    hparams.require("trans_dim depth num_heads num_group group_size npoints cls_dim head batch")
    results = Results()
    method = _classified(case, results, "eval", "", case.input("labels"))
    results.facts["hparams.batch"] = (len(case.input("points")), hparams["batch"])
    groups, names = param_groups(method, 0.05), build.published_names(method)
    ours = {
        (
            1.0 if group["own"] is None else group["own"].lr / method.recipe.lr,
            group["weight_decay"],
            name,
        )
        for group in groups
        for name in (names[own] for own in group["names"])
    }
    stored = case.document.get("meta", {}).get("param_groups", [])
    theirs = {
        (group["lr_scale"], group["weight_decay"], name)
        for group in stored
        for name in group["params"]
    }
    if stored:
        results.facts["meta.param_groups"] = (sorted(ours), sorted(theirs))
    section = ScheduleSection.model_validate(_PCP_SCHEDULE)
    rates = [
        [rate_at(section, scale * 2e-5, epoch, steps_per_epoch=1) for scale in (10.0, 1.0, 1.0)]
        for epoch in range(_PCP_SCHEDULE["epochs"] + 2)  # one more runs, and one behind it
    ]
    results.tensors["rate_groups"] = torch.tensor(rates, dtype=torch.float64)
    return results


# Of its fine-tuning on ScanObjectNN at a rate of 2e-5, as the case says.
_PCP_SCHEDULE = {
    "kind": "epoch-lagged",
    "epochs": 300,
    "warmup_epochs": 10,
    "warmup_lr": 1e-6,
    "min_lr": 1e-6,
}


def _classified(case: Case, results: Results, mode: str, ending: str, label: Tensor) -> Any:
    """One pass in a mode, into the results; returns the method."""
    build.refuse_drop_path(case)
    method = build.method_of(_document(case.hparams))
    build.load(method, case)
    method.train(mode == "train")
    seen: list[Tensor] = []
    handle = method.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    output = _step(method, case.input("points"), label)
    handle.remove()
    output.loss.backward()
    results.tensors |= {f"logits{ending}": output.prediction, f"loss{ending}": output.loss}
    if mode == "eval":
        results.tensors["feature"] = seen[0]
        results.tensors["acc_percent"] = 100 * output.terms["accuracy"]
    for key, gradient in build.gradients(method).items():
        results.tensors[f"grad_{mode}.{key.removeprefix('grad.')}"] = gradient
    return method


def _document(hparams: Hparams, *, freeze: bool = False) -> dict[str, Any]:
    hparams.only("loss_kind", "cross_entropy")
    hparams.only("head", "full", "mlp3", "linear")
    linear = hparams["head"] == "linear"
    # PCP-MAE trains what reads the encoder at a rate of its own.
    readout = {"head_rate": 10.0, "decay_head": True} if "pos_temperature" in hparams else {}
    hparams.only("head_hidden", None if linear else 256)
    hparams.only("head_layers", 1 if linear else 3)
    hparams.skip("head_dropout")  # every pass is without it
    return {
        "recipe": {"modality": "points"},
        "method": {"name": "point-classify", **readout},
        "model": {
            "encoder": encoder_keys(hparams),
            "head": "linear" if linear else "mlp3",
            "dropout": 0.0,
            "freeze": freeze,
        },
        "target": {
            "classes": hparams["cls_dim"],
            "label_smoothing": hparams.get("label_smoothing", 0),
        },
        **build.idle_sections(),
    }


def _step(method: Method, points: Tensor, label: Tensor) -> Output:
    batch, rows = batch_of(points, label), FixedNoise({})
    with torch.no_grad():
        context = method.prepare(batch, rows)
        masks = method.mask(batch, rows, context)
    output: Output = method(batch, masks, context)
    return output


def segment(case: Case) -> Results:
    """The tensors of a ``point/seg`` case."""
    hparams = case.hparams
    hparams.require(
        _SIZES + "fetch_layers_0based propagation_mlp num_parts num_objects label_dim "
        "propagation_neighbors head_channels convs1_in"
    )
    build.refuse_drop_path(case)
    hparams.only("loss_kind", "nll")
    for name, only in (
        ("label_dim", 64),
        ("propagation_neighbors", 3),
        ("head_channels", [512, 256]),
    ):
        hparams.only(name, only)
    method = build.method_of(_parts_document(hparams))
    build.load(method, case)
    method.train(case.training())
    views = {"points": case.input("points"), "parts": case.input("target")}
    batch, rows = Batch.of_views(views, case.input("object_label")), FixedNoise({})
    seen: dict[str, Tensor] = {}
    handles = [
        method.head.register_forward_pre_hook(lambda module, args: seen.update(levels=args[2])),
        method.head.propagation_0.register_forward_hook(
            lambda module, args, output: seen.update(propagated=output)
        ),
    ]
    output = method(batch, {}, method.prepare(batch, rows))
    for handle in handles:
        handle.remove()
    output.loss.backward()
    results = Results(
        {
            "token_features_3levels": seen["levels"].transpose(1, 2),
            "propagated": seen["propagated"].transpose(1, 2),
            "log_probs": output.prediction,
            "loss": output.loss,
        }
    )
    for key, gradient in build.gradients(method).items():
        results.tensors[f"grad_eval.{key.removeprefix('grad.')}"] = gradient
    facts = {
        "batch": len(batch),
        "fetch_layers": len(method.taps),
        "convs1_in": method.head.convs1.in_channels,
    }
    for name, own in facts.items():
        if name in hparams:
            results.facts[f"hparams.{name}"] = (own, hparams[name])
    return results


def _parts_document(hparams: Hparams) -> dict[str, Any]:
    objects, parts = hparams["num_objects"], hparams["num_parts"]
    each = [parts // objects + (number < parts % objects) for number in range(objects)]
    return {
        "recipe": {"modality": "points"},
        "method": {"name": "point-segment"},
        "model": {
            "encoder": encoder_keys(hparams),
            "taps": [number + 1 for number in hparams["fetch_layers_0based"]],
            "propagation": hparams["propagation_mlp"],
            "dropout": hparams.get("dropout", 0.5),
        },
        "target": {"parts": each},  # how many each class has does not matter to one pass
        **build.idle_sections(),
    }
