from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite.cli.main import main
from mimsuite.config.keys.volume import GridAugmentSection
from mimsuite.data.damage import CorruptSample
from mimsuite.data.synthetic.synth import synthesise
from mimsuite.data.volume.decode import GridDecoder
from mimsuite.data.volume.views import GridViews
from mimsuite.errors import UserError


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def views(side: int = 32, **augment: Any) -> GridViews:
    model = SimpleNamespace(encoder=SimpleNamespace(resolution=side))
    recipe: Any = SimpleNamespace(augment=GridAugmentSection(**augment), model=model)
    return GridViews(recipe)


def test_a_scene_is_padded_at_the_far_ends(tmp_path: Path) -> None:
    synthesise("grids", tmp_path / "rooms", count=2, size=20)
    file, _ = sorted((tmp_path / "rooms").rglob("*.npz"))
    scene = GridDecoder()(file.read_bytes())
    view = views().evaluate(scene)
    x, y, z = view["size"].tolist()
    assert scene.values.shape == (x, y, z, 4)
    assert view["grid"].shape == (4, 32, 32, 32)
    assert torch.equal(view["grid"][:3, :x, :y, :z].permute(1, 2, 3, 0), scene.values[..., :3])
    assert float(view["grid"][:, x:].abs().sum() + view["grid"][..., z:].abs().sum()) == 0.0
    alpha = 1 - torch.exp(-scene.values[..., 3].exp() * 0.01)
    assert torch.allclose(view["grid"][3, :x, :y, :z], alpha, atol=1e-6)


def test_turns_and_mirrors_move_voxels_and_size_together() -> None:
    values = np.random.default_rng(0).random((5, 7, 3, 4), dtype=np.float32)
    scene = GridDecoder()(npz(rgbsigma=values, density_kind="alpha"))
    turned = views(rotate=1.0, flip=0.0).train(scene, np.random.default_rng(1))
    assert turned["size"].tolist() == [7, 5, 3]
    moved = torch.from_numpy(values).permute(3, 0, 1, 2)
    for x in range(5):
        for y in range(7):  # (x, y) -> (Y - y, x)
            assert torch.equal(turned["grid"][:, 6 - y, x, :3], moved[:, x, y])
    mirrored = views(rotate=0.0, flip=1.0).train(scene, np.random.default_rng(1))
    assert torch.equal(mirrored["grid"][:, :5, :7, :3], moved.flip(1, 2))
    still = views(rotate=0.0, flip=0.0).train(scene, np.random.default_rng(1))
    assert torch.equal(still["grid"], views().evaluate(scene)["grid"])


def test_density_of_unknown_kind_is_never_guessed() -> None:
    values = np.zeros((4, 4, 4, 4), np.float32)
    scene = GridDecoder()(npz(rgbsigma=values))
    with pytest.raises(UserError, match=r"set augment\.density_kind"):
        views().evaluate(scene)
    alpha = views(density_kind="log").evaluate(scene)["grid"][3, 0, 0, 0]
    assert float(alpha) == pytest.approx(1 - np.exp(-0.01))
    as_bytes = GridDecoder()(npz(rgbsigma=np.full((4, 4, 4, 4), 255, np.uint8)))
    assert float(views().evaluate(as_bytes)["grid"][3, 0, 0, 0]) == 1.0


def test_scenes_that_do_not_fit_are_named() -> None:
    scene = GridDecoder()(npz(rgbsigma=np.zeros((40, 4, 4, 4), np.float32), density_kind="alpha"))
    with pytest.raises(UserError, match=r"40 x 4 x 4 voxels is larger than model\.encoder\.resol"):
        views().evaluate(scene)
    with pytest.raises(CorruptSample, match="more voxels than"):
        GridDecoder(max_pixels=100)(npz(rgbsigma=np.zeros((8, 8, 8, 4), np.float32)))


def test_scenes_that_are_too_large_leave_no_run_directory(tmp_path: Path, capsys: Any) -> None:
    rooms, out = tmp_path / "rooms", tmp_path / "run"
    synthesise("grids", rooms, count=20)
    words = ["pretrain", "volume/nerf-mae-tiny-rooms", "--smoke", "--data", str(rooms)]
    assert main([*words, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "larger than model.encoder.resolution 32" in said
    assert "`data synth grids --size 32`" in said
    assert not out.exists()
