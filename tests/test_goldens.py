"""tools/check_golden.py: the stored cases pass, cases that cannot be run are refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import run  # noqa: E402
from golden.tables import FAMILIES  # noqa: E402
from golden_cases import CASES, document, stored, tensors, write  # noqa: E402

TOOL = TESTS.parent / "tools" / "check_golden.py"
MODELS = ("mae-a", "mae-vit-a-globalpool", "convmae-a", "crate-a", "crate-mae-a")
CAE_MODELS = ("cae-a", "cae-lxt-a", "caev2-a", "cae-ft-a", "cae-attentive-a", "dalle-encoder-a")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


# --- the stored cases -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_stored_case(path: Path) -> None:
    report = run.check(path)
    assert not [finding for finding in report.findings if not finding.ok]
    assert report.error == ""
    assert report.findings
    table = json.loads(path.read_text()).get("table", [])  # names are not unique between folders
    others = [entry["id"] for entry in table if entry["family"] not in FAMILIES]
    assert report.not_built == others
    assert report.verdict == ("not_built" if others else "pass")


def test_every_answer_of_a_model_case_is_compared() -> None:
    for name in (*MODELS, *CAE_MODELS, "linprobe-a", "lars-a", "mae-traj-a"):
        report = run.check(stored(name))
        compared = {finding.name for finding in report.findings}
        case = run.Case.read(stored(name))
        assert case.answers().keys() <= compared, name
        assert report.skipped == {}


def test_the_training_path_is_compared_on_masked_tokens() -> None:
    report = run.check(stored("mae-a"))
    assert "pred.masked" in {finding.name for finding in report.findings}


# --- cases that cannot be run ---------------------------------------------------------------------


@pytest.mark.parametrize("field", ["kind", "mode", "hparams", "inputs", "compare"])
def test_missing_fields_are_named(tmp_path: Path, field: str) -> None:
    case = document("mae-a")
    del case[field]
    report = run.check(write(tmp_path, case, tensors("mae-a")))
    assert report.exit_code == 2
    assert report.error.startswith(field)


@pytest.mark.parametrize("name", [*MODELS, "linprobe-a", "lars-a", "mae-traj-a", "mae-ft-traj-a"])
def test_missing_hparams_are_named(tmp_path: Path, name: str) -> None:
    case = document(name)
    for key in case["hparams"]:
        hparams = {k: v for k, v in case["hparams"].items() if k != key}
        report = run.check(write(tmp_path, case | {"hparams": hparams}, tensors(name)))
        optional = OPTIONAL.get(name, set())
        if key in optional:
            assert report.verdict == "pass", key
        else:
            assert report.exit_code == 2, (key, report.error)
            assert f"hparams.{key}" in report.error


# Derived from others, or not told by every case of a kind.
OPTIONAL = {
    "mae-a": {"len_keep", "num_patches"},
    "convmae-a": {"len_keep", "num_patches", "decoder_mlp_ratio", "mask_grid"},
    "crate-mae-a": {"len_keep", "num_patches"},
    "mae-traj-a": {"in_chans"},
    "mae-ft-traj-a": {"label_smoothing", "drop_path"},
}


@pytest.mark.parametrize(
    ("name", "hparams"),
    [
        ("mae-a", {"loss_kind": "l1"}),
        ("mae-a", {"dropout": 0.1}),
        ("mae-a", {"drop_path_rate": 0.1}),
        ("mae-a", {"qkv_bias": False}),
        ("mae-a", {"norm_pix_eps": 1e-5}),
        ("mae-a", {"patch_norm_variance": "biased"}),
        ("mae-a", {"patch_size": [8, 4]}),
        ("mae-a", {"rotary": True}),
        ("mae-vit-a-globalpool", {"interp": "bilinear"}),
        ("mae-vit-a-globalpool", {"interp_antialias": True}),
        ("mae-vit-a-globalpool", {"loss_kind": "bce"}),
        ("linprobe-a", {"bn_affine": True}),
        ("linprobe-a", {"bn_eps": 1e-5}),
        ("lars-a", {"optimizer": "sgd"}),
        ("mae-ft-traj-a", {"drop_path": 0.2}),
        ("cae-a", {"teacher_momentum": 0.9}),
        ("caev2-a", {"fix_init_weight": True}),
        ("cae-attentive-a", {"bn_affine": True}),
        ("mae-traj-a", {"accum_iter": 3}),
    ],
    ids=lambda value: str(value),
)
def test_what_the_product_cannot_do_is_named(
    tmp_path: Path, name: str, hparams: dict[str, Any]
) -> None:
    case = document(name)
    case["hparams"] |= hparams
    report = run.check(write(tmp_path, case, tensors(name)))
    assert report.exit_code == 2
    assert f"hparams.{next(iter(hparams))}" in report.error


def test_sizes_that_do_not_fit_are_refused_by_the_recipe(tmp_path: Path) -> None:
    case = document("mae-a")
    case["hparams"]["num_heads"] = 5
    report = run.check(write(tmp_path, case, tensors("mae-a")))
    assert report.exit_code == 2
    assert "heads 5 does not divide width 32" in report.error


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    partial = {name: t for name, t in tensors("mae-a").items() if name != "noise"}
    report = run.check(write(tmp_path, document("mae-a"), partial))
    assert (report.exit_code, report.error) == (2, "inputs: tensor noise is missing")


def test_a_missing_answer_is_named(tmp_path: Path) -> None:
    partial = {name: t for name, t in tensors("mae-a").items() if name != "loss"}
    report = run.check(write(tmp_path, document("mae-a"), partial))
    assert report.exit_code == 2
    assert "no answer for loss" in report.error


def test_a_table_entry_without_an_answer_is_named(tmp_path: Path) -> None:
    case = document("len-keep")
    del case["table"][1]["expected"]
    report = run.check(write(tmp_path, case, {}))
    assert report.exit_code == 2
    assert case["table"][1]["id"] in report.error


def test_a_state_that_lacks_a_key_fails(tmp_path: Path) -> None:
    partial = {name: t for name, t in tensors("mae-a").items() if name != "state.norm.bias"}
    report = run.check(write(tmp_path, document("mae-a"), partial))
    assert report.exit_code == 1
    assert "encoder.norm.bias" in report.error


# --- cases without answers ------------------------------------------------------------------------


def blind(name: str, folder: Path) -> Path:
    """The case with nothing but what is to be fed."""
    case = document(name)
    answers = run.Case.read(stored(name)).answers()
    for key in ("param_groups", "tolerances", "meta"):
        case.pop(key, None)
    for entry in case.get("table", []):
        del entry["expected"]
    if stored(name).with_suffix(".safetensors").exists():
        fed = {n: t for n, t in tensors(name).items() if n not in answers}
        return write(folder, case, fed)
    return write(folder, case, {})


@pytest.mark.parametrize("name", [*MODELS, *CAE_MODELS, "lars-a", "mae-traj-a", "mae-ft-traj-a"])
def test_dump_holds_every_answer_of_a_blind_case(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out.safetensors"
    report = run.check(blind(name, tmp_path), out)
    assert (report.verdict, report.exit_code, report.error) == ("dumped", 0, "")
    answers = run.Case.read(stored(name)).answers()
    computed = load_file(out)
    assert answers.keys() <= computed.keys()
    for key in answers.keys() - {"lr_groups"}:  # its columns are in an order that was not told
        assert computed[key].shape == answers[key].shape
        if not key.endswith("qkv.bias"):
            torch.testing.assert_close(
                computed[key].double(), answers[key].double(), atol=1e-5, rtol=1e-4
            )


def test_dump_holds_the_gradient_of_every_trained_parameter(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    run.check(blind("mae-a", tmp_path), out)
    states = {name.removeprefix("state.") for name in tensors("mae-a") if "state." in name}
    gradients = {name.removeprefix("grad.") for name in load_file(out) if "grad." in name}
    assert gradients == states - {"pos_embed", "decoder_pos_embed"}


def test_dump_of_tables(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    run.check(blind("lr-schedules", tmp_path), out)
    entry = document("lr-schedules")["table"][0]
    expected = torch.tensor(entry["expected"]["lr"], dtype=torch.float64)
    computed = load_file(out)[f"{entry['id']}.lr"]
    torch.testing.assert_close(computed.double(), expected, atol=0, rtol=1e-6)
    run.check(blind("sincos-pos-embed", tmp_path), out)
    assert torch.equal(
        load_file(out)["mae.d768.g14.cls1"], tensors("sincos-pos-embed")["mae.d768.g14.cls1"]
    )


def test_a_blind_case_without_dump_fails(tmp_path: Path) -> None:
    for name in ("mae-a", "mae-traj-a"):
        path = blind(name, tmp_path)
        report = run.check(path)
        assert report.exit_code == 1, name
        assert report.error


# --- the command ----------------------------------------------------------------------------------


def test_command_passes_and_prints_one_line_a_case() -> None:
    done = command(stored("mae-a"), stored("lars-a"))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["case"] for line in lines] == ["mae-a", "lars-a"]
    assert all(line["verdict"] == "pass" for line in lines)
    assert {"pred", "loss", "grad"} <= lines[0]["max"].keys()


def test_command_names_an_unknown_kind(tmp_path: Path) -> None:
    done = command(write(tmp_path, document("mae-a") | {"kind": "image/other"}, {}))
    assert done.returncode == 2
    assert "image/other" in done.stderr
    assert json.loads(done.stdout)["verdict"] == "fault"
    assert "Traceback" not in done.stderr


def of_another_family(folder: Path) -> Path:
    """A table, one entry of which belongs to a family that no product has."""
    case = document("len-keep")
    case["table"][0]["family"] = "other"
    return write(folder, case, {})


def test_command_tells_what_is_not_built(tmp_path: Path) -> None:
    done = command(of_another_family(tmp_path), stored("mae-a"))
    assert done.returncode == 3
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["not_built"] == [document("len-keep")["table"][0]["id"]]
    assert second["verdict"] == "pass"


def test_worst_exit_code_wins(tmp_path: Path, capsys: Any) -> None:
    wrong = tensors("lars-a")
    wrong["step0.after.w2d"] += 1
    failing = write(tmp_path, document("lars-a"), wrong)
    (tmp_path / "partial").mkdir()
    partial = of_another_family(tmp_path / "partial")
    passing, absent = stored("lars-a"), tmp_path / "none.json"
    for paths, code in (
        ([passing], 0),
        ([partial, passing], 3),
        ([partial, failing], 1),
        ([failing, absent, partial], 2),
    ):
        assert run.main([str(path) for path in paths]) == code
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_dump_takes_one_case(tmp_path: Path, capsys: Any) -> None:
    out, case = tmp_path / "out.safetensors", str(blind("mae-a", tmp_path))
    assert run.main([case, "--dump", str(out)]) == 0
    assert "pred" in load_file(out)
    with pytest.raises(SystemExit) as stop:
        run.main([case, case, "--dump", str(out)])
    assert stop.value.code == 2
