"""Two small real sets that come with the suite, for first runs without a download.

- ``fashion-mnist``: 5,000 + 1,000 images of Fashion-MNIST (Zalando, MIT licence), 28 x 28 gray.
- ``openclipart``: 1,880 + 469 drawings of the Open Clip Art Library (public domain), 64 x 64.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from mimsuite.config.suggest import did_you_mean
from mimsuite.data import splits
from mimsuite.data.arrays import ArraySource
from mimsuite.data.decode import Decoder
from mimsuite.data.shards import open_shards
from mimsuite.data.source import Source
from mimsuite.errors import UserError

_FASHION = "fashion-mnist"
_CLIPART = "openclipart"
NAMES = (_FASHION, _CLIPART)
SPLITS = frozenset({"train", "test"})
_FASHION_CLASSES = [
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
]


def require_known(name: str) -> None:
    """Raise a ``UserError``, with a near miss, for a set that does not come with the suite."""
    if name not in NAMES:
        raise UserError(
            f"no embedded set '{name}'.{did_you_mean(name, NAMES)} There are: {', '.join(NAMES)}"
        )


def open_embedded(name: str, split: str, decoder: Decoder, verify: str) -> Source:
    """A split, train or test, of an embedded set.

    Raises:
        UserError: unknown name or split.
    """
    require_known(name)
    source = f"embedded:{name}"
    split = splits.choose(source, split, SPLITS)
    folder = files("mimsuite.data") / "embedded"
    if name == _CLIPART:
        with as_file(folder / "openclipart11_64.tar") as path:
            # An installed package is not a place to write to: the index goes to the cache.
            return open_shards(str(path), split, decoder, verify, source, beside=False)
    with as_file(folder / "fashion_mnist_5k1k.npz") as path:
        arrays = np.load(path, allow_pickle=False)
        return ArraySource(
            arrays[f"x_{split}"],
            arrays[f"y_{split}"],
            name=source,
            split=split,
            classes=_FASHION_CLASSES,
            decoder=decoder,
        )
