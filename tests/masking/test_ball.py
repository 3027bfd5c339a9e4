"""Block masking of point groups, and how many groups published code masks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite.config.keys.masks import BallMaskSection, RandomGroupMaskSection
from mimsuite.masking import build_sampler


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.integers(2, 40), st.floats(0.1, 0.9))
def test_a_ball_masks_the_groups_nearest_to_one(seed: int, groups: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    center, noise = (torch.rand(*s, generator=generator) for s in ((3, groups, 3), (3, 1)))
    section = BallMaskSection(kind="ball", ratio=ratio)
    mask = build_sampler(section)(noise, (groups,), center)
    assert mask.masked.shape[1] == int(ratio * groups)
    assert torch.equal(mask.restore().sort(1).values, torch.arange(groups).expand(3, -1))
    middle = (noise * groups).long()[..., 0]
    distance = (center - center[torch.arange(3), middle][:, None]).norm(dim=-1)
    if mask.masked.shape[1]:
        assert bool(mask.dense()[torch.arange(3), middle].all())
        assert bool(
            (
                mask.gather(distance, "masked").amax(1) <= mask.gather(distance, "visible").amin(1)
            ).all()
        )


def test_groups_are_counted_as_published() -> None:
    section = RandomGroupMaskSection(ratio=0.6)
    assert section.visible(64) == 26
    assert section.visible(16) == 7
    assert build_sampler(section)(torch.rand(2, 64), (64,)).masked.shape == (2, 38)
