"""A head that begins with the rows of other classes, by a label map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mimsuite import config
from mimsuite.checkpoints import initialise
from mimsuite.errors import UserError
from mimsuite.methods import build
from mimsuite.models import head_rows

TRAINED = [16, 224, 224]  # what a file that says nothing of it is taken to be
SIZES = {"width": 24, "depth": 2, "heads": 4, "frames": 8, "trained_size": TRAINED}


def classifier(classes: int, rows: Path | None = None, seed: int = 0) -> Any:
    keys: dict[str, Any] = {f"model.encoder.{name}": size for name, size in SIZES.items()}
    keys |= {"target.classes": classes, "model.head_rows": None if rows is None else str(rows)}
    recipe = config.with_overrides(config.load("video/videomae-tiny-finetune"), keys, "test").recipe
    torch.manual_seed(seed)
    method = build(recipe)
    torch.nn.init.normal_(method.head.weight)
    torch.nn.init.normal_(method.head.bias)
    return method


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Any, Path]:
    """A classifier of 7 classes, and its published file."""
    trained = classifier(7, seed=1)
    path = tmp_path / "k7.safetensors"
    save_file({n: t.contiguous() for n, t in trained.export_reference().items()}, path)
    return trained, path


def written(folder: Path, content: Any) -> Path:
    path = folder / "map.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_head_begins_with_the_rows_of_the_map(
    weights: tuple[Any, Path], tmp_path: Path
) -> None:
    trained, path = weights
    method = classifier(4, written(tmp_path, [6, 0, None, 3]), seed=2)
    fresh = method.head.weight[2].clone(), method.head.bias[2].clone()
    lines = initialise(method, path)
    for ours, theirs in ((0, 6), (1, 0), (3, 3)):
        assert torch.equal(method.head.weight[ours], trained.head.weight[theirs])
        assert torch.equal(method.head.bias[ours], trained.head.bias[theirs])
    assert torch.equal(method.head.weight[2], fresh[0])
    assert torch.equal(method.head.bias[2], fresh[1])
    assert torch.equal(method.fc_norm.weight, trained.fc_norm.weight)
    assert f"head: 3 rows of 7 by {tmp_path / 'map.json'}, 1 fresh" in lines
    assert "head: 2 tensors loaded" in lines


def test_without_a_map_a_head_of_other_classes_is_fresh(weights: tuple[Any, Path]) -> None:
    method = classifier(4, seed=2)
    before = method.head.weight.clone()
    assert "head: fresh, since the weights hold another shape of it" in initialise(
        method, weights[1]
    )
    assert torch.equal(method.head.weight, before)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([0, 1, 2], "lists 3 classes, target.classes is 4"),
        ([0, 1, 2, 7], "class 3 is 7, the weights have classes 0 to 6"),
        ([0, -1, 2, 3], "class 1 is -1"),
        ([0, 1.0, 2, 3], "a JSON list of numbers"),
        ([0, True, 2, 3], "a JSON list of numbers"),
        ({"0": 1}, "a JSON list of numbers"),
        ("[0, 1, 2", "a JSON list of numbers"),
        ("[" * 100_000, "a JSON list of numbers"),
        ("", "a JSON list of numbers"),
        ("[]", "a JSON list of numbers"),
    ],
)
def test_a_map_that_does_not_fit_is_named(
    content: Any, what: str, weights: tuple[Any, Path], tmp_path: Path
) -> None:
    method = classifier(4, written(tmp_path, content), seed=2)
    with pytest.raises(UserError) as caught:
        initialise(method, weights[1])
    assert str(caught.value).startswith(f"model.head_rows={tmp_path / 'map.json'}")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_map_and_weights_without_a_head_are_named(
    weights: tuple[Any, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"model\.head_rows=.*none.json: cannot be read"):
        initialise(classifier(4, tmp_path / "none.json"), weights[1])
    with pytest.raises(UserError, match=r"the weights have no head\.weight; set it null"):
        head_rows.moved({}, {"head.weight": torch.zeros(1, 2)}, written(tmp_path, [0]))


def test_a_map_is_not_needed_once_it_was_used(tmp_path: Path) -> None:
    assert classifier(4, tmp_path / "gone.json").classes == 4
