"""TokenMask: which tokens the encoder sees and which are reconstructed, for every modality.

Letters: B batch, N tokens of the grid, V visible, M masked, K target sets, T tokens of a target
set, D width.

Masks are index tensors, never boolean ones: every sample of a batch has the same number of visible
tokens, so shapes are fixed, nothing waits for the device, and the encoder computes only visible
tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenMask:
    """A partition of ``range(N)`` into visible and masked tokens, one per sample.

    Attributes:
        grid: tokens along each axis: (H, W), (T, H, W), (G,) or (D, H, W); N is the product.
        visible: (B, V) int64 ids of the tokens the encoder sees, in the order it sees them.
        masked: (B, M) int64 ids of all other tokens, V + M = N.
        decoded: (B, Nd) int64 ids that the decoder reconstructs; ``None`` = the masked tokens.
        decoded_masked: (B, Nd) bool, which of ``decoded`` are masked and so carry loss.
        targets: (K, B, T) int64 ids of K sets of tokens, each predicted separately from the
            visible tokens; sets may overlap. ``None``: the masked tokens are predicted together.
    """

    grid: tuple[int, ...]
    visible: Tensor
    masked: Tensor
    decoded: Tensor | None = None
    decoded_masked: Tensor | None = None
    targets: Tensor | None = None

    def __post_init__(self) -> None:
        if self.visible.shape[1] + self.masked.shape[1] != math.prod(self.grid):
            raise ValueError(
                f"{self.visible.shape[1]} visible + {self.masked.shape[1]} masked tokens "
                f"are not the {math.prod(self.grid)} of grid {self.grid}"
            )
        if self.targets is not None and (
            self.targets.ndim != 3 or self.targets.shape[1] != len(self.visible)
        ):
            raise ValueError(
                f"targets of shape {tuple(self.targets.shape)} are not (sets, {len(self.visible)} "
                f"samples, tokens)"
            )

    # --- constructors ---

    @classmethod
    def from_order(
        cls, order: Tensor, visible: int, grid: tuple[int, ...], dropped: int | None = None
    ) -> TokenMask:
        """The first ``visible`` ids of ``order``, a (B, N) permutation, are visible, in that order.

        Args:
            dropped: number of ids after the visible ones that are neither visible nor decoded; the
                rest is decoded, in raster order. ``None``: all masked tokens are decoded, in the
                order of ``order``.
        """
        seen, masked = order[:, :visible].contiguous(), order[:, visible:].contiguous()
        if dropped is None:
            return cls(grid, seen, masked)
        decoded = masked[:, dropped:].sort(dim=1).values
        return cls(grid, seen, masked, decoded, torch.ones_like(decoded, dtype=torch.bool))

    @classmethod
    def from_removed(
        cls,
        removed: Tensor,
        grid: tuple[int, ...],
        order: Tensor | None = None,
        not_decoded: Tensor | None = None,
    ) -> TokenMask:
        """Convert published boolean masks.

        Args:
            removed: (B, N) bool or 0/1, True = hidden from the encoder; equal counts per sample.
                On the host: the counts decide shapes, so reading a device's would wait for it.
            order: (B, N) permutation, the order of the visible and of the masked tokens; ``None``
                = raster order.
            not_decoded: (B, N) bool, True = the decoder skips it (VideoMAE V2's decoder mask).

        Raises:
            ValueError: samples hide different numbers of tokens.
        """
        removed = removed.bool()
        visible, masked = _split(removed, order)
        if not_decoded is None:
            return cls(grid, visible, masked)
        decoded, _ = _split(not_decoded.bool(), order)
        return cls(grid, visible, masked, decoded, removed.gather(1, decoded))

    @classmethod
    def from_visible(
        cls, visible: Tensor, grid: tuple[int, ...], targets: Tensor | None = None
    ) -> TokenMask:
        """The ids ``visible`` (B, V) are visible, in that order; all others are masked, in raster
        order. ``targets`` is the attribute of that name."""
        hidden = torch.ones(len(visible), math.prod(grid), dtype=torch.uint8, device=visible.device)
        hidden = hidden.scatter(1, visible, 0)
        masked = hidden.argsort(dim=1, descending=True, stable=True)
        masked = masked[:, : hidden.shape[1] - visible.shape[1]].contiguous()
        return cls(grid, visible, masked, targets=targets)

    @classmethod
    def interleaved(cls, masks: Sequence[TokenMask]) -> TokenMask:
        """Combine K masks of the same B samples into one with K B rows, grouped by sample.

        Only the visible and the masked ids are kept.
        """
        parts = (
            torch.stack([mask.ids(part) for mask in masks], dim=1).flatten(0, 1)
            for part in ("visible", "masked")
        )
        return cls(masks[0].grid, *parts)

    # --- properties ---

    def check(self, *, targets_hidden: bool = True) -> TokenMask:
        """Validate the ids themselves; this waits for the device.

        Args:
            targets_hidden: no token of a target set may be visible.

        Raises:
            ValueError: visible and masked tokens are no partition, or a target set has an id that
                is outside the grid, repeated or visible.
        """
        whole = torch.cat([self.visible, self.masked], dim=1).sort(dim=1).values
        if not bool((whole == torch.arange(self.tokens, device=whole.device)).all()):
            raise ValueError(f"visible and masked tokens are no partition of {self.tokens} tokens")
        if self.targets is None:
            return self
        ids = self.targets.sort(dim=2).values
        if ids.numel() and not bool(((ids >= 0) & (ids < self.tokens)).all()):
            raise ValueError(f"a target set has ids outside the grid of {self.tokens} tokens")
        if bool((ids.diff(dim=2) == 0).any()):
            raise ValueError("a target set names a token twice")
        if targets_hidden and not bool(self.dense().expand(len(ids), -1, -1).gather(2, ids).all()):
            raise ValueError("a target set holds tokens that are visible")
        return self

    @property
    def tokens(self) -> int:
        """N."""
        return math.prod(self.grid)

    def dense(self) -> Tensor:
        """(B, N) bool in raster order, True = masked."""
        dense = torch.ones(
            len(self.visible), self.tokens, dtype=torch.bool, device=self.visible.device
        )
        return dense.scatter(1, self.visible, False)

    def restore(self) -> Tensor:
        """(B, N) int64: ``cat([visible, masked], 1).gather(1, restore())`` is raster order."""
        return torch.cat([self.visible, self.masked], dim=1).argsort(dim=1)

    def flip(self) -> TokenMask:
        """The complementary mask: visible and masked tokens exchanged."""
        return TokenMask(self.grid, visible=self.masked, masked=self.visible)

    def to(self, device: torch.device | str) -> TokenMask:
        return self._each(lambda ids: ids.to(device, non_blocking=True))

    def pin_memory(self) -> TokenMask:
        """A copy in page-locked memory, so that :meth:`to` does not wait for the device."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, move: Callable[[Tensor], Tensor]) -> TokenMask:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {k: move(t) for k, t in tensors.items() if isinstance(t, Tensor)}
        return replace(self, **moved)

    # --- gathering tokens ---

    def ids(self, part: str) -> Tensor:
        """Ids of a part: ``visible``, ``masked`` or ``decoded`` (the masked ones by default)."""
        if part == "decoded" and self.decoded is None:
            return self.masked
        ids = getattr(self, part)
        assert isinstance(ids, Tensor)
        return ids

    def gather(self, tokens: Tensor, part: str) -> Tensor:
        """Rows of ``tokens`` (B, N, ...) that belong to ``part``, (B, len(part), ...)."""
        return gather_tokens(tokens, self.ids(part))

    def gather_targets(self, tokens: Tensor) -> Tensor:
        """Rows of ``tokens`` (B, N, ...) that belong to each target set, (K, B, T, ...)."""
        assert self.targets is not None
        return torch.stack([gather_tokens(tokens, ids) for ids in self.targets])

    def assemble(self, visible_tokens: Tensor, fill: Tensor) -> Tensor:
        """All tokens (B, N, D) in raster order: ``visible_tokens`` (B, V, D) and ``fill``.

        ``fill`` stands for the masked tokens: (B, M, D) or broadcastable to it, such as a mask
        token (D,).
        """
        batch, _, width = visible_tokens.shape
        fill = fill.to(visible_tokens.dtype).expand(batch, self.masked.shape[1], width)
        return gather_tokens(torch.cat([visible_tokens, fill], dim=1), self.restore())


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """``tokens[b, ids[b, i]]`` for (B, N, ...) tokens and (B, K) ids -> (B, K, ...).

    A batch axis of size 1 (a position table) is shared by all samples.
    """
    if tokens.ndim == 3:
        index = ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        return tokens.expand(len(ids), -1, -1).gather(1, index)
    rows = torch.arange(len(ids), device=ids.device).unsqueeze(1)
    return tokens.expand(len(ids), *tokens.shape[1:])[rows, ids]


def _split(flags: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Ids where ``flags`` (B, N) is False and where it is True, each in the order ``order``."""
    counts = flags.sum(1).tolist()
    if len(set(counts)) > 1:
        raise ValueError(f"samples mask different numbers of tokens: {counts}")
    if order is None:
        order = torch.arange(flags.shape[1], device=flags.device).expand_as(flags)
    by_flag = flags.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True)
    kept = flags.shape[1] - counts[0]
    ids = order.gather(1, by_flag)
    return ids[:, :kept].contiguous(), ids[:, kept:].contiguous()
