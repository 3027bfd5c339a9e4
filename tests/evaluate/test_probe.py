from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.data import open_split
from mimsuite.errors import DataError
from mimsuite.evaluate import (
    LinearGrid,
    ProbeData,
    knn,
    linear_probe,
    open_labelled,
    probe_data,
)
from mimsuite.evaluate.baselines import VARIANTS, random_init
from mimsuite.methods import build

QUICK = LinearGrid((1e-2,), (0.0,), batch=32, epochs=1, min_steps=40)
KEYS = {"accuracy", "balanced_accuracy", "n_train", "n_test", "protocol"}


@pytest.fixture(scope="module")
def resolved(recipes: Path, pictures: Path) -> Resolved:
    return config.load(recipes / "pretrain.yaml", [f"data.source={pictures}"])


@pytest.fixture(scope="module")
def data(resolved: Resolved) -> ProbeData:
    train, test = open_labelled(resolved)
    assert test is not None
    return probe_data(build(resolved.recipe), resolved, train, test, baselines=True)


def made(train: torch.Tensor, test: torch.Tensor, classes: int = 2) -> ProbeData:
    """Data of one variant with one table; labels alternate."""
    n, m = len(train), len(test)
    rows = torch.arange(n)
    return ProbeData(
        {"pretrained": {"x": train}},
        {"pretrained": {"x": test}},
        torch.arange(n) % classes,
        torch.arange(m) % classes,
        classes,
        (rows[: n // 2], rows[n // 2 :]),
        seed=0,
    )


@pytest.mark.parametrize("probe", [lambda d: linear_probe(d, QUICK), lambda d: knn(d, 3)])
def test_all_figures_are_there_and_colours_are_easy(probe, data: ProbeData) -> None:
    result = probe(data)
    assert set(result) >= KEYS
    assert (result["n_train"], result["n_test"], result["classes"]) == (36, 18, 3)
    for figure in ("accuracy", "balanced_accuracy"):
        assert set(result[figure]) == set(VARIANTS)
        assert result[figure]["raw_input"] > 0.9
        assert result[figure]["majority"] == pytest.approx(1 / 3)
    assert result["chosen"]["raw_input"]["features"] == "pixels"
    assert result["chosen"]["pretrained"]["features"] in data.train["pretrained"]
    assert set(result["intervals"]) == {"random_init", "raw_input", "majority"}
    gain = result["intervals"]["majority"]["accuracy"]
    expected = result["accuracy"]["pretrained"] - result["accuracy"]["majority"]
    assert gain["difference"] == pytest.approx(expected)


@pytest.mark.parametrize("probe", [lambda d: linear_probe(d, QUICK), lambda d: knn(d, 3)])
def test_many_classes_have_a_top5_accuracy(probe) -> None:
    train, test = (torch.eye(8).repeat(count, 1) for count in (12, 3))
    result = probe(made(train, test, classes=8))
    assert result["top5_accuracy"]["pretrained"] == 1.0
    assert result["top5_accuracy"]["majority"] is None
    assert "top5_accuracy" not in probe(made(train, test, classes=5))


def test_without_baselines_their_figures_are_null(resolved: Resolved) -> None:
    train, test = open_labelled(resolved)
    result = knn(probe_data(build(resolved.recipe), resolved, train, test))
    assert result["accuracy"]["pretrained"] is not None
    assert [result["accuracy"][name] for name in VARIANTS[1:]] == [None, None, None]
    assert result["intervals"] == {}


def test_test_labels_change_the_score_and_nothing_else() -> None:
    torch.manual_seed(0)
    data = made(torch.randn(40, 5), torch.randn(20, 5))
    other = made(data.train["pretrained"]["x"], data.test["pretrained"]["x"])
    other.test_labels.copy_(1 - data.test_labels)
    first, second = linear_probe(data, QUICK), linear_probe(other, QUICK)
    assert first["chosen"] == second["chosen"]
    assert first["accuracy"]["pretrained"] == pytest.approx(1 - second["accuracy"]["pretrained"])


def test_missing_test_split_is_held_out_and_said(resolved: Resolved) -> None:
    train = open_split(resolved.recipe, "train")
    data = probe_data(build(resolved.recipe), resolved, train, None, seed=3)
    assert len(data.test_labels) == 6  # 2 of the 12 of each class
    assert torch.bincount(data.test_labels).tolist() == [2, 2, 2]
    assert len(data.train_labels) == 30
    assert "no test split" in knn(data)["notes"][0]


def test_random_encoder_is_the_one_that_training_began_with(resolved: Resolved) -> None:
    state = torch.get_rng_state()
    one, two = random_init(resolved), random_init(resolved)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])


def test_sources_that_cannot_be_probed(resolved: Resolved, tmp_path: Path, pictures: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, file in enumerate(sorted((pictures / "train" / "red").iterdir())):
        (flat / f"{number}.png").write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="no labels"):
        open_labelled(config.with_overrides(resolved, {"data.source": str(flat)}))

    one = tmp_path / "one" / "train" / "red"
    one.parent.mkdir(parents=True)
    flat.rename(one)
    single = config.with_overrides(resolved, {"data.source": str(one.parents[1])})
    train, test = open_labelled(single)
    assert test is None
    with pytest.raises(DataError, match="one class"):
        probe_data(build(resolved.recipe), single, train, test)

    blue = tmp_path / "one" / "train" / "blue"
    blue.mkdir()
    for file in list(one.iterdir())[1:]:
        file.unlink()
    (blue / "0.png").write_bytes((pictures / "train" / "blue" / "0.png").read_bytes())
    train, test = open_labelled(single)
    with pytest.raises(DataError, match="too few samples"):
        probe_data(build(resolved.recipe), single, train, test)
