"""The hand-over to detectors, against a plain ViT backbone written here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mimsuite import config
from mimsuite.checkpoints import open_model
from mimsuite.export import export
from mimsuite.export.vitdet import refuse_vitdet
from mimsuite.methods import build


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = (
            heads,
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )

    def forward(self, x):
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] @ qkv[1].mT * qkv.shape[-1] ** -0.5).softmax(-1)
        return self.proj((weights @ qkv[2]).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Backbone(nn.Module):
    """No class token, no final norm; positions with a class row that is dropped."""

    def __init__(self, size=32, patch=8, width=32, depth=2, heads=4):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, images):
        x = self.patch_embed["proj"](images)
        rows, columns = x.shape[2:]
        x = x.flatten(2).mT + self.pos_embed[:, 1:]
        for block in self.blocks:
            x = block(x)
        return x.mT.unflatten(2, (rows, columns))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_plain_backbone_takes_every_tensor(mae, run_of, images, tmp_path, suffix):
    resolved, method = mae()
    run = run_of(tmp_path / "run", resolved, method)
    out = tmp_path / f"backbone{suffix}"
    use = export(open_model(run), "vitdet", out)
    assert "pretrain_img_size=32" in use[1]
    if suffix == ".pth":
        tensors = torch.load(out, weights_only=True)["model"]
    else:
        from safetensors.torch import load_file

        tensors = load_file(out)
    assert all(name.startswith("backbone.net.") for name in tensors)
    backbone = Backbone()
    backbone.load_state_dict(
        {name.removeprefix("backbone.net."): tensor for name, tensor in tensors.items()},
        strict=True,
    )
    pictures = images()
    with torch.no_grad():
        found = backbone(pictures)
        encoder = method.encoder
        x = encoder.patch_embed(encoder.patches(pictures)) + encoder.pos_embed[:, 1:]
        for block in encoder.blocks:
            x = block(x)
    assert found.shape == (2, 32, 4, 4)
    torch.testing.assert_close(found.flatten(2).mT, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recipe", ["image/cae-tiny-clipart", "image/crate-mae-tiny-fashion"])
def test_other_encoders_are_refused(recipe):
    method = build(config.load(recipe, smoke=True).recipe)
    assert "ViTDet" in str(refuse_vitdet(SimpleNamespace(method=method)))
