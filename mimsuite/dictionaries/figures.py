"""Metrics of rows, codes and atoms.

Letters: B rows, D width, C codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-6


def r2(x: Tensor, output: Tensor) -> Tensor:
    """Explained share of the variance about ONE mean of all entries, as in published figures.

    It also counts what a constant offset per dimension explains.
    """
    return 1 - (x - output).square().mean() / ((x - x.mean()).square().mean() + _EPS)


def explained_variance(x: Tensor, output: Tensor) -> Tensor:
    """Explained share of the variance about the mean of each dimension."""
    return 1 - (x - output).square().sum() / (x - x.mean(dim=0)).square().sum()


def row_errors(x: Tensor, output: Tensor, order: int = 2) -> Tensor:
    """(B,) norm of the residual."""
    return (x - output).norm(p=order, dim=1)


def relative_errors(x: Tensor, output: Tensor, order: int = 2) -> Tensor:
    """(B,) norm of the residual divided by the norm of the row."""
    return row_errors(x, output, order) / (x.norm(p=order, dim=1) + _EPS)


def share_used(codes: Tensor, smallest: float = 0.0) -> Tensor:
    """(C,) share of the rows whose code is nonzero, or at least ``smallest`` in magnitude."""
    used = codes.abs() >= smallest if smallest else codes != 0
    return used.float().mean(dim=0)


def l1_l2_ratio(codes: Tensor) -> Tensor:
    """(B,) L1 over L2 norm: 1 for rows with one code, sqrt(C) for rows of equal codes."""
    return codes.norm(p=1, dim=1) / (codes.norm(dim=1) + _EPS)


def hoyer(codes: Tensor) -> Tensor:
    """(B,) Hoyer's sparseness in [0, 1]: 1 for rows with one code."""
    root = codes.shape[1] ** 0.5
    return (root - l1_l2_ratio(codes)) / (root - 1)


def kappa(codes: Tensor) -> Tensor:
    """(B,) fourth moment over the squared second moment: 1 for rows with one code."""
    return codes.pow(4).sum(dim=1) / (codes.square().sum(dim=1).square() + _EPS)


def dead(codes: Tensor) -> Tensor:
    """(C,) 1 where the sum of a code over all rows is 0."""
    return (codes.sum(dim=0) == 0).float()


def energy(codes: Tensor, atoms: Tensor) -> Tensor:
    """(C,) magnitude of the mean code times the norm of its atom."""
    return codes.mean(dim=0).abs() * atoms.norm(dim=1)


def collinearity(atoms: Tensor) -> Tensor:
    """Largest absolute cosine between two atoms."""
    unit = torch.nn.functional.normalize(atoms, dim=1)
    return (unit @ unit.T).fill_diagonal_(0).abs().max()


def correlation(codes: Tensor) -> Tensor:
    """Largest absolute correlation between two codes."""
    centred = codes - codes.mean(dim=0)
    covariance = centred.T @ centred / (len(codes) - 1)
    deviation = codes.std(dim=0)
    correlations = covariance / (torch.outer(deviation, deviation) + _EPS)
    return correlations.fill_diagonal_(0).abs().max()


def wasserstein(first: Tensor, second: Tensor) -> Tensor:
    """Wasserstein-1 distance of two sets of rows, averaged over columns."""
    return (first.sort(dim=0).values - second.sort(dim=0).values).abs().mean()


def frechet(first: Tensor, second: Tensor) -> Tensor:
    """Fréchet distance between normal distributions fitted to two sets of rows."""
    covariances = torch.cov(first.T) @ torch.cov(second.T)
    between = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    spread = torch.cov(first.T).trace() + torch.cov(second.T).trace()
    return between + spread - 2 * torch.linalg.eigvals(covariances).sqrt().real.sum()
