"""The training stream is bit-identical for any workers and ranks, from any step on."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import Recipe
from mimsuite.data import open_source, train_loader
from mimsuite.data.source import Source
from mimsuite.errors import UserError
from tests.data.conftest import bare_recipe

STEPS = 6


def global_batches(
    source: Source, recipe: Recipe, *, start: int = 0, world: int = 1, steps: int = STEPS
) -> list[tuple[list[str], torch.Tensor, list[int]]]:
    """(keys, images, labels) of global batches, rows in order, joined over ranks."""
    rows: list[dict[int, tuple[str, torch.Tensor, int]]] = [{} for _ in range(steps)]
    for rank in range(world):
        with train_loader(source, recipe, start_step=start, rank=rank, world=world) as loader:
            stream = islice(loader, steps * loader.accumulation)
            for number, loaded in enumerate(stream):
                batch = loaded.batch
                assert batch.index.tolist() == sorted(batch.index.tolist())
                for i, row in enumerate(batch.index.tolist()):
                    label = -1 if batch.label is None else int(batch.label[i])
                    found = (batch.keys[i], batch.image[i], label)
                    assert rows[number // loader.accumulation].setdefault(row, found) is found
    result = []
    for step in rows:
        assert sorted(step) == list(range(recipe.train.global_batch))
        ordered = [step[row] for row in range(len(step))]
        keys, images, labels = zip(*ordered, strict=True)
        result.append((list(keys), torch.stack(images), list(labels)))
    return result


@pytest.fixture
def source(make_shards: Callable[..., Path]) -> Source:
    return open_source(str(make_shards([13, 9, 30, 1])))


def same(left: list, right: list) -> bool:
    return all(
        a[0] == b[0] and a[2] == b[2] and torch.equal(a[1], b[1])
        for a, b in zip(left, right, strict=True)
    )


AHEAD = 30
STARTS = (0, 1, 5, 6, 13, 17)  # of epochs of 6 steps: at their ends, between, epochs later


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, list]:
    """A set of shards, and what one process without workers reads of it from the first step."""
    folder = tmp_path_factory.mktemp("stream")
    for shard, count in enumerate([13, 9, 30, 1]):
        with tarfile.open(folder / f"{shard:02d}.tar", "w") as archive:
            for number in range(count):
                add(archive, f"{shard}{number:02d}.png", noisy_png(100 * shard + number))
                add(archive, f"{shard}{number:02d}.cls", str(number % 3).encode())
    source = open_source(str(folder))
    return source, global_batches(source, recipe_of(), steps=max(STARTS) + AHEAD)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def noisy_png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def recipe_of(workers: int = 0, micro: int | None = None) -> Recipe:
    return bare_recipe(
        data={"block": 4, "lanes": 4, "workers": workers}, train={"micro_batch": micro}
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_next_30_batches_are_the_same_for_any_layout_from_any_step(
    expected: tuple[Source, list], workers: int, world: int
) -> None:
    source, batches = expected
    layout = 3 * [0, 1, 2, 4].index(workers) + [1, 2, 4].index(world)
    start, micro = STARTS[layout % len(STARTS)], (None, 1, 2)[layout % 3]
    recipe = recipe_of(workers, micro)
    found = global_batches(source, recipe, start=start, world=world, steps=AHEAD)
    assert same(found, batches[start : start + AHEAD])


@pytest.mark.parametrize("start", STARTS)
def test_the_next_30_batches_are_the_same_from_any_step(
    expected: tuple[Source, list], start: int
) -> None:
    source, batches = expected
    found = global_batches(source, recipe_of(), start=start, steps=AHEAD)
    assert same(found, batches[start : start + AHEAD])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("tail", "workers"), [("drop", 0), ("drop", 5), ("repeat", 0), ("repeat", 5)]
)
def test_exactly_once_with_more_workers_than_shards(
    expected: tuple[Source, list], tail: str, workers: int
) -> None:
    source, _ = expected
    recipe = bare_recipe(data={"tail": tail, "workers": workers}, train={"micro_batch": 2})
    loader = train_loader(source, recipe)
    assert len(source.counts) < 5
    steps, dropped, repeated = loader.steps_per_epoch, loader.dropped, loader.repeated
    assert (steps, dropped, repeated) == ((6, 5, 0) if tail == "drop" else (7, 0, 3))
    times = Counter(
        key for batch in global_batches(source, recipe, steps=steps) for key in batch[0]
    )
    assert len(times) == 53 - dropped
    assert sorted(times.values()) == [1] * (53 - dropped - repeated) + [2] * repeated


def test_exactly_once_per_epoch_and_what_is_dropped_is_stated(
    source: Source, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe()
    loader = train_loader(source, recipe)
    assert loader.steps_per_epoch == 6
    assert loader.dropped == 53 - 48
    for epoch in (0, 1):
        batches = global_batches(source, recipe, start=epoch * 6)
        keys = [key for batch in batches for key in batch[0]]
        assert len(set(keys)) == len(keys) == 48
    assert all(
        int(key) % 3 == label for b in batches for key, label in zip(b[0], b[2], strict=True)
    )


def test_folder_and_shards_of_it_give_the_same_labels_and_shapes(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    source = open_source(str(make_folder(20, classes=2)))
    assert (source.counts == 1).all()
    (batch,) = (loaded.batch for loaded in islice(train_loader(source, make_recipe()), 1))
    assert isinstance(batch, Batch)
    assert batch.image.shape == (8, 3, 12, 12)
    assert batch.image.dtype == torch.uint8
    assert [f"class{i}" for i in batch.label.tolist()] == [k.split("/")[0] for k in batch.keys]


def test_unlabelled_source_gives_no_labels(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    source = open_source(str(make_folder(10)))
    loaded = next(iter(train_loader(source, make_recipe())))
    assert loaded.batch.label is None
    assert loaded.damage == []


def test_finished_shards_are_not_opened(
    make_shards: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    source = open_source(str(make_shards([8] * 20)))
    recipe = make_recipe(data={"lanes": 1, "block": 8})
    next(iter(train_loader(source, recipe, start_step=15)))
    assert len(source._shards) <= 3


def test_more_workers_than_lanes(source: Source, make_recipe: Callable[..., Recipe]) -> None:
    one = make_recipe(data={"lanes": 1})
    many = make_recipe(data={"lanes": 1, "workers": 3}, train={"micro_batch": 2})
    assert same(global_batches(source, one, steps=2), global_batches(source, many, steps=2))


def test_epochs_differ_and_seeds_differ(source: Source, make_recipe: Callable[..., Recipe]) -> None:
    first, other = make_recipe(), make_recipe(train={"seed": 1})
    assert (
        global_batches(source, first, steps=1)[0][0]
        != (global_batches(source, first, start=6, steps=1)[0][0])
    )
    assert (
        global_batches(source, first, steps=1)[0][0]
        != (global_batches(source, other, steps=1)[0][0])
    )


def test_channels_of_data_model_and_statistics_are_compared(
    source: Source, make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    with pytest.raises(UserError, match=r"data\.channels=rgb gives images of 3 channels, the mod"):
        train_loader(source, make_recipe(channels=1))
    gray = open_source(str(make_folder(10)), channels="gray")
    with pytest.raises(UserError, match=r"augment\.mean has 3 values for images of 1 channels"):
        train_loader(gray, make_recipe(channels=1))
    with pytest.raises(UserError, match=r"randaugment works on data\.channels=rgb only"):
        train_loader(
            gray,
            make_recipe(
                channels=1, augment={"mean": [0.5], "std": [0.5], "randaugment": "rand-m9"}
            ),
        )
    native = open_source(str(make_folder(10)), channels="native")
    one_mean = {"mean": [0.5], "std": [0.5]}
    recipe = make_recipe(channels=1, data={"workers": 1}, augment=one_mean)
    stream = iter(train_loader(native, recipe))
    with pytest.raises(UserError, match=r"\.png: it has 3 channels, the model takes in_channels=1"):
        next(stream)
