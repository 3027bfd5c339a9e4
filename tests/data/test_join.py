"""Parts of a micro-batch are joined row by row, however its rows were dealt."""

from __future__ import annotations

import pytest
import torch

from mimsuite.data.loading.batch_piece import Part, join

ROWS = 7
DEALT = {
    "in turn": [[0, 3, 6], [1, 4], [2, 5]],
    "in ranges": [[0, 1, 2], [3, 4, 5, 6]],
    "one and an empty one": [[0, 1, 2, 3, 4, 5, 6], []],
}


@pytest.mark.parametrize("dealt", DEALT.values(), ids=DEALT)
def test_rows_are_where_they_belong(dealt: list[list[int]]) -> None:
    images = torch.randint(256, (ROWS, 3, 5, 4), dtype=torch.uint8)
    points = torch.randn(ROWS, 6, 3)
    count = torch.arange(ROWS)
    all_views = {"image": images, "points": points, "count": count}
    parts = [
        Part(
            rows=rows,
            index=[10 * row for row in rows],
            keys=[str(row) for row in rows],
            labels=list(rows),
            views={name: view[rows] for name, view in all_views.items()} if rows else {},
        )
        for rows in dealt
    ]
    batch = join(parts, labelled=True, pin=False)
    assert all(torch.equal(batch.views[name], view) for name, view in all_views.items())
    assert batch.index.tolist() == [10 * row for row in range(ROWS)]
    assert batch.keys == [str(row) for row in range(ROWS)]
    assert batch.label is not None
    assert batch.label.tolist() == list(range(ROWS))


def test_bytes_and_floats_join_as_floats() -> None:
    deep = torch.rand(2, 1, 4, 4)
    plain = torch.randint(256, (2, 1, 4, 4), dtype=torch.uint8)
    parts = [
        Part([0, 2], [0, 2], ["a", "c"], [-1, -1], {"image": deep}),
        Part([1, 3], [1, 3], ["b", "d"], [-1, -1], {"image": plain}),
    ]
    image = join(parts, labelled=False, pin=False).image
    assert torch.equal(image[::2], deep)
    assert torch.equal(image[1::2], plain / 255)
