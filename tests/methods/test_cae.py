"""CAE and CAE v2: what sees what, what learns from what, and parts that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.config import Resolved
from mimsuite.errors import MimsuiteError, UserError
from mimsuite.methods import Context, Method, build
from mimsuite.methods.cae import CAE
from mimsuite.models.beit import BEiT
from mimsuite.models.teachers import TeacherFeatures
from mimsuite.noise import Noise

TINY = {
    "model.encoder.image_size": [32, 40],
    "model.encoder.width": 32,
    "model.encoder.depth": 2,
    "model.regressor.width": 32,
    "model.regressor.depth": 2,
    "target.tokenizer.codes": 16,
    "mask.min_block": 2,
}


def resolved(recipe: str = "image/cae-tiny-clipart", **changes: Any) -> Resolved:
    tiny = {} if "v2" in recipe else TINY
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load(recipe), {**tiny, **keys}, "test")


def cae(**changes: Any) -> Any:
    torch.manual_seed(0)
    method = build(resolved(**changes).recipe)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return method


def batch(samples: int = 3) -> Batch:
    return Batch.of_images(torch.randn(samples, 3, 32, 40))


def context(samples: int = 3, codes: int = 16) -> Context:
    noise = Noise(0, 0, torch.arange(samples))
    return Context(noise, prepared={"codes": torch.randint(codes, (samples, 20))})


def run(method: Method, one: Batch, ctx: Context) -> tuple[Any, dict[str, Any]]:
    masks = method.mask(one, ctx.noise, ctx)
    return method(one, masks, ctx), masks


# --- what sees what -------------------------------------------------------------------------------


def test_predictions_depend_on_visible_patches_only() -> None:
    method, one, ctx = cae().eval(), batch(), context()
    output, masks = run(method, one, ctx)
    hidden = masks["image"].dense().view(3, 1, 4, 5)
    hidden = hidden.repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = Batch.of_images(torch.where(hidden, torch.randn(3, 3, 32, 40), one.image))
    again = method(other, masks, ctx)
    assert torch.equal(output.prediction, again.prediction)
    assert not torch.equal(output.terms["alignment"], again.terms["alignment"])


def test_the_alignment_target_gets_no_gradient() -> None:
    """The encoder learns through its visible pass alone: as if the target were a constant."""
    method, one, ctx = cae(), batch(), context()
    masks = method.mask(one, ctx.noise, ctx)
    target = method.aligned(one, masks["image"], ctx.noise)
    assert not target.requires_grad
    method(one, masks, ctx).loss.backward()
    whole = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    method.aligned = lambda *given: target
    method(one, masks, ctx).loss.backward()
    for name, gradient in whole.items():
        assert torch.equal(method.get_parameter(name).grad, gradient), name


def test_the_alignment_target_has_drop_path_draws_of_its_own() -> None:
    method = cae(**{"model.encoder.drop_path": 0.9}).train()
    one, ctx = batch(16), context(16)
    masks = method.mask(one, ctx.noise, ctx)["image"]
    patches = method.encoder.patches(one.image, masks.masked)
    plain = method.encoder(patches, masks.masked, noise=ctx.noise).tokens
    assert not torch.equal(method.aligned(one, masks, ctx.noise), plain)
    assert torch.equal(
        method.aligned(one, masks, ctx.noise),
        method.encoder(patches, masks.masked, noise=ctx.noise.within("alignment")).tokens,
    )


def test_a_step_is_the_same_however_the_batch_is_cut() -> None:
    method = cae(model__encoder__drop_path=0.5, model__regressor__drop_path=0.5).train()
    one, ctx = batch(4), context(4)
    whole, _ = run(method, one, ctx)
    parts = []
    for rows in (slice(0, 2), slice(2, 4)):
        noise = Noise(0, 0, torch.arange(4)[rows])
        part = Context(noise, prepared={"codes": ctx.prepared["codes"][rows]})
        output, _ = run(method, Batch.of_images(one.image[rows]), part)
        parts.append(output.loss)
    torch.testing.assert_close(torch.stack(parts).mean(), whole.loss, atol=1e-5, rtol=0)


def test_weight_of_the_alignment() -> None:
    one, ctx = batch(), context()
    plain, _ = run(cae(method__alignment_weight=0.0), one, ctx)
    double, _ = run(cae(), one, ctx)
    single, _ = run(cae(method__alignment_weight=1.0), one, ctx)
    assert plain.terms["alignment"] == 0
    torch.testing.assert_close(double.terms["alignment"], 2 * single.terms["alignment"])
    torch.testing.assert_close(plain.loss, double.terms["tokens"])


def test_other_widths_and_no_layer_scale() -> None:
    method = cae(
        model__regressor__width=48,
        model__regressor__layer_scale=0.0,
        model__encoder__layer_scale=0.0,
    )
    output, _ = run(method, batch(), context())
    output.loss.backward()
    assert method.regressor.embed.weight.grad.any()
    assert torch.equal(method.regressor.blocks[0].gamma_1_cross, torch.ones(48))
    assert not any(".gamma_1" in name for name, _ in method.encoder.named_parameters())


def test_first_weights_may_be_those_of_beit() -> None:
    """Normal, cut off at their deviation; what ends a branch shrinks with depth in each stack."""
    torch.manual_seed(0)
    method: Any = build(resolved(model__init="beit").recipe)
    spread = 0.02 * 0.5396  # deviation of a normal number within one deviation of its mean
    for stack in (method.encoder.blocks, method.regressor.blocks, method.decoder.blocks):
        for number, block in enumerate(stack, start=1):
            for name, part in block.named_modules():
                if not isinstance(part, torch.nn.Linear):
                    continue
                ends = name.endswith(("attn.proj", ".fc2"))
                shrink = (2 * number) ** -0.5 if ends else 1.0
                assert float(part.weight.detach().abs().max()) <= 0.02 * shrink * (1 + 1e-6)
                assert float(part.weight.detach().std()) == pytest.approx(
                    spread * shrink, rel=0.15
                ), name
    usual: Any = build(resolved().recipe)
    assert float(usual.decoder.head.weight.detach().abs().max()) > 0.02


def test_published_layout_comes_back_whole() -> None:
    method = cae()
    published = method.export_reference()
    assert all(
        torch.equal(published[f"alignment_{name}"], tensor)
        for name, tensor in published.items()
        if name.startswith("encoder.")
    )
    again = CAE.import_reference(published)
    own = {n: t for n, t in method.state_dict().items() if not n.startswith("tokenizer.")}
    assert again.keys() == own.keys()
    assert all(torch.equal(again[name], own[name]) for name in own)


def test_panels_show_codes() -> None:
    method, one = cae().eval(), batch()
    method.setup(lambda: [batch(64) for _ in range(40)])
    ctx = method.prepare(one, Noise(0, 0, torch.arange(3)))
    masks = method.mask(one, ctx.noise, ctx)
    panels = method.panels(one, masks, ctx)
    assert [panel.title.partition(" (")[0] for panel in panels] == [
        "original",
        "masked",
        "its codes",
        "codes rebuilt + visible",
    ]
    assert all(panel.images.shape == (3, 3, 32, 40) for panel in panels)


# --- CAE v2 ---------------------------------------------------------------------------------------


def v2(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build(resolved("image/caev2-tiny-clipart", **changes).recipe)


def taught(cls: Tensor | None, width: int = 112) -> Context:
    found = TeacherFeatures(cls=cls, tokens=torch.randn(3, 36, width))
    return Context(Noise(0, 0, torch.arange(3)), prepared={"teacher": found})


def test_v2_predicts_every_token_of_the_teacher() -> None:
    method, one = v2(), Batch.of_images(torch.randn(3, 3, 60, 60))
    for cls, tokens in ((None, 36), (torch.randn(3, 112), 37)):
        output, _ = run(method, one, taught(cls))
        assert output.prediction.shape == (3, tokens, 112)
        assert 0 < float(output.loss.detach()) < 2


def test_v2_loss_is_zero_where_it_predicts_the_teacher() -> None:
    method, one = v2().eval(), Batch.of_images(torch.randn(3, 3, 60, 60))
    ctx = taught(torch.randn(3, 112))
    masks = method.mask(one, ctx.noise, ctx)
    target = method.targets(ctx.prepared["teacher"], masks["image"])
    method.predict = lambda *given: 3 * target
    assert abs(float(method(one, masks, ctx).loss)) < 1e-6


# --- parts that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mask.ratio": None, "mask.count": 20}, "leaves 0 of 20"),
        ({"model.encoder.relative_positions": True}, "model.encoder.relative_positions"),
        ({"model.regressor.heads": 5}, "heads 5 does not divide width 32"),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises((MimsuiteError, ValidationError), match=words):
        config.with_overrides(resolved(), keys, "test")


def test_a_tokenizer_with_another_grid_names_the_keys() -> None:
    recipe = config.load("image/cae-base-in1k")
    for keys in (
        {"augment.second_view.image_size": 128},
        {"augment.second_view": None},
        {"model.encoder.image_size": 256, "augment.second_view.image_size": [128, 120]},
    ):
        with pytest.raises((MimsuiteError, ValidationError)) as caught:
            config.with_overrides(recipe, keys, "test")
        text = str(caught.value)
        assert "model.encoder.image_size" in text
        assert "set augment.second_view.image_size=[" in text
    both = {"model.encoder.image_size": 256, "augment.second_view.image_size": 128}
    assert config.with_overrides(recipe, both, "test").recipe.model.encoder.grid == (16, 16)


def test_counts_out_of_reach_are_refused_when_the_method_is_built() -> None:
    with pytest.raises(UserError, match=r"mask\.min_block"):
        cae(mask__aspect=[6.0, 8.0], mask__min_block=16, mask__ratio=0.9)


def test_a_missing_tokenizer_says_what_to_get() -> None:
    method = build(config.load("image/cae-base-in1k", smoke=True).recipe)
    assert any("RANDOM WEIGHTS" in line for line in method.setup(None))
    keys = {"target.tokenizer.weights": ""}
    unset = config.with_overrides(config.load("image/cae-base-in1k", smoke=True), keys, "test")
    with pytest.raises(UserError, match=r"target\.tokenizer\.weights is not set.*import encoder"):
        build(unset.recipe).setup(None)


# --- the encoder ----------------------------------------------------------------------------------


def beit(**keys: Any) -> BEiT:
    from mimsuite.config.keys.encoders import BEiTSection

    torch.manual_seed(0)
    size = {"image_size": (16, 24), "patch_size": 8, "width": 16, "depth": 2, "heads": 2}
    return BEiT(BEiTSection(kind="beit", **{**size, **keys})).eval()


def test_relative_positions_are_biases_by_offset() -> None:
    encoder = beit(relative_positions=True)
    plain = beit()
    images = torch.randn(2, 3, 16, 24)
    one = Batch.of_images(images)
    state = {n: t for n, t in encoder.state_dict().items() if ".relative_position_" not in n}
    plain.load_state_dict(state)
    # They begin at zero.
    torch.testing.assert_close(encoder.encode(one).tokens, plain.encode(one).tokens)
    attention = encoder.blocks[0].attn
    with torch.no_grad():
        attention.relative_position_bias_table.normal_(std=2.0)
    assert not torch.allclose(encoder.encode(one).tokens, plain.encode(one).tokens)
    index = attention.relative_position_index  # of 2 x 3 patches and a class token
    assert index.shape == (7, 7)
    assert len(attention.relative_position_bias_table) == 3 * 5 + 3
    assert index[1, 2] == index[2, 3] == index[4, 5]  # one to the right
    assert index[1, 2] != index[2, 1]
    with pytest.raises(UserError, match=r"model\.encoder\.image_size"):
        encoder.encode(Batch.of_images(torch.randn(1, 3, 24, 24)))


def test_plain_positions_are_resized() -> None:
    assert beit().encode(Batch.of_images(torch.randn(1, 3, 24, 24))).tokens.shape == (1, 9, 16)
