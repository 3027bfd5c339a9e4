"""Latents of a frozen encoder as WebDataset shards, for generative models trained elsewhere.

A sample is ``NUMBER.npy``, float16 (D, h, w), its image in ``NUMBER.key``, and its class
in ``NUMBER.cls`` where it is known. Each shard begins with a description, which webdataset skips;
``latents.json`` beside the shards adds the statistics of all of them. Shards are written whole or
not at all; a second run takes over those that are there.

Letters: B batch, N = h * w tokens, D width.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mimsuite.data.source import Source
from mimsuite.errors import DataError, UserError
from mimsuite.evaluate.features import normalized_batches
from mimsuite.files import write_atomic
from mimsuite.methods import Method, evaluating
from mimsuite.targets.latents import ExactStatistics

if TYPE_CHECKING:
    from mimsuite.config import Resolved

FACTS = "latents.json"
MEMBER = "__latents__/latents.json"
_RECORD = ".{}.json"  # sums of a finished shard, beside it


def write_latents(
    method: Method, source: Source, resolved: Resolved, out: Path, *, encoder: str, size: int = 1024
) -> dict[str, Any]:
    """Encode every image once, unmasked, and write its grid of tokens.

    Args:
        method: on the device to compute on.
        encoder: what the description names as the encoder.
        size: images of a shard.

    Returns:
        the description, as in ``latents.json``.

    Raises:
        UserError: ``out`` cannot be written, or holds latents of another encoder or recipe.
        DataError: no image could be read, or latents are not finite.
    """
    described = _described(method, source, resolved, encoder, size)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _begin(out, described)
        exact = ExactStatistics()
        names, kept = [], 0
        for number, first in enumerate(range(0, len(source), size)):
            name = f"{source.split}-{number:06d}.tar"
            found = _finished(out, name)
            if found is None:
                positions = range(first, min(len(source), first + size))
                found = _write(method, source, resolved, out / name, positions, described)
            else:
                kept += 1
            if found.count:
                names.append(name)
                exact.merge(found)
        if not exact.count:
            raise DataError(f"{source.name} has no sample in split '{source.split}'")
        facts = described | _facts(exact, names)
        write_atomic(out / FACTS, json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    return facts | {"kept": kept}


def _described(
    method: Method, source: Source, resolved: Resolved, encoder: str, size: int
) -> dict[str, Any]:
    augment = resolved.recipe.augment.model_dump(mode="json")
    return {
        "encoder": encoder,
        "recipe": resolved.name,
        "model": resolved.recipe.model.encoder.model_dump(mode="json"),
        "preprocessing": {k: augment[k] for k in ("mean", "std", "eval_resize") if k in augment},
        "layout": "float16 (D, h, w)",
        "source": source.name,
        "split": source.split,
        "images": len(source),
        "per_shard": size,
    }


def _begin(out: Path, described: dict[str, Any]) -> None:
    """Refuse a folder of other latents; otherwise say what will be in it."""
    plan, text = out / ".latents", json.dumps(described, sort_keys=True)
    if plan.exists() and plan.read_text(encoding="utf-8") != text:
        raise UserError(f"{out} holds latents of another encoder or source: name another folder")
    if not plan.exists() and any(out.iterdir()):
        raise UserError(f"{out} is there already and not empty: name a new folder")
    write_atomic(plan, text)


def _finished(out: Path, name: str) -> ExactStatistics | None:
    """Sums of a shard that is written already."""
    try:
        record = json.loads((out / _RECORD.format(name)).read_bytes())
        whole = not record["count"] or (out / name).stat().st_size == record["bytes"]
        return ExactStatistics.restored(record) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(
    method: Method,
    source: Source,
    resolved: Resolved,
    path: Path,
    positions: range,
    described: dict[str, Any],
) -> ExactStatistics:
    """Write one shard and its record; channels are summed over images and places."""
    sums = ExactStatistics()
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                _add(tar, MEMBER, json.dumps(described).encode())
                for key, label, latent in _latents(method, source, resolved, positions):
                    number = f"{positions.start + sums.count // latent[0].size:09d}"
                    content = io.BytesIO()
                    np.save(content, latent)
                    _add(tar, f"{number}.npy", content.getvalue())
                    _add(tar, f"{number}.key", key.encode("utf-8", "surrogateescape"))
                    if label is not None:
                        _add(tar, f"{number}.cls", str(label).encode())
                    rows = torch.from_numpy(latent.astype(np.float32)).flatten(1).T
                    sums.add(rows)  # (h * w, D)
            file.flush()
            os.fsync(file.fileno())
        if sums.count:
            temporary.replace(path)
        stored = path.stat().st_size if sums.count else 0
        write_atomic(
            path.with_name(_RECORD.format(path.name)),
            json.dumps(sums.as_dict() | {"bytes": stored}),
        )
    finally:
        temporary.unlink(missing_ok=True)
    return sums


def _latents(
    method: Method, source: Source, resolved: Resolved, positions: range
) -> Iterator[tuple[str, int | None, np.ndarray]]:
    """Key, class and (D, h, w) float16 latent of each image that can be read."""
    device = next(method.parameters()).device
    rows, columns = resolved.recipe.model.encoder.grid
    with torch.inference_mode(), evaluating(method):
        for batch in normalized_batches(source, resolved, device, positions):
            tokens = method.encode(batch).tokens.float().cpu()  # (B, N, D)
            if not tokens.isfinite().all():
                raise DataError(f"{source.name}: latents are not finite: weights are damaged")
            if tokens.shape[1] != rows * columns:
                raise UserError(
                    f"{resolved.recipe.method.name} gives {tokens.shape[1]} tokens, no grid of "
                    f"{rows} x {columns}: leave out --shards"
                )
            maps = tokens.transpose(1, 2).unflatten(2, (rows, columns)).half().numpy()
            classes = [None] * len(maps) if batch.label is None else batch.label.tolist()
            for key, label, latent in zip(batch.keys, classes, maps, strict=True):
                known = isinstance(label, int) and label >= 0
                yield key, label if known else None, latent


def _facts(exact: ExactStatistics, names: list[str]) -> dict[str, Any]:
    found = exact.statistics()
    assert found.mean is not None
    assert found.variance is not None
    return {
        "shards": names,
        "count": exact.count,  # places of all images
        "mean": found.mean.tolist(),  # one per channel
        "std": found.variance.sqrt().tolist(),
    }


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # fixed times and owners: equal input gives equal bytes
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
