"""ReLU dictionary: every positive pre-code is a code; a penalty on their sum makes them sparse."""

from __future__ import annotations

from torch import Tensor

from mimsuite.dictionaries.base import Selecting


class ReLUDictionary(Selecting):
    """The plain sparse autoencoder."""

    def pick(self, rectified: Tensor) -> Tensor:
        return rectified
