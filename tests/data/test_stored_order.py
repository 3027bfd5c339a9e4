"""The order of samples never changes between versions: a resumed run reads on as it began.

A change that is meant to change the order needs a new key of the recipe, not a new digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from mimsuite.data.damage import Damage
from mimsuite.data.loading.batch_piece import Part, PartBuilder, damage_in_order
from mimsuite.data.loading.dealing import deal_of
from mimsuite.data.order.mixture import Mixture, _stride
from mimsuite.data.order.sample_order import BlockId, Order, Plan, default_lanes, share_of
from mimsuite.errors import MimsuiteError, UserError

COUNTS = np.array([9, 0, 31, 14, 23])  # 77 samples


def digest(order: Order, steps: range) -> str:
    """Of the addresses of whole steps, and of what may replace them."""
    known = hashlib.blake2b(digest_size=6)
    for step in steps:
        for row in range(order.global_batch):
            block, place = order.find(step, *divmod(row, order.lanes))
            samples, spares = order.samples_of(block), order.spares_of(block)
            others = [spares[i] for i in range(len(spares))]
            known.update(repr((*block, samples[place], others)).encode())
    return known.hexdigest()


def plan(**keys: object) -> Plan:
    return Plan(COUNTS, **{"seed": 3, "global_batch": 12, "lanes": 4, "block": 5} | keys)  # type: ignore[arg-type]


def mixture(**keys: object) -> Mixture:
    sets = [np.array([30, 11]), np.array([17]), np.array([9, 40, 8])]
    numbers = {"seed": 3, "global_batch": 12, "lanes": 4, "block": 5}
    return Mixture(sets, [1.0, 0.5, 2.5], ["a", "b", "c"], **numbers | keys)  # type: ignore[arg-type]


STORED: list[tuple[Callable[[], Order], str]] = [
    (plan, "f89881d9870a"),
    (lambda: plan(tail="repeat"), "713e4c3f9370"),
    (lambda: plan(lanes=None, block=1024), "aeb71a3e15ee"),
    (lambda: plan(lanes=1, block=7, seed=4), "e0d568b866e0"),
    (mixture, "b516cad5675c"),
    (lambda: mixture(lanes=None, block=1024), "1894c0725492"),
    (lambda: mixture(lanes=3, block=2, seed=4), "ea156ce359b4"),
]


@pytest.mark.parametrize(("made", "stored"), STORED)
def test_the_order_is_that_of_earlier_versions(made: Callable[[], Order], stored: str) -> None:
    assert digest(made(), range(25)) == stored


def test_a_mixture_goes_on_after_its_table() -> None:
    assert len(mixture()._table(0)[0]) == 4096  # places of a lane, of which a step takes 3
    assert digest(mixture(), range(1362, 1370)) == "1febad7ddbea"
    order = mixture()
    seen = [order.find(step, slot, 1) for step in range(2730) for slot in range(3)]
    for stream in range(3):  # every place of every block, one after another
        places = [(b.epoch, b.block, place) for b, place in seen if b.stream == stream]
        assert places == sorted(set(places))


def test_an_order_does_not_depend_on_what_was_read_before() -> None:
    read = plan()
    digest(read, range(40))  # more epochs than are kept
    assert len(read._sequences) == 2
    assert digest(read, range(25)) == digest(plan(), range(25))


def test_lengths_of_an_epoch() -> None:
    dropped, repeated = plan(), plan(tail="repeat")
    assert (dropped.steps_per_epoch, dropped.dropped, dropped.repeated) == (6, 5, 0)
    assert (repeated.steps_per_epoch, repeated.dropped, repeated.repeated) == (7, 0, 7)
    whole = plan(global_batch=77, lanes=7)
    assert (whole.steps_per_epoch, whole.dropped, whole.repeated) == (1, 0, 0)
    assert (mixture().total, mixture().steps_per_epoch) == (115, 9)
    assert mixture(global_batch=120).steps_per_epoch == 1


def test_the_last_block_of_a_lane_is_shorter() -> None:
    order = plan()  # 19 samples a lane
    assert [len(order.samples_of(BlockId(0, 0, 1, n))) for n in range(4)] == [5, 5, 5, 4]
    assert [len(order.spares_of(BlockId(0, 0, 1, n))) for n in range(4)] == [59, 59, 59, 60]
    small = Plan(np.array([20]), seed=0, global_batch=20, lanes=2, block=7)
    assert [len(small.spares_of(BlockId(0, 0, 0, n))) for n in range(2)] == [13, 17]


def test_limits_of_a_mixture() -> None:
    assert [_stride(period) for period in (1, 2, 8, 64, 4096)] == [1, 1, 5, 41, 2531]
    sets = [np.array([4]), np.array([8])]
    assert Mixture(sets, [1, 4095], ["a", "b"], seed=0, global_batch=4).lanes == 4
    with pytest.raises(UserError, match="a has less than 1/4096"):
        Mixture(sets, [1, 4096], ["a", "b"], seed=0, global_batch=4)
    with pytest.raises(UserError, match="a has 4 samples, fewer than the 8 lanes"):
        Mixture(sets, [1, 1], ["a", "b"], seed=0, global_batch=8)


def test_rows_of_a_rank() -> None:
    share = share_of(plan(), 1, 2, 3)
    assert share.own.tolist() == [2, 3, 6, 7, 10, 11]
    assert share.lanes.tolist() == [2, 3]
    assert [share.rows(n).tolist() for n in range(share.accumulation)] == [[2, 3, 6], [7, 10, 11]]
    third = share_of(plan(), 2, 3, None)
    assert third.own.tolist() == [3, 7, 10, 11]
    assert (third.micro_batch, third.accumulation) == (4, 1)
    assert share_of(plan(), 0, 1, 99).micro_batch == 12


def test_pieces_of_workers() -> None:
    share = share_of(plan(), 0, 1, None)
    ranges = deal_of(share, 3, 3 << 20, by_lane=False)  # 12 x 3 Mi numbers: 2.25 of the limit
    assert [ranges.places(0, n).tolist() for n in range(3)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert deal_of(share, 3, 1 << 22, by_lane=False).pieces == 3  # exactly three times the limit
    assert deal_of(share, 3, 1 << 30, by_lane=False).pieces == 12
    assert deal_of(share, 0, 1 << 30, by_lane=False).pieces == 1
    lanes = deal_of(share, 3, 1, by_lane=True)
    assert [lanes.places(0, n).tolist() for n in range(3)] == [
        [0, 3, 4, 7, 8, 11],
        [1, 5, 9],
        [2, 6, 10],
    ]


@pytest.mark.parametrize(("workers", "warned"), [(3, False), (4, False), (5, True)])
def test_more_workers_than_lanes_are_told(workers: int, warned: bool, caplog) -> None:
    deal = deal_of(share_of(plan(), 0, 1, None), workers, 1, by_lane=True)
    assert deal.workers == deal.pieces == min(workers, 4)
    assert bool(caplog.records) == warned


@pytest.mark.parametrize(
    ("batch", "most", "lanes"), [(12, 12, 12), (12, 11, 6), (12, 5, 4), (7, 6, 1), (1, 1, 1)]
)
def test_lanes_up_to_a_number(batch: int, most: int, lanes: int) -> None:
    assert default_lanes(batch, most) == lanes


def test_corrupt_samples_come_in_the_order_of_rows() -> None:
    damage = [Damage(str(n), "shard", "kind", "why") for n in range(4)]
    first, second = PartBuilder(), PartBuilder()
    first.damaged(5, damage[2:])
    second.damaged(1, damage[:1])
    second.damaged(2, damage[1:2])
    assert damage_in_order([first.done(), second.done()]) == damage


def test_a_part_keeps_rows_and_says_what_failed() -> None:
    part = PartBuilder()
    part.add(4, 40, "k", None, {})
    part.add(5, 50, "l", 7, {})
    fault = MimsuiteError("no")
    assert part.done(fault) == Part([4, 5], [40, 50], ["k", "l"], [-1, 7], {}, [], fault)
