"""Tables of V-JEPA: masks and their statistics, positions, schedules, groups, key lists."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from golden import attentive_probes, build
from golden.case import Case, CaseFault
from golden.tables import Entry, args_of, groups_of, table
from mimsuite.config.keys.masks import ClipBlocksMaskSection, ClipBlocksSection
from mimsuite.data.video import clip_indices
from mimsuite.masking import ClipBlockSampler, TokenMask
from mimsuite.methods import Method
from mimsuite.models.momentum import rising
from mimsuite.models.rotary import turn, turns_of
from mimsuite.noise import Noise
from mimsuite.schedule import cosine_ahead, half_cosine_to, linear_ahead
from mimsuite.tokens import sincos_clip
from mimsuite.train.optim import param_groups

# Width, depth, heads and hidden units of the published encoders, and pixels.
_SIZES = {
    "vit_large": (1024, 24, 16, 4096, 16),
    "vit_huge": (1280, 32, 16, 5120, 16),
    "vit_giant": (1408, 40, 22, 6144, 16),
}
_MASK_ARGS = ("spatial_scale", "temporal_scale", "aspect_ratio", "num_blocks", "max_temporal_keep")


def _blocks(entry: Entry, **others: Any) -> ClipBlocksSection:
    scale, time, aspect, blocks = args_of(entry, *_MASK_ARGS[:4])
    keys = {"scale": scale, "time": time, "aspect": aspect, "blocks": blocks}
    return ClipBlocksSection(**keys, **others)


# --- masks ----------------------------------------------------------------------------------------


def _multiblock(case: Case, entry: Entry) -> dict[str, Any]:
    grid, keep, most, whole, whole_context, inverse, batch = args_of(
        entry,
        *("grid", "max_temporal_keep", "max_keep", "full_complement", "pred_full_complement"),
        *("inv_block", "batch"),
    )
    complement = "target" if whole else "context" if whole_context else "none"
    keys = {"context_time": keep, "max_context": most}
    blocks = _blocks(entry, complement=complement, inverse=inverse, **keys)
    sampler = ClipBlockSampler(ClipBlocksMaskSection(sets=(blocks,)))
    name, size = (
        entry["id"],
        blocks.size(tuple(grid), *case.input(f"draws.{entry['id']}.u").tolist()),
    )
    places = iter(case.input(f"draws.{name}.pos").flatten(0, 1).tolist())
    place = lambda size: tuple(next(places))  # noqa: E731
    drawn = [sampler.draw(blocks, tuple(grid), size, place) for _ in range(batch)]
    if next(places, None) is not None:
        raise ValueError(f"{name} drew fewer places than were recorded")
    mask = sampler.cut(blocks, drawn, tuple(grid))
    assert mask.targets is not None
    return {
        "block": list(size),
        "len_enc": mask.visible.shape[1],
        "len_pred": mask.targets.shape[2],
        "attempts": len(case.input(f"draws.{name}.sample")),
        "tensors": {
            f"masks.{name}.enc": _members(mask.visible, mask),
            f"masks.{name}.pred": _members(mask.targets[0], mask),
        },
    }


def _members(ids: Tensor, mask: TokenMask) -> Tensor:
    if bool((ids.diff(dim=1) <= 0).any()):
        raise ValueError("ids do not rise")
    return torch.zeros(len(ids), mask.tokens, dtype=torch.uint8).scatter(1, ids, 1)


def _statistics(case: Case, entry: Entry) -> dict[str, Any]:
    (*grid,), samples = args_of(entry, "grid", "samples")
    blocks = _blocks(entry)
    sampler = ClipBlockSampler(ClipBlocksMaskSection(sets=(blocks,)))
    tokens, shape = grid[0] * grid[1] * grid[2], (grid[0], grid[1], grid[2])
    seen, counts, sizes = torch.zeros(tokens), [], Counter[str]()
    for step in range(samples):
        noise = Noise(0, step, torch.arange(1))
        (mask,) = sampler.sample(noise, shape).values()
        seen += (~mask.dense()[0]).float()
        counts.append(mask.visible.shape[1] / tokens)
        _, height, width = blocks.size(shape, *noise.shared("block sizes 1", 3).tolist())
        sizes[f"{height}x{width}"] += 1
    cut_seen, cut_asked = [], []
    for step in range(250):
        (mask,) = sampler.sample(Noise(1, step, torch.arange(24)), shape).values()
        assert mask.targets is not None
        cut_seen.append(mask.visible.shape[1] / tokens)
        cut_asked.append(mask.targets.shape[2] / tokens)
    fractions = torch.tensor(counts, dtype=torch.float64)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    stated = entry.get("expected", {}).get("block_sizes", sizes)
    return {
        "tensors": {f"{entry['id']}.position_mean": (seen / samples).view(shape).mean(0)},
        "context_fraction_mean": float(fractions.mean()),
        "context_fraction_std": float(fractions.std(correction=0)),
        "context_fraction_after_cut_batch24": mean(cut_seen),
        "target_fraction_after_cut_batch24": mean(cut_asked),
        "block_sizes": {name: sizes[name] / samples for name in stated},
    }


# --- positions ------------------------------------------------------------------------------------


def _rope(case: Case, entry: Entry) -> dict[str, Any]:
    width, (*grid,) = args_of(entry, "head_dim", "grid")
    case.hparams.only("theta", 10000.0)
    ids, shape = case.input(f"in.{width}.ids"), (grid[0], grid[1], grid[2])
    turns = turns_of(ids[None], shape, width)
    moved = turn(case.input(f"in.{width}.q")[None, None], turns)[0, 0]
    places = torch.stack(torch.unravel_index(ids, shape), dim=1)
    band = turns[0].shape[-1] // 3
    return {
        "band": band,
        "unrotated": width - 3 * band,
        "tensors": {f"rotated.{width}": moved, f"positions.{width}": places},
    }


def _sincos(case: Case, entry: Entry) -> dict[str, Any]:
    case.hparams.only("temperature", 10000.0)
    width, grid, even, rows = args_of(entry, "dim", "grid", "uniform_power", "rows")
    shape = (1, *grid) if len(grid) == 2 else tuple(grid)
    return {"tensors": {entry["id"]: sincos_clip(width, shape, even)[rows]}}


# --- frames ---------------------------------------------------------------------------------------


class _Ends:
    """The ends of clips that an entry stores, behind a generator's face."""

    def __init__(self, ends: list[int]) -> None:
        self._ends = iter(ends)

    def integers(self, low: int, high: int) -> int:
        return next(self._ends)


