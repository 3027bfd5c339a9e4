"""The batch that the loader passes to a method."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Samples of one (micro-)batch.

    Attributes:
        views: named views of the same samples, all cut by ONE keyed draw of geometry, such as
            ``image`` (B, C, H, W). The loader yields ``uint8``; methods get normalised ``float32``.
        index: (B,) int64 rows in the global batch, the key of all noise.
        keys: B sample names, for reports.
        label: (B,) int64 class ids, -1 = unlabelled; or (B, K) float32 targets, NaN = unknown;
            ``None`` where the source has no labels.
        host_index: copy of ``index`` on the host, for work that must not wait for the device;
            ``None`` where ``index`` itself is on the host.
    """

    views: dict[str, Tensor]
    index: Tensor
    keys: list[str]
    label: Tensor | None = None
    host_index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def image(self) -> Tensor:
        return self.views["image"]

    def to(self, device: torch.device | str) -> Batch:
        """Copy to ``device``; copies of pinned memory overlap with compute."""
        move = lambda x: x.to(device, non_blocking=True)  # noqa: E731
        host_index = self.index if self.index.device.type == "cpu" else self.host_index
        return replace(
            self,
            views={name: move(view) for name, view in self.views.items()},
            index=move(self.index),
            label=None if self.label is None else move(self.label),
            host_index=host_index,
        )

    def pin_memory(self) -> Batch:
        return replace(
            self,
            views={name: view.pin_memory() for name, view in self.views.items()},
            index=self.index.pin_memory(),
            label=None if self.label is None else self.label.pin_memory(),
        )

    def rows(self, start: int, stop: int) -> Batch:
        """Samples ``start`` to ``stop`` as a batch of their own."""
        return replace(
            self,
            views={name: view[start:stop] for name, view in self.views.items()},
            index=self.index[start:stop],
            keys=self.keys[start:stop],
            label=None if self.label is None else self.label[start:stop],
            host_index=None if self.host_index is None else self.host_index[start:stop],
        )

    @staticmethod
    def of_images(images: Tensor, label: Tensor | None = None) -> Batch:
        """A batch of images (B, C, H, W); for tests and interactive use."""
        return Batch.of_views({"image": images}, label)

    @staticmethod
    def of_views(views: dict[str, Tensor], label: Tensor | None = None) -> Batch:
        """A batch of views; for tests and interactive use."""
        images = next(iter(views.values()))
        keys = [str(i) for i in range(len(images))]
        index = torch.arange(len(images), device=images.device)
        return Batch(views=views, index=index, keys=keys, label=label)
