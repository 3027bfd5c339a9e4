"""Infer the architecture of a published vision transformer from its tensors.

Shapes determine every size except the number of attention heads.

Letters: D width, C channels, p patch size, N patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.tokens import sincos_2d

_HEADS = {768: 12, 1024: 16, 1280: 16, 1408: 16}  # encoder width -> heads of the released models
_DECODER_HEADS = {512: 16}  # every released decoder
_HEAD_WIDTH = {"encoder": 64, "decoder": 32}  # width of a head, for widths not in the tables


@dataclass(frozen=True)
class Hints:
    """Facts that the tensors do not show.

    Attributes:
        heads, decoder_heads: given by the user; they override the tables.
        likely_heads, likely_decoder_heads: those of the model that the weights are for; used if
            neither the file nor the tables have them.
        image_size: (H, W) in pixels, needed for grids that are neither square nor sin-cos.
        facts: the training settings found in the file.
        entry: the network to read from a checkpoint with several.
    """

    heads: int | None = None
    decoder_heads: int | None = None
    likely_heads: int | None = None
    likely_decoder_heads: int | None = None
    image_size: tuple[int, int] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    entry: str | None = None


@dataclass(frozen=True)
class Architecture:
    """Recipe keys below ``model.``, and notes on what was assumed for them."""

    keys: dict[str, Any]
    assumed: list[str]


def infer_encoder(tensors: Mapping[str, Tensor], hints: Hints) -> Architecture:
    """``encoder.*`` keys from a state with timm's names.

    Raises:
        UserError: tensors of the wrong rank, or a size that cannot be inferred.
    """
    kernel = of_rank(tensors, "patch_embed.proj.weight", 4)  # (D, C, p, p)
    width, channels, patch = kernel.shape[0], kernel.shape[1], kernel.shape[2]
    if kernel.shape[3] != patch:
        raise UserError(f"patches of {patch} x {kernel.shape[3]} pixels: only square ones work")
    table = of_rank(tensors, "pos_embed", 3)  # (1, C + N, D)
    class_tokens = of_rank(tensors, "cls_token", 3).shape[1] if "cls_token" in tensors else 0
    rows, columns = grid_of(table, patch, hints, class_tokens)
    heads, assumed = heads_of("encoder", width, hints)
    hidden = of_rank(tensors, "blocks.0.mlp.fc1.weight", 2).shape[0]
    size = (rows * patch, columns * patch)
    keys = {
        "image_size": size[0] if size[0] == size[1] else list(size),
        "patch_size": patch,
        "in_channels": channels,
        "width": width,
        "depth": count_blocks(tensors, "blocks."),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
        **norm_eps(hints),
        **({} if class_tokens == 1 else {"class_tokens": class_tokens}),
    }
    return Architecture({f"encoder.{key}": value for key, value in keys.items()}, assumed)


def infer_decoder(tensors: Mapping[str, Tensor], hints: Hints) -> Architecture:
    """``decoder.*`` keys from a state with MAE's names; errors as :func:`infer_encoder`."""
    width = of_rank(tensors, "decoder_embed.weight", 2).shape[0]
    hidden = of_rank(tensors, "decoder_blocks.0.mlp.fc1.weight", 2).shape[0]
    heads, assumed = heads_of("decoder", width, hints)
    keys = {
        "width": width,
        "depth": count_blocks(tensors, "decoder_blocks."),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
    }
    return Architecture({f"decoder.{key}": value for key, value in keys.items()}, assumed)


def norm_eps(hints: Hints) -> dict[str, float]:
    """The key of the layer norms' epsilon, if the file's settings have it."""
    eps = hints.facts.get("norm_eps")
    return {"norm_eps": eps} if isinstance(eps, float) and eps > 0 else {}


def of_rank(tensors: Mapping[str, Tensor], name: str, rank: int) -> Tensor:
    """A required tensor, which must have ``rank`` axes, none of them empty."""
    tensor = tensors.get(name)
    if tensor is None:
        raise UserError(f"tensor {name} is missing")
    if tensor.ndim != rank or 0 in tensor.shape:
        raise UserError(f"tensor {name} has shape {tuple(tensor.shape)}, expected {rank} axes")
    return tensor


def count_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks; comparing the names later checks that they are 0 to depth - 1."""
    blocks = (name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
    return len({block.partition(".")[0] for block in blocks})


def mlp_ratio(hidden: int, width: int) -> float:
    """The ratio for which ``int(ratio * width)`` is ``hidden``."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def grid_of(table: Tensor, patch: int, hints: Hints, class_tokens: int = 1) -> tuple[int, int]:
    """Rows and columns of patches.

    A fixed sin-cos table determines its grid. A trained table is assumed to be square, unless the
    user or the file gives an image size.
    """
    count = table.shape[1] - class_tokens
    size = hints.image_size or _stored_size(hints.facts)
    if size is not None:
        rows, columns = size[0] // patch, size[1] // patch
        if rows * columns == count:
            return rows, columns
        if size == hints.image_size:
            raise UserError(
                f"image size {size[0]} x {size[1]} makes {rows * columns} patches of {patch} "
                f"pixels, pos_embed holds {count}"
            )
    side = math.isqrt(count)
    pairs = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    for grid in sorted(pairs, key=lambda pair: abs(pair[0] - side)):
        if table.shape[2] % 4 == 0 and _is_sincos(table[0, class_tokens:], grid):
            return grid
    if side * side == count and count > 0:
        return side, side
    raise UserError(
        f"pos_embed holds {count} trained positions, not a square number: give --image-size"
    )


def _stored_size(facts: Mapping[str, Any]) -> tuple[int, int] | None:
    size = facts.get("input_size")
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(s, int) for s in size):
        return size[0], size[1]
    return None


def _is_sincos(table: Tensor, grid: tuple[int, int]) -> bool:
    return torch.allclose(table, sincos_2d(table.shape[1], grid), rtol=0, atol=1e-3)


def heads_of(
    part: str, width: int, hints: Hints, released: Mapping[int, int] | None = None
) -> tuple[int, list[str]]:
    """Heads from the first of: the user, the file's settings, the tables, the model, a guess.

    Args:
        released: width -> heads of the family's released models; ``None``: those of MAE.
    """
    encoder = part == "encoder"
    fact = hints.facts.get("num_heads" if encoder else "decoder_num_heads")
    known = [
        hints.heads if encoder else hints.decoder_heads,
        fact if isinstance(fact, int) else None,
        (released or (_HEADS if encoder else _DECODER_HEADS)).get(width),
        hints.likely_heads if encoder else hints.likely_decoder_heads,
    ]
    for heads in known:
        if heads is not None:
            if heads < 1 or width % heads:
                raise UserError(f"{heads} attention heads do not divide {part} width {width}")
            return heads, []
    size = _HEAD_WIDTH[part]
    if width % size == 0:
        why = f"{part} heads {width // size} assumed (width {width} / {size})"
        return width // size, [why]
    option = "--heads" if encoder else "--decoder-heads"
    raise UserError(f"no tensor shows the attention heads of {part} width {width}: give {option}")
