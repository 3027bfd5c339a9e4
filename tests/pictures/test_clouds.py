"""Pictures of clouds: always there, the near in front, parts in the frame of the whole."""

from __future__ import annotations

import numpy as np
import torch

from mimsuite.pictures.clouds import draw_clouds, splat


def ink(picture: np.ndarray) -> np.ndarray:
    return (picture < 250).any(axis=2)


def test_a_part_is_drawn_where_the_whole_has_it() -> None:
    cloud = np.random.default_rng(0).normal(size=(300, 3))
    whole, part = splat(cloud, cloud), splat(cloud[:100], cloud)
    assert ink(part).sum() < ink(whole).sum()
    assert ink(whole)[ink(part)].all()


def test_the_near_hides_the_far_and_marked_points_have_a_colour_of_their_own() -> None:
    frame = np.array([[1.0, 1, 1], [-1, -1, -1]])
    towards_eye = np.array([np.sin(np.radians(35)), np.tan(np.radians(25)), np.cos(np.radians(35))])
    points = np.stack([-0.5 * towards_eye, 0.5 * towards_eye])  # one pixel, two depths
    only_near = splat(points[1:], frame, marked=1)
    both = splat(points, frame, marked=1)
    assert (both == only_near).all()
    red, blue = both[ink(both)][:, 0], both[ink(both)][:, 2]
    assert (red > blue).all()


def test_odd_clouds_are_drawn_too() -> None:
    white = splat(np.full((4, 3), np.nan), np.full((4, 3), np.nan))
    assert (white == 255).all()
    assert (splat(np.zeros((0, 3)), np.ones((2, 3))) == 255).all()
    assert ink(splat(np.ones((5, 3)), np.ones((5, 3)))).any()
    far = np.array([[50.0, 0, 0], [0, 0, 0]])
    assert ink(splat(far, np.eye(3))).any()  # what is outside of the frame is left out


def test_batches_are_pictures_in_the_unit_range() -> None:
    clouds = torch.randn(2, 90, 3)
    pictures = draw_clouds(clouds, clouds, marked=30)
    assert pictures.shape == (2, 3, 224, 224)
    assert 0 <= float(pictures.min()) < 0.5
    assert float(pictures.max()) == 1.0
