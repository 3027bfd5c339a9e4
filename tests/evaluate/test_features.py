from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.data import open_split
from mimsuite.data.views import raw_pixels
from mimsuite.errors import UserError
from mimsuite.evaluate import FeatureSet, extract, save_features
from mimsuite.evaluate.features import normalized_batches
from mimsuite.methods import Method, build


@pytest.fixture(scope="module")
def resolved(recipes: Path, pictures: Path) -> Resolved:
    return config.load(recipes / "pretrain.yaml", [f"data.source={pictures}", "eval.batch=5"])


@pytest.fixture(scope="module")
def method(resolved: Resolved) -> Method:
    torch.manual_seed(0)
    return build(resolved.recipe)


def test_every_sample_comes_once_in_source_order(method: Method, resolved: Resolved) -> None:
    source = open_split(resolved.recipe, "train")
    found = extract(method, source, resolved)
    assert len(found) == len(source) == 36
    assert len(set(found.keys)) == 36
    assert found.labels is not None
    assert found.labels.tolist() == source.labels().tolist()
    assert found.classes == ["blue", "green", "red"]
    assert list(found.features) == ["cls@2", "mean@2", "cls@1", "mean@1"]


def test_tables_are_the_pooled_outputs_of_the_blocks(method: Method, resolved: Resolved) -> None:
    source = open_split(resolved.recipe, "test")
    found = extract(method, source, resolved)
    batches = list(normalized_batches(source, resolved, torch.device("cpu")))
    with torch.no_grad():
        features = [method.eval().encode(batch, layers=[1, 2]) for batch in batches]
    expected = {
        "cls@2": torch.cat([f.cls[:, 0] for f in features]),
        "mean@2": torch.cat([f.tokens.mean(1) for f in features]),
        "cls@1": torch.cat([f.layers[1][:, 0] for f in features]),
        "mean@1": torch.cat([f.layers[1][:, 1:].mean(1) for f in features]),
    }
    for name, table in expected.items():
        torch.testing.assert_close(found.features[name], table)


def test_mode_is_given_back_and_features_can_be_trained_on(
    method: Method, resolved: Resolved
) -> None:
    method.train()
    found = extract(
        method, open_split(resolved.recipe, "test"), resolved, pools=["cls"], layers=[2]
    )
    assert method.training
    head = torch.nn.Linear(16, 3)
    head(found.features["cls@2"]).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize("layers", [[0], [3], []])
def test_layers_that_are_not_there(method: Method, resolved: Resolved, layers: list[int]) -> None:
    with pytest.raises(UserError, match="blocks 1 to 2"):
        extract(method, open_split(resolved.recipe, "test"), resolved, layers=layers)


def test_raw_pixels_keep_small_images_and_average_large_ones() -> None:
    small, large = torch.rand(2, 1, 28, 28), torch.rand(2, 3, 64, 64)
    assert torch.equal(raw_pixels(small), small.flatten(1))
    reduced = raw_pixels(large).view(2, 3, 16, 16)
    torch.testing.assert_close(reduced[0, 1, 2, 3], large[0, 1, 8:12, 12:16].mean())


def test_file_holds_all_that_another_tool_needs(tmp_path: Path) -> None:
    features = FeatureSet({"mean@2": torch.rand(3, 4)}, torch.tensor([0, 1, -1]), ["a", "b", "c"])
    written = save_features(features, tmp_path / "deep" / "f.safetensors")
    tensors = load_file(written[0])
    assert torch.equal(tensors["features"], features.features["mean@2"])
    assert tensors["labels"].tolist() == [0, 1, -1]
    facts = json.loads(written[1].read_text())
    assert facts == {"features": "mean@2", "keys": ["a", "b", "c"], "classes": None}


def test_rows_stay_together() -> None:
    features = FeatureSet({"x": torch.arange(4.0)[:, None]}, torch.arange(4), list("abcd"))
    some = features.rows(torch.tensor([3, 1]))
    assert some.features["x"].flatten().tolist() == [3.0, 1.0]
    assert some.labels is not None
    assert (some.labels.tolist(), some.keys, len(some)) == ([3, 1], ["d", "b"], 2)
