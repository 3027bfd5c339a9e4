"""Tables of latent prediction: schedules, parameter groups, key lists, statistics of masks."""

from __future__ import annotations

from typing import Any

import torch

from golden import build, capi, data2vec2, ijepa
from golden.case import Case, CaseFault
from golden.results import Results
from golden.tables import Entry, args_of, groups_of, table
from mimsuite.config.keys.masks import MultiBlockMaskSection
from mimsuite.config.keys.shared import ScheduleSection
from mimsuite.masking import MultiBlockSampler
from mimsuite.methods import Method
from mimsuite.models.momentum import rising
from mimsuite.noise import Noise
from mimsuite.schedule import decay_at, rate_at, stretched

# Width, depth, heads and hidden units of the published encoders (facebookresearch/ijepa).
_SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "huge": (1280, 32, 16, 5120),
    "giant": (1408, 40, 16, 6144),
}


def _schedules(case: Case, entry: Entry) -> dict[str, Any]:
    steps, epochs, warmup, stretch, first, lr, last, decay, decay_end, momentum, at = args_of(
        entry,
        *("iters_per_epoch", "epochs", "warmup_epochs", "ipe_scale", "start_lr", "lr", "final_lr"),
        *("weight_decay", "final_weight_decay", "ema", "at"),
    )
    section = ScheduleSection(
        kind="cosine-ahead",
        epochs=epochs,
        warmup_epochs=warmup,
        warmup_lr=first,
        min_lr=last,
        stretch=stretch,
    )
    total = stretched(section, steps)
    return {
        "lr": [rate_at(section, lr, step, steps) for step in at],
        "weight_decay": [decay_at(section, decay, decay_end, step, steps) for step in at],
        "momentum": [rising(step, *momentum, total) for step in at],
    }


def _model(entry: Entry, size: str, image: int, patch: int) -> Method:
    """A published model, without memory for weights."""
    depth, width = args_of(entry, "pred_depth", "pred_emb_dim")
    encoder = dict(zip(("width", "depth", "heads"), _SIZES[size], strict=False))
    encoder |= {"image_size": image, "patch_size": patch, "class_tokens": 0}
    hidden, heads = _SIZES[size][3], encoder["heads"]
    document = {
        "method": {"name": "ijepa", "momentum": [0.996, 1.0]},
        "model": {
            "encoder": {**encoder, "mlp_ratio": hidden / encoder["width"]},
            "predictor": {"width": width, "depth": depth, "heads": heads},
        },
        "mask": {},
        "target": {"normalize": "layer-norm", "loss": "smooth-l1"},
    }
    return build.method_of(document | build.idle_sections(), meta=True)


def _groups(case: Case, entry: Entry) -> dict[str, Any]:
    if entry["family"] == "capi":
        return _capi_groups(entry)
    if entry["family"] == "data2vec2":
        method = data2vec2.model(entry["model"])
        return groups_of(method, *args_of(entry, "weight_decay"), None, decay_all=True)
    size, patch = entry["model"].removeprefix("vit_").rstrip("0123456789"), entry["model"][-2:]
    return groups_of(_model(entry, size, 224, int(patch)), *args_of(entry, "weight_decay"), None)


def _capi_groups(entry: Entry) -> dict[str, Any]:
    """Those of the student; the clusters have a group of their own."""
    decay, patch, rope, norm = args_of(
        entry, "weight_decay", "patch_embed_lr_mult", "rope_lr_mult", "layernorm_wd_mult"
    )
    if rope != 0:
        raise CaseFault(f"table: {entry['id']} args.rope_lr_mult is not 0")
    fields = groups_of(capi.model(entry["model"], patch, norm), decay, None)
    lead = "student."
    return {
        field: {k.removeprefix(lead): v for k, v in values.items() if k.startswith(lead)}
        for field, values in fields.items()
    }


def _tuned_groups(case: Case, entry: Entry) -> dict[str, Any]:
    names = ("depth", "drop_path_rate", "weight_decay", "layer_decay")
    prenet, main, drop_path, *decays = args_of(entry, "prenet_depth", *names)
    method = data2vec2.tuned(prenet, main, drop_path)
    encoder: Any = method.encoder
    fields = groups_of(method, *decays, decay_all=True)
    return {**fields, "drop_path": encoder.drop_path_rates()}


def _data2vec2_rates(case: Case, entry: Entry) -> dict[str, Any]:
    given = args_of(entry, "lr", "warmup_updates", "max_update", "min_lr", "at")
    return {"value": data2vec2.rates(*given)}


def _data2vec2_momenta(case: Case, entry: Entry) -> dict[str, Any]:
    given = args_of(entry, "ema_decay", "ema_end_decay", "ema_anneal_end_step", "at")
    return {"value": data2vec2.momenta(*given)}


