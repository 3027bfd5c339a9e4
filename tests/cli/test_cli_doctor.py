"""`mimsuite doctor`: what is found, what is missing and how to mend it, and what a recipe takes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mimsuite.cli.main import main
from mimsuite.cluster.host import cpu_quota, memory_limit
from mimsuite.doctor import check_disk, check_engine, check_limits, check_packages, check_store
from mimsuite.doctor.engine import check_bf16
from mimsuite.doctor.findings import Finding
from tests import needs
from tests.data.remote_servers import KEY, SECRET, Rclone, files, need_rclone, serving

RECIPE = "image/mae-vitb16-in1k"


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in findings}


def said(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    assert main(["doctor", *map(str, words)]) == code
    return capfd.readouterr()


def test_the_machine_without_importing_torch(tmp_path):
    script = (
        "import sys; from mimsuite.cli.main import main;"
        f"code = main(['doctor', '--out', {str(tmp_path)!r}, '--json']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["complete"] is True
    found = {one["name"]: one for one in result["findings"]}
    assert found["torch"]["value"] == torch.__version__.partition("+")[0]
    assert found["import torch"]["facts"]["gloo"] is True
    assert found["cores"]["facts"]["visible"] == os.cpu_count()
    assert found["disk"]["facts"]["write_bytes_per_second"] > 0
    assert {one["state"] for one in result["findings"]} <= {"ok", "note"}
    assert list(tmp_path.iterdir()) == []
    assert len(done.stderr.splitlines()) == len(result["findings"])


def test_packages_that_are_missing_or_old_come_with_their_pip_line(tmp_path, monkeypatch):
    info = tmp_path / "suite-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: suite\nVersion: 3.1\nProvides-Extra: cloud\n"
        "Provides-Extra: video\nRequires-Dist: numpy>=1\nRequires-Dist: pillow>=900\n"
        "Requires-Dist: nowhere-to-be-found>=2; python_version >= '3'\n"
        "Requires-Dist: not-for-us; sys_platform == 'none'\n"
        "Requires-Dist: also-nowhere>=1; extra == 'cloud'\n"
        "Requires-Dist: rich; extra == 'video'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = by_name(check_packages("suite"))
    assert found["numpy"].state == "ok"
    assert found["pillow"].state == "missing"
    assert found["pillow"].mend == "pip install 'pillow>=900'"
    assert found["nowhere-to-be-found"].state == "missing"
    assert found["nowhere-to-be-found"].mend == "pip install 'nowhere-to-be-found>=2'"
    assert "not-for-us" not in found
    assert (found["suite[cloud]"].state, found["suite[video]"].state) == ("note", "ok")
    assert found["suite[cloud]"].mend == "pip install 'suite[cloud]'"


@pytest.mark.parametrize(("pays", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_what_bf16_gains_on_this_cpu(pays, chosen):
    line = json.dumps({"line": "so fast", "pays": pays})
    found = check_bf16(["-c", f"print({line!r})"])
    assert (found.state, found.value) == ("ok", f"so fast: train.precision=auto is {chosen}")
    assert check_bf16(["-c", "raise SystemExit(1)"]).state == "note"


def test_a_torch_that_does_not_load_is_a_finding():
    (found,) = check_engine("raise ImportError('libcudart.so.12 is not there')")
    assert found.state == "missing"
    assert "libcudart" in found.value
    assert "pip install" in found.mend


def test_quota_and_memory_limit_of_both_kinds_of_cgroups(tmp_path):
    own = tmp_path / "jobs" / "7"
    own.mkdir(parents=True)
    (own / "cpu.max").write_text("max 100000\n")
    (own.parent / "cpu.max").write_text("150000 100000\n")
    (own / "memory.max").write_text("max\n")
    (own.parent / "memory.max").write_text("2000000000\n")
    assert cpu_quota(tmp_path, "/jobs/7") == 1.5
    assert memory_limit(tmp_path, "/jobs/7") == 2_000_000_000
    old = tmp_path / "old"
    for controller in ("cpu", "memory"):
        (old / controller / "job").mkdir(parents=True)
    (old / "cpu" / "job" / "cpu.cfs_quota_us").write_text("200000\n")
    (old / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000\n")
    (old / "memory" / "job" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert cpu_quota(old, "/job") == 2.0
    assert memory_limit(old, "/job") is None
    assert cpu_quota(tmp_path / "nothing", "/") is None


def test_limits_against_what_workers_need():
    assert {one.state for one in check_limits(2, 1000)} == {"ok"}
    found = by_name(check_limits(64, 1 << 36))
    assert found["shared memory"].state == "missing"
    assert "--shm-size=" in found["shared memory"].mend


def test_few_open_files_are_told(tmp_path):
    script = (  # torch, which takes seconds to load, has a test of its own
        "import sys; import mimsuite.doctor; from mimsuite.cli.main import main;"
        "mimsuite.doctor.check_engine = list; sys.exit(main(['doctor', '--json']))"
    )
    limited = f"ulimit -n 200; exec {sys.executable} -c {shlex.quote(script)}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert done.returncode == 2
    found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["file descriptors"]["state"] == "missing"
    assert "ulimit -n" in found["file descriptors"]["mend"]


def test_a_disk_that_takes_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file" / "run", Path("/proc/run")):
        found = check_disk(folder)
        assert found.state == "missing"
        assert "--out" in found.mend
    assert check_disk(tmp_path / "not" / "yet").state in ("ok", "note")
    assert not (tmp_path / "not").exists()


def test_a_web_server_and_one_that_is_not_there(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("mimsuite.cli.doctor._machine", list)  # it has a test of its own
    (tmp_path / "a.tar").write_bytes(bytes(3 << 20))
    with serving(files(tmp_path)) as server:
        found = check_store(f"{server.address}/a.tar")
        gone = f"{server.address}/b.tar"
        _, text = said(capfd, "--data", gone, code=2)
    assert found.state == "ok", found.value
    assert found.facts["bytes_read"] == 3 << 20
    assert 0 < found.facts["latency_seconds"] < 5
    assert gone in text
    _, text = said(capfd, "--data", f"{server.address}/a.tar", code=2)
    assert "refused" in text


def test_an_s3_store(tmp_path, monkeypatch):
    need_rclone()
    needs.module("s3fs")
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a.tar").write_bytes(bytes(1 << 20))
    server = Rclone(tmp_path)
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        found = check_store("s3://bucket/a.tar")
        assert found.state == "ok", found.value
        assert found.facts["bytes_per_second"] > 0
    finally:
        server.stop()


def test_what_a_recipe_takes_on_devices_that_are_elsewhere(capfd):
    words = [RECIPE, "--gpus", 8, "--memory-gb", 80, "--peak-tflops", 989, "--json"]
    out, text = said(capfd, *words)
    plan = json.loads(out)["plan"]
    assert plan["costs"]["parameters"] == 111_907_840
    assert plan["costs"]["flops"] == pytest.approx(57.5e9, rel=0.01)
    memory = plan["memory"]
    parts = ("weights", "gradients", "optimizer", "ema", "casts", "activations")
    assert memory["total"] == sum(memory[part] for part in parts)
    assert plan["fits"] is True
    assert (plan["per_device"], plan["accumulation"]) == (64, 8)
    assert plan["lr"] == pytest.approx(1.5e-4 * 4096 / 256)
    assert "4096 = 64 per device x 8 devices x 8 accumulation" in text
    assert "bf16" in text


def test_hours_follow_from_operations_rate_and_utilisation(capfd):
    words = ["image/mae-tiny-fashion", "--gpus", 2, "--peak-tflops", 10, "--json"]
    out, _ = said(capfd, *words, "--utilisation", 0.25)
    plan = json.loads(out)["plan"]
    operations = plan["costs"]["flops"] * plan["global_batch"] * plan["steps"]
    assert plan["hours"] == pytest.approx(operations / (2 * 10e12 * 0.25) / 3600)


def test_too_little_memory_is_missing_and_the_mend_fits(capfd):
    words = [RECIPE, "train.micro_batch=null", "--gpus", 8, "--memory-gb", 16]
    _, text = said(capfd, *words, code=2)
    assert "device memory" in text
    assert "missing" in text
    micro = text.partition("train.micro_batch=")[2].split()[0]
    said(capfd, RECIPE, f"train.micro_batch={micro}", "--gpus", 8, "--memory-gb", 16)


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["image/mae-vitb16-in1", "--json"], "did you mean"),
        (["--gpus", "8"], "--gpus"),
        ([RECIPE, "--gpus", "3"], "train.global_batch=4096"),
        ([RECIPE, "mask.ratoi=0.5"], "mask.ratoi"),
    ],
)
def test_a_wrong_command(words, culprit, capfd):
    out, text = said(capfd, *words, code=2)
    assert out == ""
    assert culprit.lower() in text.lower()
    assert len(text.splitlines()) == 1
