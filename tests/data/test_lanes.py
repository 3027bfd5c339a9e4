"""Lanes and batches without files: which sample replaces which, and what is read how often."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite.data.damage import CorruptSample, Damage
from mimsuite.data.loading import train_loader
from mimsuite.data.loading.batch_piece import Part
from mimsuite.data.loading.carrier import Carrier
from mimsuite.data.loading.dealing import deal_of
from mimsuite.data.loading.eval_loader import EvalLoader, eval_loader
from mimsuite.data.loading.lanes import LaneReader
from mimsuite.data.loading.train_loader import TrainLoader, _Stream
from mimsuite.data.order.sample_order import Plan, share_of
from mimsuite.errors import DataError, UserError
from mimsuite.noise import keyed_rng

COUNTS = np.array([9, 31, 14, 23])


class Source:
    """Samples by their address, some of them corrupt; says what was read."""

    annotated, fetched, name = True, False, "numbers"

    def __init__(self, *corrupt: tuple[int, int]) -> None:
        self.corrupt, self.reads = set(corrupt), []  # type: ignore[var-annotated]

    def __len__(self) -> int:
        return 7

    def locate(self, position: int) -> tuple[int, int]:
        return 0, position

    def read(self, shard: int, offset: int) -> Any:
        self.reads.append((shard, offset))
        if (shard, offset) in self.corrupt:
            raise CorruptSample("decode", "broken")
        return SimpleNamespace(key=f"{shard}/{offset}", label=offset)

    def decode(self, sample: Any) -> Any:
        return sample

    def damage(self, shard: int, offset: int, fault: CorruptSample) -> Damage:
        return Damage(f"{shard}/{offset}", str(shard), fault.kind, str(fault))


class OneNumber:
    """A view of one number: a random one in training, the label otherwise."""

    def train(self, decoded: Any, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if decoded.label == 30:
            raise UserError("too odd")
        return {"image": torch.tensor([rng.random()])}

    def evaluate(self, decoded: Any) -> dict[str, torch.Tensor]:
        if decoded.label == 30:
            raise UserError("too odd")
        return {"image": torch.tensor([float(decoded.label)])}


def reader(*corrupt: tuple[int, int], **keys: Any) -> LaneReader:
    plan = Plan(COUNTS, **{"seed": 3, "global_batch": 12, "lanes": 4, "block": 5} | keys)
    return LaneReader(Source(*corrupt), plan, OneNumber())  # type: ignore[arg-type]


def block_of(lanes: LaneReader, step: int, slot: int, lane: int) -> tuple[list[Any], Any, int]:
    block, place = lanes.plan.find(step, slot, lane)
    samples, spares = lanes.plan.samples_of(block), lanes.plan.spares_of(block)
    return [samples[i] for i in range(len(samples))], spares, place


def test_views_are_keyed_by_seed_epoch_and_sample() -> None:
    drawn = reader().draw(7, 1, 2)  # of the second epoch
    number = keyed_rng(3, "augment", 1, drawn.key).random()
    assert float(drawn.views["image"]) == pytest.approx(number, rel=1e-6)
    assert (drawn.damage, f"{drawn.label}") == ([], drawn.key.split("/")[1])


def test_the_next_of_the_block_then_its_spares_replace_a_corrupt_one() -> None:
    own, spares, place = block_of(reader(), 0, 2, 1)
    assert place == 2
    turned = own[place:] + own[:place]
    for broken in range(1, 5):
        lanes = reader(*turned[:broken])
        drawn = lanes.draw(0, 2, 1)
        assert drawn.key == "{}/{}".format(*turned[broken])
        assert [item.key for item in drawn.damage] == ["{}/{}".format(*a) for a in turned[:broken]]
        assert lanes.source.reads == turned[: broken + 1]
    lanes = reader(*turned, spares[0])
    assert lanes.draw(0, 2, 1).key == "{}/{}".format(*spares[1])


def test_a_corrupt_sample_is_read_once() -> None:
    own, _, place = block_of(reader(), 0, 2, 1)
    lanes = reader(own[place])
    first, again = lanes.draw(0, 2, 1), lanes.draw(0, 2, 1)
    assert first.damage == again.damage != []
    assert lanes.source.reads.count(own[place]) == 1


def test_nothing_to_read_names_how_many() -> None:
    everything = [(shard, n) for shard, count in enumerate(COUNTS) for n in range(count)]
    with pytest.raises(DataError, match="none of 64 samples in a row can be read"):
        reader(*everything).draw(0, 0, 0)


def test_what_a_recipe_refuses_names_its_sample() -> None:
    lanes = reader(global_batch=1, lanes=1, block=77)
    rows = {lanes.plan.samples_of(lanes.plan.find(0, 0, 0)[0])[i]: i for i in range(77)}
    with pytest.raises(UserError, match="1/30: too odd"):
        lanes.draw(rows[1, 30], 0, 0)


# --- pieces and batches ---------------------------------------------------------------------------


def stream(lanes: LaneReader, micro: int, start: int = 0) -> Iterator[Part]:
    share = share_of(lanes.plan, 1, 2, micro)
    return iter(_Stream(lanes, deal_of(share, 0, 1, by_lane=False), start))


def test_pieces_hold_the_rows_of_a_rank_step_by_step() -> None:
    lanes = reader(block=99)
    parts = list(islice(stream(lanes, 3, start=2), 4))
    assert [part.index for part in parts] == [[2, 3, 6], [7, 10, 11]] * 2
    assert [part.rows for part in parts] == [[0, 1, 2]] * 4
    keys = [lanes.draw(2, *divmod(row, 4)).key for row in (2, 3, 6, 7, 10, 11)]
    assert parts[0].keys + parts[1].keys == keys
    assert parts[2].keys[0] == lanes.draw(3, 0, 2).key


def test_a_carrier_joins_all_pieces_or_says_what_failed() -> None:
    parts = [
        Part([1], [11], ["b"], [5], {"image": torch.ones(1, 1)}),
        Part([0], [10], ["a"], [4], {"image": torch.zeros(1, 1)}),
        Part(damage=[(3, Damage("k", "s", "decode", "w"))], fault=UserError("no")),
        Part([0], [12], ["c"], [6], {"image": torch.zeros(1, 1)}),
    ]
    carry = Carrier(iter(parts), 2, labelled=True, device=torch.device("cpu"))
    first, second = carry(), carry()
    assert first.batch is not None
    assert first.received() is first.batch
    assert first.batch.keys == ["a", "b"]
    assert first.batch.label.tolist() == [4, 5]
    assert (str(second.fault), second.batch, len(second.damage)) == ("no", None, 1)


def test_a_loader_begins_where_it_is_told() -> None:
    lanes = reader(block=99)
    deal = deal_of(share_of(lanes.plan, 0, 1, 6), 0, 1, by_lane=False)
    loader = TrainLoader(lanes, deal, start_step=1, device=torch.device("cpu"))
    assert (loader.accumulation, loader.micro_batch, loader.steps_per_epoch) == (2, 6, 6)
    with loader:
        first = next(iter(loader)).batch
        loader.start_at(0)
        zeroth = [loaded.batch.keys for loaded in islice(loader, 3)]
    assert zeroth[2] == first.keys != zeroth[0]


def batches(positions: list[int] | None, batch: int, *corrupt: tuple[int, int]) -> EvalLoader:
    return eval_loader(Source(*corrupt), OneNumber(), batch, positions=positions)  # type: ignore[arg-type]


def test_every_sample_is_evaluated_once() -> None:
    loader = batches(None, 3)
    assert len(loader) == 3
    assert [batch.index.tolist() for batch in loader] == [[0, 1, 2], [3, 4, 5], [6]]
    chosen = list(batches([5, 2], 2))
    assert [batch.label.tolist() for batch in chosen] == [[5, 2]]
    assert chosen[0].image.tolist() == [[5.0], [2.0]]


def test_corrupt_samples_are_left_out_of_evaluation() -> None:
    loader = batches([6, 5, 4, 3, 2, 1, 0], 2, (0, 5), (0, 4), (0, 3))
    assert [batch.keys for batch in loader] == [["0/6"], ["0/2", "0/1"], ["0/0"]]
    assert [item.key for item in loader.damaged] == ["0/5", "0/4", "0/3"]
    for number in (-1, 4):
        with pytest.raises(IndexError):
            loader._dataset[number]
    with pytest.raises(UserError, match="0/30: too odd"):
        list(batches([1, 30], 2))


def test_other_faults_of_a_worker_are_raised_as_they_are() -> None:
    def broken() -> Any:
        raise RuntimeError("a fault of our own")

    with pytest.raises(RuntimeError, match="a fault of our own"):
        batches(None, 3)._next(iter(broken, None))
    with pytest.raises(RuntimeError, match="a fault of our own"):
        train_loader._next(broken)
