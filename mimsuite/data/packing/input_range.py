"""Whether the values that a model sees of a source can tell anything.

A recipe scales values by keys that were chosen for other data: a window of Hounsfield units, or the
mean of reflectances times 10,000. Of data in another unit such keys leave one constant, or numbers
in the thousands, and training goes on without an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data.views import Views

_LEAST, _MOST = 0.05, 50.0  # deviation over pixels; normalised pixels of any kind have about 1
_SAMPLES = 4  # whose views are made


class InputRange:
    """The spread of normalised values of a few samples.

    Args:
        views: the views made of the samples.
    """

    def __init__(self, views: Views) -> None:
        self._views, self._normalize = views, views.normalizer("cpu")
        self._channels: list[Tensor] = []  # (C, values) of a sample

    def add(self, decoded: Any) -> None:
        """Make the views of a decoded sample; of a few, the others are passed over."""
        if not self._views.scaled_by or len(self._channels) >= _SAMPLES:
            return
        found = self._views.train(decoded, np.random.default_rng(0))
        made = {name: view[None] for name, view in found.items()}
        batch = self._normalize(Batch(made, torch.arange(1), [""]))
        self._channels.append(batch.views[self._views.main].transpose(0, 1).flatten(1))

    def warnings(self, name: str) -> list[str]:
        """A line where the values hardly differ or are far too large; none if they are usable.

        Args:
            name: of the source.
        """
        if not self._channels:
            return []
        deviation = float(torch.cat(self._channels, 1).std(1, correction=0).max())
        if _LEAST <= deviation <= _MOST:
            return []
        fault = "hardly differ" if deviation < _LEAST else "are far too large"
        return [
            f"{name}: the values that the model sees {fault} (deviation {deviation:.2g}, where "
            f"about 1 is usual): set {self._views.scaled_by} for this data"
        ]
