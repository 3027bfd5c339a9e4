"""How much of a dictionary's error is a linear function of its input (arXiv:2410.14670)."""

from __future__ import annotations

import torch
from torch import Tensor


def least_squares(x: Tensor, y: Tensor) -> Tensor:
    """(D, E) b that brings ``x`` (N, D) times b nearest to ``y`` (N, E)."""
    return torch.linalg.lstsq(x, y, rcond=1e-9, driver="gelsd").solution


def linear_r2(x: Tensor, y: Tensor, fit: int) -> tuple[float, Tensor]:
    """Explained share of ``y`` by ``x``, fitted on the first rows and measured on the others.

    Args:
        x: (N, D), y: (N, E); shuffled by the caller, with a column of ones where wanted.
        fit: rows to fit on.

    Returns:
        mean over the columns of y of 1 - squared residual / variance, and the solution (D, E).
    """
    solution = least_squares(x[:fit], y[:fit])
    held, told = y[fit:], x[fit:] @ solution
    left = (held - told).square().sum(dim=0)
    around = (held - held.mean(dim=0)).square().sum(dim=0)
    return float((1 - left / around).mean()), solution


def dark_matter(x: Tensor, error: Tensor, seed: int = 0) -> dict[str, float] | None:
    """Linearly predictable shares of an error.

    Args:
        x: (N, D) input rows; error: (N, D) input less output.

    Returns:
        ``error``: of its vectors; ``error_norm``: of its squared norms; ``input_norm``: of the
        squared norm of the input, as a control. Half of the rows fit, the others measure. ``None``
        where these are too few: below 4 a dimension.
    """
    count, width = x.shape
    if count < 8 * width:
        return None
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    x, error = x[order].double(), error[order].double()
    given = torch.cat([x, x.new_ones(count, 1)], dim=1)  # rows are centred only nearly
    wanted = {
        "error": error,
        "error_norm": error.square().sum(dim=1, keepdim=True),
        "input_norm": x.square().sum(dim=1, keepdim=True),
    }
    return {name: linear_r2(given, y, count // 2)[0] for name, y in wanted.items()}
