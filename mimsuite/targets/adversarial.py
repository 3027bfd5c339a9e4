"""Adversarial losses, their balance with other losses, and augmentation of what is judged.

Hinge and vanilla losses as in VQGAN (Esser et al., arXiv:2012.09841, section 3.1), DiffAugment of
Zhao et al. (arXiv:2006.10738). Letters: B batch, L logits per image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def judge_loss(real: Tensor, fake: Tensor, kind: str = "hinge") -> Tensor:
    """The discriminator's loss of logits (B, L); ``kind`` is ``hinge`` or ``vanilla``."""
    if kind == "hinge":
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """The generator's loss of logits (B, L)."""
    return -fake.mean()


def accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """Share of positions at which the real image has the higher logit."""
    return (real > fake).float().mean()


def adaptive_weight(base: Tensor, added: Tensor, weight: Tensor, largest: float = 1e4) -> Tensor:
    """Factor that gives both losses gradients of the same norm at ``weight``; 0-d, no gradient.

    Args:
        weight: the last layer; both graphs are kept for a further backward pass.
        largest: the factor is clamped to [0, largest].
    """
    (own,) = torch.autograd.grad(base, weight, retain_graph=True)
    (other,) = torch.autograd.grad(added, weight, retain_graph=True)
    return (own.norm() / (other.norm() + 1e-6)).clamp(0.0, largest).detach()


def eight_bit(images: Tensor) -> Tensor:
    """Images in [-1, 1], clamped and rounded to the 256 values of a picture file."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def augmented(images: Tensor, draws: Tensor, cutout: float = 0.0) -> Tensor:
    """Shifted and recoloured images (B, 3, H, W), each by its own draws; differentiable.

    Args:
        draws: (B, 7) in [0, 1): rows, columns, brightness, saturation, contrast, and the centre of
            the erased square.
        cutout: side of the erased square as a share of the image's.
    """
    rows, columns, brightness, saturation, contrast, *centre = draws.T
    images = _shifted(images, rows, columns)
    images = images + (brightness - 0.5).view(-1, 1, 1, 1)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2 * saturation).view(-1, 1, 1, 1) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (contrast + 0.5).view(-1, 1, 1, 1) + mean
    return _erased(images, centre[0], centre[1], cutout) if cutout else images


def _shifted(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Each image moved by up to an eighth of its side; zeros come in."""
    row, row_inside = _positions(rows, images.shape[2])
    column, column_inside = _positions(columns, images.shape[3])
    index = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[index, row[:, :, None], column[:, None, :]]  # (B, H, W, C)
    inside = (row_inside[:, :, None] & column_inside[:, None, :])[..., None]
    return (moved * inside).permute(0, 3, 1, 2)


def _positions(draw: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(B, size) positions that are read, and whether they are inside the image."""
    furthest = round(size * 0.125)
    shift = (draw * (2 * furthest + 1)).floor().long() - furthest
    at = torch.arange(size, device=draw.device)[None] + shift[:, None]
    return at.clamp(0, size - 1), (at >= 0) & (at < size)


def _erased(images: Tensor, rows: Tensor, columns: Tensor, cutout: float) -> Tensor:
    """Images with a square of zeros."""
    row, column = (
        _covered(draw, size, cutout)
        for draw, size in zip((rows, columns), images.shape[2:], strict=True)
    )
    return images * ~(row[:, None, :, None] & column[:, None, None, :])


def _covered(draw: Tensor, size: int, cutout: float) -> Tensor:
    """(B, size) whether a row or column is in the square."""
    side = round(size * cutout)
    first = (draw * (size + 1 - side % 2)).floor().long() - side // 2
    at = torch.arange(size, device=draw.device)[None]
    return (at >= first[:, None]) & (at < first[:, None] + side)
