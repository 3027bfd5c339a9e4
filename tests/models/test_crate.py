"""CRATE's two steps against their formulas, and CRATE-MAE's order of tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config, methods
from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import CrateSection
from mimsuite.errors import UserError
from mimsuite.masking import gather_tokens
from mimsuite.models import Crate
from mimsuite.models.crate import ISTA, MSSA, CrateBlock, CrateDecoderBlock
from mimsuite.noise import FixedNoise, Noise

EXACT = {"atol": 1e-10, "rtol": 1e-10}


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_ista_is_a_proximal_step_of_the_lasso() -> None:
    torch.manual_seed(0)
    step, sparsity = 0.2, 0.3
    ista = ISTA(4, step, sparsity).double()
    dictionary, x = ista.weight.detach(), tokens(2, 3, 4)
    expected = torch.empty_like(x)
    for b in range(2):
        for n in range(3):
            z = x[b, n]  # the step begins at the token itself
            for j in range(4):
                fit = 0.0
                for i in range(4):
                    rebuilt = sum(float(dictionary[i, k] * z[k]) for k in range(4))
                    fit += float(dictionary[i, j]) * (float(z[i]) - rebuilt)
                expected[b, n, j] = max(0.0, float(z[j]) + step * fit - step * sparsity)
    torch.testing.assert_close(ista(x), expected, **EXACT)


def test_more_sparsity_makes_more_zeros() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 16)
    torch.manual_seed(1)
    weak = ISTA(16, 0.1, 0.0)
    strong = ISTA(16, 0.1, 5.0)
    strong.load_state_dict(weak.state_dict())
    assert (weak(x) == 0).sum() < (strong(x) == 0).sum()
    assert (strong(x) >= 0).all()


def test_mssa_attends_with_one_projection() -> None:
    torch.manual_seed(0)
    mssa, x = MSSA(6, 2).double(), tokens(2, 5, 6)
    heads = []
    for head in range(2):
        w = x @ mssa.qkv.weight[3 * head : 3 * head + 3].T
        heads.append((w @ w.mT / math.sqrt(3)).softmax(-1) @ w)
    expected = mssa.proj(torch.cat(heads, -1))
    torch.testing.assert_close(mssa(x), expected, **EXACT)
    torch.testing.assert_close(mssa(x, queries=2), expected[:, -2:], **EXACT)


def test_one_head_needs_no_output_map() -> None:
    assert [name for name, _ in MSSA(6, 1).named_parameters()] == ["qkv.weight"]


def test_blocks_are_the_formulas() -> None:
    torch.manual_seed(0)
    section = CrateSection(width=8, heads=2, depth=1)
    block, undone = CrateBlock(section).double(), CrateDecoderBlock(8, 2, 1e-5).double()
    z = tokens(2, 5, 8)
    u = z + block.attn(block.norm1(z))
    torch.testing.assert_close(block(z), block.ista(block.norm2(u)), **EXACT)
    u = undone.norm1(z) @ undone.dictionary.weight.T
    expected = u - undone.attn(undone.norm2(u))
    torch.testing.assert_close(undone(z), expected, **EXACT)
    torch.testing.assert_close(undone(z, queries=3), expected[:, -3:], **EXACT)


def encoder(**keys: Any) -> Crate:
    torch.manual_seed(0)
    sizes = {"image_size": (16, 24), "patch_size": 8, "width": 16, "depth": 2, "heads": 2}
    return Crate(CrateSection(**{**sizes, **keys})).double().eval()


def test_tokens_may_come_in_any_order() -> None:
    model = encoder()
    image = tokens(2, 3, 16, 24)
    order = torch.stack([torch.randperm(6), torch.randperm(6)])
    whole = model.encode(Batch.of_images(image), layers=[1])
    shuffled = model(model.patches(image, order), order)
    torch.testing.assert_close(shuffled.tokens, gather_tokens(whole.tokens, order), **EXACT)
    torch.testing.assert_close(shuffled.cls, whole.cls, **EXACT)
    assert whole.layers[1].shape == (2, 7, 16)


def test_another_size_resizes_positions() -> None:
    assert encoder().encode(Batch.of_images(tokens(1, 3, 32, 32))).tokens.shape == (1, 16, 16)


def test_the_classifier_starts_from_random_positions() -> None:
    model = encoder(embed="normed", trained_positions=True)
    assert 0.8 < float(model.pos_embed.detach().std()) < 1.2
    assert model.pos_embed.requires_grad
    with pytest.raises(ValueError, match="set trained_positions true"):
        CrateSection(embed="normed")


# --- the method ---


def crate_mae(**keys: Any) -> Any:
    resolved = config.load("image/crate-mae-base-in1k", smoke=True)
    keys = {"model.encoder.image_size": [32, 64], **keys}
    torch.manual_seed(0)
    return methods.build(config.with_overrides(resolved, keys, "test").recipe)


def test_training_path_equals_the_whole_reconstruction_in_masked_places() -> None:
    method = crate_mae(**{"model.decoder.depth": 2}).double()
    batch = Batch.of_images(tokens(2, 3, 32, 64))
    noise = FixedNoise({"mask": torch.rand(2, 8)})
    ctx = method.prepare(batch, noise)
    masks = method.mask(batch, noise, ctx)
    output = method(batch, masks, ctx)
    everywhere = method.reconstruct(batch, masks, ctx)
    torch.testing.assert_close(
        gather_tokens(everywhere, masks["image"].masked), output.prediction, **EXACT
    )
    assert {panel.images.shape for panel in method.panels(batch, masks, ctx)} == {(2, 3, 32, 64)}


def test_what_published_code_never_reads_is_frozen_and_kept() -> None:
    method = crate_mae()
    batch = Batch.of_images(torch.randn(2, 3, 32, 64))
    noise = Noise(0, 0, batch.index)
    ctx = method.prepare(batch, noise)
    method(batch, method.mask(batch, noise, ctx), ctx).loss.backward()
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None] == []
    assert method.unused_parameters() == {"unused.embed.weight", "unused.embed.bias"}
    assert not method.unused_parameters() & trained.keys()
    assert {"pos_embed", "decoder_embed.weight"} <= method.export_reference().keys()


def test_decoder_heads_must_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"decoder\.heads 5 does not divide encoder\.width 32"):
        crate_mae(**{"model.decoder.heads": 5})


def test_a_classifier_may_pool_all_tokens_before_its_norm() -> None:
    """Class token and patches alike; parameters have the published names all the same."""
    keys = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 2, "heads": 2}
    encoder = {"model.encoder": {"kind": "crate", "embed": "normed", **keys}}
    changes = {
        **encoder,
        "model.pool": "mean_all",
        "target.classes": 3,
        "augment.eval_resize": None,
    }
    resolved = config.with_overrides(config.load("image/crate-base-in1k"), changes, "test")
    method = methods.build(resolved.recipe).double().eval()
    torch.nn.init.normal_(method.encoder.norm.weight)
    images = tokens(2, 3, 16, 16)
    features = method.encoder.encode(Batch.of_images(images), layers=[2])
    mean = features.layers[2].mean(1)
    centred = mean - mean.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = (normed * method.encoder.norm.weight) @ method.head.weight.T
    torch.testing.assert_close(method.logits(images), expected, **EXACT)
    state = method.export_reference()
    assert "mlp_head.0.weight" in state
    assert type(method).import_reference(state).keys() == method.state_dict().keys()


def test_only_crate_pools_so() -> None:
    base = config.load("image/mae-vitb16-finetune-in1k")
    with pytest.raises(UserError, match="pool=mean_all is for encoders of kind crate, not vit"):
        config.with_overrides(base, {"model.pool": "mean_all"}, "test")
