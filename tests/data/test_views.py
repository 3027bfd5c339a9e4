"""Crops, resizing, augmentation and normalisation."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import AugmentSection
from mimsuite.data import Normalize
from mimsuite.data.image import geometry
from mimsuite.data.image.augment import EvalTransform, TrainTransform, resize
from mimsuite.data.image.erase import erase
from mimsuite.errors import UserError
from mimsuite.noise import keyed_rng
from tests import needs

sides = st.integers(1, 400)
scales = st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 1.0)).map(lambda s: (min(s), max(s)))


def smooth(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(3, H, W) uint8 with soft edges, much like a photo."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


# --- geometry ---


@pytest.mark.parametrize("rule", [geometry.random_resized, geometry.single_try])
@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, scale=scales, seed=st.integers(0, 10**6))
def test_boxes_lie_inside(rule, height: int, width: int, scale, seed: int) -> None:
    box = rule(np.random.default_rng(seed), height, width, scale, (3 / 4, 4 / 3))
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert box.height > 0
    assert box.width > 0
    again = rule(np.random.default_rng(seed), height, width, scale, (3 / 4, 4 / 3))
    assert box == again


def test_random_resized_draws_the_rule_of_torchvision() -> None:
    """Equal distributions: area, ratio and place, over many draws."""
    rng = np.random.default_rng(0)
    ours = np.array(
        [geometry.random_resized(rng, 300, 400, (0.2, 1.0), (3 / 4, 4 / 3)) for _ in range(3000)]
    )
    crop = torchvision.transforms.RandomResizedCrop
    torch.manual_seed(0)
    image = torch.empty(1, 300, 400)
    theirs = np.array([crop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    for measure in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0]):
        for share in (10, 50, 90):
            a, b = np.percentile(measure(ours), share), np.percentile(measure(theirs), share)
            assert a == pytest.approx(b, rel=0.06, abs=4)


def test_boxes_of_a_key_never_change() -> None:
    """Numbers of the first release: another crop for the same key would change every run."""
    known = [
        ((82, 4, 227, 286), (25, 111, 244, 303), 0.6409350584353404),
        ((44, 160, 247, 255), (0, 59, 375, 394), 0.1672365954454912),
        ((6, 93, 345, 406), (1, 23, 285, 359), 0.5371072764890085),
        ((5, 69, 357, 379), (49, 232, 226, 227), 0.7026112260327582),
    ]
    for epoch, (first, second, flip) in enumerate(known):
        rng, rule = keyed_rng(7, "augment", epoch, "a.jpg"), (375, 500, (0.2, 1.0), (3 / 4, 4 / 3))
        assert tuple(geometry.random_resized(rng, *rule)) == first
        assert tuple(geometry.single_try(rng, *rule)) == second
        assert rng.random() == flip


@pytest.mark.parametrize("shape", [(400, 100), (100, 400), (200, 200)])
def test_central_fallback_is_torchvisions(shape: tuple[int, int]) -> None:
    box = geometry.random_resized(np.random.default_rng(0), *shape, (2.0, 2.0), (3 / 4, 4 / 3))
    theirs = torchvision.transforms.RandomResizedCrop.get_params(
        torch.empty(1, *shape), [2.0, 2.0], [3 / 4, 4 / 3]
    )
    assert tuple(box) == theirs


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_covering_leaves_room_for_the_crop(height: int, width: int, target) -> None:
    covered = geometry.covering(height, width, target)
    assert covered[0] >= target[0]
    assert covered[1] >= target[1]
    assert covered[0] == target[0] or covered[1] == target[1]


# --- resizing ---


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("shape", "box", "size"),
    [((375, 500), (20, 31, 300, 280), (224, 224)), ((90, 120), (0, 0, 64, 80), (224, 160))],
)
def test_resize_equals_pil(interpolation: str, shape, box, size) -> None:
    image = smooth(*shape)
    top, left, height, width = box
    ours = resize(image, geometry.Box(*box), size, interpolation)
    reference = Image.fromarray(
        image[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    ).resize(size[::-1], getattr(Image.Resampling, interpolation.upper()))
    difference = ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(reference)
    assert np.abs(difference).mean() <= 0.05


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, size=st.tuples(sides, sides), seed=st.integers(0, 10**6))
def test_the_layout_of_the_image_does_not_matter(
    height: int, width: int, size: tuple[int, int], seed: int
) -> None:
    """Interleaved, as decoded, or plane by plane: the same pixels, of any crop to any size."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    box = geometry.random_resized(rng, height, width, (0.1, 1.0), (3 / 4, 4 / 3))
    interleaved = image.permute(2, 0, 1)
    for interpolation in ("bicubic", "bilinear"):
        view = resize(interleaved, box, size, interpolation)
        assert torch.equal(view, resize(interleaved.contiguous(), box, size, interpolation))


def test_resize_equals_pil_on_a_photo() -> None:
    """Equal in the mean; where passes round differently, not farther than PIL from exact."""
    photo = needs.module("skimage.data").astronaut()
    image, to_pil = torch.from_numpy(photo).permute(2, 0, 1), []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        box = geometry.random_resized(rng, 512, 512, (0.2, 1.0), (3 / 4, 4 / 3))
        top, left, height, width = box
        cut = photo[top : top + height, left : left + width]
        pil = np.asarray(Image.fromarray(cut).resize((224, 224), Image.Resampling.BICUBIC))
        exact = resize(image.double(), box, (224, 224), "bicubic").clamp(0, 255)
        ours = resize(image, box, (224, 224), "bicubic")
        to_pil.append(np.abs(ours.permute(1, 2, 0).numpy().astype(int) - pil).mean())
        pil_error = np.abs(exact.permute(1, 2, 0).numpy() - pil).mean()
        assert (ours - exact).abs().mean() <= pil_error + 0.005
    assert np.mean(to_pil) <= 0.05


