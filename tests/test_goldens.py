"""tools/check_golden.py: the stored cases pass, broken products fail, broken cases are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mimsuite.methods import Method
from mimsuite.models.blocks import Attention
from mimsuite.targets import PixelTarget

TESTS = Path(__file__).parent
TOOL = TESTS.parent / "tools" / "check_golden.py"
sys.path[:0] = [str(TOOL.parent), str(TESTS)]
from golden import build, run, tables  # noqa: E402

GOLDENS = TESTS / "goldens"
CASES = sorted(GOLDENS.rglob("*.json"))


def stored(name: str) -> Path:
    return next(path for path in CASES if path.stem == name)


def document(name: str) -> dict[str, Any]:
    return json.loads(stored(name).read_text())


def tensors(name: str) -> dict[str, Tensor]:
    return load_file(stored(name).with_suffix(".safetensors"))


def write(folder: Path, case: dict[str, Any], stored_tensors: dict[str, Tensor]) -> Path:
    path = folder / "case.json"
    path.write_text(json.dumps(case))
    if stored_tensors:
        save_file(stored_tensors, path.with_suffix(".safetensors"))
    return path


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
    others = [e["id"] for e in document(path.stem).get("table", []) if e["family"] != "mae"]
    assert report.not_built == others
    assert report.verdict == ("not_built" if others else "pass")


def test_every_answer_of_a_model_case_is_compared() -> None:
    for name in ("mae-a", "mae-vit-a-globalpool", "linprobe-a", "lars-a", "mae-traj-a"):
        report = run.check(stored(name))
        compared = {finding.name for finding in report.findings}
        case = run.Case.read(stored(name))
        assert case.answers().keys() <= compared, name
        assert report.skipped == {}


def test_the_training_path_is_compared_on_masked_tokens() -> None:
    report = run.check(stored("mae-a"))
    assert "pred.masked" in {finding.name for finding in report.findings}


# --- negative controls: a wrong product fails -----------------------------------------------------

Sabotage = Callable[[Method], None]


def with_eps(method: Method) -> None:
    for module in method.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def with_tanh_gelu(method: Method) -> None:
    for module in method.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def with_flipped_gradient(method: Method) -> None:
    method.get_parameter("encoder.patch_embed.proj.weight").register_hook(torch.neg)


def with_swapped_qk(method: Method) -> None:
    for name, parameter in method.named_parameters():
        if name.endswith("qkv.weight"):
            query, key, value = parameter.data.chunk(3)
            parameter.data = torch.cat([value, key, query])


@pytest.mark.parametrize(
    ("sabotage", "name"),
    [
        (with_eps, "mae-a"),
        (with_eps, "mae-vit-a-globalpool"),
        (with_tanh_gelu, "mae-a"),
        (with_tanh_gelu, "mae-vit-a-globalpool"),
        (with_tanh_gelu, "mae-traj-a"),
        (with_flipped_gradient, "mae-a"),
        (with_flipped_gradient, "mae-vit-a-globalpool"),
        (with_flipped_gradient, "mae-traj-a"),
        (with_flipped_gradient, "mae-ft-traj-a"),
        (with_swapped_qk, "mae-a"),
    ],
)
def test_a_wrong_model_fails(monkeypatch: Any, sabotage: Sabotage, name: str) -> None:
    load = build.load

    def load_and_break(method: Method, *rest: Any) -> None:
        load(method, *rest)
        sabotage(method)

    monkeypatch.setattr(build, "load", load_and_break)
    assert run.check(stored(name)).verdict == "fail"


def test_biased_variance_fails(monkeypatch: Any) -> None:
    def biased(patches: Tensor) -> tuple[Tensor, Tensor]:
        variance = patches.var(dim=-1, keepdim=True, correction=0)
        return patches.mean(dim=-1, keepdim=True), (variance + 1e-6).sqrt()

    monkeypatch.setattr(PixelTarget, "statistics", staticmethod(biased))
    for name in ("mae-a", "mae-traj-a"):
        assert run.check(stored(name)).verdict == "fail"


def test_a_training_path_that_differs_from_reconstruction_fails(monkeypatch: Any) -> None:
    forward = Attention.forward

    def worse(self: Attention, x: Tensor, queries: int | None = None) -> Tensor:
        shift = 1e-3 if queries == 12 else 0.0  # the training path asks for 12 masked tokens
        return forward(self, x, queries) + shift

    monkeypatch.setattr(Attention, "forward", worse)
    wrong = {finding.name for finding in run.check(stored("mae-a")).findings if not finding.ok}
    assert "pred.masked" in wrong
    assert "pred" not in wrong


Groups = list[dict[str, Any]]


def with_swapped_decay(groups: Groups) -> Groups:
    """The values of the first group without and the first with decay change places."""
    bare = next(group for group in groups if group["weight_decay"] == 0)
    other = next(group for group in groups if group["weight_decay"] > 0)
    bare["weight_decay"], other["weight_decay"] = other["weight_decay"], bare["weight_decay"]
    return groups


def with_one_moved(groups: Groups) -> Groups:
    """One tensor in the group of the other decay."""
    source = next(group for group in groups if "encoder.cls_token" in group["names"])
    at = source["names"].index("encoder.cls_token")
    target = next(g for g in groups if g["weight_decay"] != source["weight_decay"])
    for field in ("names", "params"):
        target[field].append(source[field].pop(at))
    return groups


@pytest.mark.parametrize("mutation", [with_swapped_decay, with_one_moved])
@pytest.mark.parametrize("name", ["mae-traj-a", "mae-ft-traj-a", "layer-decay-groups"])
def test_wrong_groups_fail(monkeypatch: Any, mutation: Callable[[Groups], Groups], name: str) -> None:
    from mimsuite.train import optim

    groups = optim.param_groups
    wrong = lambda *args, **options: mutation(groups(*args, **options))  # noqa: E731
    monkeypatch.setattr(optim, "param_groups", wrong)
    monkeypatch.setattr(tables, "param_groups", wrong)
    report = run.check(stored(name))
    assert report.verdict == "fail"
    if "traj" in name:
        assert {f.name for f in report.findings if not f.ok} >= {"param_groups"}


def test_wrong_decay_shows_in_the_weights_too(monkeypatch: Any) -> None:
    """Even where the case does not say which groups it had."""
    from mimsuite.train import optim

    groups = optim.param_groups
    wrong = lambda *args, **options: with_one_moved(groups(*args, **options))  # noqa: E731
    monkeypatch.setattr(optim, "param_groups", wrong)
    report = run.check(stored("mae-traj-a"))
    assert "state_final.cls_token" in {f.name for f in report.findings if not f.ok}


# --- a wrong answer fails -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("mae-a", "grad.mask_token"),
        ("mae-a", "pred"),
        ("mae-a", "ids_restore"),
        ("mae-vit-a-globalpool", "logits"),
        ("linprobe-a", "eval_logits"),
        ("lars-a", "step3.after.w2d"),
        ("mae-traj-a", "grad_norm"),
        ("mae-traj-a", "state_final.blocks.1.mlp.fc1.bias"),
        ("mae-traj-a", "opt.exp_avg_sq.mask_token"),
        ("mae-ft-traj-a", "lr_groups"),
        ("mae-ft-traj-a", "loss"),
    ],
)
def test_one_changed_number_fails(tmp_path: Path, case: str, name: str) -> None:
    changed = tensors(case)
    flat = changed[name].flatten()
    at = int(flat.abs().argmax())
    flat[at] = flat[at] * 1.01 + 1
    report = run.check(write(tmp_path, document(case), changed))
    assert report.verdict == "fail"
    assert name in {finding.name for finding in report.findings if not finding.ok}


def test_nan_fails(tmp_path: Path) -> None:
    changed = tensors("mae-a")
    changed["latent"][0, 0, 0] = float("nan")
    path = write(tmp_path, document("mae-a"), changed)
    assert run.check(path).verdict == "fail"
    assert json.loads(run.check(path).line())["verdict"] == "fail"  # and the line is JSON


def test_a_table_with_a_wrong_number_fails(tmp_path: Path) -> None:
    for name, change in {
        "len-keep": lambda entry: entry["expected"].update(len_keep=7),
        "lr-schedules": lambda entry: entry["expected"]["lr"].__setitem__(3, 1.0),
        "state-dict-keys": lambda entry: entry["expected"]["keys"].pop("mask_token"),
        "layer-decay-groups": lambda entry: entry["expected"]["layer_id"].update(extra=1),
    }.items():
        case = document(name)
        change(case["table"][0])
        assert run.check(write(tmp_path, case, {})).verdict == "fail", name


def test_a_check_that_compares_nothing_fails(tmp_path: Path) -> None:
    case = document("mae-a") | {"compare": {}}
    report = run.check(write(tmp_path, case, tensors("mae-a")))
    assert (report.verdict, report.exit_code) == ("fail", 1)
    assert "compared nothing" in report.error


def test_gradients_stored_as_zero_must_be_zero_or_absent(tmp_path: Path) -> None:
    case, changed = document("mae-a"), tensors("mae-a")
    changed["grad.pos_embed"] = torch.zeros(1, 17, 32)  # frozen, so there is none
    assert run.check(write(tmp_path, case, changed)).verdict == "pass"
    changed["grad.norm.weight"] = torch.zeros(32)  # there is one, and it is not zero
    assert run.check(write(tmp_path, case, changed)).verdict == "fail"


# --- cases that cannot be run ---------------------------------------------------------------------


@pytest.mark.parametrize("field", ["kind", "mode", "hparams", "inputs", "compare"])
def test_missing_fields_are_named(tmp_path: Path, field: str) -> None:
    case = document("mae-a")
    del case[field]
    report = run.check(write(tmp_path, case, tensors("mae-a")))
    assert report.exit_code == 2
    assert report.error.startswith(field)


@pytest.mark.parametrize(
    "name", ["mae-a", "mae-vit-a-globalpool", "linprobe-a", "lars-a", "mae-traj-a", "mae-ft-traj-a"]
)
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


@pytest.mark.parametrize(
    "name", ["mae-a", "mae-vit-a-globalpool", "lars-a", "mae-traj-a", "mae-ft-traj-a"]
)
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
    report = run.check(blind("lr-schedules", tmp_path), out)
    assert report.verdict == "not_built"
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


def test_command_exit_codes(tmp_path: Path) -> None:
    unknown = write(tmp_path, document("mae-a") | {"kind": "image/other"}, tensors("mae-a"))
    done = command(unknown)
    assert done.returncode == 2
    assert "image/other" in done.stderr
    assert json.loads(done.stdout)["verdict"] == "fault"
    assert "Traceback" not in done.stderr

    assert command(stored("sincos-pos-embed"), stored("mae-a")).returncode == 3
    assert command(stored("sincos-pos-embed"), unknown).returncode == 2
    assert command(tmp_path / "absent.json").returncode == 2
    assert command().returncode == 2


def test_command_dumps(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert command(blind("mae-a", tmp_path), "--dump", out).returncode == 0
    assert "pred" in load_file(out)
    assert command(stored("mae-a"), stored("lars-a"), "--dump", out).returncode == 2
