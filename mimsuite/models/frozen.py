"""A frozen network that a loss is computed with, and that is part of no state dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mimsuite.models.teachers.base import frozen, is_counted

Network = TypeVar("Network", bound=nn.Module)


class Frozen(Generic[Network]):
    """Opens a network on first use, and moves it to the device of the images.

    Args:
        load: ``load(True)`` opens the network with its weights, ``load(False)`` without.
    """

    def __init__(self, load: Callable[[bool], Network]) -> None:
        self._load = load
        self._network: Network | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen[Network]:
        return self  # frozen, so a copy of its user can share it

    def open(self) -> Network:
        """The network with its weights; raises a ``UserError`` if they are missing or unfit."""
        if self._network is None:
            # Initialising weights must not advance the caller's generator.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                torch.manual_seed(0)
                with torch.device("cpu"):
                    self._network = frozen(self._load(True))
        return self._network

    def on(self, images: Tensor) -> Network:
        """The network on the device of ``images``; without weights if only its cost is counted."""
        if is_counted(images):
            with torch.device(images.device):
                return frozen(self._load(False))
        network = self.open()
        if next(network.parameters()).device != images.device:
            network.to(images.device)
        return network
