"""Benchmark of the data loader: its parts against alternatives, in one process without workers, and
the CPU time that the loader with workers takes from the training thread.

Two parts are measured: reading samples from tar shards without decoding, and making views of
encoded images. Every round runs each case once, so that all see the same machine load. Time is the
process's CPU time, which depends less on other load than wall-clock time. A view is timed up to its
tensor; collating is left out on both sides.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from mimsuite.batch import Batch
from mimsuite.config.keys.section import height_width
from mimsuite.config.keys.shared import AugmentSection
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.image import jpeg
from mimsuite.data.image.augment import TrainTransform
from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.image.encode import encode, extension_of
from mimsuite.data.loading.dealing import deal_of
from mimsuite.data.loading.lanes import LaneReader
from mimsuite.data.loading.train_loader import TrainLoader
from mimsuite.data.order.sample_order import BlockId, Plan, share_of
from mimsuite.data.shards import TarSource
from mimsuite.data.source import Source
from mimsuite.data.sources.opening import open_source
from mimsuite.data.views import Views
from mimsuite.errors import DataError, UserError
from mimsuite.noise import KeyedGenerator

READ_SAMPLES = 1200  # samples per round of reading: more than webdataset's shuffle buffer
VIEW_SAMPLES = 96  # samples per round of views
_SHUFFLE = 1000  # samples in webdataset's usual shuffle buffer
_SHARD = 200  # samples per shard
_BATCH = 64
_WORKERS = 2
_WARM_UP = 4  # first batches, made while the loader was opened; they are not timed
_MADE = 128  # different images in the synthetic set
_SIZE, _SLOPE, _QUALITY = (375, 500), 1.64, 96  # like an ImageNet photo at half size: 68 KB
_PIL_MODES = {"rgb": "RGB", "gray": "L"}
_SCHEME = "mimsuite-bench"

Round = Callable[[], None]


@dataclass(frozen=True)
class Stored:
    """An encoded image and its class id."""

    extension: str
    content: bytes
    label: int


def bench_data(
    source: Source | None = None,
    *,
    augment: AugmentSection | None = None,
    image_size: int | tuple[int, int] = 224,
    channels: Channels = "rgb",
    rounds: int = 5,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Run the benchmark on copies of a source's first samples; None: on synthetic photos.

    Args:
        augment: crop, flip and interpolation of the views; colour and erasing are left out.
        image_size: size of the views in pixels.
        channels: ``rgb`` or ``gray``.
        rounds: number of rounds; medians over rounds are reported.
        progress: called with (rounds done, rounds in total).

    Returns:
        ``set``; ``reading`` and ``views``: samples per second and core, by case; ``loader``:
        milliseconds per image taken from the training thread, and from the training process
        with its feeding thread; ``ratios`` to the alternatives (None: not measured, because
        simplejpeg is missing); ``pixel_difference``: mean absolute difference, out of 255, to
        PIL's views at equal crops.

    Raises:
        UserError: the source has no 8-bit images.
        DataError: its images cannot be read.
    """
    if channels not in _PIL_MODES:
        raise UserError(f"data.channels={channels}: the comparison is of rgb and gray images")
    torch.set_num_threads(1)
    stored = photos(_MADE) if source is None else _stored(source)
    keys = {"randaugment": None, "erase": 0.0}
    views = _Views(
        [item.content for item in islice(_cycle(stored), VIEW_SAMPLES)],
        (augment or AugmentSection()).model_copy(update=keys),
        image_size,
        channels,
    )
    difference = views.difference()
    with TemporaryDirectory(prefix="mimsuite-bench-") as folder, _Reading(stored, folder) as cases:
        reading = _measure(cases.rounds(), rounds, READ_SAMPLES, lambda n: progress(n, 2 * rounds))
        loader = _loader_cost(cases.source, views, rounds)
    made = _measure(
        views.rounds(), rounds, VIEW_SAMPLES, lambda n: progress(rounds + n, 2 * rounds)
    )
    return {
        "set": {
            "name": "made-up photos" if source is None else source.name,
            "samples": len(stored),
            "kilobytes_per_sample": statistics.mean(len(item.content) for item in stored) / 1e3,
        },
        "reading": {name: 1 / statistics.median(times) for name, times in reading.items()},
        "views": {name: 1 / statistics.median(times) for name, times in made.items()},
        "loader": loader,
        "ratios": {
            "read_size_to_webdataset": _ratio(reading, "webdataset", "size"),
            "read_crc_to_webdataset": _ratio(reading, "webdataset", "crc"),
            "read_folder_to_webdataset": _ratio(reading, "webdataset", "folder"),
            "views_to_torchvision": _ratio(made, "torchvision", "default"),
            "fast_views_to_torchvision": _ratio(made, "torchvision", "fast"),
        },
        "pixel_difference": difference,
        "rounds": rounds,
    }


