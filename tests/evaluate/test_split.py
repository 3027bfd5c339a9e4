from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mimsuite.evaluate.split import stratified_holdout


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
)
def test_every_class_stays_and_is_held_out_where_it_can(
    labels: list[int], fraction: float, seed: int
) -> None:
    table = torch.tensor(labels)
    kept, held = stratified_holdout(table, fraction, seed)
    assert sorted(torch.cat([kept, held]).tolist()) == list(range(len(labels)))
    for label in set(labels):
        count = labels.count(label)
        out = int((table[held] == label).sum())
        assert out == (0 if count == 1 else min(max(round(fraction * count), 1), count - 1))


def test_draw_is_keyed_by_seed_and_purpose() -> None:
    labels = torch.arange(400) % 4
    first = stratified_holdout(labels, 0.2, 0)[1]
    assert torch.equal(first, stratified_holdout(labels, 0.2, 0)[1])
    assert not torch.equal(first, stratified_holdout(labels, 0.2, 1)[1])
    assert not torch.equal(first, stratified_holdout(labels, 0.2, 0, "test")[1])


def test_other_classes_do_not_change_the_draw_of_one() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10)
    alone = stratified_holdout(labels[:10], 0.3, 0)[1]
    together = stratified_holdout(labels, 0.3, 0)[1]
    assert together[together < 10].tolist() == alone.tolist()
