"""Segmentation of scans: loss, U-Net, windows over whole scans, pictures, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mimsuite.batch import Batch
from mimsuite.errors import DataError
from mimsuite.methods import build
from mimsuite.methods.scan_segment import ScanSegmenter, ScanSegmentRecipe
from mimsuite.models.sliding_window import gaussian, sliding_window, starts
from mimsuite.noise import Noise
from mimsuite.pictures.volumes import coloured
from mimsuite.targets.scan_labels import dice, dice_cross_entropy
from mimsuite.train.step import run_method

ENCODER = {"crop": 16, "patch_size": 8, "width": 24, "depth": 3, "heads": 4}


def recipe(decoder: Any = None, **encoder: Any) -> ScanSegmentRecipe:
    return ScanSegmentRecipe.model_validate(
        {
            "recipe": {"modality": "scans"},
            "method": {"name": "scan-segment"},
            "model": {"encoder": ENCODER | encoder, "decoder": {"width": 4} | (decoder or {})},
            "target": {"labels": 3},
            "augment": {"spacing": 1.0},
            "optim": {"lr": 1e-3},
            "schedule": {"epochs": 1},
            "train": {"global_batch": 2},
        }
    )


def made(**keys: Any) -> ScanSegmenter:
    torch.manual_seed(1)
    method = build(recipe(**keys))
    assert isinstance(method, ScanSegmenter)
    return method


def crops() -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2, 16, 16, 16), generator=generator, dtype=torch.uint8)
    labels[:, :2] = 255
    scan = torch.rand(2, 1, 16, 16, 16, generator=generator)
    return Batch.of_views({"scan": scan, "labels": labels})


def test_the_loss_by_hand() -> None:
    """One scan of four voxels, one of them unknown; two classes."""
    one = torch.tensor([0.8, 0.3, 0.6, 0.9])  # probability of class 1
    logits = torch.stack([(1 - one).log(), one.log()]).view(1, 2, 4, 1, 1)
    labels, known = torch.tensor([1, 0, 1, 0]), torch.tensor([True, True, True, False])
    loss, entropy = dice_cross_entropy(logits, labels.view(1, 4, 1, 1), known.view(1, 4, 1, 1))
    y, g = one[:3].numpy(), np.array([1, 0, 1])
    each = [2 * (a * b).sum() / ((a**2).sum() + (b**2).sum()) for a, b in [(y, g), (1 - y, 1 - g)]]
    assert float(loss) == pytest.approx(1 - np.mean(each), abs=1e-5)
    wanted = -np.log(np.where(g == 1, y, 1 - y)).mean()
    assert float(entropy) == pytest.approx(wanted, abs=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    labels, known = torch.randint(3, (2, 2, 2, 2)), torch.rand(2, 2, 2, 2) > 0.2
    logits = torch.randn(2, 3, 2, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(sum(dice_cross_entropy(logits, labels, known)), logits)
    for place in [(0, 1, 0, 0, 0), (1, 2, 1, 0, 1)]:
        moved = torch.zeros_like(logits)
        moved[place] = 1e-2
        up, down = (
            sum(dice_cross_entropy(logits.detach() + s * moved, labels, known)) for s in (1, -1)
        )
        assert float((up - down) / 2e-2) == pytest.approx(float(gradient[place]), abs=1e-3)


def test_dice_of_masks() -> None:
    one, other = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    assert float(dice(one, other)) == pytest.approx(2 / 3)
    assert torch.isnan(dice(~one & one, ~one & one))


@pytest.mark.parametrize("patch", [2, 4, 8, 16])
def test_every_parameter_learns_at_any_size_of_cubes(patch: int) -> None:
    method = made(patch_size=patch, depth=4).train()
    assert len(method.unet.blocks) == max(0, patch.bit_length() - 2)
    batch = crops()
    output = run_method(method, batch, Noise(0, 0, batch.index))
    output.loss.backward()
    assert output.prediction is not None
    assert output.prediction.shape == (2, 3, 16, 16, 16)
    assert set(output.terms) == {"dice_loss", "cross_entropy"}
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


def test_unknown_voxels_carry_no_loss() -> None:
    method, batch = made().eval(), crops()
    changed = batch.views["labels"].clone()
    changed[:, 2:4] = 255
    other = Batch.of_views(batch.views | {"labels": changed})
    nothing = Batch.of_views(batch.views | {"labels": torch.full_like(changed, 255)})
    with torch.no_grad():
        losses = [
            float(run_method(method, one, Noise(0, 0, one.index)).loss)
            for one in (batch, other, nothing)
        ]
    assert losses[0] != losses[1]
    assert np.isfinite(losses).all()


def test_windows_cover_the_volume_and_rebuild_what_is_local() -> None:
    assert starts(16, 16, 0.5) == [0]
    assert starts(40, 16, 0.5) == [0, 8, 16, 24]
    assert max(np.diff(starts(45, 16, 0.5))) <= 8
    assert starts(45, 16, 0.5)[-1] == 29
    weights = gaussian((8, 16, 16))
    assert weights.shape == (8, 16, 16)
    assert float(weights.min()) >= 1e-3
    assert float(weights.max()) == 1.0
    volume = torch.randn(2, 20, 19, 33)
    found = sliding_window(lambda windows: 3 * windows, volume, (16, 16, 16), 0.5, batch=3)
    torch.testing.assert_close(found, 3 * volume)
    with pytest.raises(ValueError, match="shorter than a window"):
        starts(8, 16, 0.5)


def test_the_middle_of_a_window_counts_most() -> None:
    """Windows that say their own number: a voxel is nearest to that of the nearest middle."""
    count = iter(range(100))

    def number(windows: torch.Tensor) -> torch.Tensor:
        values = [next(count) for _ in windows]
        return torch.tensor(values).view(-1, 1, 1, 1, 1).expand(-1, 1, 8, 8, 8).float()

    found = sliding_window(number, torch.zeros(1, 12, 8, 8), (8, 8, 8), 0.5, batch=2)[0, :, 4, 4]
    assert found[:4].tolist() == [0] * 4
    assert found[8:].tolist() == [1] * 4
    assert torch.all(found.diff() >= 0)
    assert float(found[5]) < 0.5 < float(found[6])


def test_a_whole_scan_is_labelled_as_its_only_window_is() -> None:
    method, batch = made().eval(), crops()
    scan = batch.views["scan"][0]
    with torch.no_grad():
        wanted = method.crop_logits(scan[None])[0].argmax(0)
        assert torch.equal(method.voxel_labels(scan), wanted)
        assert method.voxel_labels(torch.rand(1, 30, 16, 21)).shape == (30, 16, 21)


def test_pictures_have_the_classes_in_colour() -> None:
    method, batch = made().eval(), crops()
    with torch.no_grad():
        panels = method.panels(batch, {}, method.prepare(batch, Noise(0, 0, batch.index)))
    assert [panel.title for panel in panels] == ["original", "labels", "prediction"]
    assert all(panel.images.shape == (2, 3, 16, 48) for panel in panels)
    grey, labels = torch.full((1, 1, 1, 4), 0.5), torch.tensor([[[0, 1, 2, 255]]])
    shown = coloured(grey, labels)[0, :, 0].T
    assert shown[0].tolist() == [0.5] * 3
    assert shown[3].tolist() == [0.75] * 3
    assert not torch.allclose(shown[1], shown[2], atol=0.1)


def test_bad_input_is_named() -> None:
    batch = crops()
    made().check(batch)
    views = batch.views | {"labels": batch.views["labels"].clamp(max=7)}
    with pytest.raises(DataError, match=r"class 7; target\.labels is 3"):
        made().check(Batch.of_views(views))
    with pytest.raises(ValidationError, match="must be a power of 2"):
        recipe(patch_size=12, crop=24)
    with pytest.raises(ValidationError, match=r"decoder\.blocks must be 2 blocks of 1 to 3"):
        recipe(decoder={"blocks": [1, 9]})
