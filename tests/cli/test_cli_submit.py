"""`mimsuite submit` without a cluster: what it refuses, and the script that it writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mimsuite.cli.main import main
from mimsuite.cluster.profile import Profile, seconds_of
from tests import needs

RECIPE = "image/mae-tiny-fashion"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of one's own, without SLURM and without profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/bin")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def submit(capfd):
    """Run the command; returns the exit code and what it printed on stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["submit", *map(str, words)])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def script(submit):
    """The script of a command line."""

    def render(*words: object) -> str:
        code, text, said = submit(*words, "--dry-run")
        assert (code, said) == (0, ""), said
        return text

    return render


def profiles(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "config" / "mimsuite"
    folder.mkdir(parents=True)
    (folder / "slurm.yaml").write_text(text)


def options(text: str) -> dict[str, str]:
    """The lines that SLURM reads."""
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH" in line]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def play(text: str, folder: Path, task: str = "true", **variables: str) -> tuple[int, list[str]]:
    """Run a script in bash, where srun notes its words and then does ``task``.

    Returns:
        the exit code, and srun's words.
    """
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    words = folder / "words"
    stand_ins = {
        "srun": f"printf '%s\\0' \"$@\" > {words}\n{task}",
        "scontrol": 'case $1 in requeue) touch requeued;; *) echo "JobState=RUNNING n1";; esac',
    }
    for name, body in stand_ins.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    (folder / "job.sbatch").write_text(text)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "7", **variables}
    environment["SLURM_JOB_NODELIST"] = "n[1-2]"
    done = subprocess.run(
        ["bash", "job.sbatch"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.returncode, words.read_text().split("\0")[:-1]


# --- the script ----------------------------------------------------------------------------------


def test_the_script_asks_for_what_was_asked(script, tmp_path):
    text = script(
        RECIPE, "mask.ratio=0.6", "--out", tmp_path / "my run", "--nodes", "2",
        "--gpus-per-node", "4", "--time", "1-12:00:00", "--partition", "gpu", "--account", "abc",
        "--qos", "high", "--constraint", "a100&nvlink", "--after", "12,13_4", "--no-requeue",
    )  # fmt: skip
    assert options(text) == {
        "job-name": '"my run"',
        "chdir": f'"{Path.cwd()}"',
        "output": f'"{tmp_path}/my run/slurm-%j.out"',
        "open-mode": "append",
        "dependency": "afterok:12:13_4",
        "kill-on-invalid-dep": "yes",
        "partition": "gpu",
        "account": "abc",
        "qos": "high",
        "constraint": '"a100&nvlink"',
        "nodes": "2",
        "ntasks-per-node": "4",
        "gpus-per-node": "4",
        "cpus-per-task": "2",
        "time": "1-12:00:00",
        "signal": "USR1@120",
        "no-requeue": "",
    }
    code, words = play(text, tmp_path)
    assert code == 0
    assert words[:2] == ["--kill-on-bad-exit=1", "--cpus-per-task=2"]
    assert words[words.index("pretrain") :] == [
        "pretrain", RECIPE, "mask.ratio=0.6", "--device", "cuda",
        "--out", f"{tmp_path}/my run", "--resume", "auto",
    ]  # fmt: skip


def test_words_reach_training_as_they_were(script, tmp_path):
    nasty = "data.source=; touch hacked $(touch hacked) `touch hacked` \"' \\ *"
    (tmp_path / "here" / nasty.partition("=")[2]).mkdir()
    for words in ([nasty], ["--data", nasty.partition("=")[2]]):
        text = script(RECIPE, *words, "--out", tmp_path / "run")
        _, found = play(text, tmp_path)
        assert any(nasty.partition("=")[2] in word for word in found)
        assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["--partition", "gpu\n#SBATCH --uid=0"], "partition: expected a name"),
        (["--account", "a;b"], "account: expected a name"),
        (["--qos", "$(id)"], "qos: expected a name"),
        (["--constraint", 'a"b'], "constraint: expected features"),
        (["--time", "24h"], "time: expected a time limit, as in"),
        (["--signal", "B:USR1@60"], "signal: expected signal and seconds"),
        (["--time", "1", "--signal", "USR1@90"], "time=1 is over before signal=USR1@90"),
        (["--after", "12; true"], "--after '12; true'"),
        (["--nodes", "0"], "nodes: expected a whole number above 0, got 0"),
        (["--gpus-per-node", "2", "--tasks-per-node", "2"], "exclude each other"),
        (["--gpus-per-node", "2", "train.device=cpu"], "train.device=cpu"),
        (["--nodes", "3"], "train.global_batch=128 cannot be shared by 3 processes"),
        (["--out", "a\nb"], "does not fit into a batch script"),
        (["--out", "a%j"], "does not fit into a batch script"),
        (["--init-from", "a\nb"], "control character"),
        (["--data", "missing"], "there is no missing"),
        (["--at-once", "2"], "--sweep"),
        (["--profile", "none"], "no profile 'none'"),
        (["--sweep", "optim.lr=1"], "expected a key and values"),
        (["--sweep", "optim.lr=1e-3,many"], "optim.lr: expected a number"),
        (["--sweep", "data.source=a/b,a_b"], "would share the run directory"),
        (["mask.ratoi=0.5"], "mask.ratoi: unknown key. Did you mean mask.ratio?"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(words, culprit, submit, tmp_path):
    code, text, said = submit(RECIPE, *words)
    assert (code, text) == (2, "")
    assert culprit in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert not list((tmp_path / "here").iterdir())


def test_all_faults_are_told_at_once(submit):
    code, _, said = submit(RECIPE, "--sweep", "mask.ratio=0.5,2,3", "optim.lr=many")
    assert code == 2
    assert "mask.ratio: expected a number" in said
    assert "got 2" in said
    assert "got 3" in said
    assert "optim.lr: expected a number" in said


def test_a_recipe_of_another_task_is_refused(submit):
    code, _, said = submit("image/mae-tiny-finetune")
    assert code == 2
    assert "is a finetune recipe: mimsuite submit pretrains" in said


# --- sweeps --------------------------------------------------------------------------------------


def test_a_sweep_is_a_table_of_runs(script, tmp_path):
    text = script(
        RECIPE, "--sweep", "optim.betas=[0.9,0.95],[0.9,0.99]", "--sweep", "train.seed=0,1",
        "--at-once", "3", "--out", tmp_path / "sweep",
    )  # fmt: skip
    assert options(text)["array"] == "0-3%3"
    assert options(text)["output"].endswith('slurm-%A_%a.out"')
    array = {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "2"}
    _, words = play(text, tmp_path, **array)
    assert words[-6:] == [
        "optim.betas=[0.9,0.99]", "train.seed=0",
        "--out", f"{tmp_path}/sweep/optim.betas=_0.9,0.99_,train.seed=0", "--resume", "auto",
    ]  # fmt: skip
    note = (Path(words[-3]) / "job.log").read_text().splitlines()
    assert note[0].endswith("job 9_2 start 1: from step 0 on n[1-2]")
    code, _ = play(text, tmp_path, **{**array, "SLURM_ARRAY_TASK_ID": "2"})
    assert code == 0


# --- what the script decides ---------------------------------------------------------------------

SAVE = "mkdir -p $0/checkpoints/step-00000010"


@pytest.mark.parametrize(
    ("task", "code", "again", "said"),
    [
        ("touch {run}/DONE", 0, False, "exit code 0, step 0 to 0: done"),
        ("touch {run}/DONE; exit 143", 0, False, "done"),
        ("{save}; touch {run}/PREEMPTED; exit 75", 75, True, "step 0 to 10: stopped by a signal"),
        ("{save}; touch {run}/PREEMPTED; exit 143", 143, True, "stopped by a signal, queued again"),
        ("exit 138", 138, True, "stopped before it could save, queued again"),
        ("{save}; exit 137", 137, True, "lost a process, queued again"),
        ("exit 137", 137, False, "lost a process, and no new step was saved"),
        ('{save}; echo \'"reason": "PeerError: x"\' > {run}/FAILED; exit 1', 1, True, "lost a"),
        ('{save}; echo \'"reason": "DataError: x"\' > {run}/FAILED; exit 137', 137, False, "fail"),
        ('{save}; echo \'"reason": "Unreachable: x"\' > {run}/FAILED; exit 3', 3, True, "lost the"),
        ("{save}; exit 2", 2, False, "exit code 2, step 0 to 10: failed"),
    ],
)
def test_what_follows_an_end(task, code, again, said, script, tmp_path):
    run = tmp_path / "run"
    text = script(RECIPE, "--out", run)
    save = f"mkdir -p {run}/checkpoints/step-00000010"
    found, _ = play(text, tmp_path, task.format(run=run, save=save))
    assert found == code
    assert (tmp_path / "requeued").exists() == again
    assert said in (run / "job.log").read_text().splitlines()[-1]


def test_requeues_are_counted(script, tmp_path):
    run = tmp_path / "run"
    text = script(RECIPE, "--out", run, "--max-requeues", "2")
    for start in range(3):
        save = f"mkdir -p {run}/checkpoints/step-{start + 1:08d}; touch {run}/PREEMPTED; exit 75"
        play(text, tmp_path, save, SLURM_RESTART_COUNT=str(start))
        last = (run / "job.log").read_text().splitlines()[-1]
        assert ("queued again 2 times before" in last) == (start == 2)


# --- profiles ------------------------------------------------------------------------------------


def test_a_profile_is_taken_and_the_command_line_wins(script, tmp_path):
    profiles(
        tmp_path,
        """
default:
  partition: gpu
  gpus_per_node: 8
  time: 24:00:00
  modules: [cuda/12.4]
  environment: {NCCL_DEBUG: WARN, NOTE: "two words; $HOME"}
  setup: [touch ready]
  container: env A=b
  sbatch: [--mem=0]
  srun: ["--container-image=a b"]
""",
    )
    text = script(RECIPE, "--out", tmp_path / "run", "--partition", "other")
    found = options(text)
    assert (found["partition"], found["ntasks-per-node"], found["time"]) == (
        "other",
        "8",
        "24:00:00",
    )
    assert found["mem"] == "0"
    assert text.startswith("#!/bin/bash -l\n")
    assert "module load cuda/12.4 || exit\n" in text
    _, words = play(text.replace("module load", "true"), tmp_path, 'echo "$NOTE" > note')
    assert (tmp_path / "note").read_text() == "two words; $HOME\n"
    assert (tmp_path / "ready").exists()
    assert words[2:7] == ["--container-image=a b", "env", "A=b", "mimsuite", "pretrain"]
    tasks = options(script(RECIPE, "--out", tmp_path / "run", "--tasks-per-node", "2"))
    assert "gpus-per-node" not in tasks


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("default:\n  partion: gpu\n", "partion: unknown key. Did you mean partition?"),
        ("default:\n  nodes: two\n", "nodes: expected a whole number, got 'two'"),
        ("default:\n  modules: ['a; b']\n", "modules: expected the name of a module"),
        ("default:\n  environment: {A B: x}\n", "'A B' is not the name of a variable"),
        ('default:\n  setup: ["a\\nb"]\n', "setup: expected one line of text"),
        ("default: gpu\n", "expected profiles by name"),
    ],
)
def test_a_faulty_profile_is_refused_with_its_line(text, fault, submit, tmp_path):
    profiles(tmp_path, text)
    code, _, said = submit(RECIPE)
    assert code == 2
    assert fault in said
    assert "slurm.yaml" in said
    assert len(said.splitlines()) == 1