def _clips(case: Case, entry: Entry) -> dict[str, Any]:
    total, rate, length, fps, stride, seconds, clips, overlap, drawn, ends = args_of(
        entry,
        *("num_video_frames", "video_fps", "frames_per_clip", "fps", "frame_step"),
        *("clip_duration", "num_clips", "allow_clip_overlap", "random_clip_sampling", "end_draws"),
    )
    if fps is not None or seconds is not None:
        stride = clip_indices.stride_at(rate, length / seconds if fps is None else fps)
    draws: Any = _Ends(ends) if drawn else None
    found = clip_indices.spread(total, length, stride, clips, draws, overlap)
    if clips == 1 and not overlap:  # then it is the rule of pretraining
        assert found == [clip_indices.dense(total, length, stride, _Ends(ends))]  # type: ignore
    return {"frame_ids": found}


# --- schedules, groups, key lists -----------------------------------------------------------------


def _schedules(case: Case, entry: Entry) -> dict[str, Any]:
    steps, epochs, warmup, stretch, first, lr, last, decay, decay_end, momentum, at = args_of(
        entry,
        *("ipe", "epochs", "warmup", "ipe_scale", "start_lr", "lr", "final_lr"),
        *("weight_decay", "final_weight_decay", "ema", "at"),
    )
    total = int(stretch * epochs * steps)
    if entry["group"] == "linear":
        rates = [linear_ahead(step, lr=lr, min_lr=last, total=total) for step in at]
    else:
        keys = {"warmup_lr": first, "warmup": int(warmup * steps), "total": total}
        rates = [cosine_ahead(step, lr=lr, min_lr=last, **keys) for step in at]
    return {
        "lr": rates,
        "wd": [half_cosine_to(step, start=decay, end=decay_end, total=total) for step in at],
        "momentum": [rising(step, *momentum, steps * epochs * stretch) for step in at],
    }