def _ratio(times: dict[str, list[float]], theirs: str, ours: str) -> float | None:
    """Median over rounds of (their time / our time); None if a case was not run."""
    if ours not in times:
        return None
    pairs = zip(times[theirs], times[ours], strict=True)
    return statistics.median(their / our for their, our in pairs)


def _measure(
    cases: dict[str, Round], rounds: int, samples: int, progress: Callable[[int], None]
) -> dict[str, list[float]]:
    """Seconds per sample, by case and round; a first round warms up caches and is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, run in cases.items():
            begun = time.process_time()
            run()
            seconds[name].append((time.process_time() - begun) / samples)
        progress(number)
    return {name: times[1:] for name, times in seconds.items()}


# --- samples ---


def _stored(source: Source) -> list[Stored]:
    """The first readable samples; arrays are encoded as PNG."""
    kept: list[Stored] = []
    for position in range(min(len(source), READ_SAMPLES)):
        try:
            sample = source.read(*source.locate(position))
            content = sample.payload
            if isinstance(content, bytes):
                extension = extension_of(content)
            else:
                extension, content = encode(source.decode(sample), quality=None, jpeg=False)
        except CorruptSample:
            continue
        if extension == "npy":
            raise UserError(f"{source.name} holds arrays: the comparison is of encoded images")
        kept.append(
            Stored(extension, content, sample.label if isinstance(sample.label, int) else 0)
        )
    if not kept:
        raise DataError(f"{source.name}: none of its first samples is an image that can be read")
    return kept


def photos(count: int) -> list[Stored]:
    """Coloured noise with the spectrum of photos, as JPEG 4:2:0; the same on every machine."""
    height, width = _SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    kept = []
    for number in range(count):
        rng = np.random.default_rng(number)
        waves = rng.standard_normal((3, *frequency.shape, 2)) @ (1, 1j) / frequency**_SLOPE
        planes = np.fft.irfft2(waves, (height, width))
        light, red, blue = planes / planes.std(axis=(1, 2), keepdims=True)
        pixels = np.stack([light + 0.3 * red, light, light + 0.3 * blue], axis=-1) * 50 + 128
        stream = io.BytesIO()
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        picture.save(stream, "JPEG", quality=_QUALITY, subsampling=2)
        kept.append(Stored("jpg", stream.getvalue(), number % 10))
    return kept


def _cycle(stored: list[Stored]) -> Iterator[Stored]:
    while True:
        yield from stored


# --- reading ---


class _Reading:
    """The same samples as tar shards and as files in a folder; a context manager.

    Every case reads each payload and label once, in shuffled order, without decoding.
    """

    def __init__(self, stored: list[Stored], folder: str) -> None:
        self._shards, self._files = Path(folder) / "shards", Path(folder) / "files"
        self._write(stored)

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        for source in (self._size, self._crc):
            assert isinstance(source, TarSource)
            source.close()  # before the folder is removed

    @property
    def source(self) -> Source:
        """The source over the shards."""
        return self._crc

    def rounds(self) -> dict[str, Round]:
        return {
            "size": lambda: _read(self._size),
            "crc": lambda: _read(self._crc),
            "webdataset": self._webdataset,
            "folder": lambda: _read(self._folder),
        }

    def _write(self, stored: list[Stored]) -> None:
        from webdataset import TarWriter

        samples = list(islice(_cycle(stored), READ_SAMPLES))
        self._shards.mkdir()
        for first in range(0, len(samples), _SHARD):
            path = self._shards / f"{first // _SHARD:03d}.tar"
            with path.open("wb") as file, TarWriter(file, encoder=False) as tar:
                for number, item in enumerate(samples[first : first + _SHARD], first):
                    content = {item.extension: item.content, "cls": str(item.label).encode()}
                    tar.write({"__key__": f"{number:06d}", **content})
        for number, item in enumerate(samples):
            path = self._files / f"{item.label:05d}" / f"{number:06d}.{item.extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(item.content)
        self._size = open_source(str(self._shards), verify="size")
        self._crc = open_source(str(self._shards), verify="crc")
        self._folder = open_source(str(self._files))

    def _webdataset(self) -> None:
        import webdataset

        with _local_scheme():
            urls = [f"{_SCHEME}:{path}" for path in sorted(self._shards.glob("*.tar"))]
            shuffled = webdataset.WebDataset(urls, shardshuffle=False).shuffle(_SHUFFLE)
            assert sum(1 for _ in shuffled) == READ_SAMPLES


@contextmanager
def _local_scheme() -> Iterator[None]:
    """Let webdataset read local files by our own URL scheme: secure mode disables its own."""
    from webdataset.gopen import gopen_schemes

    def opened(url: str, mode: str, bufsize: int, **_: Any) -> IO[bytes]:
        return open(url.partition(":")[2], mode)

    gopen_schemes[_SCHEME] = opened
    try:
        yield
    finally:
        del gopen_schemes[_SCHEME]


def _read(source: Source) -> None:
    """Read every sample once, in training order."""
    plan = Plan(source.counts, seed=0, global_batch=_BATCH, lanes=1, tail="repeat")
    for block in range(-(-plan.per_lane // plan.block)):
        addresses = plan.samples_of(BlockId(stream=0, epoch=0, lane=0, block=block))
        for number in range(len(addresses)):
            source.read(*addresses[number])


# --- views ---


class _Views:
    """Makes training views of encoded images; crop and flip are keyed by the sample.

    The torchvision pipeline is the one of published code: PIL decodes, crops and resizes, then
    ``ToTensor`` and ``Normalize`` convert to float32.
    """

    def __init__(
        self,
        contents: list[bytes],
        section: AugmentSection,
        image_size: int | tuple[int, int],
        channels: Channels,
    ) -> None:
        self.contents, self.section = contents, section
        self.transform, self.size = TrainTransform(section, image_size), height_width(image_size)
        self.generator, self.mode = KeyedGenerator(), _PIL_MODES[channels]
        self.default, self.fast = ImageDecoder(channels, fast=False), ImageDecoder(channels)
        self.tensor = transforms.ToTensor()
        self.normalize = transforms.Normalize(section.mean, section.std)

    def rounds(self) -> dict[str, Round]:
        cases = {
            "torchvision": lambda number: self.normalize(self.tensor(self.by_pil(number))),
            "default": lambda number: self.ours(number, self.default),
            "fast": lambda number: self.ours(number, self.fast),
        }
        if jpeg.fast_decoder() is None:
            del cases["fast"]
        return {name: self._round(view) for name, view in cases.items()}

    def _round(self, view: Callable[[int], Tensor]) -> Round:
        def run() -> None:
            for number in range(len(self.contents)):
                view(number)

        return run

    def ours(self, number: int, decoder: Decoder) -> Tensor:
        """(C, h, w) uint8."""
        return self.transform(decoder(self.contents[number]), self.generator("view", number))

    def by_pil(self, number: int) -> Image.Image:
        """The same view, made by PIL."""
        rng = self.generator("view", number)
        image = Image.open(io.BytesIO(self.contents[number])).convert(self.mode)
        box = self.transform.box(image.height, image.width, rng)
        mode = transforms.InterpolationMode(self.section.interpolation)
        image = functional.resized_crop(image, *box, list(self.size), mode)
        return functional.hflip(image) if rng.random() < self.section.hflip else image

    def difference(self) -> float:
        """Mean absolute difference to PIL's views, out of 255."""
        total = 0.0
        for number in range(len(self.contents)):
            ours = self.ours(number, self.fast)
            theirs = functional.pil_to_tensor(self.by_pil(number))
            total += float((ours.float() - theirs.float()).abs().mean())
        return total / len(self.contents)


