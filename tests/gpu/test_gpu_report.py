"""tools/gpu_report.py: its dry run on a CPU, its table, and a start that goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "gpu_report.py"
sys.path.insert(0, str(ROOT / "tools"))
from gpu_parts import table  # noqa: E402
from gpu_parts.findings import END, Finding, Findings  # noqa: E402
from gpu_parts.recipes import names  # noqa: E402
from gpu_parts.stage import Stage  # noqa: E402
from gpu_parts.waits import waits  # noqa: E402
from gpu_report import PARTS  # noqa: E402


def report(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, str(TOOL), "--out", str(out), *words]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def found(out: Path) -> list[Finding]:
    return Findings(out / "findings.jsonl").read()


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_part_passes_its_dry_run(part, tmp_path):
    done = report(tmp_path, "--device", "cpu", "--parts", part)
    log = tmp_path / f"{part}.log"
    assert done.returncode == 0, done.stdout[-2000:] + log.read_text()[-2000:]
    assert [f for f in found(tmp_path) if f.holds is False] == []
    assert found(tmp_path)[-1].name == END
    assert len(found(tmp_path)) > 1


@pytest.mark.gpu
def test_no_recipe_waits_for_the_device(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    out = report(tmp_path, "--parts", "recipes")
    assert [(f.name, f.figures) for f in found(tmp_path) if f.holds is False] == []
    assert len(found(tmp_path)) == len(names()) + 1, out.stderr


def test_without_a_gpu_it_ends_in_one_line(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = report(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "gpu_report: no CUDA device is visible; --device cpu is the dry run\n"


def test_a_part_that_ended_is_not_run_again(tmp_path):
    Findings(tmp_path / "findings.jsonl", "machine").add("card", True, device="a card")
    Findings(tmp_path / "findings.jsonl", "machine").add(END, True)
    with (tmp_path / "findings.jsonl").open("a") as file:
        file.write('{"part": "parity", "na')  # killed while writing
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nlast year\n{table.FINISH}\nafter\n")
    done = report(tmp_path, "--device", "cpu", "--parts", "machine", "--page", str(page))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "machine.log").exists()
    text = page.read_text()
    assert "| machine | card | holds | device a card |" in text
    assert "last year" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_an_error_is_a_finding_with_its_place(tmp_path):
    findings = Findings(tmp_path / "findings.jsonl", "parity")
    with findings.trying("loss"):
        torch.device("nothing")
    (failed,) = findings.read()
    assert failed.holds is False
    assert "RuntimeError" in failed.figures["error"]
    assert findings.missing(["loss", "masks"]) == ["masks"]


def test_many_findings_are_one_line_and_failures_are_all_shown():
    rows = [Finding("recipes", f"r{i}", i != 3, {"waits": ["a.py:1"]}) for i in range(5)]
    rows += [Finding("recipes", "r4", False), Finding("recipes", "r4", True)]  # the newest counts
    text = table.table(rows)
    assert "| recipes | 4 of 5 recipes | **fails** | |" in text
    assert '| recipes | r3 | **fails** | waits ["a.py:1"] |' in text
    assert text.count("\n") == 3
    assert table.summary(rows) == (4, 1, 0)
    json.dumps(text)


def test_waits_are_found_by_file_and_line(tmp_path):
    device = torch.device("cpu")
    stage = Stage(device, tmp_path, tmp_path, Findings(tmp_path / "findings.jsonl"))
    step = stage.stepper("image/mae-tiny-fashion", batch=4, smoke=True)
    step()
    assert waits(step, device) == []
    step.method.after_step = lambda progress: float(progress.skipped)
    places = waits(step, device)
    assert len(places) == 1
    assert places[0].startswith("train/step.py:")