def test_eval_view_is_resize_and_centre_crop_of_torchvision() -> None:
    photo = Image.fromarray(smooth(151, 200).permute(1, 2, 0).numpy())
    view = EvalTransform(AugmentSection(eval_resize=64), 56)(smooth(151, 200))
    transforms = torchvision.transforms
    both = transforms.Compose(
        [
            transforms.Resize(64, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(56),
        ]
    )
    assert np.abs(view.permute(1, 2, 0).numpy().astype(int) - np.asarray(both(photo))).mean() < 0.1
    assert EvalTransform(AugmentSection(), (20, 70))(smooth(151, 200)).shape == (3, 20, 70)
    with pytest.raises(UserError, match="eval_resize=64 is smaller than image_size"):
        EvalTransform(AugmentSection(eval_resize=64), 80)


# --- training views ---


def section(**keys: object) -> AugmentSection:
    return AugmentSection(**{"hflip": 0.0, **keys})


@pytest.mark.parametrize("crop", ["random-resized", "single-try", "resize"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_views_have_the_size_and_type(crop: str, dtype: torch.dtype) -> None:
    image = smooth(40, 60).to(dtype)
    view = TrainTransform(section(crop=crop), (24, 32))(image, np.random.default_rng(0))
    assert (view.shape, view.dtype) == ((3, 24, 32), dtype)


def test_crop_none_takes_one_size_only() -> None:
    transform = TrainTransform(section(crop="none"), (40, 60))
    image = smooth(40, 60)
    assert torch.equal(transform(image, np.random.default_rng(0)), image)
    with pytest.raises(UserError, match=r"augment\.crop=none takes images of 40 x 60 pixels"):
        transform(smooth(41, 60), np.random.default_rng(0))


def test_flip_is_half_of_the_time() -> None:
    transform = TrainTransform(AugmentSection(crop="none", hflip=0.5), (8, 8))
    image = smooth(8, 8)
    flips = 0
    for seed in range(200):
        view = transform(image, np.random.default_rng(seed))
        flips += torch.equal(view, image.flip(-1))
        assert torch.equal(view, image) or torch.equal(view, image.flip(-1))
    assert 70 < flips < 130


def test_randaugment_is_keyed_and_leaves_global_generators_alone() -> None:
    transform = TrainTransform(section(crop="none", randaugment="rand-m9-mstd0.5-inc1"), 32)
    image = smooth(32, 32)
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    views = [transform(image, np.random.default_rng(seed)) for seed in (0, 1, 2, 0)]
    assert (random.random(), np.random.rand()) == expected
    assert torch.equal(views[0], views[3])
    assert not torch.equal(views[0], views[1]) or not torch.equal(views[0], views[2])
    with pytest.raises(UserError, match="timm has no policy 'nonsense'"):
        TrainTransform(section(randaugment="nonsense"), 32)
    with pytest.raises(UserError, match=r"works on data\.channels=rgb only"):
        transform(image[:1], np.random.default_rng(0))


def test_randaugment_keeps_no_bits_where_its_policy_says_so() -> None:
    transform = TrainTransform(section(crop="none", randaugment="rand-m10-n1-inc1-p1"), 16)
    image = smooth(16, 16) | 1  # nowhere black
    views = [transform(image, np.random.default_rng(seed)) for seed in range(200)]
    black = sum(not view.any() for view in views)
    assert 3 <= black <= 40  # one change in fifteen


def test_erase_fills_one_box_with_noise_of_the_recipe() -> None:
    mean, std = (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    values = []
    for seed in range(40):
        view = erase(image, np.random.default_rng(seed), mean, std)
        changed = view.sum(0) > 0
        rows, columns = changed.any(1).sum(), changed.any(0).sum()
        assert 0.015 * 4096 < changed.sum() <= rows * columns < 0.36 * 4096
        values.append(view[:, changed].float() / 255)
    noise = torch.cat([v.flatten() for v in values])
    assert abs(noise.mean() - 0.5) < 0.005
    assert abs(noise.std() - 0.1) < 0.005
    assert image.sum() == 0
    transform = TrainTransform(section(crop="none", erase=1.0), 64)
    assert not torch.equal(transform(image, np.random.default_rng(0)), image)


# --- normalisation ---


def test_normalize_is_totensor_and_normalize() -> None:
    image = smooth(8, 8)
    batch = Batch.of_images(image[None], label=torch.tensor([3]))
    augment = AugmentSection()
    ours = Normalize(augment, "cpu")(batch)
    theirs = torchvision.transforms.Normalize(augment.mean, augment.std)(image / 255)
    assert torch.equal(ours.image[0], theirs)
    assert batch.image.dtype == torch.uint8
    deep = Batch.of_images((image / 255)[None])
    assert torch.equal(Normalize(augment, "cpu")(deep).image, ours.image)


def test_normalize_compares_channels() -> None:
    gray = Batch.of_images(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    assert Normalize(AugmentSection(mean=(0.5,), std=(0.5,)))(gray).image.unique().item() == -1
    with pytest.raises(UserError, match=r"augment\.mean has 3 values, images have 1 channels"):
        Normalize(AugmentSection())(gray)
    with pytest.raises(UserError, match="need one value a channel, std above 0"):
        Normalize(AugmentSection(mean=(0.5,), std=(0.5, 0.5)))
