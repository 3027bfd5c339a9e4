"""Teachers: frozen networks whose features a method learns from.

A :class:`Teacher` is no module: it is in no state dict, optimizer, moving average, checkpoint or
DistributedDataParallel. It opens its weights when they are first needed, moves itself to the
device of the images, and takes the same images as the student: it undoes their normalisation,
applies its own and resizes to its own input size.

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
    """What of a teacher is read beside its features.

    Attributes:
        hidden: numbers, from 1, of the blocks whose raw output is.
        cls_attention: of the class token in the last block.
        qkv: numbers, from 1, of the blocks whose queries, keys and values are.
        ids: (B, V) the tokens that the network sees, of an encoder of this suite (``kind: run``);
            ``None``: all. It sees nothing of the others.
    """

    hidden: Collection[int] = ()
    cls_attention: bool = False
    qkv: Collection[int] = ()
    ids: Tensor | None = None


@dataclass(frozen=True)
class TeacherFeatures:
    """What a teacher says of intact images; float32, without gradient.

    Attributes:
        cls: (B, D) class token after the last norm; ``None`` where there is none.
        tokens: (B, N, D) the other tokens, likewise, in raster order.
        hidden: block number -> its raw output (B, C + N, D).
        cls_attention: (B, h, N) attention of the class token to the tokens in the last block; what
            it gives to itself is left out, so a row sums to less than 1.
        qkv: block number -> queries, keys and values, each (B, h, C + N, d).
    """

    cls: Tensor | None
    tokens: Tensor
    hidden: dict[int, Tensor] = field(default_factory=dict)
    cls_attention: Tensor | None = None
    qkv: dict[int, QKV] = field(default_factory=dict)


class Backbone(nn.Module):
    """A frozen network in the form that teachers use: normalised images in, features out.

    Attributes:
        statistics: mean and deviation of its input, where its weights tell.
        notes: what of its file is not used; lines for people.
    """

    statistics: Statistics | None = None
    notes: Sequence[str] = ()

    def forward(self, images: Tensor, wanted: Wanted) -> TeacherFeatures:
        """Features of (B, C, H, W) images of its own size and normalisation."""
        raise NotImplementedError


class Teacher:
    """A frozen network, asked for features of the student's images.

    It computes in whatever precision is cast to around it; what it returns is float32.

    Args:
        section: which network.
        grid: the student's tokens per column and row, which are the teacher's too.
        statistics: mean and deviation by which the student's images are normalised.
        load: opens the network; ``load(weights=False)`` makes it with random weights.
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
        return self  # frozen: a moving average of the student shares it

    def open(self) -> list[str]:
        """Read its weights now, so that what is wrong with them shows before training.

        Returns:
            lines for people.

        Raises:
            UserError: no weights, or weights of another network.
        """
        notes = self._opened().notes
        shown = " x ".join(map(str, self.input_size))
        line = f"teacher: {self.section.kind}, {shown} pixels, {self.width} features a token"
        if not self.section.stands_in:
            return [line, *notes]
        return [line, "TEACHER WITH RANDOM WEIGHTS: it only stands in, nothing is learnt from it"]

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
        """Features of images, intact where no ``ids`` are given; they may be used as targets of a
        loss.

        Args:
            images: (B, C, H, W), normalised as the student's; on the device to compute on.
            hidden, cls_attention, qkv, ids: see :class:`Wanted`.
            keys: names of the samples while training, whose views are the same in every epoch
                where features are kept (``cache``).

        Raises:
            UserError: see :meth:`open`.
        """
        backbone = self._counted(images) if is_counted(images) else self._opened()
        if next(backbone.parameters()).device != images.device:
            backbone.to(images.device)
        wanted = Wanted(hidden, cls_attention, qkv, ids)
        with torch.inference_mode():
            found = backbone(self.input(images), wanted)
        return _usable(found)

    def input(self, images: Tensor) -> Tensor:
        """The student's images (B, C, H, W) as the network takes them."""
        images = images.float()
        change = self._change(images)
        if change is not None:
            scale, shift = change
            images = images * scale + shift  # (B, 1, H, W) becomes three channels here
        if images.shape[-2:] == self.input_size:
            return images
        return F.interpolate(images, size=self.input_size, mode="bicubic", align_corners=False)

    def _change(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        """Factor and summand (1, C, 1, 1) from the student's normalisation to the teacher's."""
        if is_counted(images):
            return normalization(self.statistics, self.section.statistics, images.device)
        if images.device not in self._changes:  # made once: a copy to a device waits for it
            own = self.section.statistics or self._opened().statistics
            self._changes[images.device] = normalization(self.statistics, own, images.device)
        return self._changes[images.device]

    def _opened(self) -> Backbone:
        if self._backbone is None:
            # Fresh weights, which most loaders overwrite, must not move the caller's generator.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                torch.manual_seed(0)
                with torch.device("cpu"):
                    self._backbone = frozen(self._load(not self.section.stands_in))
        return self._backbone

    def _counted(self, images: Tensor) -> Backbone:
        """The network without values of its weights, to count what it costs."""
        with torch.device(images.device):
            return frozen(self._load(False))


def is_counted(images: Tensor) -> bool:
    """These are no images: only shapes, to count the costs of a step."""
    return images.device.type == "meta" or isinstance(images, FakeTensor)


def frozen(network: Network) -> Network:
    """In eval mode and without gradients."""
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
    """Copies that autograd may keep, which it may not of tensors made in inference mode."""
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
