from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite.methods import Panel
from mimsuite.report import first_pictures, save_batch, save_panels
from mimsuite.report.pictures import to_pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pixels(path):
    return np.asarray(Image.open(path))


def test_pixels_are_denormalised_and_clipped():
    images = torch.tensor([-9.0, 0.0, 9.0, float("nan")]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    shown = to_pixels(images, MEAN, STD)
    assert shown.dtype == torch.uint8
    assert shown[0, :, 0, 0].tolist() == [0, 0, 0]
    assert shown[0, :, 0, 1].tolist() == [round(255 * m) for m in MEAN]
    assert shown[0, :, 1, 0].tolist() == [255, 255, 255]
    assert shown[0, :, 1, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("side", "cell"), [((8, 8), (96, 96)), ((28, 28), (112, 112)), ((64, 32), (192, 96))]
)
def test_small_images_grow_by_whole_factors(tmp_path, side, cell):
    images = torch.rand(3, 3, *side)
    panels = [Panel("left", images), Panel("right", images)]
    path = save_panels(tmp_path / "p.png", panels, [0.0], [1.0])
    width, height = Image.open(path).size
    assert width == 16 + 2 * cell[1] + 8 + 16
    top = height - 16 - 3 * cell[0] - 2 * 8
    assert 16 < top < 60  # room for one line of title
    picture = pixels(path)[top : top + cell[0], 16 : 16 + cell[1]]
    factor = cell[0] // side[0]
    crisp = to_pixels(images[:1], [0.0], [1.0])[0].permute(1, 2, 0).numpy()
    assert (picture == crisp.repeat(factor, 0).repeat(factor, 1)).all()


def test_large_images_shrink(tmp_path):
    path = save_panels(tmp_path / "p.png", [Panel("x", torch.rand(1, 3, 300, 900))], MEAN, STD)
    assert Image.open(path).width == 448 + 32


def test_no_more_than_rows(tmp_path):
    panel = Panel("x", torch.rand(20, 1, 96, 96))
    few = save_panels(tmp_path / "few.png", [panel], [0.0], [1.0], rows=2)
    more = save_panels(tmp_path / "more.png", [panel], [0.0], [1.0], rows=3)
    assert Image.open(more).height - Image.open(few).height == 96 + 8


def test_one_channel_is_gray_and_many_show_three(tmp_path):
    gray = pixels(save_panels(tmp_path / "g.png", [Panel("x", torch.rand(1, 1, 96, 96))], [0], [1]))
    inner = gray[-112:-16, 16:-16]
    assert (inner[..., 0] == inner[..., 1]).all()
    images = torch.rand(1, 6, 96, 96)
    many = pixels(save_panels(tmp_path / "m.png", [Panel("x", images)], [0.0], [1.0]))
    shown = to_pixels(images, [0.0], [1.0])[0, :3].permute(1, 2, 0).numpy()
    assert (many[-112:-16, 16:-16] == shown).all()
    assert many.shape[0] > gray.shape[0]  # the title has a note, and so more lines


def test_long_and_strange_titles(tmp_path):
    title = "reconstruction (true patch mean and contrast) \x1b[31m äöü 日本 \U0001f600"
    path = save_panels(tmp_path / "t.png", [Panel(title, torch.rand(1, 3, 8, 8))], MEAN, STD)
    assert Image.open(path).width == 96 + 32


def test_statistics_must_fit_the_channels(tmp_path):
    with pytest.raises(ValueError, match="3 statistics for images of 1 channels"):
        save_panels(tmp_path / "p.png", [Panel("x", torch.rand(1, 1, 8, 8))], MEAN, STD)
    with pytest.raises(ValueError, match="no panels"):
        save_panels(tmp_path / "p.png", [], MEAN, STD)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (9, 2, 8), (40, 4, 8)])
def test_a_sheet_of_a_batch(tmp_path, count, rows, columns):
    path = save_batch(tmp_path / "b.png", torch.rand(count, 3, 96, 96), MEAN, STD)
    size = Image.open(path).size
    assert size == tuple(32 + n * 96 + (n - 1) * 8 for n in (columns, rows))


def test_first_pictures_leave_training_as_it_was(run, method, batch):
    method.train()
    method.decoder.eval()  # a part that is kept in eval mode
    state = torch.get_rng_state()
    written = first_pictures(run, method, batch, seed=0)
    written += first_pictures(run, method, batch, seed=0, step=120)
    assert [path.name for path in written] == [
        "first_batch.png", "masks.png", "reconstruction-00000120.png",
    ]  # fmt: skip
    assert method.training
    assert method.encoder.training
    assert not method.decoder.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in method.parameters())
    again = first_pictures(run, method, batch, seed=0, step=121)
    assert again[0].read_bytes() == written[2].read_bytes()


def test_a_method_without_panels_is_skipped(run, method, batch, monkeypatch):
    monkeypatch.setattr(type(method), "panels", lambda *arguments: [])
    assert [path.name for path in first_pictures(run, method, batch, seed=0)] == ["first_batch.png"]
    assert first_pictures(run, method, batch, seed=0, step=5) == []


def test_a_picture_that_cannot_be_written_stops_nothing(run, method, batch):
    run.images.rmdir()
    run.images.touch()
    assert first_pictures(run, method, batch, seed=0) == []
    assert "picture not written" in (run.path / "train.log").read_text()