def _data2vec2_state(case: Case, entry: Entry) -> dict[str, Any]:
    method = data2vec2.model(entry["model"])
    published = method.export_reference()
    kept = {name: list(tensor.shape) for name, tensor in published.items()}
    listed = entry.get("expected", {}).get("keys", kept)
    count = lambda parts: sum(p.numel() for p in parts)  # noqa: E731
    decoder = count(method.decoder.parameters())
    encoder = list(method.encoder.parameters())
    counts = {
        "total": decoder + count(encoder),
        "trainable": decoder + count(p for p in encoder if p.requires_grad),
        "decoder": decoder,
        "encoder_only": count(encoder),
    }
    return {"keys": None if listed is None else kept, "params": counts}


def _state_dict(case: Case, entry: Entry) -> dict[str, Any]:
    if entry["family"] == "data2vec2":
        return _data2vec2_state(case, entry)
    if entry["family"] == "capi":
        return capi.state_fields(entry["model"])
    image, patch, _ = args_of(entry, "img_size", "patch_size", "layout")
    method: Any = _model(entry, entry["model"].removeprefix("vit_"), image, patch)
    published = method.export_reference()
    counts = {}
    for name, part in (("encoder", method.student), ("predictor", method.predictor)):
        counts[name] = sum(p.numel() for p in part.parameters())
        trained = (p.numel() for p in part.parameters() if p.requires_grad)
        counts[f"{name}_trainable"] = sum(trained)
    listed = {name: tensor for name, tensor in published.items() if not name.startswith("target_")}
    return {
        "keys": {name: list(tensor.shape) for name, tensor in listed.items()},
        "params": counts,
        "mlp_hidden": method.student.blocks[0].mlp.fc1.out_features,
    }


def _block_size(case: Case, entry: Entry) -> dict[str, Any]:
    grid, target, context, aspect, numbers = args_of(
        entry, "grid", "pred_mask_scale", "enc_mask_scale", "aspect_ratio", "rand"
    )
    section = MultiBlockMaskSection(target_scale=target, context_scale=context, aspect=aspect)
    return {
        "pred_size": [section.size(grid, number, "target") for number in numbers],
        "enc_size": [section.size(grid, number, "context") for number in numbers],
    }


def _mask_stats(case: Case, entry: Entry) -> dict[str, Any]:
    if entry["family"] == "data2vec2":
        return data2vec2.mask_fields(entry)
    if entry["family"] == "capi":
        return capi.mask_fields(entry)
    (*grid,), batch, calls = args_of(entry, "grid", "batch", "calls")
    sampler = MultiBlockSampler(MultiBlockMaskSection(**ijepa.mask_keys(entry["args"])))
    tokens = grid[0] * grid[1]
    seen, asked = torch.zeros(tokens), torch.zeros(tokens)
    lengths, sizes, unions, overlap, sets = [], [], [], 0, 0
    for call in range(calls):
        made = sampler.sample(Noise(0, call, torch.arange(batch)), (grid[0], grid[1]))
        targets = next(iter(made.values())).targets
        assert targets is not None
        inside = torch.zeros(len(targets), batch, tokens).scatter(2, targets, 1.0)
        union = inside.amax(0)
        asked += inside.sum((0, 1))
        unions.append(float(union.sum(1).mean()))
        sizes.append(targets.shape[2])
        for mask in made.values():
            visible = (~mask.dense()).float()
            seen += visible.sum(0)
            overlap += int((visible * union).sum())
            lengths.append(mask.visible.shape[1])
        sets += batch
    context = (seen / (sets * entry["args"]["nenc"])).view(*grid)
    target = (asked / (sets * entry["args"]["npred"])).view(*grid)
    edge = lambda mean: float(torch.cat([mean[-1], mean[:, -1]]).max())  # noqa: E731
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    name = entry["id"]
    return {
        "tensors": {f"{name}.context_mean": context, f"{name}.target_mean": target},
        "context_tokens_mean": mean(lengths),
        "target_tokens_mean": mean(sizes),
        "target_union_mean": mean(unions),
        "overlap": overlap,
        "last_row_and_column": [edge(context), edge(target)],
    }


schedules = table(
    {
        "ijepa": _schedules,
        "data2vec2_lr": _data2vec2_rates,
        "data2vec2_ema": _data2vec2_momenta,
        "warmup_then_cosine": lambda case, entry: {"value": capi.schedule(entry["args"])},
        "probe": lambda case, entry: {
            "value": capi.probe_schedule(*args_of(entry, "total_iters", "warmup_iters", "at"))
        },
    }
)
parameter_groups = table({"pretrain": _groups, "finetune": _tuned_groups})
keys = table({"state_dict": _state_dict})
_mask_tables = table(
    {
        "mask_stats": _mask_stats,
        "block_size": _block_size,
        "counts": lambda case, entry: capi.counts(entry["args"]),
        "drop_path": lambda case, entry: capi.kept_counts(entry["args"]),
    }
)


def mask_statistics(case: Case) -> Results:
    """A ``latent/ijepa-mask-stats``, ``latent/capi-mask-stats`` or ``latent/data2vec2-mask-stats``
    case."""
    case.hparams.only("family", "ijepa", "capi", "data2vec2")
    results: Results = _mask_tables(case)
    return results