def test_a_profiles_name_is_guessed(submit, tmp_path):
    profiles(tmp_path, "a100: {partition: gpu}\n")
    code, _, said = submit(RECIPE, "--profile", "a10")
    assert code == 2
    assert "Did you mean a100?" in said


def test_what_the_docs_show_is_so(submit, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "slurm.md").read_text()
    (tmp_path / "here" / "shards").mkdir()
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("mimsuite ")]
    assert len(commands) == 4
    for words in commands:
        assert "--dry-run" in words or words == ["runs", "list"]
        assert main(words) == 0
    (document,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    profiles(tmp_path, document)
    for name in ("default", "apptainer", "pyxis", "cpu"):
        code, _, said = submit(RECIPE, "--profile", name, "--dry-run")
        assert code == 0, said
    keys = set(re.findall(r"^  (\w+):", document, flags=re.MULTILINE))
    assert keys == set(Profile.model_fields)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("30", 1800), ("1:30", 90), ("2:00:00", 7200), ("1-12", 36 * 3600),
        ("1-12:30", 36 * 3600 + 1800), ("2-00:00:05", 2 * 86400 + 5),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_reads_them(limit, seconds):
    assert seconds_of(limit) == seconds


# --- sending -------------------------------------------------------------------------------------


def test_without_sbatch_the_script_stays(submit, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    code, text, said = submit(RECIPE, "--out", "runs/first")
    assert (code, text) == (2, "")
    written = tmp_path / "here" / "runs" / "first" / "job.sbatch"
    assert said == f"error: no sbatch here: send {written} from where there is one\n"
    assert subprocess.run(["/bin/bash", "-n", str(written)]).returncode == 0
    # And may be written anew.
    assert submit(RECIPE, "--out", "runs/first")[0] == 2


def test_what_is_in_use_is_left_alone(submit, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    code, _, said = submit(RECIPE, "--out", tmp_path / "run")
    assert code == 2
    assert "is not empty: choose another --out" in said
    (tmp_path / "run" / "config.yaml").write_text("x")
    code, _, said = submit(RECIPE, "--out", tmp_path / "run", "--dry-run")
    assert code == 2
    assert "go on in it with --resume auto" in said
    assert submit(RECIPE, "--out", tmp_path / "run", "--dry-run", "--resume", "auto")[0] == 0


def stand_in_for_sbatch(tmp_path: Path, monkeypatch, body: str) -> None:
    folder = tmp_path / "sbatch"
    folder.mkdir()
    (folder / "sbatch").write_text(f"#!/bin/bash\n{body}\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_what_is_told_of_a_job(submit, tmp_path, monkeypatch):
    stand_in_for_sbatch(tmp_path, monkeypatch, 'env > "$2.env"; echo "4711;cluster"')
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    monkeypatch.setenv("SLURM_CPU_BIND", "cores")
    words = ("--sweep", "train.seed=0,1", "--out", "runs/s")
    code, text, said = submit(RECIPE, *words, "--json")
    assert code == 0
    told = json.loads(text)
    assert told["job"] == "4711"
    assert [run["job"] for run in told["runs"]] == ["4711_0", "4711_1"]
    assert "submitted job 4711: image/mae-tiny-fashion, 2 runs" in said
    assert "scancel 4711" in said
    first = Path(told["runs"][0]["run_dir"])
    assert json.loads((first / "job.json").read_text())["job"] == "4711_0"
    # A job that is sent from inside of another does not inherit its CPUs.
    assert "SLURM_CPU_BIND" not in Path(told["script"] + ".env").read_text()


def test_what_sbatch_refuses_is_told(submit, tmp_path, monkeypatch):
    refusal = 'echo "sbatch: error: invalid partition specified: x" >&2; exit 1'
    stand_in_for_sbatch(tmp_path, monkeypatch, refusal)
    code, _, said = submit(RECIPE, "--out", "runs/first")
    assert code == 2
    assert "sbatch refused" in said
    assert "invalid partition specified: x" in said
    assert len(said.splitlines()) == 1


def test_a_recipe_of_ones_own_is_kept_as_it_was(submit, tmp_path, monkeypatch):
    stand_in_for_sbatch(tmp_path, monkeypatch, "echo 1")
    own = tmp_path / "mine.yaml"
    own.write_text(f"base: {RECIPE}\nmask: {{ratio: 0.5}}\n")
    code, text, _ = submit(own, "mask.ratio=0.6", "--out", "runs/own", "--json")
    assert code == 0
    own.unlink()
    script = Path(json.loads(text)["script"]).read_text()
    _, words = play(script, tmp_path)
    kept = words[words.index("pretrain") + 1]
    assert kept == str(Path("runs/own/mine.yaml").absolute())
    assert "mask.ratio=0.6" in words
    from mimsuite import config

    assert config.load(kept).recipe.mask.ratio == 0.5


def test_no_torch_is_imported():
    code = (
        "import sys; from mimsuite.cli.main import main;"
        f"main(['submit', '{RECIPE}', '--dry-run']); main(['runs', 'list']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_script_is_clean(script, tmp_path):
    needs.program("shellcheck")
    for words in ((), ("--sweep", "train.seed=0,1")):
        text = script(RECIPE, "--out", tmp_path / "my run", *words)
        done = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
