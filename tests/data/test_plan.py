"""The order of training: a pure function of seed and epoch, each sample at most once an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite.data.loading.dealing import deal_of
from mimsuite.data.order.sample_order import Addresses, BlockId, Plan, default_lanes, share_of
from mimsuite.errors import UserError


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    counts = np.array(draw(st.lists(st.integers(0, 40), min_size=1, max_size=12)))
    counts[draw(st.integers(0, len(counts) - 1))] += 1
    batch = draw(st.integers(1, int(counts.sum())))
    lanes = draw(st.sampled_from([n for n in range(1, batch + 1) if batch % n == 0]))
    block = draw(st.sampled_from([1, 2, 3, 7, 1024]))
    return Plan(counts, seed=draw(st.integers(0, 9)), global_batch=batch, lanes=lanes, block=block)


def rows_of_step(plan: Plan, step: int) -> list[tuple[int, int]]:
    """Addresses in the order of rows of the global batch."""
    found = []
    for row in range(plan.global_batch):
        slot, lane = divmod(row, plan.lanes)
        block, place = plan.find(step, slot, lane)
        found.append(plan.samples_of(block)[place])
    return found


@settings(max_examples=60, deadline=None)
@given(plans())
def test_an_epoch_has_each_sample_at_most_once(plan: Plan) -> None:
    for epoch in (0, 1):
        start = epoch * plan.steps_per_epoch
        steps = range(start, start + plan.steps_per_epoch)
        seen = [address for step in steps for address in rows_of_step(plan, step)]
        assert len(set(seen)) == len(seen) == plan.total - plan.dropped
        assert all(0 <= offset < plan.counts[shard] for shard, offset in seen)
    assert 0 <= plan.dropped < plan.global_batch + plan.lanes
    assert plan.steps_per_epoch >= 1


@settings(max_examples=60, deadline=None)
@given(plans())
def test_with_the_tail_repeated_an_epoch_has_each_sample_once_or_twice(plan: Plan) -> None:
    keys = {"global_batch": plan.global_batch, "lanes": plan.lanes, "block": plan.block}
    plan = Plan(plan.counts, seed=plan.seed, tail="repeat", **keys)
    for epoch in (0, 1):
        start = epoch * plan.steps_per_epoch
        steps = range(start, start + plan.steps_per_epoch)
        seen = [address for step in steps for address in rows_of_step(plan, step)]
        assert len(set(seen)) == plan.total
        assert len(seen) == plan.total + plan.repeated
    assert plan.dropped == 0
    assert 0 <= plan.repeated < plan.global_batch


@settings(max_examples=30, deadline=None)
@given(plans())
def test_blocks_of_all_lanes_cover_lanes_without_overlap(plan: Plan) -> None:
    seen = []
    for lane in range(plan.lanes):
        for block in range(-(-plan.per_lane // plan.block)):
            addresses = plan.samples_of(BlockId(0, 0, lane, block))
            seen += [addresses[i] for i in range(len(addresses))]
    assert len(set(seen)) == len(seen) == plan.per_lane * plan.lanes


@settings(max_examples=30, deadline=None)
@given(plans(), st.integers(1, 4), st.integers(1, 4))
def test_ranks_and_micro_batches_share_out_all_rows(plan: Plan, world: int, cut: int) -> None:
    rows = plan.global_batch // world
    if plan.global_batch % world or rows % cut:
        return
    shares = [share_of(plan, rank, world, rows // cut) for rank in range(world)]
    seen = np.concatenate([s.rows(m) for s in shares for m in range(s.accumulation)])
    assert sorted(seen) == list(range(plan.global_batch))
    for share in shares:
        own = np.concatenate([share.rows(m) for m in range(share.accumulation)])
        assert (np.diff(own) > 0).all()
        assert set(share.lanes) == set(own % plan.lanes)
        if plan.lanes % world == 0:  # no other rank reads them
            assert len(share.lanes) == plan.lanes // world


def test_order_depends_on_seed_and_epoch_only() -> None:
    counts = np.full(10, 8)
    make = lambda seed: Plan(counts, seed=seed, global_batch=16)  # noqa: E731
    first = rows_of_step(make(0), 0)
    assert first == rows_of_step(make(0), 0)
    assert first != rows_of_step(make(1), 0)
    assert first != rows_of_step(make(0), make(0).steps_per_epoch)


def test_one_shard_leaves_out_other_samples_each_epoch() -> None:
    plan = Plan(np.array([100]), seed=0, global_batch=32)
    left_out = [
        set(range(100)) - {o for step in (0, 1, 2) for _, o in rows_of_step(plan, epoch * 3 + step)}
        for epoch in range(20)
    ]
    assert not set.intersection(*left_out)


def test_spares_lie_behind_a_small_block_and_are_others() -> None:
    plan = Plan(np.array([50, 50]), seed=0, global_batch=50)
    last = BlockId(0, 0, 49, 0)
    block, spares = plan.samples_of(last), plan.spares_of(last)
    own = {block[i] for i in range(len(block))}
    others = {spares[i] for i in range(len(spares))}
    assert len(own) == 2
    assert len(own | others) == 64
    assert len(Plan(np.array([999]), seed=0, global_batch=2).spares_of(BlockId(0, 0, 1, 0))) == 0


@pytest.mark.parametrize(
    ("batch", "lanes"), [(64, 64), (4096, 512), (48, 48), (768, 384), (521, 1)]
)
def test_default_lanes_is_the_largest_divisor_up_to_512(batch: int, lanes: int) -> None:
    assert default_lanes(batch) == lanes


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match="photos has 7 samples, fewer than one global batch of 8"):
        Plan(np.array([7]), seed=0, global_batch=8, name="photos")
    with pytest.raises(UserError, match=r"data\.lanes=3 does not divide train\.global_batch=8"):
        Plan(np.array([70]), seed=0, global_batch=8, lanes=3)
    plan = Plan(np.array([70]), seed=0, global_batch=8, lanes=2)
    with pytest.raises(UserError, match="cannot be shared evenly by 3 processes"):
        share_of(plan, 0, 3, None)
    with pytest.raises(UserError, match=r"train\.micro_batch=3 does not divide the 8 samples"):
        share_of(plan, 0, 1, 3)


@pytest.mark.parametrize("by_lane", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 3, 8])
def test_the_pieces_of_all_workers_are_all_rows(by_lane: bool, workers: int) -> None:
    plan = Plan(np.array([900]), seed=0, global_batch=96, lanes=8)
    deal = deal_of(share_of(plan, 0, 2, 12), workers, 3 << 20, by_lane=by_lane)
    assert deal.workers == (min(4, workers) if by_lane else workers)
    for micro in range(deal.share.accumulation):
        pieces = [deal.places(micro, piece) for piece in range(deal.pieces)]
        assert sorted(np.concatenate(pieces)) == list(range(12))
        assert all((np.diff(piece) > 0).all() for piece in pieces)
    if by_lane and workers:
        assert deal.pieces == deal.workers  # the same of them always goes to the same worker
        for piece in range(deal.pieces):
            rows = [deal.share.rows(m)[deal.places(m, piece)] for m in range(4)]
            lanes = set(np.concatenate(rows) % plan.lanes)
            assert lanes == {lane for lane in range(4) if lane % deal.pieces == piece}
    elif workers:
        assert deal.pieces == 3  # of 4 rows each: 12 x 3 million numbers are 2.25 times the limit


def test_large_batches_are_shared_by_any_number_of_ranks_with_all_workers() -> None:
    plan = Plan(np.full(100, 1000), seed=0, global_batch=4096)

    def addresses(world: int) -> list[tuple[int, int]]:
        """Of the samples of a step, by the row."""
        found: dict[int, tuple[int, int]] = {}
        for rank in range(world):
            deal = deal_of(share_of(plan, rank, world, 64), 15, 3 * 224 * 224, by_lane=False)
            assert deal.workers == 15
            for micro in range(deal.share.accumulation):
                rows = deal.share.rows(micro)
                for piece in range(deal.pieces):
                    for row in rows[deal.places(micro, piece)].tolist():
                        block, place = plan.find(7, *divmod(row, plan.lanes))
                        if block not in blocks:
                            blocks[block] = plan.samples_of(block)
                        assert row not in found
                        found[row] = blocks[block][place]
        return [found[row] for row in range(plan.global_batch)]

    blocks: dict[BlockId, Addresses] = {}
    expected = addresses(1)
    assert all(addresses(world) == expected for world in (16, 64, 128, 512))
