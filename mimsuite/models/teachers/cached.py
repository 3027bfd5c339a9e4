"""A teacher that caches its features on disk, for views that are the same in every epoch.

A cache entry is keyed by the teacher's weights, by all settings that its features depend on (crop,
sizes, normalisation, blocks, number format) and by the sample's key. It holds a checksum of the
view: a key with a different image stops the run.

The features of a sample are computed in the first batch that contains it; other batches would give
the same features up to rounding.

Letters: B batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimsuite.config.keys.shared import AugmentSection
from mimsuite.config.keys.teachers import BaseTeacherSection
from mimsuite.errors import DataError
from mimsuite.models.teachers.base import Backbone, Teacher, TeacherFeatures
from mimsuite.models.teachers.feature_store import FeatureStore
from mimsuite.paths import expand_path

_VERSION = 1  # version of the files and of their keys
_VIEW = "view"  # name of the checksum among a sample's tensors
_ODD = 0x1E3779B97F4A7C15


class CachedTeacher(Teacher):
    """A teacher whose section has a ``cache``, which :meth:`open` opens.

    Args:
        augment: augmentation of the views; see
            :func:`mimsuite.config.keys.teachers.check_cache`.
        key: dotted key of the teacher in the recipe, for messages.
    """

    def __init__(
        self,
        section: BaseTeacherSection,
        grid: tuple[int, int],
        augment: AugmentSection,
        load: Callable[[bool], Backbone],
        key: str,
    ) -> None:
        super().__init__(section, grid, (augment.mean, augment.std), load)
        self.crop, self.key = (augment.crop, augment.interpolation), key
        self._store: FeatureStore | None = None
        self._weights = ""
        self._unchecked: list[tuple[Tensor, list[tuple[int, int, str]], Any]] = []

    def open(self) -> list[str]:
        lines = super().open()
        assert self.section.cache is not None
        folder = Path(expand_path(self.section.cache))
        self._store = FeatureStore(folder, self.section.cache_gib, f"{self.key}.cache")
        self._weights = _hash_of(self._opened())
        least = self.grid[0] * self.grid[1] * self.width * 4
        lines.append(
            f"teacher cache: {folder}, {_size(self._store.bytes)} of at most "
            f"{_size(int(self._store.limit))}; {_size(least)} or more per sample"
        )
        return lines

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
        """See :meth:`Teacher.features`; samples with ``keys`` are read from the cache if present.

        Raises:
            DataError: a key has another image than the cached one.
        """
        asked: dict[str, Any] = {"hidden": hidden, "cls_attention": cls_attention, "qkv": qkv}
        if self._store is None or keys is None or ids is not None:
            return super().features(images, **asked, ids=ids)
        self._check_views()
        group, views = self._group(images, asked), checksum(images)
        rows = [self._store.read(group, key) for key in keys]
        held = [
            (number, int(row.pop(_VIEW)), key)
            for number, (row, key) in enumerate(zip(rows, keys, strict=True))
            if row is not None
        ]
        missing = [number for number, row in enumerate(rows) if row is None]
        if held:
            self._compare(views, held)
        if missing:
            new = flat(super().features(images[missing], **asked))
            host = {name: tensor.cpu() for name, tensor in {**new, _VIEW: views[missing]}.items()}
            for place, number in enumerate(missing):
                row = {name: tensor[place].clone() for name, tensor in host.items()}
                self._store.write(group, keys[number], row)
                rows[number] = {name: tensor for name, tensor in row.items() if name != _VIEW}
        whole = [row for row in rows if row is not None]
        return whole_of(
            {
                name: torch.stack([row[name] for row in whole]).to(images.device, non_blocking=True)
                for name in whole[0]
            }
        )

    def _group(self, images: Tensor, asked: dict[str, Any]) -> str:
        """Folder name for all samples with these weights, settings and requested outputs."""
        kind = images.device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        settings = {
            "version": _VERSION,
            "weights": self._weights,
            "teacher": self.section.model_dump(
                mode="json", exclude={"weights", "cache", "cache_gib"}
            ),
            "statistics": [self.statistics, self.section.statistics or self._opened().statistics],
            "sizes": [list(images.shape[1:]), self.input_size, self.grid],
            "crop": self.crop,
            "asked": [sorted(asked["hidden"]), asked["cls_attention"], sorted(asked["qkv"])],
            "format": str(cast),
        }
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _compare(self, views: Tensor, held: list[tuple[int, int, str]]) -> None:
        """Compare checksums; those on a device are compared later, once their copy has arrived."""
        event = None
        host = views.to("cpu", non_blocking=True)
        if views.is_cuda:
            event = torch.cuda.Event()
            event.record()
        self._unchecked.append((host, held, event))
        self._check_views()

    def _check_views(self) -> None:
        while self._unchecked and (self._unchecked[0][2] is None or self._unchecked[0][2].query()):
            host, held, _ = self._unchecked.pop(0)
            for number, kept, key in held:
                if int(host[number]) != kept:
                    raise DataError(
                        f"{self.key}.cache={self.section.cache}: sample {key} is another image "
                        f"than the one whose features are cached: its file changed, or data.source "
                        f"has its key twice; name another folder, or set {self.key}.cache=null"
                    )


def checksum(images: Tensor) -> Tensor:
    """(B,) int64 checksums over all bits of images (B, ...), on their device."""
    bits = images.float().contiguous().view(torch.int32).flatten(1).to(torch.int64)
    place = torch.arange(1, bits.shape[1] + 1, device=bits.device) * _ODD
    # Mixing by position twice keeps equal changes and swapped pixels from cancelling out.
    mixed = (bits ^ place) * _ODD
    return (mixed ^ (mixed >> 29)).mul(place | 1).sum(1)


def flat(found: TeacherFeatures) -> dict[str, Tensor]:
    """Features as named tensors."""
    tensors = {"tokens": found.tokens}
    tensors |= {f"hidden.{number}": block for number, block in found.hidden.items()}
    for number, parts in found.qkv.items():
        tensors |= {f"qkv.{number}.{i}": part for i, part in enumerate(parts)}
    if found.cls is not None:
        tensors["cls"] = found.cls
    if found.cls_attention is not None:
        tensors["cls_attention"] = found.cls_attention
    return tensors


def whole_of(tensors: dict[str, Tensor]) -> TeacherFeatures:
    """Inverse of :func:`flat`."""
    numbers = {
        part: sorted({int(name.split(".")[1]) for name in tensors if name.startswith(f"{part}.")})
        for part in ("hidden", "qkv")
    }
    return TeacherFeatures(
        cls=tensors.get("cls"),
        tokens=tensors["tokens"],
        hidden={n: tensors[f"hidden.{n}"] for n in numbers["hidden"]},
        cls_attention=tensors.get("cls_attention"),
        qkv={
            n: (tensors[f"qkv.{n}.0"], tensors[f"qkv.{n}.1"], tensors[f"qkv.{n}.2"])
            for n in numbers["qkv"]
        },
    )


def _hash_of(network: nn.Module) -> str:
    """SHA-256 of a network's tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        data = tensor.detach().cpu().contiguous().flatten()
        digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _size(count: int) -> str:
    """A number of bytes in readable units."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 2**10:.3g} KiB"
