"""Tables: positions, rates, parameter groups, kept tokens, key lists.

A table holds entries of many method families; those of families that are not built are listed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from golden import build, cae, convmae, crate, crossmae, mae, maskalign, pixio
from golden.case import Case, CaseFault
from golden.results import Results
from mimsuite.config.keys.masks import RandomMaskSection
from mimsuite.config.keys.shared import ScheduleSection
from mimsuite.masking import RandomSampler
from mimsuite.methods import Method
from mimsuite.schedule import half_cosine, rate_at
from mimsuite.tokens import sincos_2d
from mimsuite.train.optim import param_groups

Entry = dict[str, Any]

# Of each family that is built, the recipe document of a published model by its name, the stage of
# training and the pooling; ``None`` for a model that is not built.
FAMILIES: dict[str, Callable[[str, str, str | None], dict[str, Any] | None]] = {
    "mae": mae.published_model,
    "cae": cae.published_model,
    "cae-lxt": cae.published_model,
    "convmae": convmae.published_model,
    "crate": crate.published_classifier,
    "crate-mae": crate.published_autoencoder,
    "maskalign": maskalign.published_model,
    "crossmae": crossmae.published_model,
    "pixio": pixio.published_model,
    "videomae": lambda model, stage, pool: None,  # likewise
    "videomae2": lambda model, stage, pool: None,
    "ijepa": lambda model, stage, pool: None,  # its tables say all
    "vjepa": lambda model, stage, pool: None,  # likewise
    "data2vec2": lambda model, stage, pool: None,
    "capi": lambda model, stage, pool: None,
    "point-mae": lambda model, stage, pool: None,  # rates hold for every model
}


def table(groups: dict[str, Callable[[Case, Entry], dict[str, Any] | None]]) -> Any:
    """A check of tables whose entries belong to the given groups.

    The function of a group returns an entry's fields, or ``None`` where it is not built.
    """

    def compute(case: Case) -> Results:
        results = Results()
        for entry in case.field("table"):
            for key in ("id", "family", "group", "args"):
                if key not in entry:
                    raise CaseFault(f"table: an entry without {key}")
            fields = None
            if entry["family"] in FAMILIES and entry["group"] in groups:
                fields = groups[entry["group"]](case, entry)
            if fields is None:
                results.not_built.append(entry["id"])
                continue
            results.tensors.update(fields.pop("tensors", {}))
            results.entries[entry["id"]] = fields
        return results

    return compute


def args_of(entry: Entry, *names: str) -> list[Any]:
    """Arguments of an entry; faults on the first that is missing."""
    missing = [name for name in names if name not in entry["args"]]
    if missing:
        raise CaseFault(f"table: {entry['id']} has no args.{missing[0]}")
    return [entry["args"][name] for name in names]


# --- positions, rates, mask sizes -----------------------------------------------------------------


def _sincos(case: Case, entry: Entry) -> dict[str, Any]:
    case.hparams.only("temperature", 10000.0)
    width, grid, cls_token, rows = args_of(entry, "dim", "grid", "cls_token", "rows")
    row_first = entry["family"] == "cae"
    if row_first:  # its code walks a rectangle column by column, so its table is the transpose's
        grid = grid[::-1]
    positions = F.pad(sincos_2d(width, tuple(grid), row_first), (0, 0, int(cls_token), 0))
    names = entry.get("expected", {}).get("tensors", [entry["id"]])
    return {"tensors": {name: positions if rows is None else positions[rows] for name in names}}


def _half_cosine(case: Case, entry: Entry) -> dict[str, Any]:
    last = "final_lr" if "final_lr" in entry["args"] else "min_lr"
    lr, final, warmup, epochs, unit, at = args_of(
        entry, "base_lr", last, "warmup_epochs", "epochs", "unit", "at"
    )
    steps = 1 if unit == "epoch" else args_of(entry, "iters_per_epoch")[0]
    rate = lambda epoch: half_cosine(  # noqa: E731
        epoch, lr=lr, min_lr=final, warmup_epochs=warmup, epochs=epochs
    )
    return {"lr": [rate(each / steps) for each in at]}


def _cosine_per_step(case: Case, entry: Entry) -> dict[str, Any]:
    lr, final, warmup, epochs, steps, total, at = args_of(
        entry,
        "base_lr",
        "final_lr",
        "warmup_epochs",
        "epochs",
        "iters_per_epoch",
        "total_steps",
        "at",
    )
    if total != epochs * steps:
        raise CaseFault(f"table: {entry['id']} args.total_steps is not epochs * iters_per_epoch")
    schedule = ScheduleSection(
        kind="cosine-per-step", epochs=epochs, warmup_epochs=warmup, min_lr=final
    )
    return {"lr": [rate_at(schedule, lr, each, steps) for each in at]}


def _epoch_lagged(case: Case, entry: Entry) -> dict[str, Any]:
    case.hparams.only("lag_epochs", 1)
    case.hparams.skip("warmup_epochs", "warmup_lr", "min_lr")  # entries have their own
    lr, final, first, warmup, epochs, listed = args_of(
        entry, "base_lr", "final_lr", "warmup_lr", "warmup_epochs", "epochs", "num_epochs_listed"
    )
    keys = {"min_lr": final, "warmup_lr": first, "warmup_epochs": warmup, "epochs": epochs}
    section = ScheduleSection(kind="epoch-lagged", **keys)
    return {"lr": [rate_at(section, lr, epoch, steps_per_epoch=1) for epoch in range(listed)]}


def _len_keep(case: Case, entry: Entry) -> dict[str, Any]:
    tokens, ratio = args_of(entry, "num_patches", "mask_ratio")
    sampler = RandomSampler(RandomMaskSection(ratio=ratio))
    return {"len_keep": sampler(torch.rand(1, tokens), (tokens,)).visible.shape[1]}


# --- parameter groups, key lists ------------------------------------------------------------------


def _layer_decay(case: Case, entry: Entry) -> dict[str, Any] | None:
    pool, decay, weight_decay = args_of(entry, "pool", "layer_decay", "weight_decay")
    method = _model(entry, "finetune", pool)
    if method is None:
        return None
    args_of(entry, "num_layers", "no_weight_decay")
    fields = groups_of(method, weight_decay, decay)
    names = build.published_names(method)
    return {
        **fields,
        "layer_id": {names[name]: method.layer_id(name) for name in _trained(method)},
    }


def _weight_decay_split(case: Case, entry: Entry) -> dict[str, Any] | None:
    (weight_decay,) = args_of(entry, "weight_decay")
    method = _model(entry, "pretrain", None)
    if method is None:
        return None
    fields = groups_of(method, weight_decay, None)
    # Without layer decay there are no layers: the table holds zeros in their place.
    return {**fields, "layer_id": dict.fromkeys(fields["lr_scale"], 0)}


def groups_of(
    method: Method, weight_decay: float, layer_decay: float | None, decay_all: bool = False
) -> dict[str, Any]:
    """Rate scale and weight decay of every trained parameter, by its published name."""
    names = build.published_names(method)
    groups = param_groups(method, weight_decay, layer_decay, decay_all)
    return {
        field: {names[name]: group[field] for group in groups for name in group["names"]}
        for field in ("lr_scale", "weight_decay")
    }


def _trained(method: Method) -> list[str]:
    return [name for name, parameter in method.named_parameters() if parameter.requires_grad]


def _state_dict(case: Case, entry: Entry) -> dict[str, Any] | None:
    (stage,) = args_of(entry, "stage")
    pooled = "globalpool" in entry["id"] or "global_pool" in entry["args"].get("layout", "")
    method = _model(entry, stage, "mean" if pooled else "cls")
    if method is None:
        return None
    count = lambda parameters: sum(p.numel() for p in parameters)  # noqa: E731
    # Published code counts what it never reads as trained; here it is frozen.
    unused = [method.get_parameter(name) for name in method.unused_parameters()]
    published = method.export_reference()
    stored = trained = list(method.parameters())
    if stage == "encoder":
        names = build.published_names(method)
        kept = [name for name, _ in method.named_parameters() if name.startswith("encoder.")]
        published = {names[name]: method.get_parameter(name) for name in kept}
        stored = trained = list(published.values())
    if entry["family"] in ("cae", "cae-lxt"):  # the published copy of the encoder counts too
        published = cae.of_layout(published, first=entry["family"] == "cae-lxt")
        stored = published.values()
    return {
        "keys": {name: list(tensor.shape) for name, tensor in published.items()},
        "params": count(stored),
        "trainable": count(p for p in trained if p.requires_grad) + count(unused),
        "encoder_only": count(method.encoder.parameters()),
    }


def _model(entry: Entry, stage: str, pool: str | None) -> Method | None:
    """A published model by its name, without memory for weights; ``None`` if not built."""
    if entry["args"].get("stage") != stage:
        return None
    document = FAMILIES[entry["family"]](entry["model"], stage, pool)
    if document is None:
        return None
    return build.method_of(document | build.idle_sections(), meta=True)


def _decays(case: Case, entry: Entry) -> dict[str, Any] | None:
    """Which parameters decay, of a small model of the entry's sizes."""
    if entry["family"] not in _SMALL:
        return None
    document = _SMALL[entry["family"]](entry["args"])
    decays = groups_of(build.method_of(document, meta=True), 0.05, None)["weight_decay"]
    return {"decays": {name: decay > 0 for name, decay in decays.items()}}


_SMALL: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "crossmae": crossmae.small_model,
    "pixio": pixio.small_model,
}

positions = table({"sincos_2d": _sincos})
rates = table({"half_cosine": _half_cosine, "cosine_per_step": _cosine_per_step})
point_rates = table(dict.fromkeys(("pretrain", "finetune", "fewshot", "partseg"), _epoch_lagged))
kept_tokens = table({"len_keep": _len_keep})
parameter_groups = table({"layer_decay": _layer_decay, "weight_decay_split": _weight_decay_split})
optimizer = table(
    {
        "lr": crossmae.rate,
        "weight_decay_split": _decays,
        "half_cosine": _half_cosine,
        "drop_path": pixio.drop_path,
    }
)
mask_counts = table({"counts": crossmae.mask_counts})
keys = table({"state_dict": _state_dict})
