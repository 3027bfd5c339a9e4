"""Corrupt samples are replaced in place, named once, and bounded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from mimsuite.config.keys.shared import Recipe
from mimsuite.data import eval_loader, open_source, train_loader, views_of
from mimsuite.data.damage import Damage, DamageCount
from mimsuite.data.source import Source
from mimsuite.errors import DataError
from tests.data.conftest import bare_recipe


def run(source: Source, recipe: Recipe, steps: int) -> tuple[list[str], list[Damage]]:
    keys, damage = [], []
    with train_loader(source, recipe) as loader:
        for loaded in islice(loader, steps * loader.accumulation):
            keys += loaded.batch.keys
            damage += loaded.damage
    return keys, damage


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_replaced_in_place_by_one_of_its_block(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe], workers: int
) -> None:
    folder = make_folder(64)
    keys = {"data": {"lanes": 4, "block": 16, "workers": workers}}
    sound, none = run(open_source(str(folder)), make_recipe(**keys), 8)
    assert none == []
    for name in ("010.png", "037.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:60])
    (folder / "020.png").unlink()
    source_before = open_source(str(folder))
    (folder / "020.png").write_bytes(b"")  # as many files as before: the order is the same
    found, damage = run(open_source(str(folder)), make_recipe(**keys), 8)
    assert len(source_before) == 63
    bad = {"010.png", "037.png", "020.png"}
    changed = {old for old, new in zip(sound, found, strict=True) if old != new}
    assert changed == bad
    assert {item.key for item in damage} == bad
    assert len(damage) == 3
    assert {item.kind for item in damage} == {"decode"}
    lane_and_block = {key: (i % 4, i // 4 // 16) for i, key in enumerate(sound)}
    for i, (old, new) in enumerate(zip(sound, found, strict=True)):
        assert lane_and_block[new] == (i % 4, i // 4 // 16), (old, new)


def test_damage_is_reported_once_and_at_the_same_place_for_any_workers(
    make_shards: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    path = make_shards([40]) / "part-000.tar"
    source = open_source(str(path))
    flip(source, path, [3, 17])
    seen = []
    for workers in (0, 2):
        keys = {"data": {"lanes": 4, "block": 4, "workers": workers}, "train": {"micro_batch": 2}}
        with train_loader(open_source(str(path)), make_recipe(**keys)) as loader:
            batches = list(islice(loader, 3 * loader.steps_per_epoch * loader.accumulation))
        seen.append([(b.batch.keys, b.damage) for b in batches])
        damage = [item for loaded in batches for item in loaded.damage]
        assert {(d.key, d.shard, d.kind) for d in damage} == {
            ("00003", "part-000.tar", "crc"),
            ("00017", "part-000.tar", "crc"),
        }
        assert len(damage) == 2
    assert seen[0] == seen[1]


def flip(source: Source, path: Path, samples: list[int]) -> None:
    data = bytearray(path.read_bytes())
    for sample in samples:
        data[int(source._payload_member(0, sample)["offset"]) + 50] ^= 1
    path.write_bytes(data)


def test_small_blocks_borrow_from_behind(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    folder = make_folder(16)
    (folder / "003.png").write_bytes(b"no image")
    recipe = make_recipe(train={"global_batch": 16})  # one sample a lane
    keys, damage = run(open_source(str(folder)), recipe, 2)
    assert len(keys) == 32
    assert [item.key for item in damage] == ["003.png"]


def test_limits() -> None:
    items = [Damage(str(i), "s", "decode", "bad") for i in range(20001)]
    count = DamageCount(1000)
    assert count.add(items[:10]) == items[:10]
    assert count.add(items[:10]) == []
    with pytest.raises(DataError, match=r"11 of 1000 samples are corrupt, .*0 in s: bad; 1 in s"):
        count.add(items[10:11])
    large = DamageCount(20000)
    large.add(items[:20])
    with pytest.raises(DataError, match="21 of 20000"):
        large.add(items[20:21])
    with pytest.raises(DataError, match="2 of 4 samples"):
        DamageCount(4).add(items[:2])
    assert DamageCount(4).add(items[:1])


@pytest.mark.parametrize("workers", [0, 2])
def test_too_much_damage_stops_with_exit_code_3(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe], workers: int
) -> None:
    folder = make_folder(40)
    for number in range(12):
        (folder / f"{number:03d}.png").write_bytes(b"no image")
    recipe = make_recipe(data={"workers": workers})
    with pytest.raises(DataError, match=r"1[12] of 40 samples are corrupt") as fault:
        run(open_source(str(folder)), recipe, 5)
    assert fault.value.exit_code == 3
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_stops_at_once(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe], workers: int
) -> None:
    folder = make_folder(30)
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of 30 samples in a row can be read|are corrupt"):
        run(open_source(str(folder)), make_recipe(data={"workers": workers}), 1)


def test_a_shard_that_vanishes_is_a_data_error(
    make_shards: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    folder = make_shards([20, 20])
    source = open_source(str(folder))
    (folder / "part-001.tar").unlink()
    with pytest.raises(DataError, match=r"cannot read shard .*part-001\.tar"):
        run(source, make_recipe(data={"workers": 1}), 5)


# --- evaluation ---


@pytest.mark.parametrize("workers", [0, 2])
def test_eval_loader_reads_every_sample_once_in_order(
    make_shards: Callable[..., Path], workers: int
) -> None:
    source = open_source(str(make_shards([5, 8])))
    views = views_of(bare_recipe())
    loader = eval_loader(source, views, 4, workers)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [4, 4, 4, 1]
    assert len(loader) == 4
    assert [key for batch in batches for key in batch.keys] == [f"{i:05d}" for i in range(13)]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(13))
    assert torch.cat([b.label for b in batches if b.label is not None]).tolist() == [
        i % 3 for i in range(13)
    ]
    assert batches[0].image.shape == (4, 3, 12, 12)
    assert batches[0].image.dtype == torch.uint8
    chosen = list(eval_loader(source, views, 4, workers, positions=[7, 2]))
    assert chosen[0].index.tolist() == [7, 2]
    assert torch.equal(chosen[0].image[1], batches[0].image[2])


def test_eval_loader_leaves_out_and_names_what_is_corrupt(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(9)
    (folder / "004.png").write_bytes(b"no image")
    views = views_of(bare_recipe())
    loader = eval_loader(open_source(str(folder)), views, 4)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [4, 3, 1]
    assert batches[1].index.tolist() == [5, 6, 7]
    assert batches[0].label is None
    assert [item.key for item in loader.damaged] == ["004.png"]
    for path in folder.glob("00[0-3].png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="of 9 samples are corrupt"):
        list(eval_loader(open_source(str(folder)), views, 4))
