"""Codes of whole images, pooled over their patches.

Letters: N images, B batch, T patches, D width, C codes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mimsuite.data import views_of
from mimsuite.data.source import Source
from mimsuite.dictionaries.stored import Stored
from mimsuite.errors import DataError, UserError
from mimsuite.evaluate.features import normalized_batches
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved

POOLS = ("max", "mean")


@dataclass(frozen=True)
class Codes:
    """Codes of images in source order, stored sparse.

    Attributes:
        counts: (N,) int64 number of nonzero codes per image.
        indices: int32 ids of the nonzero codes, ascending, image after image.
        values: float32 values of the nonzero codes.
        size: C.
        labels: (N,) int64, -1 = unlabelled; ``None`` where the source has no labels.
        keys: N sample names.
    """

    counts: Tensor
    indices: Tensor
    values: Tensor
    size: int
    labels: Tensor | None
    keys: list[str]
    classes: list[str] | None

    def table(self) -> Tensor:
        """(N, C) float32, zeros included."""
        rows = torch.repeat_interleave(torch.arange(len(self.keys)), self.counts)
        table = torch.zeros(len(self.keys), self.size)
        table[rows, self.indices.long()] = self.values
        return table


def encode_images(
    method: Method,
    stored: Stored,
    source: Source,
    resolved: Resolved,
    device: torch.device,
    pool: str = "max",
) -> Codes:
    """Code every image once.

    Args:
        method: in eval mode, on the device.
        pool: ``max`` over patches, or ``mean`` over the patches in which the code is nonzero.

    Raises:
        UserError: the dictionary is for another width or layer, or the pooling is unknown.
        DataError: the source has no sample.
    """
    if pool not in POOLS:
        raise UserError(f"--pool {pool}: codes are pooled by {' or '.join(POOLS)}")
    depth, layer = method.layer_count() - 1, stored.facts["layer"]
    if not 1 <= layer <= depth:
        raise UserError(f"--dictionary is for block {layer}, this encoder has blocks 1 to {depth}")
    stored = stored.to(device)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    labels: list[Tensor] = []
    keys: list[str] = []
    views = views_of(resolved.recipe)
    with torch.inference_mode():
        for batch in normalized_batches(source, resolved, device, views=views):
            tokens = _tokens(method, batch, layer, depth)
            if tokens.shape[2] != stored.facts["width"]:
                raise UserError(
                    f"--dictionary is for features of width {stored.facts['width']}, this "
                    f"encoder's have {tokens.shape[2]}"
                )
            parts.append(_sparse(_pooled(stored.encode(tokens), pool).cpu()))
            if batch.label is not None:
                labels.append(batch.label.cpu())
            keys += batch.keys
    if not keys:
        raise DataError(f"{source.name} has no sample in split '{source.split}'")
    counts, indices, values = (torch.cat(part) for part in zip(*parts, strict=True))
    label = torch.cat(labels) if labels else None
    size = int(stored.facts["target"]["codes"])
    return Codes(counts, indices, values, size, label, keys, source.classes)


def save_codes(codes: Codes, path: Path, facts: dict[str, Any], *, dense: bool) -> list[Path]:
    """Write codes for other tools.

    ``path`` (safetensors) holds ``indptr`` (N + 1,) int64, ``indices`` int32 and ``values`` float32
    in compressed sparse rows, the layout of scipy.sparse.csr_matrix; with ``dense`` it holds one
    table ``features`` (N, C) float32. ``labels`` (N,) int64 are added where known. A .json file
    next to it holds keys, class names, shape and the dictionary's facts.

    Returns:
        the two files.
    """
    from safetensors.torch import save_file

    if dense:
        tensors = {"features": codes.table()}
    else:
        indptr = torch.cat([torch.zeros(1, dtype=torch.int64), codes.counts.cumsum(0)])
        tensors = {"indptr": indptr, "indices": codes.indices, "values": codes.values}
    if codes.labels is not None:
        tensors["labels"] = codes.labels.contiguous()
    beside = path.with_suffix(".json")
    description = {
        "features": "codes",
        "shape": [len(codes.keys), codes.size],
        "dictionary": facts,
        "keys": codes.keys,
        "classes": codes.classes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata={"features": "codes"})
    beside.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return [path, beside]


def _tokens(method: Method, batch: Any, layer: int, depth: int) -> Tensor:
    """(B, T, D) patch features of a block."""
    features = method.encode(batch, layers=[layer] if layer != depth else [])
    if layer == depth:
        return features.tokens
    return features.layers[layer][:, features.cls.shape[1] :]


def _pooled(codes: Tensor, pool: str) -> Tensor:
    """(B, T, C) -> (B, C)."""
    if pool == "max":
        return codes.amax(dim=1)
    return codes.sum(dim=1) / (codes != 0).sum(dim=1).clamp(min=1)


def _sparse(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, indices and values of the nonzero entries of (B, C)."""
    rows, places = codes.nonzero(as_tuple=True)
    return torch.bincount(rows, minlength=len(codes)), places.int(), codes[rows, places].float()
