"""How often test samples are read: once for each encoder that is judged, and never to choose."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mimsuite.cli.main import main
from mimsuite.data.packing.inspection import unused_in
from mimsuite.data.sources.files import FileSource
from mimsuite.data.unused import Unused

Reads = Callable[..., tuple[Counter[str], Counter[str]]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Runs a command; how often each file of the splits train and test was opened.

    Not counted is the look at a few samples that says what is dropped of each.
    """
    seen: dict[str, Counter[str]] = {"train": Counter(), "test": Counter()}
    payload = FileSource.payload

    def counted(self: FileSource, shard: int, offset: int) -> bytes:
        seen[self.split][self.key(shard, offset)] += 1
        return payload(self, shard, offset)

    def looked_at(*args: Any, **keys: Any) -> Unused:
        with monkeypatch.context() as uncounted:
            uncounted.setattr(FileSource, "payload", payload)
            return unused_in(*args, **keys)

    monkeypatch.setattr(FileSource, "payload", counted)
    monkeypatch.setattr("mimsuite.evaluate.sources.unused_in", looked_at)
    monkeypatch.setattr("mimsuite.train.run.unused_in", looked_at)

    def run(*words: object) -> tuple[Counter[str], Counter[str]]:
        for counter in seen.values():
            counter.clear()
        assert main([str(word) for word in words]) == 0
        return seen["train"], seen["test"]

    return run


def times(counter: Counter[str], samples: int) -> int:
    """The number that all samples have in common."""
    assert len(counter) == samples
    assert len(set(counter.values())) == 1
    return next(iter(counter.values()))


@pytest.mark.parametrize(
    "words",
    [
        ("linear-probe", "{run}"),
        ("knn", "{run}"),
        ("low-shot", "{run}", "--labels", "1,3,10,25%", "--out", "{out}"),
        ("robustness", "{run}", "--out", "{out}/robustness.json"),
    ],
    ids=lambda words: words[0],
)
def test_cached_features_are_read_once_for_all_figures(
    reads: Reads, run: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Whatever is drawn, chosen or corrupted: one pass. A random encoder takes one more, raw
    samples and the majority class none."""
    named = [word.format(run=run, out=tmp_path) for word in words]
    train, test = reads(*named)
    assert (times(train, 36), times(test, 18)) == (1, 1)
    train, test = reads(*named, "--baselines")
    assert times(train, 36) <= 2
    assert times(test, 18) <= 2


@pytest.mark.parametrize("command", ["linear-probe", "attentive-probe", "finetune"])
def test_training_sees_no_test_sample_and_is_scored_once(
    reads: Reads, run: Path, recipes: Path, tmp_path: Path, command: str
) -> None:
    recipe = recipes / "probe.yaml"
    if command == "attentive-probe":
        recipe = tmp_path / "attentive.yaml"
        recipe.write_text(ATTENTIVE)
    words = [command, run, "--baselines", "--out", tmp_path / "out"]
    if command != "finetune":
        words += ["--recipe", recipe]
    train, test = reads(*words)
    assert times(test, 18) == 2  # pretrained, and its baseline
    assert min(train.values()) > 2


def test_rates_are_chosen_without_the_test_split(reads: Reads, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _, test = reads("finetune", run, "--rates", "0.1,1", "--out", out, "schedule.epochs=2")
    assert times(test, 18) == 1


def test_scoring_again_reads_once(reads: Reads, run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    reads("finetune", run, "--out", out, "schedule.epochs=1", "schedule.warmup_epochs=0", "--json")
    tuned = json.loads(capsys.readouterr().out)["runs"]["pretrained"]
    train, test = reads("evaluate", tuned)
    assert (len(train), times(test, 18)) == (0, 1)


ATTENTIVE = """\
recipe: {title: attentive, task: attentive-probe}
method: {name: classify}
model: {pool: attentive, freeze: true, head: linear, head_init_std: 0.01}
target: {}
augment: {crop: resize}
optim: {name: adamw, lr: 1e-3}
schedule: {epochs: 3}
data: {workers: 0}
train: {global_batch: 6, device: cpu}
"""
