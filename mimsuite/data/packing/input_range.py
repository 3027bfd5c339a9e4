"""Whether the values that a model sees of a source can tell anything.

A recipe scales values by keys that were chosen for other data: a window of Hounsfield units, or the
mean of reflectances times 10,000. Of data in another unit such keys leave one constant, or numbers
in the thousands, and training goes on without an error.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch

from mimsuite.batch import Batch
from mimsuite.data.damage import CorruptSample
from mimsuite.data.packing.inspection import spread
from mimsuite.data.source import Source
from mimsuite.data.views import Views

_LEAST, _MOST = 0.05, 50.0  # deviation over pixels; normalised pixels of any kind have about 1
_LOOKED_AT = 4  # samples


def range_warning(source: Source, views: Views, look: int = _LOOKED_AT) -> str | None:
    """A line where normalised values hardly differ, or are far too large; None: they are usable.

    Args:
        look: number of samples, evenly spread, whose views are made.

    Raises:
        UserError: the views cannot be made of one of these samples.
    """
    if not views.scaled_by:
        return None
    normalize, channels = views.normalizer("cpu"), []
    for position in spread(len(source), look):
        with suppress(CorruptSample):  # training reports them when it reads them
            sample = source.read(*source.locate(position))
            found = views.train(source.decode(sample), np.random.default_rng(0))
            made = {name: view[None] for name, view in found.items()}
            batch = normalize(Batch(made, torch.arange(1), [sample.key]))
            channels.append(batch.views[views.main].transpose(0, 1).flatten(1))  # (C, values)
    if not channels:
        return None
    deviation = float(torch.cat(channels, 1).std(1, correction=0).max())
    if _LEAST <= deviation <= _MOST:
        return None
    fault = "hardly differ" if deviation < _LEAST else "are far too large"
    return (
        f"{source.name}: the values that the model sees {fault} (deviation {deviation:.2g}, where "
        f"about 1 is usual): set {views.scaled_by} for this data"
    )
