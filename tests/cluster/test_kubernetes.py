"""The JobSet that `mimsuite submit --to kubernetes` prints."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from mimsuite.cli.main import main
from tests import needs

RECIPE = "image/mae-vitb16-in1k"
WORDS = (
    "submit", RECIPE, "--data", "/data/shards", "--out", "/data/runs/First_run", "--nodes", "2",
    "--gpus-per-node", "8", "--to", "kubernetes", "--image", "mimsuite:0.2.0",
    "--volume", "shared:/data",
)  # fmt: skip

# Fields of jobset.x-k8s.io/v1alpha2, from its API reference.
JOB_SET = {
    "coordinator", "failurePolicy", "managedBy", "network", "replicatedJobs", "startupPolicy",
    "successPolicy", "suspend", "ttlSecondsAfterFinished", "volumeClaimPolicies",
}  # fmt: skip
RULE = {
    "name", "action", "onJobFailureReasons", "onJobFailureMessagePatterns", "targetReplicatedJobs"
}  # fmt: skip


def manifest(capsys, *more: str) -> list[dict]:
    assert main([*WORDS, *more, "--dry-run"]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def job_of(job_set: dict) -> dict:
    (group,) = job_set["spec"]["replicatedJobs"]
    assert set(group) <= {"name", "replicas", "template", "groupName", "dependsOn"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": job_set["metadata"],
        **group["template"],
    }


def test_it_fits_the_schema(capsys, tmp_path):
    kubernetes_validate = needs.module("kubernetes_validate")
    own = tmp_path / "mine.yaml"
    own.write_text(f"base: {RECIPE}\noptim:\n  weight_decay: 0.1\n")
    words = [str(own) if word == RECIPE else word for word in WORDS]
    assert main([*words, "--dry-run"]) == 0
    recipe, job_set = yaml.safe_load_all(capsys.readouterr().out)
    newest = kubernetes_validate.latest_version()
    kubernetes_validate.validate(recipe, newest, strict=True)
    kubernetes_validate.validate(job_of(job_set), newest, strict=True)
    assert "weight_decay: 0.1" in recipe["data"]["recipe.yaml"]
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = job_set["spec"]
    assert set(spec) <= JOB_SET
    assert set(spec["network"]) <= {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"}
    assert all(set(rule) <= RULE for rule in spec["failurePolicy"]["rules"])
    # The longest name of a pod is that of the job set, -nodes-0-NUMBER and six characters.
    assert job_set["metadata"]["name"] == "first-run"


def test_what_is_asked_for_is_in_it(capsys):
    (job_set,) = manifest(capsys, "--max-requeues", "7", "--signal", "TERM@300")
    assert job_set["spec"]["failurePolicy"]["maxRestarts"] == 7
    job = job_of(job_set)["spec"]
    assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (2, 2, 0)
    pod = job["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 300
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    script = container["command"][-1]
    assert "--nnodes=2 --nproc-per-node=8" in script
    assert "--master-addr=first-run-nodes-0-0.first-run " in script
    assert "--data /data/shards --device cuda --out /data/runs/First_run --resume auto" in script
    assert {m["mountPath"] for m in container["volumeMounts"]} == {"/dev/shm", "/data"}


@pytest.mark.parametrize(
    ("code", "failed", "wanted"),
    [
        (0, None, 0),
        (1, None, 1),  # a lost node: started again
        (1, '{"reason": "PeerError: rank 3"}', 1),
        (1, '{"reason": "Unreachable: s3://a"}', 1),
        (1, '{"reason": "DataError: no image"}', 3),  # the same start would fail again
    ],
)
def test_the_script_tells_what_a_restart_can_mend(capsys, tmp_path, code, failed, wanted):
    out = tmp_path / "run"
    words = [str(out) if word == "/data/runs/First_run" else word for word in WORDS]
    words[words.index("shared:/data")] = f"shared:{tmp_path}"
    assert main([*words, "--dry-run"]) == 0
    (job_set,) = yaml.safe_load_all(capsys.readouterr().out)
    (container,) = job_of(job_set)["spec"]["template"]["spec"]["containers"]
    out.mkdir()
    wrote = "" if failed is None else f"sleep 0.1; echo {shlex.quote(failed)} > {out}/FAILED; "
    done = run(tmp_path, container["command"], f"{wrote}exit {code}")
    assert done.returncode == wanted, done.stderr


def test_a_stop_signal_is_passed_on_and_waited_for(capsys, tmp_path):
    (job_set,) = manifest(capsys)
    (container,) = job_of(job_set)["spec"]["template"]["spec"]["containers"]
    torchrun = f"trap 'sleep 1; touch {tmp_path}/saved; exit 1' TERM; touch {tmp_path}/up; "
    process = run(tmp_path, container["command"], torchrun + "while :; do sleep 0.1; done", True)
    while not (tmp_path / "up").exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=20) == 1
    assert (tmp_path / "saved").exists()


def run(folder: Path, command: list[str], torchrun: str, background: bool = False):
    """Run a container's command with a torchrun and a mimsuite of these lines."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in (("torchrun", torchrun), ("mimsuite", "exit 0")):
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755 | stat.S_IXUSR)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": "0"}
    start = subprocess.Popen if background else subprocess.run
    return start(command, env=env, **({} if background else {"capture_output": True, "text": True}))


@pytest.mark.parametrize(
    ("drop", "more", "names"),
    [
        ("--image", (), "--image"),
        ("--volume", (), "--volume CLAIM:/path"),
        (None, ("--time", "1:00:00", "--sweep", "train.seed=0,1"), "--time, --sweep"),
        (None, ("--volume", "Shared"), "'Shared'"),
        (None, ("train.global_batch=100",), "16 processes"),
        (None, ("--nodes", "0"), "nodes"),
        (None, ("--to", "nomad"), "nomad"),
    ],
)
def test_what_does_not_fit_is_refused(capsys, drop, more, names):
    words = list(WORDS)
    if drop:
        at = words.index(drop)
        del words[at : at + 2]
    assert main([*words, *more, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert names in error
    assert "Traceback" not in error


def test_it_is_only_printed(capsys):
    assert main([*WORDS]) == 2
    assert "kubectl apply" in capsys.readouterr().err
