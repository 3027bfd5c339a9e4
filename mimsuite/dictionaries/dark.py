"""Share of a dictionary's error that is a linear function of its input (arXiv:2410.14670)."""

from __future__ import annotations

import torch
from torch import Tensor


def least_squares(x: Tensor, y: Tensor) -> Tensor:
    """(D, E) least-squares solution b of ``x @ b = y`` for x (N, D) and y (N, E)."""
    return torch.linalg.lstsq(x, y, rcond=1e-9, driver="gelsd").solution


def linear_r2(x: Tensor, y: Tensor, fit: int) -> tuple[float, Tensor]:
    """R^2 of a linear regression of ``y`` on ``x``: fitted on the first rows, scored on the rest.

    Args:
        x, y: (N, D) and (N, E), shuffled by the caller; x has a column of ones if needed.
        fit: number of rows to fit.

    Returns:
        mean over the columns of y of 1 - squared residual / variance, and the solution (D, E).
    """
    solution = least_squares(x[:fit], y[:fit])
    held, predicted = y[fit:], x[fit:] @ solution
    left = (held - predicted).square().sum(dim=0)
    around = (held - held.mean(dim=0)).square().sum(dim=0)
    return float((1 - left / around).mean()), solution


def dark_matter(x: Tensor, error: Tensor, seed: int = 0) -> dict[str, float] | None:
    """Linearly predictable shares (R^2) of a dictionary's error, given its input.

    Args:
        x: (N, D) input rows.
        error: (N, D) input minus output.

    Returns:
        R^2 of the error vectors (``error``), of their squared norms (``error_norm``) and, as a
        control, of the squared norms of the input (``input_norm``). One half of the rows is fitted,
        the other half scored. ``None`` where either has fewer than 4 rows per dimension.
    """
    count, width = x.shape
    if count < 8 * width:
        return None
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    x, error = x[order].double(), error[order].double()
    inputs = torch.cat([x, x.new_ones(count, 1)], dim=1)  # rows are only nearly centred
    targets = {
        "error": error,
        "error_norm": error.square().sum(dim=1, keepdim=True),
        "input_norm": x.square().sum(dim=1, keepdim=True),
    }
    return {name: linear_r2(inputs, y, count // 2)[0] for name, y in targets.items()}
