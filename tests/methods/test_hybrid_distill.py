"""Hybrid Distillation: relations from one teacher, features from another, fewer tokens deeper."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.config.keys.masks import RedundantMaskSection
from mimsuite.errors import UserError
from mimsuite.masking.redundant import RedundantTokens
from mimsuite.methods import Method, build
from mimsuite.noise import Noise
from mimsuite.targets.relations import in_heads, relation_loss

TEACHER = {"weights": "random", "patch_size": 8, "width": 24, "depth": 4, "heads": 4}
DOCUMENT: dict[str, Any] = {
    "method": {"name": "hybrid-distill"},
    "model": {"encoder": {"image_size": 32, "patch_size": 8, "width": 32, "depth": 4, "heads": 4}},
    "mask": {"kind": "redundant", "ratio": 0.75, "after": [1, 2, 3]},
    "target": {
        "relations": {"teacher": {"kind": "dino", **TEACHER}, "layers": [2, 3]},
        "features": {
            "teacher": {"kind": "clip", **TEACHER},
            "normalize": "layer-norm",
            "loss": "smooth-l1",
        },
    },
    "optim": {"lr": 1e-3},
    "schedule": {"epochs": 1},
    "train": {"global_batch": 2},
}


def hybrid(**changes: Any) -> Method:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    resolved = config.with_overrides(config.from_document(DOCUMENT), keys, "test")
    torch.manual_seed(0)
    return build(resolved.recipe).train()


def images() -> Batch:
    return Batch.of_images(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def run(method: Method) -> Any:
    batch = images()
    noise = Noise(0, 0, batch.index)
    with torch.no_grad():
        context = method.prepare(batch, noise)
        masks = method.mask(batch, noise, context)
    return method(batch, masks, context), context


def test_deeper_blocks_see_fewer_tokens() -> None:
    method = hybrid()
    shapes: list[Any] = []
    for block in method.encoder.blocks:
        block.register_forward_hook(lambda module, args, out: shapes.append(args[0].shape[1]))
    output, _ = run(method)
    assert shapes == [1 + 16, 1 + 12, 1 + 8, 1 + 4]
    assert output.prediction.shape == (2, 4, 24)
    assert output.masks["image"].visible.shape == (2, 4)


def test_every_trained_parameter_gets_a_gradient() -> None:
    for method in (hybrid(), hybrid(target__relations__weight=0.0)):
        run(method)[0].loss.backward()
        missing = {n for n, p in method.named_parameters() if p.requires_grad and p.grad is None}
        assert missing == set()
        assert not any("teacher" in name for name in method.state_dict())


def test_relations_are_of_the_tokens_that_are_there_in_that_block() -> None:
    method = hybrid(target__features__weight=0.0)
    output, context = run(method)
    found, dropped = method.student(images(), context)
    losses = []
    for layer in (2, 3):
        ids = dropped.present[layer - 1]
        own = tuple(part[:, :, 1:] for part in found.qkv[layer])
        theirs = tuple(
            torch.stack([part[b][:, 1 + ids[b]] for b in range(2)])
            for part in context.prepared["relations"][layer]
        )
        losses.append(relation_loss(own, theirs, 4))
    torch.testing.assert_close(output.loss, sum(losses) / 2)


def test_relations_of_equal_tokens_cost_nothing_and_heads_may_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = tuple(torch.randn(2, 4, 5, 8, generator=generator) for _ in range(3))
    assert relation_loss(qkv, qkv, 4).abs() < 1e-6
    other = tuple(torch.randn(2, 3, 5, 8, generator=generator) for _ in range(3))
    assert relation_loss(qkv, other, 2) > 0
    cut = in_heads(qkv[0], 2)
    assert cut.shape == (2, 2, 5, 16)
    torch.testing.assert_close(cut[:, 0, :, :8], qkv[0][:, 0])
    torch.testing.assert_close(cut[:, 1, :, 8:], qkv[0][:, 3])


def test_tokens_that_resemble_the_mean_go_first() -> None:
    section = RedundantMaskSection(ratio=0.5, after=(1,))
    drop = RedundantTokens(section, torch.tensor([[3, 5, 7, 9]]))
    tokens = torch.tensor([[[1.0, 0.1], [1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]]])
    kept = drop(1, tokens, torch.tensor([[3, 5, 7, 9]]))
    assert kept is not None
    assert kept.tolist() == [[7, 9]]
    assert drop(2, tokens[:, 2:], kept) is None
    assert drop.present[2].tolist() == [[7, 9]]


def test_probes_see_every_token() -> None:
    assert hybrid().encode(images()).tokens.shape == (2, 16, 32)


def test_pictures_show_the_survivors() -> None:
    method = hybrid()
    batch = images()
    context = method.prepare(batch, Noise(0, 0, batch.index))
    panels = method.panels(batch, {}, context)
    assert len(panels) == 4
    assert all(torch.isfinite(panel.images).all() for panel in panels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target.relations.layers": [2, 5]}, "layers 5 exceeds a depth of 4 blocks"),
        ({"target.relations.teacher_layers": [1]}, "they are paired one to one"),
        ({"target.relations.heads": 5}, "heads 5 does not divide a width of 32"),
        ({"mask.after": [1, 5]}, "mask.after 5 exceeds model.encoder.depth 4"),
        ({"mask.after": [2, 1]}, "block numbers in rising order"),
        (
            {"target.relations.teacher.image_size": 64},
            "target.relations.teacher.image_size 64 x 64",
        ),
    ],
)
def test_what_does_not_fit_names_its_keys(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.with_overrides(config.from_document(DOCUMENT), changes, "test")


def test_relations_need_attention() -> None:
    document = {**DOCUMENT, "target": {**DOCUMENT["target"]}}
    document["target"]["relations"] = {"teacher": {"kind": "efficientnet-lite0"}, "layers": [2]}
    with pytest.raises(UserError, match=r"target\.relations needs the attention"):
        config.from_document(document)
