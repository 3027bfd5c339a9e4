"""Random cuts and flipped bits: all are found by ``verify``, and none ever changes training.

Places are drawn by a fixed seed, over whole files: headers, contents, padding and end marks.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch

from mimsuite.cli.main import main
from mimsuite.config.keys.shared import Recipe
from mimsuite.data import open_source, train_loader
from mimsuite.data.damage import Damage
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.packing.verify import verify
from mimsuite.data.shards.index import load_tables, open_index
from mimsuite.data.source import Source
from mimsuite.errors import DataError

FAULTS = 60
SAMPLES, SHARD = 60, 15
Views = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Member:
    """Where a payload or a label lies."""

    key: str
    start: int
    end: int


@pytest.fixture
def shards(make_folder: Callable[..., Path], tmp_path: Path) -> list[Path]:
    """Labelled samples, as ``data pack`` writes them."""
    out = tmp_path / "packed"
    pack(str(make_folder(SAMPLES, classes=3)), out, PackOptions(shard_size=SHARD))
    return sorted(out.glob("*.tar"))


def members(path: Path) -> list[Member]:
    tables = load_tables(open_index(path))
    return [
        Member(
            tables.keys[int(row["sample"])],
            int(row["offset"]),
            int(row["offset"]) + int(row["size"]),
        )
        for row in tables.members
    ]


@contextmanager
def damaged(path: Path, change: Callable[[bytearray], None]) -> Iterator[None]:
    """The file with other bytes, in place: who has it open sees them too."""
    sound = path.read_bytes()
    content = bytearray(sound)
    change(content)
    try:
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()
        yield
    finally:
        path.write_bytes(sound)


def flips(shards: list[Path], seed: int) -> Iterator[tuple[Path, int, Callable]]:
    """(shard, byte, change) of single bits."""
    rng = random.Random(seed)
    for _ in range(FAULTS):
        path = rng.choice(shards)
        at, bit = rng.randrange(path.stat().st_size), rng.randrange(8)

        def flip(content: bytearray, at: int = at, bit: int = bit) -> None:
            content[at] ^= 1 << bit

        yield path, at, flip


def cuts(shards: list[Path], seed: int) -> Iterator[tuple[Path, int, Callable]]:
    """(shard, size, change); every third cut is between blocks, where tar tools see no fault."""
    rng = random.Random(seed)
    for number in range(FAULTS):
        path = rng.choice(shards)
        size = rng.randrange(path.stat().st_size)
        size -= 0 if number % 3 else size % 512

        def cut(content: bytearray, size: int = size) -> None:
            del content[size:]

        yield path, size, cut


def train(source: Source, recipe: Recipe) -> tuple[Views, list[Damage]]:
    """One epoch: every view by its key, and the damage that was reported."""
    views: Views = {}
    damage: list[Damage] = []
    with train_loader(source, recipe) as loader:
        for loaded in islice(loader, loader.steps_per_epoch):
            views.update(zip(loaded.batch.keys, loaded.batch.image, strict=True))
            damage += loaded.damage
    return views, damage


def same(views: Views, sound: Views) -> bool:
    """Whether every view is the one that sound shards give for its key."""
    return all(torch.equal(view, sound[key]) for key, view in views.items())


# --- verify ---


@pytest.mark.parametrize("kind", [cuts, flips])
def test_verify_finds_all(kind, shards: list[Path]) -> None:
    assert all(report.problems == [] for report in verify(str(shards[0].parent)))
    for path, at, change in kind(shards, seed=1):
        with damaged(path, change):
            (report,) = verify(str(path))
        assert report.problems, f"{path.name}, byte {at}"
    assert all(report.problems == [] for report in verify(str(shards[0].parent)))


@pytest.mark.parametrize("kind", [cuts, flips])
def test_verify_names_the_one_shard_of_a_set(kind, shards: list[Path], capsys) -> None:
    for path, _, change in islice(kind(shards, seed=2), 6):
        with damaged(path, change):
            assert main(["data", "verify", str(path.parent), "--json"]) == 3
        found = json.loads(capsys.readouterr().out)
        listed = found["shards"] if isinstance(found, dict) else found
        assert [item["name"] for item in listed if not item["sound"]] == [path.name]


# --- training ---


@pytest.fixture
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    """A batch is a divisor of the set: an epoch reads every sample."""
    return make_recipe(train={"global_batch": 4}, data={"block": 15})


def test_training_finds_every_flip_that_it_reads(shards: list[Path], recipe: Recipe) -> None:
    sound, none = train(open_source(str(shards[0].parent)), recipe)
    assert (len(sound), none) == (SAMPLES, [])
    hits = 0
    for path, at, flip in flips(shards, seed=3):
        hit = [member.key for member in members(path) if member.start <= at < member.end]
        with damaged(path, flip):
            views, damage = train(open_source(str(path.parent)), recipe)
        assert same(views, sound)
        assert [(item.key, item.shard, item.kind) for item in damage] == [
            (key, path.name, "crc") for key in hit
        ]
        assert set(sound) - set(views) == set(hit)
        hits += len(hit)
    assert hits > FAULTS // 10  # not only headers and padding


def test_training_refuses_a_cut_shard_at_its_start(shards: list[Path], recipe: Recipe) -> None:
    for path, size, cut in cuts(shards, seed=4):
        with damaged(path, cut), pytest.raises(DataError) as fault:
            train(open_source(str(path.parent)), recipe)
        assert fault.value.exit_code == 3
        assert path.name in str(fault.value)
        assert f"{size} bytes" in str(fault.value)


@pytest.mark.parametrize("indexed", [True, False], ids=["own index", "foreign"])
def test_a_cut_is_found_without_index_json(
    indexed: bool, shards: list[Path], recipe: Recipe
) -> None:
    """By the shard's own index, or, where there is none, when it is built."""
    (shards[0].parent / "index.json").unlink()
    for path, size, cut in cuts(shards, seed=5):
        place = path.with_name(path.name + ".idx")
        index = place.read_bytes()
        if not indexed:
            place.unlink()
        content = path.read_bytes().rstrip(b"\0")
        try:
            with damaged(path, cut):
                if not indexed and size >= len(content) + 1024 + 512:
                    continue  # only more zeros than an archive needs are gone
                with pytest.raises(DataError, match=path.name):
                    train(open_source(str(path)), recipe)
        finally:
            place.write_bytes(index)


