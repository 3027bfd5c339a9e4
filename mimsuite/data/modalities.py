"""Registry of modalities: their file extensions, decoders and views.

A modality is one :func:`register` call. Decoders are imported when first used.
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

# ``module:name``, imported on use, or the object itself.
Target = Any


@dataclass(frozen=True)
class Modality:
    """A kind of sample.

    Attributes:
        name: its name in ``index.json`` and on the command line.
        stored: extensions that a sample in a shard may have, the preferred first.
        packable: extensions that ``data pack`` converts to one of ``stored``.
        formats: module with ``facts``, ``store`` and ``picture``, see
            :mod:`mimsuite.data.packing`, which run in a child process; None: images, which
            :class:`~mimsuite.data.image.decode.ImageDecoder` decodes in this process.
        decoder: ``module:class`` of the :class:`~mimsuite.data.decoder.Decoder`, constructed with
            ``channels`` and ``max_pixels``; None: the modality cannot be trained on yet.
        views: ``module:class`` of its :class:`~mimsuite.data.views.Views`; None: the modality
            cannot be trained on yet.
        tile: (width, height) in pixels of its pictures on a contact sheet.
        corruptions: module with ``CORRUPTIONS``; None: it has none.
        in_place: whether local files are read by seeking instead of being loaded whole.
        sequences: whether a folder of images may be one sample (the frames of a video).
        label_map: extension of the classes of a sample's voxels in a shard; empty: there are none.
        label_formats: module for these with ``facts`` and ``store``, as ``formats`` has them, and
            ``check``, which compares a stored sample and its stored label map.
        layouts: modules that read further on-disk layouts of its samples; see
            :mod:`mimsuite.data.sources.layouts`.
        codec: ``module:class`` of its :class:`~mimsuite.data.packing.codecs.Codec`, which works in
            this process on decoded samples; None: ``formats`` is used, in a child process.
        pack_options: options of ``data pack`` that its codec accepts.
        maker, parted_maker: ``module:NAME`` of the makers of samples for ``data synth``, without
            and with part labels; None: it has none.
        canvas: ``module:function`` that draws its tokens at their positions; None: not drawn.
        bytes_per_number: bytes per number in a batch from the loader; 1 if uint8 is converted to
            float on the device.
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
    label_map: str = ""
    label_formats: str = ""
    layouts: tuple[str, ...] = ()
    codec: Target = None
    pack_options: tuple[str, ...] = ()
    maker: Target = None
    parted_maker: Target = None
    canvas: Target = None
    bytes_per_number: int = 4

    @property
    def extensions(self) -> tuple[str, ...]:
        """All extensions that ``data pack``, ``inspect`` and ``verify`` read."""
        return self.stored + self.packable


_known: dict[str, Modality] = {}


def register(modality: Modality) -> Modality:
    """Register a modality; raises ``ValueError`` if its name is taken."""
    if modality.name in _known:
        raise ValueError(f"modality '{modality.name}' is registered twice")
    _known[modality.name] = modality
    return modality


def names() -> list[str]:
    """Names of all modalities in order of registration; loads plugins first."""
    import_modalities()
    return list(_known)


def target(of: Target) -> Any:
    """Import a ``module:name``; any other value is returned as it is."""
    if not isinstance(of, str):
        return of
    module, _, attribute = of.partition(":")
    return getattr(import_module(module), attribute)


def payload_extensions() -> tuple[str, ...]:
    """The extensions of all modalities, without repeats."""
    every = (get(name).extensions for name in names())
    return tuple(dict.fromkeys(extension for known in every for extension in known))


def get(name: str) -> Modality:
    """The modality of that name.

    Raises:
        UserError: no modality has that name.
    """
    if name not in names():
        raise UserError(
            f"no modality '{name}'.{did_you_mean(name, names())} There are: {', '.join(names())}"
        )
    return _known[name]


def by_extensions(found: dict[str, int]) -> dict[str, int]:
    """Convert file counts by extension to file counts by modality, most frequent first.

    Extensions shared by modalities (``npy``, ``npz``) count only for modalities that also have
    other files; if there are no other files at all, they count for every candidate.
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


class NoDecoder(Decoder):
    """A decoder that only lists extensions, for samples that are read as stored."""

    def __init__(self, modality: Modality) -> None:
        self.modality, self.in_place = modality, modality.in_place
        self.sequences, self.layouts = modality.sequences, modality.layouts
        self.label_map = modality.label_map

    @property
    def extensions(self) -> tuple[str, ...]:
        return self.modality.extensions

    def __call__(self, payload: bytes | np.ndarray) -> Tensor:
        raise UserError(f"{self.modality.name} samples cannot be trained on in this version")


def training_decoder(name: str, channels: Channels, max_pixels: int) -> Decoder:
    """The decoder of a modality for training; arguments as in :class:`Decoder`.

    Raises:
        UserError: no such modality, or it cannot be trained on.
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
        maker="mimsuite.data.synthetic.drawings:MAKER",
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
        maker="mimsuite.data.synthetic.clips:MAKER",
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
        maker="mimsuite.data.synthetic.shapes:MAKER",
        parted_maker="mimsuite.data.synthetic.parted:MAKER",
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
        maker="mimsuite.data.synthetic.scenes:MAKER",
        parted_maker="mimsuite.data.synthetic.furniture:MAKER",
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
        label_map="labels.scan",
        label_formats="mimsuite.data.scans.label_maps",
        layouts=("mimsuite.data.scans.folders",),
        pack_options=("spacing", "voxels"),
        maker="mimsuite.data.synthetic.phantoms:MAKER",
        parted_maker="mimsuite.data.synthetic.phantoms:LABELLED",
        canvas="mimsuite.report.canvases:pixel_canvas",
    )
)
BANDS = register(
    Modality(
        "bands",
        stored=("geotiff",),  # and .tif of images, which the layout knows by their tags
        formats="mimsuite.data.bands.files",
        decoder="mimsuite.data.bands.decode:BandDecoder",
        views="mimsuite.data.bands.views:RasterViews",
        in_place=True,
        layouts=("mimsuite.data.bands.folders",),
        maker="mimsuite.data.synthetic.places:MAKER",
        canvas="mimsuite.report.canvases:pixel_canvas",
    )
)
