"""Class labels as targets: smoothing, mixup, cutmix and the cross-entropy of soft targets.

Conventions are timm's (label smoothing ``off = s / K``, ``on = 1 - s + off``; one of mixup
(arXiv:1710.09412) or cutmix (arXiv:1905.04899) a draw; the cutmix share corrected to the pixels
that were really pasted), in its ``pair`` mode: two neighbours of a batch are mixed with each other,
each pair with a draw of its own. Neighbours, and not timm's mirror image of the batch, since then
the result is the same however a global batch is cut into micro-batches of even size.

Letters: B batch, K classes, H x W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

_BETA_NODES = 1 << 14
_BETA_STEP = math.pi / 2 / _BETA_NODES


def soft_targets(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """(B,) int64 class ids -> (B, K) float32 rows that sum to 1.

    A label outside of ``range(classes)`` gives a row of NaN, so that it is never learnt silently.
    """
    off = smoothing / classes
    one_hot = labels[:, None] == torch.arange(classes, device=labels.device)
    rows = torch.where(one_hot, 1.0 - smoothing + off, off)
    return rows.masked_fill(~one_hot.any(1, keepdim=True), math.nan)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of ``-sum(target * log_softmax(logits))``, in float32; both (B, K)."""
    return -(target * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()


@dataclass(frozen=True)
class PairMix:
    """Mixes neighbours (rows 0 and 1, 2 and 3, ...) of a batch.

    Attributes:
        mixup: both parameters of the Beta distribution of the mixup share; 0 = no mixup.
        cutmix: likewise of cutmix; 0 = no cutmix.
        switch: probability of cutmix where both are on.
        prob: probability that a pair is mixed at all.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    switch: float = 0.5
    prob: float = 1.0

    NOISE: ClassVar[int] = 4  # uniform numbers a sample; a pair uses those of its first row

    @property
    def active(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def __call__(self, images: Tensor, target: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images and targets; the inputs stay as they are.

        Args:
            images: (B, C, H, W) float, B even; or (B, C, T, H, W) clips, mixed alike in all frames.
            target: (B, K) float.
            uniform: (B, 4) keyed noise: choice, share, box row, box column.

        Raises:
            ValueError: an odd batch.
        """
        if len(images) % 2:
            raise ValueError(f"mixup and cutmix pair up samples: {len(images)} is odd")
        shape = images.shape
        images = images.flatten(1, -3)
        choice, share, row, column = uniform[0::2].repeat_interleave(2, dim=0).unbind(1)  # (B,)
        use_cutmix = choice < self.prob * self._cutmix_probability()
        own = torch.where(use_cutmix, beta(share, self.cutmix), beta(share, self.mixup))
        own = torch.where(choice < self.prob, own, 1.0)
        height, width = images.shape[-2:]
        box = cutmix_box(own, row, column, height, width) & use_cutmix.view(-1, 1, 1)  # (B, H, W)
        pasted = box.float().mean(dim=(1, 2))
        own = torch.where(use_cutmix, 1.0 - pasted, own)  # share of the sample's own label

        weight = torch.where(use_cutmix, 1.0, own).to(images.dtype).view(-1, 1, 1, 1)
        partner = _swap(images)
        mixed = torch.where(box.unsqueeze(1), partner, images * weight + partner * (1 - weight))
        return mixed.view(shape), target * own[:, None] + _swap(target) * (1 - own[:, None])

    def _cutmix_probability(self) -> float:
        if self.mixup > 0 and self.cutmix > 0:
            return self.switch
        return 1.0 if self.cutmix > 0 else 0.0


def beta(uniform: Tensor, alpha: float) -> Tensor:
    """Draws of Beta(alpha, alpha) from uniform noise in (0, 1); ``alpha = 0`` gives 1."""
    if alpha == 0:
        return torch.ones_like(uniform)
    table = _beta_table(alpha, uniform.device)
    at = uniform.double()
    cell = torch.searchsorted(table, at).clamp(1, _BETA_NODES)
    low, high = table[cell - 1], table[cell]
    angle = (cell - 1 + (at - low) / (high - low).clamp_min(1e-300)) * _BETA_STEP
    return angle.sin().square().to(uniform.dtype)


@lru_cache
def _beta_table(alpha: float, device: torch.device) -> Tensor:
    """The distribution function of Beta(alpha, alpha) at ``sin(i * step) ** 2``, float64.

    Over the angle t the density is ``(sin t cos t) ** (2 alpha - 1)``. It may grow without bound
    towards the ends, so each cell is measured at its middle.
    """
    middle = (torch.arange(_BETA_NODES, dtype=torch.float64) + 0.5) * _BETA_STEP
    mass = (middle.sin() * middle.cos()).log().mul(2 * alpha - 1).exp().cumsum(0)
    return torch.cat([mass.new_zeros(1), mass / mass[-1]]).to(device)


def cutmix_box(share: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) bool, True where the partner is pasted.

    A box of ``sqrt(1 - share)`` of each side around a uniform centre, cut off at the border.

    Args:
        share: (B,) part of the image that stays.
        row: (B,) uniform noise for the centre; ``column`` likewise.
    """

    def inside(uniform: Tensor, length: int) -> Tensor:  # (B, length)
        half = (length * (1 - share).sqrt()).long() // 2
        centre = (uniform * length).long()
        at = torch.arange(length, device=share.device)
        return (at >= (centre - half)[:, None]) & (at < (centre + half)[:, None])

    return inside(row, height).unsqueeze(2) & inside(column, width).unsqueeze(1)


def _swap(rows: Tensor) -> Tensor:
    """Each pair of neighbours exchanged: rows 1, 0, 3, 2, ..."""
    return rows.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
