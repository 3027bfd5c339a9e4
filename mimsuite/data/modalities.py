"""What kinds of samples there are: the files that may hold one, and what decodes them.

A modality is one :func:`register` call. Nothing that decodes is imported until it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from mimsuite.config.methods import import_modalities
from mimsuite.config.suggest import did_you_mean
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.image.kinds import ARRAY_EXTENSIONS, IMAGE_EXTENSIONS
from mimsuite.data.video.containers import EXTENSIONS as VIDEO_EXTENSIONS
from mimsuite.errors import UserError

# A ``module:name``, imported when it is used, or what it would give.
Target = Any


@dataclass(frozen=True)
class Modality:
    """A kind of sample.

    Attributes:
        name: as ``index.json`` and the command line have it.
        stored: extensions that a sample in a shard may have, the preferred first.
        packable: extensions that ``data pack`` turns into those.
        formats: the module with ``facts``, ``store`` and ``picture``, see
            :mod:`mimsuite.data.packing`, which run in a child process; None: images, which
            :class:`~mimsuite.data.image.decode.ImageDecoder` decodes in this one.
        decoder: ``module:class`` of what makes a stored sample a tensor for training, made with
            the keys ``channels`` and ``max_pixels``; None: there is no training on it yet.
        views: ``module:class`` of its :class:`~mimsuite.data.views.Views`; None: likewise.
        tile: (width, height) in pixels of its pictures on a contact sheet.
        corruptions: module with ``CORRUPTIONS``; None: there are none.
        in_place: whether local files are read by seeking; else they are loaded whole.
        sequences: whether a folder of images may be one sample, as the frames of a video.
        layouts: modules that know further ways in which its samples lie on a disk; see
            :mod:`mimsuite.data.sources.layouts`.
        codec: ``module:class`` of its :class:`~mimsuite.data.packing.codecs.Codec`, which works in
            this process on samples of its decoder; None: ``formats`` in a child process.
        pack_options: those of ``data pack`` that its codec takes.
        maker, parted_maker: ``module:NAME`` of what makes samples for ``data synth``, and such
            whose parts are known; None: there is none.
        canvas: ``module:function`` of what draws its tokens where they lie; None: it is not drawn.
        bytes_per_number: that a loader hands over; 1 for bytes that become floats on the device.
    """

    name: str
    stored: tuple[str, ...]
    packable: tuple[str, ...] = ()
    formats: str | None = None
    decoder: Target = None
    views: Target = None
    tile: tuple[int, int] = (96, 96)
    corruptions: str | None = None
    in_place: bool = False
    sequences: bool = False
    layouts: tuple[str, ...] = ()
    codec: Target = None
    pack_options: tuple[str, ...] = ()
    maker: Target = None
    parted_maker: Target = None
    canvas: Target = None
    bytes_per_number: int = 4

    @property
    def extensions(self) -> tuple[str, ...]:
        """All that ``data pack``, ``inspect`` and ``verify`` read."""
        return self.stored + self.packable


_known: dict[str, Modality] = {}


def register(modality: Modality) -> Modality:
    """Make a modality known; raises ``ValueError`` if its name is taken."""
    if modality.name in _known:
        raise ValueError(f"modality '{modality.name}' is registered twice")
    _known[modality.name] = modality
    return modality


def names() -> list[str]:
    """All modalities, in the order of their registration; plugins register theirs now."""
    import_modalities()
    return list(_known)


def target(of: Target) -> Any:
    """What a ``module:name`` gives; anything else is it already."""
    if not isinstance(of, str):
        return of
    module, _, attribute = of.partition(":")
    return getattr(import_module(module), attribute)


def payload_extensions() -> tuple[str, ...]:
    """All extensions of any modality, each once."""
    every = (get(name).extensions for name in names())
    return tuple(dict.fromkeys(extension for known in every for extension in known))


def get(name: str) -> Modality:
    """The modality of that name.

    Raises:
        UserError: there is none.
    """
    if name not in names():
        raise UserError(
            f"no modality '{name}'.{did_you_mean(name, names())} There are: {', '.join(names())}"
        )
    return _known[name]


def by_extensions(found: dict[str, int]) -> dict[str, int]:
    """Files by modality, the most first, of a count of files by extension.

    Extensions that several modalities use (``npy``, ``npz``) count for those that other files
    speak for; where there are no others at all, they count for all that may be meant.
    """
    votes = {extension: _takers(extension) for extension in found}
    counts: dict[str, int] = {}
    for extension, takers in votes.items():
        if len(takers) == 1:
            counts[takers[0]] = counts.get(takers[0], 0) + found[extension]
    certain = set(counts)
    for extension, takers in votes.items():
        if len(takers) > 1:
            for taker in takers:
                if taker in certain or not certain:
                    counts[taker] = counts.get(taker, 0) + found[extension]
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _takers(extension: str) -> list[str]:
    last = extension.rpartition(".")[2]
    return [name for name in names() if last in get(name).extensions]


class Undecoded(Decoder):
    """Stands for a decoder where samples are read as stored, and never made tensors."""

    def __init__(self, modality: Modality) -> None:
        self.modality, self.in_place = modality, modality.in_place
        self.sequences, self.layouts = modality.sequences, modality.layouts

    @property
    def extensions(self) -> tuple[str, ...]:
        return self.modality.extensions

    def __call__(self, payload: bytes | np.ndarray) -> Tensor:
        raise UserError(f"{self.modality.name} samples cannot be trained on in this version")


def training_decoder(name: str, channels: Channels, max_pixels: int) -> Decoder:
    """What makes a modality's stored samples tensors; arguments as of :class:`Decoder`.

    Raises:
        UserError: no such modality, or none that can be trained on.
    """
    modality = get(name)
    if modality.decoder is None:
        raise UserError(f"{name} samples cannot be trained on in this version")
    decoder: Decoder = target(modality.decoder)(channels=channels, max_pixels=max_pixels)
    return decoder


IMAGE = register(
    Modality(
        "image",
        stored=IMAGE_EXTENSIONS + ARRAY_EXTENSIONS,
        decoder="mimsuite.data.image.decode:ImageDecoder",
        views="mimsuite.data.image.views:ImageViews",
        corruptions="mimsuite.data.image.corruptions",
        layouts=ImageDecoder.layouts,
        codec="mimsuite.data.packing.codecs:ImageCodec",
        pack_options=("resize", "quality"),
        maker="mimsuite.data.made.drawings:MAKER",
        canvas="mimsuite.report.canvases:pixel_canvas",
        bytes_per_number=1,
    )
)
VIDEO = register(
    Modality(
        "video",
        stored=VIDEO_EXTENSIONS,
        formats="mimsuite.data.video.files",
        decoder="mimsuite.data.video.encoded:VideoDecoder",
        views="mimsuite.data.video.views:VideoViews",
        tile=(256, 64),
        in_place=True,
        sequences=True,
        corruptions="mimsuite.data.video.corruptions",
        pack_options=("resize", "gop"),
        maker="mimsuite.data.made.clips:MAKER",
        canvas="mimsuite.report.canvases:pixel_canvas",
        bytes_per_number=1,
    )
)
POINTS = register(
    Modality(
        "points",
        stored=("npy",),
        packable=(
            *("npz", "ply", "pcd", "xyz", "pts", "asc", "las", "laz"),
            *("obj", "off", "stl", "glb"),
        ),
        formats="mimsuite.data.points.files",
        decoder="mimsuite.data.points.decode:PointDecoder",
        views="mimsuite.data.points.views:PointViews",
        tile=(128, 128),
        corruptions="mimsuite.data.points.corruptions",
        layouts=("mimsuite.data.points.cloud_folders",),
        pack_options=("points", "features", "seed"),
        maker="mimsuite.data.made.shapes:MAKER",
        parted_maker="mimsuite.data.made.parted:MAKER",
        canvas="mimsuite.report.canvases:cloud_canvas",
    )
)
GRIDS = register(
    Modality(
        "grids",
        stored=("npz",),
        formats="mimsuite.data.volume.files",
        decoder="mimsuite.data.volume.decode:GridDecoder",
        views="mimsuite.data.volume.views:GridViews",
        tile=(192, 96),
        maker="mimsuite.data.made.scenes:MAKER",
        parted_maker="mimsuite.data.made.furniture:MAKER",
        canvas="mimsuite.report.canvases:volume_canvas",
    )
)
SCANS = register(
    Modality(
        "scans",
        stored=("scan",),
        packable=("nii",),  # and .nii.gz and folders of DICOM files, which the layout finds
        formats="mimsuite.data.scans.files",
        decoder="mimsuite.data.scans.decode:ScanDecoder",
        views="mimsuite.data.scans.views:ScanViews",
        tile=(252, 84),
        in_place=True,
        layouts=("mimsuite.data.scans.folders",),
        pack_options=("spacing", "voxels"),
        maker="mimsuite.data.made.phantoms:MAKER",
        canvas="mimsuite.report.canvases:pixel_canvas",
    )
)
