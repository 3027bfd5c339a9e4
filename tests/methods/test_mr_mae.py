"""MR-MAE: two losses on disjoint tokens, one of them a teacher's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.errors import UserError
from mimsuite.methods import Method, build
from mimsuite.noise import Noise

TEACHER = {
    "kind": "clip",
    "weights": "random",
    "patch_size": 8,
    "width": 24,
    "depth": 2,
    "heads": 4,
}
KEYS = {
    "model.encoder.image_size": 32,
    "model.encoder.patch_size": 8,
    "model.encoder.width": 32,
    "model.encoder.depth": 2,
    "model.decoder.width": 16,
}


def recipe(changes: dict[str, Any] | None = None, teacher: dict[str, Any] | None = None) -> Any:
    document = config.load("image/mr-mae-tiny-clipart").document
    document["smoke"] = {}
    document["target"]["teacher"] = teacher or TEACHER
    return config.with_overrides(config.from_document(document), KEYS | (changes or {}), "t").recipe


def mr_mae(**changes: Any) -> Method:
    torch.manual_seed(0)
    return build(recipe({key.replace("__", "."): value for key, value in changes.items()})).train()


def images() -> Batch:
    return Batch.of_images(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def run(method: Method, batch: Batch) -> Any:
    noise = Noise(0, 0, batch.index)
    with torch.no_grad():
        context = method.prepare(batch, noise)
        masks = method.mask(batch, noise, context)
    return method(batch, masks, context), context


def test_visible_tokens_mimic_and_masked_ones_are_rebuilt() -> None:
    method = mr_mae()
    shapes: list[Any] = []
    for block in method.encoder.blocks:
        block.register_forward_hook(lambda module, args, out: shapes.append(args[0].shape))
    output, context = run(method, images())
    mask = output.masks["image"]
    assert shapes == [(2, 1 + 4, 32)] * 2
    latent = method.latent(images(), mask, context)
    wanted = F.layer_norm(mask.gather(context.prepared["teacher"].tokens, "visible"), (24,))
    mimic = F.mse_loss(method.head(latent.tokens), wanted)
    patches = method.encoder.patches(images().image, mask.masked)
    pixels = method.target.loss(output.prediction, method.target(patches))
    torch.testing.assert_close(output.terms["mimic"], mimic)
    torch.testing.assert_close(output.loss, pixels + mimic)
    assert output.prediction.shape == (2, 12, 192)


def test_every_trained_parameter_gets_a_gradient_and_the_teacher_none() -> None:
    for method in (mr_mae(), mr_mae(model__fuse_layers=[1, 2])):
        run(method, images())[0].loss.backward()
        missing = {n for n, p in method.named_parameters() if p.requires_grad and p.grad is None}
        assert missing == set()
        assert not any("teacher" in name for name in method.state_dict())


def test_the_weight_and_the_kind_of_the_mimic_loss_are_keys() -> None:
    plain, _ = run(mr_mae(target__mimic__weight=0.0), images())
    torch.testing.assert_close(plain.loss, plain.terms["pixels"])
    double, _ = run(mr_mae(target__mimic__weight=2.0), images())
    single, _ = run(mr_mae(), images())
    torch.testing.assert_close(double.terms["mimic"], 2 * single.terms["mimic"])
    for kind in ("smooth-l1", "cosine"):
        assert torch.isfinite(run(mr_mae(target__mimic__loss=kind), images())[0].loss)


def test_fused_blocks_add_to_the_output() -> None:
    method = mr_mae(model__fuse_layers=[1])
    output, context = run(method, images())
    mask = output.masks["image"]
    visible = method.encoder.patches(images().image, mask.visible)
    found = method.encoder(visible, mask.visible, layers=[1])
    fused = method.fusion["1"](found.layers[1])
    latent = method.latent(images(), mask, context)
    torch.testing.assert_close(latent.tokens, found.tokens + fused[:, 1:])
    torch.testing.assert_close(latent.cls, found.cls + fused[:, :1])


def test_salient_patches_may_be_kept() -> None:
    method = mr_mae(mask__kind="attentive")
    output, context = run(method, images())
    assert context.prepared["teacher"].cls_attention is not None
    assert output.masks["image"].visible.shape == (2, 4)


def test_it_runs_on_the_convolutional_encoder() -> None:
    document = config.load("image/mr-mae-tiny-clipart").document
    document["smoke"] = {}
    document["target"]["teacher"] = TEACHER
    document["model"]["encoder"] = {
        "kind": "convvit",
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "depth": 2,
        "heads": 4,
        "conv_strides": [2, 2],
        "conv_width": [16, 24],
        "conv_depth": [1, 1],
    }
    method = build(config.from_document(document).recipe).train()
    output, _ = run(method, images())
    output.loss.backward()
    assert {n for n, p in method.named_parameters() if p.requires_grad and p.grad is None} == set()


def test_pictures_show_pixels_and_features() -> None:
    method = mr_mae()
    batch = images()
    noise = Noise(0, 0, batch.index)
    context = method.prepare(batch, noise)
    panels = method.panels(batch, method.mask(batch, noise, context), context)
    titles = [panel.title for panel in panels]
    assert len(titles) == 6
    assert titles[-2:] == ["teacher features (PCA)", "predicted features (PCA)"]


@pytest.mark.parametrize(
    ("changes", "teacher", "message"),
    [
        ({"model.fuse_layers": [3]}, TEACHER, "model.fuse_layers 3 exceeds model.encoder.depth 2"),
        ({}, TEACHER | {"image_size": 64}, "makes 8 x 8 tokens, model.encoder "),
        (
            {"mask.kind": "attentive"},
            {"kind": "efficientnet-lite0"},
            "mask.kind=attentive needs the attention",
        ),
        ({"mask.ratio": 0.99}, TEACHER, "leaves 0 of 16 patches visible"),
    ],
)
def test_what_does_not_fit_names_its_keys(
    changes: dict[str, Any], teacher: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        recipe(changes, teacher)


def test_there_is_no_published_layout() -> None:
    with pytest.raises(NotImplementedError, match="no published key layout"):
        mr_mae().export_reference()
