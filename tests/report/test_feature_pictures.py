"""Pictures of features and attention: the attention is the encoder's own, all modalities draw."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.errors import UserError
from mimsuite.methods import build
from mimsuite.models.attention import cls_attention
from mimsuite.models.attention_maps import LastAttention
from mimsuite.report.feature_pictures import alike, save_feature_pictures
from mimsuite.report.reconstruct import load_samples


def test_attention_is_that_of_the_last_block(method, batch):
    method.eval()
    encoder = method.encoder
    with torch.no_grad(), LastAttention() as seen:
        method.encode(batch)
        features = encoder(encoder.patches(batch.image), qkv=[encoder.depth])
    assert seen.call is not None
    expected = cls_attention(features.qkv[encoder.depth], 1).mean(1)
    weights = seen.call.weights(first=1)
    torch.testing.assert_close(weights[:, 0, 1:], expected)
    torch.testing.assert_close(weights.sum(2), torch.ones(len(batch), 1))


def test_alike_finds_the_same_patch_elsewhere():
    tokens = torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(0))
    tokens[2, 7] = tokens[0, 4]
    best, where = alike(tokens, 4)
    assert int(best[0].argmax()) == 2
    assert int(where[0, 2]) == 7
    assert bool((best.argmax(1) != torch.arange(4)).all())


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        ("image/mae-tiny-fashion", ""),
        ("image/cae-tiny-clipart", ""),
        ("video/videomae2-tiny-motion", "video"),
        ("points/cmae-tiny-furniture", ""),
        ("volume/nerf-mae-tiny-rooms", "grids"),
    ],
)
def test_every_modality_is_drawn(recipe, kind, tmp_path):
    source = str(tmp_path / "data")
    keys = []
    if kind:
        size = ["--size", "32"] if kind == "grids" else []
        assert main(["data", "synth", kind, source, "--count", "24", *size]) == 0
        keys = [f"data.source={source}"]
    resolved = config.load(recipe, keys, smoke=True)
    batch = load_samples(resolved, [resolved.recipe.data.source], 3, "cpu", "train")
    method = build(resolved.recipe).eval()
    written = save_feature_pictures(method, batch, tmp_path / "out", neighbours=2)
    names = {path.stem for path in written}
    assert names == {"features", "nearest"} | (set() if kind == "grids" else {"attention"})
    for path in written:
        assert len(set(Image.open(path).convert("L").getdata())) > 8
    with pytest.raises(UserError, match="--query"):
        save_feature_pictures(method, batch, tmp_path / "out", query=10**6)
