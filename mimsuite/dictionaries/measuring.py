"""Evaluation of a dictionary on held-out rows.

Letters: B rows, D width, C codes, T patches of an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.dictionaries.base import Dictionary
from mimsuite.dictionaries.dark import dark_matter
from mimsuite.dictionaries.figures import relative_errors
from mimsuite.dictionaries.pursuit import PursuitDictionary
from mimsuite.dictionaries.rows import Rows
from mimsuite.dictionaries.topk import TopKDictionary

_ROWS = 2048  # rows coded together
_DARK_ROWS = 40_000  # rows of the least squares, which need all in memory
_SMALLEST = 1e-6  # smaller codes count as 0


@dataclass(frozen=True)
class Use:
    """Usage of each code; all (C,).

    Attributes:
        share: share of rows with the code.
        mean: mean of the code over those rows.
        energy: magnitude of the mean code over all rows, times the norm of the atom.
    """

    share: Tensor
    mean: Tensor
    energy: Tensor


@torch.no_grad()
def measure(dictionary: Dictionary, rows: Rows) -> tuple[dict[str, float], Use]:
    """Metrics over all rows, and usage of the codes.

    Returns:
        ``explained_variance`` (about the mean of each dimension), ``r2`` (about one mean),
        ``relative_error``, ``l0`` (codes per row), ``unused_codes`` (share); and the usage.
    """
    atoms = dictionary.atoms()
    codes, width = atoms.shape
    used, sums = (torch.zeros(codes, dtype=torch.float64, device=atoms.device) for _ in "us")
    first, second = (torch.zeros(width, dtype=torch.float64, device=atoms.device) for _ in "12")
    squares = relative = 0.0
    for x in rows.batches(_ROWS):
        coded = dictionary(x)
        squares += float((x - coded.output).square().sum(dtype=torch.float64))
        relative += float(relative_errors(x, coded.output).sum())
        first += x.sum(dim=0, dtype=torch.float64)
        second += x.square().sum(dim=0, dtype=torch.float64)
        used += (coded.codes.abs() >= _SMALLEST).sum(dim=0)
        sums += coded.codes.sum(dim=0, dtype=torch.float64)
    count = len(rows)
    around = float((second - first.square() / count).sum())
    around_one = float(second.sum() - first.sum().square() / (count * width))
    figures = {
        "explained_variance": 1 - squares / max(around, 1e-12),
        "r2": 1 - squares / max(around_one, 1e-12),
        "relative_error": relative / count,
        "l0": float(used.sum() / count),
        "unused_codes": float((used == 0).double().mean()),
    }
    energy = (sums / count).abs() * atoms.norm(dim=1)
    use = Use((used / count).cpu(), (sums / used.clamp(min=1)).cpu(), energy.cpu())
    return figures, use


@torch.no_grad()
def dark_share(dictionary: Dictionary, rows: Rows, seed: int) -> dict[str, float] | None:
    """Linearly predictable shares of the error; see :func:`dark_matter`."""
    x = rows.some(_DARK_ROWS, seed)
    error = torch.cat([part - dictionary(part).output for part in x.split(_ROWS)])
    return dark_matter(x.cpu(), error.cpu(), seed)


def sparsity_curve(dictionary: Dictionary, rows: Rows, seed: int) -> dict[int, float]:
    """Codes per row -> explained variance, for kinds that can use any number of codes."""
    if not isinstance(dictionary, TopKDictionary | PursuitDictionary):
        return {}
    x = rows.some(8 * _ROWS, seed)
    around = float((x - x.mean(dim=0)).square().sum())
    curve, most = {}, dictionary.active
    for active in sorted({most, *(2**n for n in range(most.bit_length()))}):
        with _limited(dictionary, active), torch.no_grad():
            left = sum(float((p - dictionary(p).output).square().sum()) for p in x.split(_ROWS))
        curve[active] = 1 - left / max(around, 1e-12)
    return curve


@torch.no_grad()
def strongest_images(
    dictionary: Dictionary, rows: Rows, codes: Tensor, count: int
) -> list[list[int]]:
    """For each code, the images in which its maximum over patches is largest, the best first.

    Args:
        codes: (K,) ids of the codes.
        count: most images per code; images without the code are left out.
    """
    best = torch.zeros(rows.images, len(codes))
    images = max(_ROWS // rows.per_image, 1)
    for number, x in enumerate(rows.batches(images * rows.per_image)):
        z = dictionary.encode(x)[:, codes.to(x.device)]  # (b * T, K)
        top = z.unflatten(0, (-1, rows.per_image)).amax(dim=1).cpu()  # (b, K)
        best[number * images : number * images + len(top)] = top
    values, places = best.topk(min(count, rows.images), dim=0)
    return [
        [int(p) for p, v in zip(places[:, k], values[:, k], strict=True) if v > 0]
        for k in range(len(codes))
    ]


def nearest_codes(atoms: Tensor, codes: Tensor) -> list[tuple[int, float]]:
    """For each code, the other atom with the largest cosine, and that cosine."""
    unit = F.normalize(atoms.detach().float().cpu(), dim=1)
    likeness = unit[codes] @ unit.T
    likeness[torch.arange(len(codes)), codes] = -2
    values, places = likeness.max(dim=1)
    return list(zip(places.tolist(), values.tolist(), strict=True))


@contextmanager
def _limited(dictionary: Any, active: int) -> Iterator[None]:
    before, dictionary.active = dictionary.active, active
    try:
        yield
    finally:
        dictionary.active = before
