"""Targets and losses by values worked out by hand or by numpy."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.targets import FeatureLossSection, PixelTargetSection
from mimsuite.config.keys.tokenizers import KMeansTokenizerSection
from mimsuite.errors import DataError
from mimsuite.targets import adversarial, labels, latents, voxels
from mimsuite.targets.codebook import use_of
from mimsuite.targets.consistency import consistency
from mimsuite.targets.contrast import nt_xent
from mimsuite.targets.deviation import channel_deviation
from mimsuite.targets.features import FeatureTarget
from mimsuite.targets.kmeans import KMeansTokenizer
from mimsuite.targets.layers import average_layers
from mimsuite.targets.picking import pick
from mimsuite.targets.pixels import PixelTarget
from mimsuite.targets.relations import log_relations
from mimsuite.targets.sinkhorn import balanced_assignments, entropy
from mimsuite.targets.tokenizers import DrawingTokenizer
from mimsuite.targets.tubelets import TubeletTarget

T = torch.tensor
close = torch.testing.assert_close


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def no_gather(rows: Tensor) -> Tensor:
    return rows


# --- labels ---------------------------------------------------------------------------------------


def recipe(targets: str, **target: Any) -> Any:
    known = {"classes": None, "label_smoothing": 0.0, "mean": None, "std": None, "names": None}
    return SimpleNamespace(
        data=SimpleNamespace(targets=targets),
        target=SimpleNamespace(**known | {"loss": "mse"} | target),
    )


def batch(label: Tensor | None) -> Any:
    keys = [f"k{row}" for row in range(0 if label is None else len(label))]
    return SimpleNamespace(label=label, keys=keys)


def test_classes_are_smoothed_in_training_and_scored() -> None:
    made = labels.labels_of(recipe("classes", classes=4, label_smoothing=0.2))
    seen = batch(T([1, 3]))
    close(made.target(seen, True), T([[0.05, 0.85, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]]))
    close(made.target(seen, False), T([[0.0, 1, 0, 0], [0, 0, 0, 1]]))
    outputs = T([[0.0, 2, 0, 0], [5.0, 0, 0, 0]])
    found = made.loss(outputs, made.target(seen, False), seen)
    close(found.loss, F.cross_entropy(outputs, seen.label))
    assert float(found.terms["accuracy"]) == 0.5
    assert made.answer(outputs) is outputs
    made.check(batch(T([0, 3])))
    with pytest.raises(DataError, match=r"sample k1 has label 4; target\.classes is 4"):
        made.check(batch(T([3, 4])))
    with pytest.raises(DataError, match="sample k0 has no label"):
        made.check(batch(T([-1, 3])))
    with pytest.raises(DataError, match="needs labels"):
        made.labels(batch(None))


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_numbers_are_learnt_in_standard_units(loss: str) -> None:
    made = labels.labels_of(recipe("regression", mean=[10.0, 0.0], std=[2.0, 4.0], loss=loss))
    seen = batch(T([[14.0, math.nan], [8.0, 2.0]]))
    target = made.target(seen, True)
    close(target, T([[2.0, math.nan], [-1.0, 0.5]]), equal_nan=True)
    found = made.loss(T([[5.0, 9.0], [-1.0, 0.0]]), target, seen)
    errors = {"mse": 9 + 0.25, "huber": 2.5 + 0.125}
    assert float(found.loss) == pytest.approx(errors[loss] / 3)
    assert int(found.weight) == 3
    close(made.answer(T([[1.0, -1.0]])), T([[12.0, -4.0]]))
    weight, bias = made.in_units(T([[1.0], [1.0]]), T([1.0, -1.0]))
    close((weight, bias), (T([[2.0], [4.0]]), T([12.0, -4.0])))
    nothing = made.loss(T([[1.0, 1.0]]), T([[math.nan, math.nan]]), seen)
    assert float(nothing.loss) == 0
    with pytest.raises(DataError, match=r"sample k1 has no label: leave it out$"):
        made.check(batch(T([[1.0, math.nan], [math.nan, math.nan]])))
    with pytest.raises(DataError, match="the data has classes, the head has 2"):
        made.check(batch(T([1])))
    with pytest.raises(DataError, match="the data has 3 numbers"):
        made.check(batch(torch.ones(1, 3)))


# --- statistics -----------------------------------------------------------------------------------


def test_statistics_of_latents() -> None:
    values = some(7, 2, 3) * 3 + 1
    exact, first, rest = (latents.ExactStatistics() for _ in range(3))
    exact.add(values)
    first.add(values[:2])
    rest.add(values[2:])
    first.merge(rest)
    first.merge(latents.ExactStatistics())
    for found in (exact, first, latents.ExactStatistics.restored(first.as_dict())):
        assert found.count == 7
        close(found.statistics().mean, values.mean(0))
        close(found.statistics().variance, values.var(0, correction=0))
    parts = values[:6].view(2, 3, 2, 3)
    both = latents.merged(parts.mean(1), parts.var(1, correction=0))
    close(both.mean, values[:6].mean(0))
    close(both.variance, values[:6].var(0, correction=0))
    moving = latents.MomentumStatistics((2, 3), 0.25)
    moving.add(values)
    close(moving.mean, values.mean(0) / 4)
    close(moving.variance, 0.75 + values.var(0, correction=0) / 4)
    assert latents.MomentumStatistics((1,)).momentum == 0.1


def test_latents_are_normalised_and_back() -> None:
    values = some(3, 2)
    both = latents.LatentStatistics(T([1.0, 2.0]), T([4.0, 0.0]))
    normal = both.normalize(values)
    close(normal[:, 0], (values[:, 0] - 1) / math.sqrt(4 + 1e-5))
    close(normal[:, 1], (values[:, 1] - 2) / math.sqrt(1e-5))
    close(both.denormalize(normal), values)
    close(latents.LatentStatistics(mean=T([1.0, 2.0])).denormalize(values), values + T([1.0, 2]))
    assert latents.LatentStatistics().normalize(values) is values


def test_deviation_is_over_all_ranks() -> None:
    ranks = some(2, 5, 3) + 100
    whole = ranks.flatten(0, 1).std(0, correction=0).mean()
    moments = [torch.stack([r.mean(0), r.var(0, correction=0)]) for r in ranks]
    close(channel_deviation(ranks[0], lambda _: torch.stack(moments)), whole, rtol=1e-4, atol=0)


# --- features, pixels and tubelets ----------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth-l1", "cosine"])
def test_losses_of_features(loss: str) -> None:
    section = FeatureLossSection(loss=loss, weight=0.5, normalize="none")
    a, b = some(2, 3, 4), some(2, 3, 4, seed=1) * 2
    x, y = a.numpy(), b.numpy()
    apart = abs(x - y)
    cosine = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    expected = {
        "mse": (apart**2).mean(),
        "l1": apart.mean(),
        "smooth-l1": np.where(apart < 1, apart**2 / 2, apart - 0.5).mean(),
        "cosine": (1 - cosine).mean(),
    }
    assert float(FeatureTarget(section).loss(a, b)) == pytest.approx(0.5 * expected[loss], rel=1e-5)


def test_features_are_normalised_per_token() -> None:
    a = some(2, 3, 4) * 0.01 + 5
    for kind in ("layer-norm", "unit", "none"):
        found = FeatureTarget(FeatureLossSection(loss="mse", normalize=kind))(a)
        centred = a - a.mean(-1, keepdim=True)
        expected = {
            "layer-norm": centred / (a.var(-1, correction=0, keepdim=True) + 1e-5).sqrt(),
            "unit": a / a.norm(dim=-1, keepdim=True),
            "none": a,
        }
        close(found, expected[kind], rtol=1e-3, atol=1e-4)


def test_layers_are_averaged_after_a_norm_of_each() -> None:
    layers = [some(2, 5, 3) * 0.01, some(2, 5, 3, seed=1) * 7]
    normed = [
        (x - x.mean(1, True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for x in layers
    ]
    mean = (normed[0] + normed[1]) / 2
    expected = (mean - mean.mean(2, True)) / (mean.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    close(average_layers(layers), expected, rtol=1e-3, atol=1e-4)


def test_flat_patches_keep_their_noise_small() -> None:
    patches = T([[[0.0, 2e-3, 0.0, 2e-3]]])
    target = PixelTarget(PixelTargetSection(normalize=True))
    close(target(patches), (patches - 1e-3) / math.sqrt(4e-6 / 3 + 1e-6))
    close(target.denormalize(target(patches), patches), patches)
    close(target.loss(patches, patches + 2), T(4.0))


def test_tubelets_are_normalised_per_channel() -> None:
    target = TubeletTarget(SimpleNamespace(normalize=True), [0.5, 0.25], [0.5, 2.0])  # type: ignore[arg-type]
    vectors = some(1, 2, 8)  # 4 pixels of 2 channels
    pixels = vectors.view(1, 2, 4, 2) * T([0.5, 2.0]) + T([0.5, 0.25])
    expected = (pixels - pixels.mean(2, True)) / (pixels.std(2, keepdim=True) + 1e-6)
    close(target(vectors, 2), expected.flatten(2))
    close(target.denormalize(target(vectors, 2), vectors, 2), vectors)
    valid = torch.ones(1, 2, 4, 2, dtype=torch.bool)
    valid[:, :, 3] = False
    seen = pixels[:, :, :3]
    expected = (pixels - seen.mean(2, True)) / (seen.std(2, keepdim=True) + 1e-6)
    close(target(vectors, 2, valid.flatten(2)), expected.flatten(2))
    one = torch.zeros_like(valid)
    one[:, :, :1] = True  # of a single pixel the deviation is 0
    assert target(vectors, 2, one.flatten(2)).view(1, 2, 4, 2)[:, :, 0].abs().max() == 0
    assert target(vectors, 2, torch.zeros_like(one).flatten(2)).isfinite().all()


def test_the_loss_of_tubelets_is_of_those_that_count() -> None:
    target = TubeletTarget(SimpleNamespace(normalize=False), [0.0], [1.0])  # type: ignore[arg-type]
    right, wrong = torch.zeros(1, 3, 2), T([[[1.0, 3.0], [2.0, 2.0], [9.0, 9.0]]])
    close(target.loss(wrong, right, None)[0], T((5 + 4 + 81) / 3))
    loss, total = target.loss(wrong, right, T([[True, True, False]]))
    assert (float(loss), float(total)) == (4.5, 2)
    loss, total = target.loss(wrong, right, T([[[True, False], [True, True], [False, False]]]))
    assert (float(loss), float(total)) == (3, 3)
    loss, total = target.loss(wrong, right, torch.zeros(1, 3, 2, dtype=torch.bool))
    assert (float(loss), float(total)) == (0, 1)


# --- voxels and boxes -----------------------------------------------------------------------------


def test_voxels_of_class_0_do_not_count() -> None:
    weights = voxels.class_weights(T([50, 3, 1]))
    close(weights, T([0.0, 1 / math.log(1.77), 1 / math.log(1.27)]))
    assert voxels.class_weights(T([5, 0]))[1] == pytest.approx(1 / math.log(1.02))
    found, true = T([[0, 1, 2, 2, 1]]), T([[0, 1, 2, 1, 0]])
    assert voxels.voxel_counts(found, true, 3).tolist() == [[[0, 1, 1], [0, 1, 2], [0, 2, 1]]]
    logits, labelled = some(1, 3, 5), T([[0, 1, 2, 1, 0]])
    loss, mass = voxels.voxel_loss(logits, labelled, weights)
    costs = -logits.log_softmax(1)[0].T[T([1, 2, 3]), T([1, 2, 1])] * weights[T([1, 2, 1])]
    close(mass, weights[1] * 2 + weights[2])
    close(loss, costs.sum() / mass)


def test_boxes_that_overlap_a_better_one_are_dropped() -> None:
    def box(x: float, yaw: float = 0.0) -> list[float]:
        return [x, 0.0, 0.0, 2.0, 2.0, 2.0, yaw]

    boxes = T([box(0.0), box(1.0), box(1.5), box(9.0), box(2.0)])  # IoU of 0 and 1: 1/3
    scores = T([0.9, 0.8, 0.7, 0.2, 0.6])
    assert pick(boxes, scores, 0.3, 9).tolist() == [0, 2, 3]
    assert pick(boxes, scores, 0.34, 9).tolist() == [0, 1, 4, 3]
    assert pick(boxes, scores, 0.99, 9).tolist() == [0, 1, 2, 4, 3]
    assert pick(boxes, scores, 0.99, 2).tolist() == [0, 1]


# --- contrast, clusters and codes -----------------------------------------------------------------


def test_partners_are_told_from_negatives() -> None:
    a, b = some(3, 4), some(3, 4, seed=1)
    both = F.normalize(torch.cat([a, b]), dim=1)
    table = (both @ both.T / 0.5).exp()
    losses = [-math.log(table[i, (i + 3) % 6] / (table[i].sum() - table[i, i])) for i in range(6)]
    assert float(nt_xent(a, b, 0.5)) == pytest.approx(sum(losses) / 6, rel=1e-5)
    assert float(nt_xent(a[:1], b[:1], 0.5)) == 0


@pytest.mark.parametrize("kind", ["same_token", "all_pairs"])
def test_views_agree_on_what_both_mask(kind: Any) -> None:
    a, b, masked = some(2, 3, 4), some(2, 3, 4, seed=1), T([[True, False, True], [False] * 3])
    cosines = torch.einsum("bnd,bmd->bnm", F.normalize(a, dim=-1), F.normalize(b, dim=-1))
    apart = 1 - (cosines.mean(2) if kind == "all_pairs" else cosines.diagonal(dim1=1, dim2=2))
    total, count = consistency(a, b, masked, kind)
    close(total, apart[masked].sum())
    assert float(count) == 2


def test_clusters_are_used_alike() -> None:
    logits = some(1, 6, 3) * 4
    shares = logits.softmax(2).double()[0].numpy() * 0 + np.exp(logits[0].double().numpy())
    for _ in range(3):
        shares = shares / shares.sum(0)
        shares = shares / shares.sum(1, keepdims=True)
    close(
        balanced_assignments(logits, 3, no_gather)[0].double(),
        torch.from_numpy(shares),
        atol=1e-5,
        rtol=1e-4,
    )
    close(entropy(T([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])), T([math.log(2), 0.0]))


def test_use_of_codes() -> None:
    share, perplexity = use_of(T([[0, 0], [3, 1]]), 5)
    assert float(share) == pytest.approx(0.6)
    assert float(perplexity) == pytest.approx(math.exp(1.5 * math.log(2)), rel=1e-5)


# --- adversarial ----------------------------------------------------------------------------------


def test_losses_of_a_judge() -> None:
    real, fake = T([[0.5, 2.0]]), T([[-3.0, 1.0]])
    assert float(adversarial.judge_loss(real, fake)) == pytest.approx((0.25 + 1.0) / 2)
    vanilla = [math.log1p(math.exp(x)) for x in (-0.5, -2.0, -3.0, 1.0)]
    assert float(adversarial.judge_loss(real, fake, "vanilla")) == pytest.approx(sum(vanilla) / 4)
    assert float(adversarial.generator_loss(fake)) == 1.0
    assert float(adversarial.accuracy(real, fake)) == 1.0
    assert float(adversarial.accuracy(real, T([[0.5, 1.0]]))) == 0.5


def test_the_balance_of_two_losses() -> None:
    weight = T([3.0, 4.0]).requires_grad_()
    found = adversarial.adaptive_weight((weight * weight).sum(), weight.sum() * 2, weight)
    assert float(found) == pytest.approx(10 / math.sqrt(8), rel=1e-5)
    zero = adversarial.adaptive_weight((weight * weight).sum(), weight.sum() * 0, weight)
    assert float(zero) == 1e4
    assert float(adversarial.adaptive_weight(weight.sum(), (weight * weight).sum(), weight)) < 1


def test_pictures_of_8_bits() -> None:
    close(
        adversarial.eight_bit(T([-2.0, -1.0, 0.001, 0.5, 1.0, 3.0])),
        T([-1.0, -1.0, 128 / 127.5 - 1, 191 / 127.5 - 1, 1.0, 1.0]),
    )


def test_augmentation_moves_recolours_and_erases() -> None:
    images = some(1, 3, 8, 8)
    still = [0.5] * 7  # no shift (floor(1.5) - 1), brightness + 0, saturation x 1, contrast x 1
    close(adversarial.augmented(images, T([still])), images)
    moved = adversarial.augmented(images, T([[0.0, 0.99, *still[2:]]]))  # up by one, right by one
    close(moved[..., 1:, :-1], images[..., :-1, 1:])
    assert moved[..., 0, :].abs().max() == moved[..., :, -1].abs().max() == 0
    close(adversarial.augmented(images, T([[0.5, 0.5, 0.75, *still[3:]]])), images + 0.25)
    grey = adversarial.augmented(images, T([[0.5, 0.5, 0.5, 0.0, *still[4:]]]))
    close(grey, images.mean(1, True).expand_as(images))
    strong = adversarial.augmented(images, T([[0.5] * 4 + [1.0, 0.5, 0.5]]))
    close(strong, (images - images.mean()) * 1.5 + images.mean())
    erased = adversarial.augmented(images, T([[*still[:5], 0.0, 0.99]]), 0.5) == 0
    hidden = erased[0, 0].nonzero()
    assert (hidden.amin(0).tolist(), hidden.amax(0).tolist()) == ([0, 6], [1, 7])
    assert int(erased[0, 0].sum()) == 4


def test_relations_are_scaled_by_the_width_of_a_head() -> None:
    """softmax(q k / sqrt(d)), here of heads of width 4 with q k = 4 and 0."""
    q = torch.full((1, 2, 2, 4), 1.0)
    k = torch.stack([torch.ones(4), torch.zeros(4)]).expand(1, 2, 2, 4)
    found, _ = log_relations((q, k, k), heads=2)
    close(found[0, 0, 0], T([2.0, 0.0]).log_softmax(0))


@pytest.mark.parametrize("normalize", [True, False])
def test_codes_of_normalised_patches_do_not_see_contrast(normalize: bool) -> None:
    section = KMeansTokenizerSection(kind="kmeans", codes=4, normalize=normalize)
    tokenizer = KMeansTokenizer(section, patch=4, channels=3)
    tokenizer.centres.copy_(some(4, 48))
    images = some(2, 3, 16, 16, seed=1)
    same = torch.equal(
        tokenizer(Batch.of_views({"image": images})),
        tokenizer(Batch.of_views({"image": 9 * images + 5})),
    )
    assert same == normalize


def test_pictures_of_codes_stay_in_range_when_they_are_resized() -> None:
    """A sharp edge overshoots in a bicubic resize."""
    drawn = torch.zeros(1, 3, 8, 8)
    drawn[..., 4:] = 1.0
    network = SimpleNamespace(draw=lambda codes: drawn)
    tokenizer = SimpleNamespace(
        grid=(2, 2), patch=8, statistics=([0.0] * 3, [1.0] * 3), _opened=lambda device: network
    )
    tokenizer._patches_of = lambda pixels: DrawingTokenizer._patches_of(tokenizer, pixels)
    patches = DrawingTokenizer.draw(tokenizer, torch.zeros(1, 4, dtype=torch.int64), some(1, 4, 1))
    assert patches.shape == (1, 4, 192)
    assert patches.min() >= 0
    assert patches.max() <= 1