def test_a_shard_that_is_cut_during_training_is_counted_and_bounded(
    shards: list[Path], recipe: Recipe
) -> None:
    sound, _ = train(open_source(str(shards[0].parent)), recipe)
    stopped: list[tuple[DataError, str, int]] = []
    replaced = 0
    for path, size, cut in cuts(shards, seed=6):
        gone = {member.key for member in members(path) if member.end > size}
        source = open_source(str(path.parent))
        source.read(0, 0)
        with damaged(path, cut):
            try:
                views, damage = train(source, recipe)
            except DataError as fault:
                stopped.append((fault, path.name, len(gone)))
                continue
        replaced += 1
        assert same(views, sound)
        assert {item.key for item in damage} == gone
        assert {item.kind for item in damage} <= {"truncated"}
        assert {item.shard for item in damage} <= {path.name}
    for fault, name, count in stopped:
        assert (fault.exit_code, count > 10) == (3, True)
        assert name in str(fault)
    assert len(stopped) > 5
    assert replaced > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked here")
def test_workers_report_the_same_damage(
    shards: list[Path], make_recipe: Callable[..., Recipe]
) -> None:
    member = members(shards[1])[6]

    def flip(content: bytearray) -> None:
        content[member.start] ^= 1

    found = []
    for workers in (0, 2):
        with damaged(shards[1], flip):
            recipe = make_recipe(train={"global_batch": 4}, data={"workers": workers})
            found.append(train(open_source(str(shards[1].parent)), recipe))
    (views, damage), (views_of_workers, damage_of_workers) = found
    assert [item.key for item in damage] == [member.key]
    assert damage == damage_of_workers
    assert set(views) == set(views_of_workers)
    assert same(views_of_workers, views)
