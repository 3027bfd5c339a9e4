"""Keyed randomness: every random number of the suite is a pure function of its key.

A mask, a drop-path draw or a mixup partner depends on ``(seed, purpose, step, index)`` where
``index`` is the sample's row in the *global* batch; a crop depends on ``(seed, purpose, epoch,
sample)``. So nothing random has to be saved, and results are the same for any number of workers,
ranks and micro-batches.

The tensor generator is SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) used as a counter: the n-th
number of a row is ``mix(row_key + n * GAMMA)``, integer arithmetic that every device does alike.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def key_of(*parts: object) -> int:
    """A 64-bit key, unsigned, of any printable parts; equal parts give equal keys for ever."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def keyed_rng(*parts: object) -> np.random.Generator:
    """A numpy generator for work on one sample in a loader worker."""
    key: Any = _PhiloxKey(key_of(*parts))  # numpy's stubs leave ISeedSequence out
    return np.random.Generator(np.random.Philox(key))


class KeyedGenerator:
    """``keyed_rng`` with one generator for all keys, at a third of the cost of a new one for each.

    What a call returns is good until the next call.
    """

    def __init__(self) -> None:
        self._philox = np.random.Philox(0)
        self._generator = np.random.Generator(self._philox)
        self._start: Any = self._philox.state  # counter and buffer of a new generator

    def __call__(self, *parts: object) -> np.random.Generator:
        self._start["state"]["key"][:] = key_of(*parts), 0
        self._philox.state = self._start
        return self._generator


class _PhiloxKey(ISeedSequence):
    """The key of a Philox generator: ``Philox(key=...)``, which asks the system for entropy too."""

    def __init__(self, key: int) -> None:
        self._words = np.array((key, 0), dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        return self._words


class Noise:
    """Rows of uniform numbers for the samples of one (micro-)batch at one step.

    Args:
        seed: the recipe's ``train.seed``.
        step: global optimizer step, from 0.
        index: (B,) int64, each sample's row in the global batch; the rows come on its device.
        host_index: the same on the host, where ``index`` is not; see :meth:`on_host`.
    """

    def __init__(
        self, seed: int, step: int, index: Tensor, host_index: Tensor | None = None
    ) -> None:
        self.seed, self.step, self.index, self._host_index = seed, step, index, host_index

    @property
    def device(self) -> torch.device:
        return self.index.device

    def within(self, part: str) -> Noise:
        """The same keys, with purposes of their own: for a second pass through the same module."""
        return Noise(key_of(self.seed, part), self.step, self.index, self._host_index)

    def on_host(self, purpose: str, width: int) -> Tensor:
        """:meth:`rows`, computed on the host: no wait for a device, if the index is known here."""
        index = self.index if self._host_index is None else self._host_index
        if index.device.type == "meta":  # costs are being counted: any rows will do
            index = torch.arange(len(index))
        return Noise(self.seed, self.step, index.cpu()).rows(purpose, width)

    def shared(self, purpose: str, width: int) -> np.ndarray:
        """(width,) float64 in [0, 1), on the host: one row for all samples of the step."""
        return keyed_rng(self.seed, purpose, self.step).random(width)

    def rows(self, purpose: str, width: int) -> Tensor:
        """(B, width) float32 in the open interval (0, 1), keyed by (seed, purpose, step, index)."""
        stream = _signed(key_of(self.seed, purpose, self.step))
        row_key = _mix(self.index.to(torch.int64) * _signed(_GAMMA) + stream)  # (B,)
        counter = torch.arange(1, width + 1, device=self.index.device) * _signed(_GAMMA)
        bits = _mix(row_key[:, None] + counter)  # (B, width)
        # 23 bits and a half: exact in float32, and never 0 or 1, so log() of it is finite.
        return ((_shift_right(bits, 41)).to(torch.float32) + 0.5) * 2.0**-23

    def normal(self, purpose: str, width: int) -> Tensor:
        """(B, width) float32 of zero mean and unit variance, keyed as :meth:`rows` (Box-Muller)."""
        half = (width + 1) // 2
        radius, angle = self.rows(purpose, 2 * half).split(half, dim=1)
        radius, angle = (-2 * radius.log()).sqrt(), 2 * torch.pi * angle
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :width]


class FixedNoise(Noise):
    """Noise given by hand: ``{purpose: (B, width)}``. For parity tests and interactive use."""

    def __init__(self, rows: dict[str, Tensor]) -> None:
        self._rows = rows

    @property
    def device(self) -> torch.device:
        return next((rows.device for rows in self._rows.values()), torch.device("cpu"))

    def within(self, part: str) -> Noise:
        """Rows given as ``part/purpose``."""
        start = f"{part}/"
        inside = {k.removeprefix(start): v for k, v in self._rows.items() if k.startswith(start)}
        return FixedNoise(inside)

    def on_host(self, purpose: str, width: int) -> Tensor:
        return self.rows(purpose, width).cpu()

    def shared(self, purpose: str, width: int) -> np.ndarray:
        return self.on_host(purpose, width)[0].numpy()

    def normal(self, purpose: str, width: int) -> Tensor:
        return self.rows(purpose, width)

    def rows(self, purpose: str, width: int) -> Tensor:
        given = self._rows[purpose]
        if given.shape[1] != width:
            raise ValueError(f"noise '{purpose}' has width {given.shape[1]}, asked for {width}")
        return given


def _signed(value: int) -> int:
    """The int64 with the same bits as an unsigned 64-bit integer."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's ``>>`` keeps the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)
