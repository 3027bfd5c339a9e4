"""Small real sets that come with the suite, for trying it without a download.

- ``fashion-mnist``: 5,000 + 1,000 images of Fashion-MNIST (Zalando, MIT licence), 28 x 28 gray.
- ``openclipart``: 1,880 + 469 drawings of the Open Clip Art Library (public domain), 64 x 64.
- ``furniture``: 820 objects of Sweet Home 3D's catalogues (CC0 and CC-BY 3.0, creators are listed
  in ``furniture820_credits.tsv``), 2,048 points each; 390 of them belong to the nine classes with
  at least 30 objects, the others are unlabelled.
"""

from __future__ import annotations

import io
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from mimsuite.config.suggest import did_you_mean
from mimsuite.data import splits
from mimsuite.data.decoder import Decoder
from mimsuite.data.shards import open_shards
from mimsuite.data.source import Source
from mimsuite.data.sources.arrays import ArraySource
from mimsuite.data.unused import Unused
from mimsuite.errors import UserError

_FASHION = "fashion-mnist"
_CLIPART = "openclipart"
_FURNITURE = "furniture"
_SPLITS = {
    _FASHION: frozenset({"train", "test"}),
    _CLIPART: frozenset({"train", "test"}),
    _FURNITURE: frozenset({"train"}),  # small: use data.folds for a test split
}
NAMES = tuple(_SPLITS)
_FURNITURE_CLASSES = [
    "appliance",
    "cabinet",
    "lamp",
    "opening",
    "plant",
    "seat",
    "sofa",
    "table",
    "tableware",
]
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
    """Raise a ``UserError`` with a suggestion if there is no embedded set of that name."""
    if name not in NAMES:
        raise UserError(
            f"no embedded set '{name}'.{did_you_mean(name, NAMES)} There are: {', '.join(NAMES)}"
        )


def splits_of(name: str) -> frozenset[str]:
    """The splits of a set; raises as :func:`require_known`."""
    require_known(name)
    return _SPLITS[name]


def modality_of(name: str) -> str:
    """The modality of a set; raises as :func:`require_known`."""
    require_known(name)
    return "points" if name == _FURNITURE else "image"


def open_embedded(name: str, split: str, decoder: Decoder, verify: str) -> Source:
    """A split of an embedded set.

    Raises:
        UserError: unknown name or split.
    """
    source = f"embedded:{name}"
    split = splits.choose(source, split, splits_of(name))
    folder = files("mimsuite.data") / "embedded"
    if name == _CLIPART:
        with as_file(folder / "openclipart11_64.tar") as path:
            # The installed package may be read-only: write the index to the cache.
            drawings = open_shards(str(path), split, decoder, verify, source, beside=False)
        drawings.unused = Unused()  # only the origin of each drawing: not worth a warning
        return drawings
    if name == _FURNITURE:
        with as_file(folder / "furniture820_points2048.npz") as path:
            return _furniture(path, source, split, decoder)
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


class _Clouds(ArraySource):
    """Clouds (N, P, 3); payloads are the bytes of ``.npy`` files, as from any other source."""

    def payload(self, shard: int, offset: int) -> bytes:  # type: ignore[override]
        stream = io.BytesIO()
        np.save(stream, self._images[shard], allow_pickle=False)
        return stream.getvalue()


def _furniture(path: Path, name: str, split: str, decoder: Decoder) -> Source:
    """Objects of small classes and objects without a class are unlabelled."""
    arrays = np.load(path, allow_pickle=False)
    numbers = {word: number for number, word in enumerate(_FURNITURE_CLASSES)}
    labels = np.array([numbers.get(word, -1) for word in arrays["label"].tolist()])
    return _Clouds(
        arrays["points"],
        labels,
        name=name,
        split=split,
        classes=_FURNITURE_CLASSES,
        decoder=decoder,
    )
