"""Corruptions: what they do to a sample, that they are keyed, and the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mimsuite.batch import Batch
from mimsuite.cli.main import main
from mimsuite.data.corruptions import Corruption, corrupt, corruptions_of
from mimsuite.errors import UserError
from mimsuite.noise import keyed_rng


def sample(modality: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if modality == "points":
        return torch.randn(64, 3, generator=generator)
    if modality == "video":
        frames = torch.arange(8, dtype=torch.uint8).view(1, 1, 8, 1, 1)
        return frames.expand(1, 3, 8, 4, 4).contiguous()
    return torch.randint(0, 256, (3, 24, 20), generator=generator).to(torch.uint8)


def named(modality: str, name: str) -> Corruption:
    return next(one for one in corruptions_of(modality) if one.name == name)


def applied(one: Corruption, view: torch.Tensor, severity: int) -> torch.Tensor:
    return one.apply(view, one.strengths[severity - 1], keyed_rng("test"))


def distance(one: Corruption, view: torch.Tensor, severity: int) -> float:
    return float((applied(one, view, severity).float() - view.float()).square().mean())


@pytest.mark.parametrize("modality", ["image", "video", "points"])
def test_views_keep_shape_and_type_and_the_original(modality: str) -> None:
    view = sample(modality)
    before = view.clone()
    for one in corruptions_of(modality):
        for severity in (1, 2, 3):
            spoilt = applied(one, view, severity)
            assert (spoilt.shape, spoilt.dtype) == (view.shape, view.dtype), one.name
            assert not torch.equal(spoilt, view), one.name
    assert torch.equal(view, before)


@pytest.mark.parametrize(
    ("modality", "names"),
    [("image", ["noise", "blur", "contrast", "pixelate"]), ("points", ["jitter", "rotation"])],
)
def test_severity_grows(modality: str, names: list[str]) -> None:
    for name in names:
        far = [distance(named(modality, name), sample(modality), level) for level in (1, 2, 3)]
        assert far == sorted(far), name
        assert far[0] < far[2]


def test_floats_and_bytes_are_spoilt_alike() -> None:
    view = sample("image")
    for one in corruptions_of("image"):
        bytes_, floats = applied(one, view, 1), applied(one, view / 255, 1).clamp(0, 1)
        assert float((bytes_ / 255 - floats).abs().max()) <= 0.51 / 255, one.name


def test_draws_are_keyed_by_sample_and_seed_not_by_batch() -> None:
    view = sample("image").expand(2, -1, -1, -1)
    noise = named("image", "noise")

    def spoilt(keys: list[str], seed: int = 0) -> torch.Tensor:
        batch = Batch({"image": view}, torch.arange(2), keys)
        return corrupt(batch, "image", noise, 1, seed).image

    one, swapped = spoilt(["a", "b"]), spoilt(["b", "a"])
    assert not torch.equal(one[0], one[1])
    assert torch.equal(one[0], swapped[1])
    assert not torch.equal(one, spoilt(["a", "b"], seed=1))


def test_translation_moves_by_the_given_distance() -> None:
    view = torch.zeros(1, 40, 40, dtype=torch.uint8)
    view[0, 20, 20] = 255
    for severity, pixels in ((1, 2.0), (2, 4.0), (3, 8.0)):
        row, column = applied(named("image", "translation"), view, severity)[0].nonzero()[0]
        moved = float(((row - 20) ** 2 + (column - 20) ** 2) ** 0.5)
        assert moved == pytest.approx(pixels, abs=0.75)


def test_rotation_keeps_distances_and_turns_by_the_angle() -> None:
    cloud = sample("points")
    turned = applied(named("points", "rotation"), cloud, 3)
    torch.testing.assert_close(
        torch.cdist(turned, turned), torch.cdist(cloud, cloud), atol=5e-3, rtol=1e-4
    )
    turn = torch.linalg.lstsq(cloud, turned).solution
    assert float(turn.trace()) == pytest.approx(1 + 2 * 0.5, abs=1e-4)  # cos of 60 degrees


def test_drop_leaves_points_that_were_there() -> None:
    cloud = sample("points")
    dropped = applied(named("points", "drop"), cloud, 3)
    kept = {tuple(point) for point in dropped.tolist()}
    assert len(kept) == 16
    assert kept <= {tuple(point) for point in cloud.tolist()}


def test_shuffling_keeps_every_frame_within_its_part() -> None:
    shuffle = named("video", "shuffle")
    for severity, length in ((1, 2), (2, 4), (3, 8)):
        order = applied(shuffle, sample("video"), severity)[0, 0, :, 0, 0].tolist()
        for start in range(0, 8, length):
            part = order[start : start + length]
            assert sorted(part) == list(range(start, start + length))


def test_shuffled_frames_have_no_direction() -> None:
    """Each of all orders is as likely as its reverse: no probe tells left from right."""
    shuffle, clip = named("video", "shuffle"), sample("video")
    orders = [shuffle.apply(clip, 1.0, keyed_rng(key))[0, 0, :, 0, 0].float() for key in range(400)]
    rising = torch.stack([(order.diff() > 0).float().mean() for order in orders]).mean()
    assert float(rising) == pytest.approx(0.5, abs=0.02)


def test_grids_have_none() -> None:
    with pytest.raises(UserError, match="no corruptions of grids"):
        corruptions_of("grids")


def test_command_tells_every_level(run: Path, pictures: Path, tmp_path: Path, capsys) -> None:
    drawings = tmp_path / "drawings"
    for colour in ("red", "blue"):
        shutil.copytree(pictures / "test" / colour, drawings / "test" / colour)
        shutil.copytree(pictures / "test" / colour, drawings / "train" / colour)
    out = tmp_path / "r.json"
    words = ["robustness", run, "--baselines", "--json", "--out", out, "--shifted", drawings]
    assert main([str(word) for word in words]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text())
    assert set(result["corruptions"]) == {"noise", "blur", "contrast", "pixelate", "translation"}
    assert set(result["clean"]["accuracy"]) == {"pretrained", "random_init", "raw_input"}
    assert result["clean"]["accuracy"]["raw_input"] > 0.9
    levels = [
        level["accuracy"]["pretrained"]
        for one in result["corruptions"].values()
        for level in one["severities"]
    ]
    assert len(levels) == 15
    mean = result["corrupted"]["accuracy"]["pretrained"]
    assert mean == pytest.approx(sum(levels) / 15)
    assert result["shifted"]["n_test"] == 12
    right = [result["clean"]["accuracy"]["raw_input"], result["shifted"]["accuracy"]["raw_input"]]
    assert right[1] == pytest.approx(right[0], abs=0.2)  # blue and red, told by their names
    for word in ("noise 1", "translation 3", "shifted", "scored once, clean and corrupted"):
        assert word in " ".join(printed.err.split())


def test_clean_figure_is_that_of_the_linear_probe(run: Path, capsys) -> None:
    assert main(["linear-probe", str(run), "--json"]) == 0
    probe = json.loads(capsys.readouterr().out)
    assert main(["robustness", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["clean"]["accuracy"]["pretrained"] == probe["accuracy"]["pretrained"]
    assert result["chosen"] == probe["chosen"]


def test_a_set_without_a_test_split_is_refused(run: Path, pictures: Path, capsys) -> None:
    assert main(["robustness", str(run), "--data", str(pictures / "train")]) == 2
    assert "no split 'test' to corrupt" in capsys.readouterr().err
