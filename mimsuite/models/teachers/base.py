"""Teachers: frozen networks whose features a method learns from.

A :class:`Teacher` is not a module: it is part of no state dict, optimizer, moving average,
checkpoint or DistributedDataParallel. It loads its weights on first use and moves itself to the
device of the images. It takes the student's images: it replaces their normalisation by its own and
resizes them to its own input size.

Letters: B batch, C class tokens, N tokens of the grid, D width, h heads, d = D / h.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from mimsuite.config.keys.teachers import BaseTeacherSection, Statistics
from mimsuite.models.attention import QKV

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Wanted:
    """Outputs requested from a teacher besides its features.

    Attributes:
        hidden: numbers, from 1, of the blocks whose raw outputs are requested.
        cls_attention: whether the class token's attention in the last block is requested.
        qkv: numbers, from 1, of the blocks whose queries, keys and values are requested.
        ids: (B, V) ids of the only tokens that the network sees, for encoders of this suite
            (``kind: run``); ``None``: all tokens.
    """

    hidden: Collection[int] = ()
    cls_attention: bool = False
    qkv: Collection[int] = ()
    ids: Tensor | None = None


@dataclass(frozen=True)
class TeacherFeatures:
    """Output of a teacher; float32, without gradient.

    Attributes:
        cls: (B, D) class token after the last norm; ``None`` where there is none.
        tokens: (B, N, D) all other tokens after the last norm, in raster order.
        hidden: block number -> raw output (B, C + N, D).
        cls_attention: (B, h, N) attention of the class token to the tokens in the last block. Its
            attention to itself is left out, so rows sum to less than 1.
        qkv: block number -> queries, keys and values, each (B, h, C + N, d).
    """

    cls: Tensor | None
    tokens: Tensor
    hidden: dict[int, Tensor] = field(default_factory=dict)
    cls_attention: Tensor | None = None
    qkv: dict[int, QKV] = field(default_factory=dict)


class Backbone(nn.Module):
    """A frozen network wrapped for teachers: normalised images in, features out.

    Attributes:
        statistics: mean and standard deviation of its input, where known from its weights.
        notes: lines to print about unused parts of its weights file.
    """

    statistics: Statistics | None = None
    notes: Sequence[str] = ()

    def last_norm(self) -> nn.Module | None:
        """The norm that its tokens come out of; ``None`` where there is none."""
        return None

    def forward(self, images: Tensor, wanted: Wanted) -> TeacherFeatures:
        """Features of (B, C, H, W) images in its own size and normalisation."""
        raise NotImplementedError


class Teacher:
    """A frozen network that computes features of the student's images.

    It computes in the precision of the surrounding autocast and returns float32.

    Args:
        section: recipe section of the network.
        grid: rows and columns of tokens, the same for student and teacher.
        statistics: mean and standard deviation by which the student's images are normalised.
        load: ``load(True)`` opens the network with its weights, ``load(False)`` with random ones.
    """

    def __init__(
        self,
        section: BaseTeacherSection,
        grid: tuple[int, int],
        statistics: Statistics,
        load: Callable[[bool], Backbone],
    ) -> None:
        self.section, self.grid, self.statistics = section, grid, statistics
        self.width, self.depth = section.feature_width, section.blocks
        self.input_size = section.input_size(grid)
        self._load = load
        self._backbone: Backbone | None = None
        self._changes: dict[torch.device, tuple[Tensor, Tensor] | None] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self  # frozen, so a moving average of the student can share it

    def open(self) -> list[str]:
        """Load the weights now, so that faults in them are reported before training.

        Returns:
            lines to print.

        Raises:
            UserError: weights are missing or belong to another network.
        """
        notes = self._opened().notes
        shown = " x ".join(map(str, self.input_size))
        line = f"teacher: {self.section.kind}, {shown} pixels, {self.width} features per token"
        if not self.section.stands_in:
            return [line, *notes]
        return [line, "TEACHER WITH RANDOM WEIGHTS: a placeholder, nothing is learnt from it"]

    def features(
        self,
        images: Tensor,
        *,
        hidden: Collection[int] = (),
        cls_attention: bool = False,
        qkv: Collection[int] = (),
        ids: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> TeacherFeatures:
        """Features of images; autograd can save them, so they can be targets of a loss.

        Args:
            images: (B, C, H, W), normalised as for the student, on the device to compute on.
            hidden, cls_attention, qkv, ids: see :class:`Wanted`.
            keys: keys of training samples, whose views are the same in every epoch if features
                are cached (``cache``).

        Raises:
            UserError: see :meth:`open`.
        """
        backbone = self._counted(images) if is_counted(images) else self._opened()
        if next(backbone.parameters()).device != images.device:
            backbone.to(images.device)
        wanted = Wanted(hidden, cls_attention, qkv, ids)
        with torch.inference_mode():
            features = backbone(self.input(images), wanted)
        return _usable(features)

    def input(self, images: Tensor) -> Tensor:
        """The student's images (B, C, H, W) in the network's normalisation and size."""
        images = images.float()
        change = self._change(images)
        if change is not None:
            scale, shift = change
            images = images * scale + shift  # (B, 1, H, W) becomes three channels here
        if images.shape[-2:] == self.input_size:
            return images
        return F.interpolate(images, size=self.input_size, mode="bicubic", align_corners=False)

    def _change(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        """Scale and shift (1, C, 1, 1) from the student's normalisation to the teacher's."""
        if is_counted(images):
            return normalization(self.statistics, self.section.statistics, images.device)
        if images.device not in self._changes:  # cached, as a copy to the device waits for it
            own = self.section.statistics or self._opened().statistics
            self._changes[images.device] = normalization(self.statistics, own, images.device)
        return self._changes[images.device]

    def _opened(self) -> Backbone:
        if self._backbone is None:
            # Initialising weights, which most loaders overwrite, must not advance the caller's
            # generator.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                torch.manual_seed(0)
                with torch.device("cpu"):
                    self._backbone = frozen(self._load(not self.section.stands_in))
        return self._backbone

    def _counted(self, images: Tensor) -> Backbone:
        """The network on the device of ``images`` without loading weights, to count its cost."""
        with torch.device(images.device):
            return frozen(self._load(False))


def is_counted(images: Tensor) -> bool:
    """Whether ``images`` has only a shape and no values, as when the cost of a step is counted."""
    return images.device.type == "meta" or isinstance(images, FakeTensor)


def frozen(network: Network) -> Network:
    """Set ``network`` to eval mode without gradients, in place, and return it."""
    return network.eval().requires_grad_(False)


def normalization(
    given: Statistics, own: Statistics | None, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """``own = given * factor + summand``; ``None`` where they are the same."""
    if own is None or own == given:
        return None
    (mean, std), (own_mean, own_std) = (
        tuple(torch.tensor(values, dtype=torch.float64) for values in pair) for pair in (given, own)
    )
    factor, summand = std / own_std, (mean - own_mean) / own_std
    return factor.float().view(1, -1, 1, 1).to(device), summand.float().view(1, -1, 1, 1).to(device)


def _usable(found: TeacherFeatures) -> TeacherFeatures:
    """Clone the features: autograd cannot save inference-mode tensors."""
    return TeacherFeatures(
        None if found.cls is None else found.cls.float().clone(),
        found.tokens.float().clone(),
        {n: block.float().clone() for n, block in found.hidden.items()},
        None if found.cls_attention is None else found.cls_attention.float().clone(),
        {n: _copies(parts) for n, parts in found.qkv.items()},
    )


def _copies(parts: QKV) -> QKV:
    q, k, v = (part.float().clone() for part in parts)
    return q, k, v