def _model(version: int, sizes: tuple[int, ...], pixels: int, depth: int, tokens: int) -> Method:
    """A model of clips of 16 frames, without memory for weights."""
    width, blocks, heads, hidden, patch = sizes
    document = {
        "recipe": {"modality": "video"},
        "method": {"name": "vjepa", "momentum": [0.99925, 0.99925]},
        "model": {
            "encoder": {
                **{"width": width, "depth": blocks, "heads": heads, "patch_size": patch},
                "mlp_ratio": hidden / width,
                "image_size": pixels,
                "positions": "rotary" if version == 2 else "sin-cos",
            },
            "predictor": {
                **{"width": 384, "depth": depth, "mask_tokens": tokens},
                "heads": 12 if version == 2 else heads,
                "mask_token_by": "first" if version == 2 else "set",
            },
        },
        "mask": {"sets": [{"blocks": 1, "scale": [0.5, 0.5]}] * 2},
        "target": {"normalize": "layer-norm", "loss": "l1"},
    }
    method: Method = build.method_of(document | build.idle_sections(), meta=True)
    return method


def _groups(case: Case, entry: Entry) -> dict[str, Any]:
    if entry["id"].endswith("probe"):
        probe = attentive_probes.probe(32, {"depth": args_of(entry, "depth")[0]}, 5)
        return {
            "decays": {
                probe.pooler.published.published(name): one["weight_decay"] > 0
                for one in param_groups(probe, 0.04, decay_all=True)
                for name in one["names"]
            }
        }
    version, depth, predictor_depth = args_of(entry, "version", "depth", "pred_depth")
    method = _model(version, (384, depth, 6, 1536, 16), 32, predictor_depth, 2)
    # The published optimizer holds mask tokens that are never used.
    for name in method.unused_parameters():
        method.get_parameter(name).requires_grad_(True)
    decays = groups_of(method, 0.04, None)["weight_decay"]
    return {"decays": {name: decay > 0 for name, decay in decays.items()}}


def _keys(case: Case, entry: Entry) -> dict[str, Any]:
    stage, _ = args_of(entry, "stage", "layout")
    if stage == "probe":
        return _head_keys(entry)
    first = entry["id"].startswith("v1")
    pixels = (384 if entry["model"].endswith("384") else 224) if first else 256
    size = entry["model"].removesuffix("_384")
    if size not in _SIZES:
        raise CaseFault(f"table: {entry['id']} has the unknown model {entry['model']}")
    tokens = entry["args"].get("num_mask_tokens", 2)
    method: Any = _model(1 if first else 2, _SIZES[size], pixels, 12, tokens)
    network = "predictor" if entry["id"].endswith("predictor") else "encoder"
    part = method.predictor if network == "predictor" else method.student
    unused = {id(method.get_parameter(name)) for name in method.unused_parameters()}
    published = method.export_reference()
    return {
        "keys": {
            name.removeprefix(f"{network}."): list(tensor.shape)
            for name, tensor in published.items()
            if name.startswith(f"{network}.")
        },
        "params": sum(p.numel() for p in part.parameters()),
        "trainable": sum(
            p.numel() for p in part.parameters() if p.requires_grad or id(p) in unused
        ),
    }


def _head_keys(entry: Entry) -> dict[str, Any]:
    depth, heads, classes = args_of(entry, "depth", "num_heads", "num_classes")
    width = _SIZES[entry["model"]][0]
    pooler = {"depth": depth, "heads": heads}
    method = attentive_probes.probe(width, pooler, classes, meta=True)
    own = {n: list(t.shape) for n, t in method.state_dict().items()}
    lead = "module."  # these were trained in parallel
    keys = {lead + method.pooler.published.published(name): shape for name, shape in own.items()}
    stored = entry.get("expected", {}).get("keys", {})
    # Importing drops what published code stores but never reads; the counts include it.
    unread = {
        name: shape
        for name, shape in stored.items()
        if name.removeprefix(lead).startswith(method.pooler.unread)
    }
    count = sum(math.prod(shape) for shape in [*keys.values(), *unread.values()])
    return {"keys": keys | unread, "params": count, "trainable": count}


masks = table({"multiblock3d": _multiblock})
mask_statistics = table({"multiblock3d": _statistics})
rotary = table({"rope": _rope})
positions = table({"sincos": _sincos})
schedules = table({"warmup-cosine": _schedules, "linear": _schedules})
clips = table({"clip_indices": _clips})
groups = table({"weight_decay_split": _groups})
keys = table({"state_dict": _keys})
