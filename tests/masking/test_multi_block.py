"""Multi-block masks: what holds for every batch, what they are keyed by, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mimsuite.config.keys.masks import MultiBlockMaskSection
from mimsuite.errors import UserError
from mimsuite.masking import MultiBlockSampler, TokenMask
from mimsuite.noise import Noise


def draw(step: int = 0, rows: Any = range(6), grid: Any = (16, 16), **keys: Any) -> Any:
    sampler = MultiBlockSampler(MultiBlockMaskSection(**keys))
    return sampler.sample(Noise(3, step, torch.tensor([*rows])), grid)


@pytest.mark.parametrize("grid", [(9, 9), (16, 16), (14, 14), (12, 20), (20, 12)])
@pytest.mark.parametrize("step", range(6))
def test_every_mask_is_valid(grid: tuple[int, int], step: int) -> None:
    mask = draw(step, grid=grid)["image"].check()
    assert mask.targets.shape[:2] == (4, 6)
    assert mask.visible.shape[1] > 10
    assert mask.targets.shape[2] > 10
    for ids in (mask.visible, *mask.targets):
        assert torch.equal(ids, ids.sort(dim=1).values)  # raster order
        assert int((ids // grid[1]).max()) < grid[0] - 1  # never the last row
        assert int((ids % grid[1]).max()) < grid[1] - 1


def test_targets_are_rectangles_of_one_size() -> None:
    for ids in draw()["image"].targets.flatten(0, 1):
        rows, columns = (ids // 16).unique(), (ids % 16).unique()
        assert len(rows) * len(columns) == len(ids)
        assert int(rows[-1] - rows[0]) == len(rows) - 1


def test_sizes_are_of_the_step_and_places_of_the_sample() -> None:
    whole, part, later = draw(5), draw(5, rows=[2, 4]), draw(6)
    assert torch.equal(part["image"].targets, whole["image"].targets[:, [2, 4]])
    assert not torch.equal(whole["image"].targets[:, 0], whole["image"].targets[:, 1])
    sizes = {draw(step)["image"].targets.shape[2] for step in range(20)}
    assert len(sizes) > 2
    assert later["image"].targets.shape[:2] == whole["image"].targets.shape[:2]


def test_contexts_are_cut_to_the_shortest_of_the_batch_at_the_end() -> None:
    alone = [draw(1, rows=[row])["image"].visible[0] for row in range(6)]
    together = draw(1)["image"].visible
    assert together.shape[1] == min(map(len, alone))
    for context, cut in zip(alone, together, strict=True):
        assert torch.equal(context[: len(cut)], cut)


def test_a_fixed_context_does_not_depend_on_the_batch() -> None:
    keys = {"context_cut": "fixed", "context_tokens": 60}
    whole, part = draw(2, **keys)["image"].check(), draw(2, rows=[3], **keys)["image"]
    assert whole.visible.shape[1] == 60
    assert torch.equal(whole.visible[3:4], part.visible)


def test_several_contexts_share_the_targets() -> None:
    masks = draw(contexts=2, context_scale=(0.4, 0.5))
    assert list(masks) == ["context1", "context2"]
    one, two = (mask.check() for mask in masks.values())
    assert torch.equal(one.targets, two.targets)
    assert one.visible.shape == two.visible.shape
    assert not torch.equal(one.visible, two.visible)


def test_overlap_is_allowed_where_it_is_asked_for() -> None:
    mask = draw(overlap=True)["image"]
    with pytest.raises(ValueError, match="visible"):
        mask.check()
    mask.check(targets_hidden=False)


@pytest.mark.parametrize("grid", [(2, 2), (4, 4), (8, 8), (3, 40)])
def test_a_grid_too_small_is_refused_with_the_smallest_that_works(grid: tuple[int, int]) -> None:
    section = MultiBlockMaskSection()
    with pytest.raises(ValueError, match="smallest square grid that works is 9 x 9"):
        section.check_grid(grid)
    assert section.fits((9, 9))
    with pytest.raises(UserError, match="9 x 9"):  # and never drawn for ever
        MultiBlockSampler(section).sizes((4, 4), 0.0, 0.0)


@pytest.mark.parametrize(
    "keys",
    [
        {"context_cut": "fixed"},
        {"context_tokens": 20},
        {"aspect": [1.5, 0.75]},
        {"target_scale": [0.5, 1.5]},
    ],
)
def test_keys_that_contradict_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MultiBlockMaskSection(**keys)


# --- target sets of a mask ------------------------------------------------------------------------

SEEN = torch.tensor([[0, 5], [1, 2]])


def test_a_mask_from_what_is_visible_is_a_partition() -> None:
    mask = TokenMask.from_visible(SEEN, (2, 3)).check()
    assert mask.masked.tolist() == [[1, 2, 3, 4], [0, 3, 4, 5]]


@pytest.mark.parametrize(
    ("targets", "fault"),
    [
        ([[[1, 6], [3, 4]]], "outside the grid of 6 tokens"),
        ([[[1, 1], [3, 4]]], "twice"),
        ([[[1, 2], [2, 4]]], "visible"),
    ],
)
def test_target_sets_that_cannot_be_are_named(targets: list[Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        TokenMask.from_visible(SEEN, (2, 3), torch.tensor(targets)).check()


def test_target_sets_are_of_the_batch() -> None:
    with pytest.raises(ValueError, match="2 samples"):
        TokenMask.from_visible(SEEN, (2, 3), torch.zeros(1, 3, 2, dtype=torch.int64))


def test_targets_are_gathered_set_by_set() -> None:
    ids = torch.tensor([[[1, 2], [3, 4]], [[3, 4], [0, 5]]])
    mask = TokenMask.from_visible(SEEN, (2, 3), ids)
    tokens = torch.arange(12.0).view(2, 6, 1)
    assert mask.gather_targets(tokens).squeeze(-1).tolist() == [
        [[1, 2], [9, 10]],
        [[3, 4], [6, 11]],
    ]
    assert mask.to("cpu").targets is not None


@pytest.mark.parametrize(("overlap", "calls"), [(False, 23), (True, 3)])
def test_a_context_gives_up_a_target_after_20_tries(overlap: bool, calls: int) -> None:
    """Both targets cover the only place of the context; the last one is given up first."""
    places = iter([(0, 0), (0, 2), *[(0, 2)] * 99])
    asked: list[tuple[int, int]] = []

    def corner(size: tuple[int, int]) -> tuple[int, int]:
        asked.append(size)
        return next(places)

    section = MultiBlockMaskSection(targets=2, min_keep=3, overlap=overlap)
    drawn = MultiBlockSampler(section).draw((6, 6), (2, 2), (2, 2), corner)
    assert len(asked) == calls
    assert [ids.tolist() for ids in drawn.targets] == [[0, 1, 6, 7], [2, 3, 8, 9]]
    assert [ids.tolist() for ids in drawn.contexts] == [[2, 3, 8, 9]]


def test_a_context_gives_up_no_more_than_all_targets() -> None:
    section = MultiBlockMaskSection(targets=1, min_keep=3)
    places = iter([(0, 0), *[(0, 0)] * 99])
    drawn = MultiBlockSampler(section).draw((6, 6), (2, 2), (2, 2), lambda size: next(places))
    assert drawn.contexts[0].tolist() == [0, 1, 6, 7]
