from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mimsuite import config
from mimsuite.checkpoints import open_model
from mimsuite.cli.main import main
from mimsuite.train import checkpoint
from mimsuite.train.estimate import estimate


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    return code, capsys.readouterr().err


def test_linear_probe_and_knn_write_what_they_print(run: Path, capsys) -> None:
    linear = answer(capsys, "linear-probe", run, "--baselines", "--json")
    assert linear == json.loads((run / "linear_probe.json").read_text())
    assert None not in linear["accuracy"].values()
    nearest = answer(capsys, "knn", run, "eval.neighbours=3", "--json")
    assert nearest == json.loads((run / "knn.json").read_text())
    assert "3 nearest" in nearest["protocol"]
    assert nearest["accuracy"]["majority"] is None


def test_tables_are_for_people(run: Path, capsys, tmp_path: Path) -> None:
    main(["knn", str(run), "--baselines", "--out", str(tmp_path / "k.json")])
    shown = capsys.readouterr()
    assert shown.out == ""
    for word in ("pretrained", "random encoder", "raw input", "majority", "scored once"):
        assert word in shown.err
    assert (tmp_path / "k.json").is_file()


def test_finetune_beats_chance_and_can_be_scored_again(run: Path, pictures: Path, capsys) -> None:
    result = answer(capsys, "finetune", run, "optim.scratch_lr=2e-3", "--baselines", "--json")
    baseline = config.load(Path(result["runs"]["from_scratch"]) / "config.yaml").recipe
    assert (baseline.lr, baseline.optim.layer_decay) == (2e-3, None)
    assert "no layer decay, rate 0.002" in result["protocol"]
    assert result == json.loads((run / "finetune.json").read_text())
    assert result["accuracy"]["from_scratch_equal_compute"] is None  # was not asked for
    assert result["accuracy"]["pretrained"] > 0.6
    tuned = Path(result["runs"]["pretrained"])
    assert tuned == run / "finetune" / "pretrained"
    scored = answer(capsys, "evaluate", tuned, "--json")
    assert scored["accuracy"] == result["accuracy"]["pretrained"]
    assert set(scored["per_class"]) == {"blue", "green", "red"}
    again = answer(capsys, "finetune", run, "--json", "--resume", "auto")
    assert again["accuracy"]["pretrained"] == result["accuracy"]["pretrained"]


def test_finetune_against_both_baselines_with_rates_of_their_own(run: Path, capsys) -> None:
    words = ("--baselines", "--equal-compute", "--rates", "0.01,1", "--json")
    result = answer(capsys, "finetune", run, *words)
    names = ["pretrained", "from_scratch", "from_scratch_equal_compute"]
    assert list(result["accuracy"]) == names == list(result["runs"])
    for name, choice in result["chosen"].items():
        base = 5e-3
        assert list(choice["tried"]) == [f"{0.01 * base:g}", f"{base:g}"], name
        best = max(choice["tried"].values())
        assert choice["tried"][f"{choice['learning_rate']:g}"] == best
    steps = {
        name: int(checkpoint.newest(Path(folder))[0].name.removeprefix("step-"))
        for name, folder in result["runs"].items()
    }
    assert steps["pretrained"] == steps["from_scratch"] == 8 * 6
    # What pretraining cost: 2 epochs of it at the masked autoencoder's price a sample.
    price = [
        estimate(open_model(folder).resolved.recipe).flops
        for folder in (run, result["runs"]["pretrained"])
    ]
    wanted = steps["pretrained"] + 2 * 6 * price[0] / price[1]
    assert steps["from_scratch_equal_compute"] == pytest.approx(wanted, abs=1)
    assert "times the steps" in result["protocol"]
    reused = answer(
        capsys, "finetune", run, "--baselines", "--rates", run / "finetune.json", "--json"
    )
    assert reused["right"]["from_scratch"] == result["right"]["from_scratch"]
    assert "chosen" not in reused
    trial = Path(result["runs"]["pretrained"]).parent / "rates" / "from_scratch" / "lr-0.005"
    assert len((trial / "metrics.csv").read_text().splitlines()) > 1


def test_rates_that_are_none_are_refused(run: Path, capsys) -> None:
    for rates in ("0.1,x", "0", "-1,1", "nan"):
        code, said = complaint(capsys, "finetune", run, "--rates", rates)
        assert (code, "give factors above 0" in said) == (2, True)
    code, said = complaint(capsys, "finetune", run, "--rates", run / "metrics.json")
    assert (code, "cannot be read" in said) == (2, True)


def test_published_probe_trains_only_the_head(run: Path, recipes: Path, capsys) -> None:
    result = answer(
        capsys, "linear-probe", run, "--recipe", recipes / "probe.yaml", "--baselines", "--json"
    )
    assert set(result["accuracy"]) == {"pretrained", "random_init", "raw_input", "majority"}
    assert result["accuracy"]["raw_input"] is None
    assert result["accuracy"]["majority"] == pytest.approx(1 / 3)
    newest = sorted(run.glob("checkpoints/step-*"))[-1]
    before = load_file(newest / "model.safetensors")
    probed = sorted(Path(result["runs"]["pretrained"]).glob("checkpoints/step-*"))[-1]
    after = load_file(probed / "model.safetensors")
    name = "encoder.blocks.0.attn.qkv.weight"
    assert bool((after[name] == before[name]).all())


def test_features_are_written_for_other_tools(run: Path, capsys, tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    assert main(["features", str(run), "--out", str(file), "--split", "test"]) == 0
    tensors = load_file(file)
    assert tensors["features"].shape == (18, 16)
    assert sorted(set(tensors["labels"].tolist())) == [0, 1, 2]
    assert len(json.loads(file.with_suffix(".json").read_text())["keys"]) == 18


def test_faults_are_one_line_with_the_right_exit_code(
    run: Path, pictures: Path, capsys, tmp_path: Path
) -> None:
    code, said = complaint(capsys, "knn", run, "model.encoder.width=32")
    assert (code, said.count("\n")) == (2, 1)
    assert "frozen features depend on" in said
    code, said = complaint(capsys, "linear-probe", run, "--data", pictures / "train" / "red")
    assert code == 3
    assert "no labels" in said
    code, said = complaint(capsys, "evaluate", run)
    assert code == 2
    assert "no head to score" in said
    code, said = complaint(capsys, "features", run, "--out", tmp_path / "f.npz")
    assert code == 2
    assert ".safetensors" in said
    code, said = complaint(capsys, "finetune", run, "--data", pictures / "train")
    assert code == 2
    assert "no split 'test'" in said
