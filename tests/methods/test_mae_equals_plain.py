"""MAE's fast path (gathered, un-shuffled, last block on masked tokens only) is the plain function.

In float64, so that agreement to 1e-10 leaves no room for a different formula.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import AutoencoderSection, DecoderSection, ViTSection
from mimsuite.config.keys.masks import PartlyDecodedSection
from mimsuite.config.keys.shared import OptimSection, ScheduleSection, TrainSection
from mimsuite.config.keys.targets import PixelTargetSection
from mimsuite.methods.mae import MAE, MAERecipe, MAESection
from mimsuite.noise import FixedNoise
from mimsuite.tokens import unpatchify

sys.path.insert(0, str(Path(__file__).parents[1]))
from plain_models import Answers, Sizes, masked_autoencoder, patch_vectors

EXACT = {"atol": 1e-10, "rtol": 1e-10}


def mae(sizes: Sizes, seed: int = 0) -> MAE:
    encoder = ViTSection(
        image_size=sizes.image_size,
        patch_size=sizes.patch,
        in_channels=sizes.channels,
        width=sizes.width,
        depth=sizes.depth,
        heads=sizes.heads,
        mlp_ratio=sizes.mlp_ratio,
        norm_eps=sizes.eps,
    )
    decoder = DecoderSection(
        width=sizes.decoder_width,
        depth=sizes.decoder_depth,
        heads=sizes.decoder_heads,
        mlp_ratio=sizes.mlp_ratio,
    )
    recipe = MAERecipe(
        method=MAESection(name="mae"),
        model=AutoencoderSection(encoder=encoder, decoder=decoder),
        mask=PartlyDecodedSection(ratio=sizes.ratio),
        target=PixelTargetSection(normalize=sizes.normalize),
        optim=OptimSection(lr=1e-3),
        schedule=ScheduleSection(epochs=1),
        train=TrainSection(global_batch=2),
    )
    torch.manual_seed(seed)
    method = MAE(recipe).double()
    with torch.no_grad():  # so that biases, norm affines and tokens matter
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


class Both:
    """The suite's answers and the plain model's, for one random input."""

    def __init__(self, sizes: Sizes, batch: int, seed: int = 0) -> None:
        self.method = mae(sizes, seed)
        generator = torch.Generator().manual_seed(seed)
        height, width = sizes.image_size
        images = torch.randn(
            batch, sizes.channels, height, width, generator=generator, dtype=torch.float64
        )
        noise = torch.rand(batch, sizes.patches, generator=generator)
        self.batch, rows = Batch.of_images(images), FixedNoise({"mask": noise})
        self.context = self.method.prepare(self.batch, rows)
        self.masks = self.method.mask(self.batch, rows, self.context)
        self.output = self.method(self.batch, self.masks, self.context)
        self.output.loss.backward()
        self.state = {
            name: tensor.detach().clone().requires_grad_()
            for name, tensor in self.method.export_reference().items()
        }
        self.plain: Answers = masked_autoencoder(self.state, images, noise, sizes)
        self.plain.loss.backward()

    def gradients(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Ours and the plain one's, by published name."""
        ours = {
            name: parameter.grad
            for name, parameter in self.method.named_parameters()
            if parameter.requires_grad
        }
        names = {
            next(iter(MAE.import_reference({name: t}))): name for name, t in self.state.items()
        }
        return {names[name]: (grad, self.state[names[name]].grad) for name, grad in ours.items()}

    def check(self) -> None:
        mask = self.masks["image"]
        assert torch.equal(mask.dense(), self.plain.mask)
        torch.testing.assert_close(self.output.loss, self.plain.loss, **EXACT)
        torch.testing.assert_close(
            self.output.prediction, mask.gather(self.plain.prediction, "masked"), **EXACT
        )
        everywhere = self.method.reconstruct(self.batch, self.masks, self.context)
        torch.testing.assert_close(everywhere, self.plain.prediction, **EXACT)
        for name, (ours, plain) in self.gradients().items():
            torch.testing.assert_close(
                ours, plain, **EXACT, msg=lambda text, n=name: f"{n}: {text}"
            )


@st.composite
def some_sizes(draw: st.DrawFn) -> Sizes:
    heads, decoder_heads = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2]))
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(2, 5))
    patches = rows * columns
    visible = draw(st.integers(1, patches - 1))
    return Sizes(
        grid=(rows, columns),
        patch=draw(st.integers(2, 4)),
        channels=draw(st.integers(1, 5)),
        width=4 * heads * draw(st.integers(1, 3)),
        depth=draw(st.integers(1, 3)),
        heads=heads,
        decoder_width=4 * decoder_heads * draw(st.integers(1, 2)),
        decoder_depth=draw(st.integers(1, 3)),
        decoder_heads=decoder_heads,
        mlp_ratio=draw(st.sampled_from([1.0, 2.5, 4.0])),
        eps=draw(st.sampled_from([1e-6, 1e-5])),
        ratio=1 - (visible + 0.5) / patches,  # far from rounding, which has a test of its own
        normalize=draw(st.booleans()),
    )


@settings(max_examples=25, deadline=None)
@given(some_sizes(), st.integers(1, 3), st.integers(0, 999))
def test_any_size_is_the_plain_function(sizes: Sizes, batch: int, seed: int) -> None:
    Both(sizes, batch, seed).check()


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("normalize", [True, False])
def test_mask_ratios(ratio: float, normalize: bool) -> None:
    Both(Sizes(ratio=ratio, normalize=normalize), batch=2).check()


def test_deep_and_rectangular() -> None:
    Both(Sizes(grid=(2, 6), patch=2, depth=4, decoder_depth=3, heads=4), batch=3).check()


def test_gradients_reach_every_trained_parameter_and_no_fixed_one() -> None:
    both = Both(Sizes(), batch=2)
    assert all(ours is not None and ours.any() for ours, _ in both.gradients().values())
    assert "pos_embed" not in both.gradients()
    assert "decoder_pos_embed" not in both.gradients()


def test_visible_patches_alone_decide_what_is_predicted() -> None:
    """Masked pixels may change the loss, never the prediction."""
    both = Both(Sizes(normalize=False), batch=2)
    hidden = both.masks["image"].dense()
    changed = patch_vectors(both.batch.image, Sizes()).clone()
    changed[hidden] += 1.0
    batch = Batch.of_images(unpatchify(changed, 4, (4, 4)))
    with torch.no_grad():
        again = both.method(batch, both.masks, both.context)
    assert torch.equal(again.prediction, both.output.prediction)
    assert again.loss != both.output.loss


def test_half_precision_input_gives_a_float32_loss() -> None:
    method = mae(Sizes()).bfloat16()
    batch = Batch.of_images(torch.randn(2, 3, 16, 16).bfloat16())
    rows = FixedNoise({"mask": torch.rand(2, 16)})
    context = method.prepare(batch, rows)
    output = method(batch, method.mask(batch, rows, context), context)
    assert output.prediction.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
