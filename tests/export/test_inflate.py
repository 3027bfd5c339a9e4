"""Weights of image transformers in encoders of clips, scans and rasters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import initialise
from mimsuite.errors import UserError
from mimsuite.methods import Method, build
from mimsuite.models.blocks import Block


@pytest.fixture
def file(tmp_path: Path, mae: Any) -> tuple[Path, Any]:
    resolved, trained = mae()
    torch.save({"model": trained.export_reference()}, tmp_path / "w.pth")
    return tmp_path / "w.pth", resolved.recipe.model.encoder


def clips(recipe: str, encoder: Any, *keys: str) -> Method:
    names = ("patch_size", "width", "depth", "heads")
    same = [f"model.encoder.{name}={getattr(encoder, name)}" for name in names]
    return build(config.load(recipe, [*same, *keys]).recipe)


RASTER = ("bands/mae-tiny-places", "model.encoder.frames=2", "model.encoder.tubelet=2")


@pytest.mark.parametrize("way", ["mean", "centre"])
def test_kernels_are_inflated_and_said(file: tuple[Path, Any], way: str) -> None:
    path, encoder = file
    size = f"model.encoder.image_size={encoder.image_size}"
    with pytest.raises(UserError, match=r"a vit encoder.*model\.encoder\.inflate=mean"):
        initialise(clips(RASTER[0], encoder, *RASTER[1:], size), path)
    keys = (*RASTER[1:], size, f"model.encoder.inflate={way}")
    with pytest.raises(UserError, match=r"set model\.encoder\.in_channels=3 .*adapt_channels=mean"):
        initialise(clips(RASTER[0], encoder, *keys), path)
    method = clips(RASTER[0], encoder, *keys, "model.encoder.adapt_channels=repeat")
    lines = initialise(method, path)
    kernel = "encoder.patch_embed.proj.weight"
    assert f"{kernel}: inflated to 2 deep ({way})" in lines
    assert f"{kernel}: 3 channels adapted to 6 (repeat)" in lines
    assert "its codes of place and dates is fresh" in "\n".join(lines)
    assert "decoder: fresh" in lines
    state = torch.load(path, weights_only=True)["model"]["patch_embed.proj.weight"]
    found = method.state_dict()[kernel]
    assert found.shape[1:3] == (6, 2)
    torch.testing.assert_close(found.sum(dim=2)[:, :3] * 2, state)  # two bands share a channel
    torch.testing.assert_close(found[:, :3], found[:, 3:])


def test_blocks_compute_what_they_did(file: tuple[Path, Any]) -> None:
    """With keys that have a bias: it is left out, and that changes nothing."""
    path, encoder = file
    state = torch.load(path, weights_only=True)["model"]
    state["blocks.0.attn.qkv.bias"].normal_()
    torch.save({"model": state}, path)
    size = f"model.encoder.image_size={encoder.image_size}"
    keys = ("model.encoder.frames=1", "model.encoder.tubelet=1", "model.encoder.in_channels=3")
    told = (
        "model.encoder.location=false",
        "model.encoder.dates=false",
        "model.encoder.inflate=mean",
    )
    short = ("augment.mean=[0]", "augment.std=[1]", size)
    method = clips(RASTER[0], encoder, *keys, *told, *short).eval()
    initialise(method, path)
    plain = Block(encoder.width, encoder.heads, encoder.mlp_ratio, encoder.norm_eps)
    names = {n.removeprefix("blocks.0."): t for n, t in state.items() if n.startswith("blocks.0.")}
    plain.load_state_dict(names)
    x = torch.randn(2, 9, encoder.width)
    block: Any = method.encoder.blocks[0]  # type: ignore[index, union-attr]
    torch.testing.assert_close(block(x), plain(x), atol=1e-5, rtol=1e-4)
    clip = torch.randn(1, 3, 1, *method.encoder.section.size[1:])
    views = {"clip": clip, "valid": torch.ones_like(clip)}
    assert method.encoder.encode(Batch.of_views(views)).tokens.isfinite().all()


def test_cubes_of_scans(tmp_path: Path, mae: Any) -> None:
    resolved, trained = mae(model__encoder__width=48)
    path, encoder = tmp_path / "w.pth", resolved.recipe.model.encoder
    torch.save({"model": trained.export_reference()}, path)
    more = (f"model.encoder.crop={2 * encoder.patch_size}", "model.encoder.inflate=mean")
    method = clips(
        "volume/mae3d-tiny-phantoms", encoder, *more, "model.encoder.adapt_channels=mean"
    )
    lines = initialise(method, path)
    assert f"encoder.patch_embed.proj.weight: inflated to {encoder.patch_size} deep (mean)" in lines