# --- the loader with its workers ---


class _Cut(Views):
    """The loader's views: pixels of the default decoder."""

    def __init__(self, views: _Views, channels: int) -> None:
        self.transform, self.shape = views.transform, (channels, *views.size)

    def train(self, sample: Any, rng: np.random.Generator) -> dict[str, Tensor]:
        return {"image": self.transform(sample, rng)}

    def evaluate(self, sample: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        raise NotImplementedError

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"image": self.shape}


def _loader_cost(source: Source, views: _Views, rounds: int) -> dict[str, float]:
    """CPU milliseconds per image in the thread that takes batches, and in its whole process."""
    plan = Plan(source.counts, seed=0, global_batch=_BATCH)
    cut = _Cut(views, len(views.normalize.mean))
    deal = deal_of(
        share_of(plan, 0, 1, None), _WORKERS, torch.Size(cut.shape).numel(), by_lane=False
    )
    thread, process = [], []
    with TrainLoader(
        LaneReader(source, plan, cut), deal, start_step=0, device=torch.device("cpu")
    ) as loader:
        for _ in islice(stream := iter(loader), _WARM_UP):
            pass
        for _ in range(4 * rounds):
            begun, all_begun = time.thread_time(), time.process_time()
            next(stream)
            thread.append(time.thread_time() - begun)
            process.append(time.process_time() - all_begun)
    each = 1e3 / _BATCH
    return {
        "training_thread_ms": each * statistics.mean(thread),
        "training_process_ms": each * statistics.mean(process),
        "workers": _WORKERS,
    }
