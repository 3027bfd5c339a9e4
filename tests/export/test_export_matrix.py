"""Every kind of model in every format: opened as the printed lines say, the tokens are the
encoder's own; or refused in one line that names the formats that do work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mimsuite.checkpoints import Opened, open_model
from mimsuite.errors import UserError
from mimsuite.export import FORMATS, export
from mimsuite.export.formats import formats_of
from mimsuite.methods.classify import Classifier
from tests import needs

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(Path(__file__).parent)]
import export_matrix  # noqa: E402
from test_vitdet import Block  # noqa: E402

NAMES = [names[0] for names in export_matrix.rows()]
# A graph takes seconds to make: one of them is in the quick tests.
QUICK_GRAPHS = ("video/crossvideomae-tiny-motion",)


def sample_of(opened: Opened, batch: int = 2) -> Tensor:
    _, shape = opened.method.encoder.sample()
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))


def tokens_of(opened: Opened, sample: Tensor) -> Tensor:
    from mimsuite.batch import Batch

    view, _ = opened.method.encoder.sample()
    with torch.no_grad():
        found = opened.method.encode(Batch.of_views({view: sample}))
    return torch.cat([found.cls, found.tokens], dim=1)


def same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    scale = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) < 1e-4 * scale


def built(lines: list[str]) -> Any:
    """What the printed lines make."""
    scope: dict[str, Any] = {}
    exec("\n".join(line for line in lines if " agrees: " not in line), scope)
    return scope["model"].eval()


def check_timm(opened: Opened, lines: list[str], out: Path) -> None:
    assert "strict=True" in lines[3]
    model, images = built(lines), sample_of(opened)
    with torch.no_grad():
        same(model.forward_features(images), tokens_of(opened, images))
        assert (model.num_classes > 0) == reads_plain_pool(opened)
        if model.num_classes:
            same(model(images), logits_of(opened, images))


def check_hf(opened: Opened, lines: list[str], out: Path) -> None:
    if os.environ.get("MIMSUITE_REQUIRE") != "1":
        needs.module("transformers")
    model, sample = built(lines), sample_of(opened)
    taken = sample.transpose(1, 2) if sample.ndim == 5 else sample
    encoder = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        if model.config.model_type == "vit_mae":
            encoder.config.mask_ratio = 0.0
            order = torch.arange(float(encoder.embeddings.position_embeddings.shape[1] - 1))
            found = encoder(taken, noise=order.expand(2, -1))
        else:
            found = encoder(taken)
        same(found.last_hidden_state, tokens_of(opened, sample))
        if type(model).__name__.endswith("Classification"):
            same(model(taken).logits, logits_of(opened, sample))


def check_onnx(opened: Opened, lines: list[str], out: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        sample = sample_of(opened, batch)
        parts = session.run(None, {session.get_inputs()[0].name: sample.numpy()})
        same(torch.cat([torch.from_numpy(part) for part in parts], 1), tokens_of(opened, sample))


def check_again(opened: Opened, lines: list[str], out: Path) -> None:
    again, sample = open_model(out), sample_of(opened)
    same(tokens_of(again, sample), tokens_of(opened, sample))
    if type(again.method) is type(opened.method):  # a released encoder opens as what pretrained it
        assert again.has_decoder == opened.has_decoder


def check_vitdet(opened: Opened, lines: list[str], out: Path) -> None:
    section = opened.method.encoder.section
    state = {
        name.removeprefix("backbone.net."): tensor
        for name, tensor in torch.load(out, weights_only=True)["model"].items()
    }
    blocks = nn.ModuleList(Block(section.width, section.heads) for _ in range(section.depth))
    below = {n.removeprefix("blocks."): t for n, t in state.items() if n.startswith("blocks.")}
    blocks.load_state_dict(below, strict=True)
    assert len(state) == len(below) + 3  # positions; kernel and bias of the patches
    images = sample_of(opened)
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    # The backbone has no class token, so our blocks are run without theirs.
    x = nn.functional.conv2d(images, kernel, bias, stride=section.patch_size).flatten(2).mT
    patches = opened.method.encoder.patches(images)
    with torch.no_grad():
        same(x, opened.method.encoder.patch_embed(patches))
        x = x + state["pos_embed"][:, 1 if section.class_tokens else 0 :]
        ours = x
        for block, own in zip(blocks, opened.method.encoder.blocks, strict=True):
            x, ours = block(x), own(ours)
    same(x, ours)


CHECKS = {
    "timm": check_timm,
    "hf": check_hf,
    "safetensors": check_again,
    "onnx": check_onnx,
    "reference": check_again,
    "vitdet": check_vitdet,
}


def reads_plain_pool(opened: Opened) -> bool:
    return isinstance(opened.method, Classifier) and opened.method.pool != "attentive"


def logits_of(opened: Opened, sample: Tensor) -> Tensor:
    with torch.no_grad():
        return opened.method.logits(sample)


def check_cell(recipe: str, name: str, folder: Path) -> None:
    opened, form = export_matrix.opened(recipe), FORMATS[name]
    out = folder / f"model{form.suffixes[0] if form.suffixes else ''}"
    if name in formats_of(opened):
        CHECKS[name](opened, export(opened, name, out), out)
        return
    with pytest.raises(UserError) as caught:
        export(opened, name, out)
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith("; this model has " + ", ".join(formats_of(opened)))
    assert caught.value.exit_code == 2
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "onnx"])
@pytest.mark.parametrize("recipe", NAMES)
def test_tokens_or_one_line(recipe: str, name: str, tmp_path: Path) -> None:
    check_cell(recipe, name, tmp_path)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, marks=() if recipe in QUICK_GRAPHS else pytest.mark.slow)
        for recipe in NAMES
    ],
)
def test_graphs(recipe: str, tmp_path: Path) -> None:
    check_cell(recipe, "onnx", tmp_path)


def test_every_recipe_is_in_one_row() -> None:
    assert sorted(name for names in export_matrix.rows() for name in names) == sorted(
        export_matrix.recipes()
    )


@pytest.mark.slow
def test_recipes_of_a_row_go_into_the_same_formats(tmp_path: Path) -> None:
    for names in export_matrix.rows():
        first = formats_of(export_matrix.opened(names[0]))
        for number, name in enumerate(names[1:]):
            opened = export_matrix.opened(name)
            assert formats_of(opened) == first, name
            for form in {"timm", "hf", "reference"} & set(first):
                out = tmp_path / f"{name.replace('/', '-')}-{number}-{form}"
                export(opened, form, out.with_suffix((FORMATS[form].suffixes or ("",))[0]))


def test_the_page_has_the_table() -> None:
    text = export_matrix.PAGE.read_text(encoding="utf-8")
    found = text.split(export_matrix.BEGIN)[1].split(export_matrix.END)[0]
    assert found == f"\n{export_matrix.table()}", "run python tools/export_matrix.py --write"
