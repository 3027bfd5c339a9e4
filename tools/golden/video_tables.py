"""Tables of the VideoMAE family: masks, positions, which frames and crops become clips."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from golden.case import Case, CaseFault
from golden.results import Results
from golden.tables import table
from golden.video_groups import layer_decay
from mimsuite.config.keys.masks import ClipMaskSection
from mimsuite.config.keys.shared import ScheduleSection
from mimsuite.data.video import clip_geometry, clip_indices
from mimsuite.masking.running_cell import running_cell
from mimsuite.schedule import rate_at
from mimsuite.tokens import sinusoid_1d

Entry = dict[str, Any]
Group = Callable[[Case, Entry], dict[str, Any]]


def _table(groups: dict[str, Group]) -> Callable[[Case], Results]:
    checked: Callable[[Case], Results] = table({name: _checked(groups[name]) for name in groups})
    return checked


def _checked(group: Group) -> Group:
    """A missing argument is the case's fault."""

    def fields(case: Case, entry: Entry) -> dict[str, Any]:
        try:
            return group(case, entry)
        except KeyError as missing:
            raise CaseFault(f"table: {entry['id']} has no args.{missing.args[0]}") from None

    return fields


# --- masks ----------------------------------------------------------------------------------------


def _hidden(kind: str) -> Group:
    """Counts; which places are drawn needs the generator of the published code."""

    def fields(case: Case, entry: Entry) -> dict[str, Any]:
        args = entry["args"]
        frames, rows, columns = args["window"]
        section = ClipMaskSection(kind=kind, ratio=args["mask_ratio"])
        return {"masked": section.hidden(rows * columns * (frames if kind == "spacetime" else 1))}

    return fields


def _cell(case: Case, entry: Entry) -> dict[str, Any]:
    args, name = entry["args"], entry["id"]
    maps = running_cell(tuple(args["window"]), args["mask_ratio"])
    maps = maps.unflatten(1, tuple(args["window"])).byte()
    phases = case.input(f"{name}_phase").long()
    masked = int(maps[0, 0, :2, :2].sum())
    return {"masked": masked, "tensors": {f"{name}_all": maps, f"{name}_draws": maps[phases]}}


def _sinusoid(case: Case, entry: Entry) -> dict[str, Any]:
    case.hparams.only("temperature", 10000.0)
    args = entry["args"]
    table = sinusoid_1d(args["num_tokens"], args["dim"])
    names = entry.get("expected", {}).get("tensors", [entry["id"]])
    return {"tensors": dict.fromkeys(names, table)}


# --- frames ---------------------------------------------------------------------------------------


class _LegacyDraws:
    """numpy's legacy generator, which the published code draws from, behind today's face."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def integers(self, low: int, high: int | None = None, size: int | None = None) -> Any:
        return self._state.randint(low, high, size)


def _clip(case: Case, entry: Entry) -> dict[str, Any]:
    args = entry["args"]
    (start,) = args["start_1based"]
    frames = clip_indices.clip_from(
        args["num_video_frames"], args["sampling_rate"], start - 1, args["skip_offsets"]
    )
    return {"frame_ids": frames}


def _draws(args: dict[str, Any]) -> Any:
    return _LegacyDraws(args["np_seed"]) if args["mode"] == "train" else None


def _dense(case: Case, entry: Entry) -> dict[str, Any]:
    args = entry["args"]
    total, length, stride = (args[k] for k in ("num_video_frames", "clip_len", "sampling_rate"))
    return {"frame_ids": clip_indices.dense(total, length, stride, _draws(args))}


def _segments(case: Case, entry: Entry) -> dict[str, Any]:
    args = entry["args"]
    total, length = args["num_video_frames"], args["num_segments"]
    if args["mode"] == "test":
        clips = clip_indices.test_segments(total, length, args["test_num_segment"])
        frames = sorted(i for clip in clips for i in clip)
    else:
        frames = clip_indices.segments(total, length, _draws(args))
    return {"frame_numbers": [frame + args["start_idx"] for frame in frames]}


def _test_dense(case: Case, entry: Entry) -> dict[str, Any]:
    args = entry["args"]
    total, length, stride = (args[k] for k in ("num_video_frames", "clip_len", "sampling_rate"))
    return {"decoded_ids": clip_indices.test_frames(total, length, stride)}


def _test_sparse(case: Case, entry: Entry) -> dict[str, Any]:
    args = entry["args"]
    total, length = args["num_video_frames"], args["num_segment"]
    clips = clip_indices.test_segments(total, length, args["test_num_segment"])
    return {"decoded_ids": sorted(i for clip in clips for i in clip)}


def _test_views(case: Case, entry: Entry) -> dict[str, Any]:
    args = entry["args"]
    if args.get("sparse"):
        clips = clip_indices.test_segments(args["n"], args["num_segment"], args["tns"])
    else:
        clips = clip_indices.test_clips(args["n"], args["clip_len"], args["rate"], args["tns"])
    boxes = clip_geometry.test_boxes(
        args["Hh"], args["W"], (args["short"], args["short"]), args["tnc"]
    )
    return {
        "views": [
            {
                "chunk": chunk,
                "split": split,
                "frame_ids": frames,
                "y0": box.top,
                "x0": box.left,
                "crop_h": box.height,
                "crop_w": box.width,
            }
            for chunk, frames in enumerate(clips)
            for split, box in enumerate(boxes)
        ]
    }


def _multi_scale(case: Case, entry: Entry) -> dict[str, Any]:
    args = entry["args"]
    (width, height), size = args["image_wh"], (args["input_size"], args["input_size"])
    sizes = clip_geometry.box_sizes(height, width, size)

    def places(box: tuple[int, int]) -> list[list[int]]:
        return [[left, top] for top, left in clip_geometry.box_places(height, width, *box)]

    draws, rng = [], random.Random(args["py_seed"])
    for _ in entry.get("expected", {}).get("draws_w_h_xoff_yoff", range(12)):
        box = rng.choice(sizes)
        draws.append([box[1], box[0], *rng.choice(places(box))])
    return {
        "pairs_wh": [[w, h] for h, w in sizes],
        "offsets_for_first_pair": places(sizes[0]),
        "offsets_for_last_pair": places(sizes[-1]),
        "draws_w_h_xoff_yoff": draws,
    }


def _cosine(case: Case, entry: Entry) -> dict[str, Any]:
    args = entry["args"]
    steps, epochs = args["niter_per_ep"], args["epochs"]
    warmup = args.get("warmup_steps")
    section = ScheduleSection(
        kind="cosine-per-step",
        epochs=epochs,
        warmup_epochs=args.get("warmup_epochs", 0) if warmup in (None, -1) else warmup / steps,
        min_lr=args["final_value"],
    )
    rates = [rate_at(section, args["base_value"], step, steps) for step in range(epochs * steps)]
    return {"values": rates}


masks = _table({"tube": _hidden("tube"), "random": _hidden("spacetime"), "running_cell": _cell})
sinusoids = _table({"sinusoid_1d": _sinusoid})
sampling = _table(
    {
        "pretrain": _clip,
        "finetune_dense": _dense,
        "test_dense": _test_dense,
        "test_sparse": _test_sparse,
        "rawframe": _segments,
        "test_views": _test_views,
        "multiscale_crop": _multi_scale,
        "cosine_schedule": _cosine,
        "layer_decay": layer_decay,
    }
)
