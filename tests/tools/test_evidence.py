"""Evidence: no row twice, killed at any moment, pages with rows missing, verdicts by intervals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path[:0] = [str(TOOLS)]
import evidence  # noqa: E402
import evidence_pages  # noqa: E402
import evidence_rows  # noqa: E402

RECIPE = "image/mae-tiny-fashion"
PLAN: dict[str, Any] = {
    "tables": [
        {
            "name": "small",
            "title": "A small table",
            "about": "Two seeds.",
            "seeds": [0, 1],
            "encoders": [
                {"name": "MAE", "recipe": RECIPE},
                {"name": "Other", "recipe": RECIPE, "keys": ["mask.ratio=0.5"]},
            ],
            "pairs": [["MAE", "Other"]],
            "measures": ["linear-probe", "finetune --rates 0.3,1"],
        }
    ]
}
README = f"""# A page

| method | learning | recipe |
|---|---|---|
| MAE | helps | `image/mae-*` |
| other | - | `points/mae-*` |

| x | {RECIPE} | y |
"""
SETUP = """
import sys
from pathlib import Path
sys.path[:0] = [{tools!r}]
import evidence, evidence_rows
place = Path({place!r})
evidence_rows.ROWS, evidence_rows.RUNS = place / "rows", place / "runs"
plan = evidence_rows.tables(place / "plan.yaml")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    (tmp_path / "rows").mkdir()
    monkeypatch.setattr(evidence_rows, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(evidence_rows, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(evidence_pages, "PAGES", tmp_path)
    monkeypatch.setattr(evidence_pages, "LEARNING", tmp_path / "learning.json")
    monkeypatch.setattr(evidence_pages, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(README)
    return tmp_path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of commands that are run; each leaves its run and the same result."""
    commands: list[list[str]] = []

    def answer(
        words: list[str], seconds: float, where: evidence_rows.Place
    ) -> tuple[int, str, str]:
        commands.append(words)
        make_run(words)
        return 0, json.dumps(result("1111", random_init="1010")), ""

    monkeypatch.setattr(evidence_rows, "_run", answer)
    return commands


@pytest.fixture
def plan(place: Path) -> list[evidence_rows.Table]:
    return evidence_rows.tables(place / "plan.yaml")


def make_run(words: list[str]) -> None:
    """The run directory that a pretraining leaves."""
    if words[0] == "pretrain":
        Path(words[words.index("--out") + 1]).mkdir(parents=True, exist_ok=True)


def result(ours: str, **others: str) -> dict[str, Any]:
    return {"labels": [0, 1] * (len(ours) // 2), "right": {"pretrained": ours, **others}}


def test_a_key_is_of_the_content(plan) -> None:
    rows = list(evidence_rows.rows_of(plan[0]))
    assert len(rows) == 2 * 2 * 3
    assert len({row.key for row in rows}) == len(rows)
    again = list(evidence_rows.rows_of(evidence_rows.tables(plan and evidence_rows.PLAN)[0]))
    assert not {row.key for row in rows} & {row.key for row in again}


def test_a_row_stands_while_its_recipe_says_the_same(plan) -> None:
    row = list(evidence_rows.rows_of(plan[0]))[-1]
    document = json.loads(json.dumps(row.document))
    assert "recipe" not in document
    del document["optim"]["clip_grad"]  # a key that the suite has gained since
    row.path.write_text(json.dumps({"document": document, "result": {}}))
    assert row.done
    document["optim"]["lr"] = 1.0
    row.path.write_text(json.dumps({"document": document, "result": {}}))
    assert not row.done


def test_a_run_that_is_gone_is_made_again_for_a_probe(plan, made) -> None:
    evidence.work(plan, hours=1)
    assert len(made) == 12
    rows = list(evidence_rows.rows_of(plan[0]))
    rows[0].run.rmdir()
    evidence.work(plan, hours=1)
    assert len(made) == 12
    rows[2].path.unlink()
    evidence.work(plan, hours=1)
    assert [words[0] for words in made[12:]] == ["pretrain", "linear-probe"]


def test_rows_come_in_an_order_that_works_and_none_twice(plan, made) -> None:
    evidence.work(plan, hours=1)
    assert [words[0] for words in made[:4]] == [
        "pretrain",
        "pretrain",
        "linear-probe",
        "linear-probe",
    ]
    for words in made:
        if words[0] == "finetune" and "train.seed=1" not in words and words[-1] == "auto":
            rates = words[words.index("--rates") + 1]
            assert (rates == "0.3,1") == (words[words.index("--seed") + 1] == "0")
    assert len(made) == 12
    evidence.work(plan, hours=1)
    assert len(made) == 12


def test_a_training_goes_on_in_a_later_turn(plan, monkeypatch) -> None:
    codes = iter([75, 75, 0])
    row = next(iter(evidence_rows.rows_of(plan[0])))
    row.run.mkdir(parents=True)
    monkeypatch.setattr(evidence_rows, "_run", lambda *_: (next(codes), "{}", ""))
    assert [evidence_rows.make(row) for _ in range(3)] == [False, False, True]
    assert row.read() == {}


def test_a_failure_is_said_and_not_repeated(plan, monkeypatch, capsys) -> None:
    calls = []

    def fail(words: list[str], seconds: float, place: evidence_rows.Place) -> tuple[int, str, str]:
        calls.append(words)
        return 3, "", "error: no such data\n"

    monkeypatch.setattr(evidence_rows, "_run", fail)
    evidence.work(plan, hours=1)
    assert len(calls) == 4  # each pretraining once; what needs them waits
    assert "no such data" in capsys.readouterr().out


def test_what_saves_nothing_must_fit_in_a_turn() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_rows, "start_child", Sleeper)
        code, _, said = evidence_rows._run(["linear-probe"], 0.1)
    assert code not in (0, evidence_rows.SAVED)
    assert "not done after 0 s" in said


class Sleeper(subprocess.Popen):
    def __init__(self, words: list[str], **options: Any) -> None:
        super().__init__(["sleep", "60"], start_new_session=True, **options)


@pytest.mark.parametrize(
    ("ours", "random", "raw", "verdict"),
    [
        ("1" * 40, "10" * 20, "10" * 20, evidence_pages.HELPS),
        ("1" * 40, "1" * 40, "10" * 20, evidence_pages.NOT_YET),
        ("10" * 20, "0" * 40, "1" * 40, evidence_pages.RAW_WINS),
    ],
)
def test_verdicts_follow_from_the_intervals(plan, place, ours, random, raw, verdict) -> None:
    (table,) = plan
    encoder = table.encoders[0]
    for seed in table.seeds:
        assert evidence_pages.verdict_of(table, encoder) == evidence_pages.MISSING
        row = evidence_rows.Row(table, encoder, seed, None, "linear-probe")
        content = {"document": {}, "result": result(ours, random_init=random, raw_input=raw)}
        row.path.write_text(json.dumps(content))
    assert evidence_pages.verdict_of(table, encoder) == verdict
    evidence_pages.write_pages(plan)
    page = (place / "small.md").read_text()
    assert "2 of 12 rows are made" in page
    assert "| MAE | 2 |" in page
    assert "## Rows that are missing" in page
    learning = json.loads((place / "learning.json").read_text())
    assert learning["learning"][RECIPE]["small"] == verdict
    assert learning["ablations"]["mae"] == [evidence_pages.MISSING]
    assert verdict in (place / "index.md").read_text()


def test_folds_make_one_figure_of_the_whole_set(plan) -> None:
    (table,) = plan
    folded = evidence_rows.Table(**{**vars(table), "folds": 2})
    encoder = table.encoders[0]
    rows = [evidence_rows.Row(folded, encoder, 0, fold, "linear-probe") for fold in range(2)]
    assert rows[0].key != rows[1].key
    rows[0].path.write_text(json.dumps({"document": {}, "result": result("11", random_init="10")}))
    assert evidence_pages.whole(folded, encoder, 0, "linear-probe") is None
    rows[1].path.write_text(json.dumps({"document": {}, "result": result("10", random_init="00")}))
    joined = evidence_pages.whole(folded, encoder, 0, "linear-probe")
    assert joined == {
        "labels": [0, 1, 0, 1], "right": {"pretrained": "1110", "random_init": "1000"}
    }  # fmt: skip


def test_figures_of_other_tasks_have_the_widest_interval_of_their_seeds() -> None:
    def part(gain: float) -> dict[str, Any]:
        own = {"difference": gain, "low": gain - 0.1, "high": gain + 0.1, "confidence": 0.95}
        return {
            "main": "miou",
            "miou": {"pretrained": 0.5 + gain, "from_scratch": 0.5, "random_init": None},
            "intervals": {"from_scratch": {"miou": own | {"seeds": 1, "samples": 20}}},
        }

    seeds = evidence_pages.FigureSeeds([part(0.2), part(0.4)])
    assert seeds.variants == ["pretrained", "from_scratch"]
    assert seeds.figures("pretrained") == pytest.approx([70.0, 90.0])
    gain = seeds.gain("from_scratch")
    assert (gain.difference, gain.low, gain.high) == pytest.approx((0.3, 0.1, 0.5))


def test_scores_are_in_their_own_units_and_no_verdict(place: Path) -> None:
    entry = {**PLAN["tables"][0], "measures": ["evaluate"]}
    (place / "plan.yaml").write_text(yaml.safe_dump({"tables": [entry]}))
    (table,) = evidence_rows.tables(place / "plan.yaml")
    figures = [["psnr", "PSNR", "dB", False], ["l1", "L1", "", True], ["used", "used", "%", False]]
    names = ("name", "title", "unit", "lower")
    for seed in table.seeds:
        for number, encoder in enumerate(table.encoders):
            row = evidence_rows.Row(table, encoder, seed, None, "evaluate")
            assert row.words() == ["evaluate", str(row.run), "--json"]
            scored = {
                "figures": [dict(zip(names, figure, strict=True)) for figure in figures],
                "main": "psnr",
                "n_test": 5,
                "psnr": 20.0 + seed - 3 * number,
                "l1": 0.1,
                "used": 0.5,
            }
            row.path.write_text(json.dumps({"document": {}, "result": scored}))
    evidence_pages.write_pages([table])
    page = (place / "small.md").read_text()
    assert "| encoder | seeds | PSNR in dB (higher is better) | L1 (lower is better) |" in page
    assert (
        "| MAE | 2 | 20.5 (20.0 to 21.0) | 0.100 (0.100 to 0.100) | 50.0 (50.0 to 50.0) |" in page
    )
    assert "| MAE | Other | +3.0 [+3.0, +3.0] dB |" in page
    assert "MAE: 20.5 (20.0 to 21.0) dB" in (place / "index.md").read_text()
    learning = json.loads((place / "learning.json").read_text())
    assert learning == {"ablations": {}, "learning": {}}


def test_the_plan_of_the_project_is_sound() -> None:
    for table in evidence_rows.tables():
        names = [one.name for one in table.encoders]
        assert len(set(names)) == len(names)
        assert table.verdict in table.measures
        assert all(name in names for pair in table.pairs for name in pair)
        row = next(iter(evidence_rows.rows_of(table)))
        assert len(row.key) == 16
        assert all(one.measure == "" for one in row.requires())


@pytest.mark.slow  # a minute: real rows, killed in the middle
def test_killed_in_the_middle_it_goes_on(place: Path) -> None:
    keys = ["schedule.epochs=1", "schedule.warmup_epochs=0", "data.limit=512"]
    small = {**PLAN["tables"][0], "pairs": [], "seeds": [0], "measures": ["knn"]}
    small["encoders"] = [{"name": "MAE", "recipe": RECIPE, "keys": keys}]
    (place / "plan.yaml").write_text(yaml.safe_dump({"tables": [small]}))
    code = SETUP.format(tools=str(TOOLS), place=str(place)) + "evidence.work(plan, 0.2)"
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while not list((place / "rows").glob("*.json")) and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = {path: path.stat().st_mtime_ns for path in (place / "rows").glob("*.json")}
    assert len(before) == 1
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    after = {path: path.stat().st_mtime_ns for path in (place / "rows").glob("*.json")}
    assert len(after) == 2
    assert before.items() <= after.items()
    assert "right" in json.loads(next(iter(after.keys() - before.keys())).read_text())["result"]


def test_the_table_of_the_readme_gets_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all recipes that a row's patterns name, and of nothing but the table."""

    def verdicts(*recipes: str) -> str:
        return "not yet" if "points/mae-tiny-furniture" in recipes else ""

    monkeypatch.setattr(evidence_pages, "learning", verdicts)
    wanted = README.replace("| helps |", "| - |").replace("| other | - |", "| other | not yet |")
    assert evidence_pages.with_learning(README) == wanted


def test_several_cores_make_each_row_once(plan, monkeypatch) -> None:
    made: list[str] = []
    places: set[evidence_rows.Place] = set()

    def answer(
        words: list[str], seconds: float, place: evidence_rows.Place
    ) -> tuple[int, str, str]:
        made.append(" ".join(words))
        places.add(place)
        time.sleep(0.05)
        make_run(words)
        return 0, json.dumps(result("1111", random_init="1010")), ""

    monkeypatch.setattr(evidence_rows, "_run", answer)
    monkeypatch.setattr(evidence, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(evidence, "cores_at_hand", lambda: [0, 1, 2])
    evidence.work(plan, hours=1, nice=7, cores=2)
    assert len(made) == len(set(made)) == 12
    assert places == {evidence_rows.Place(1, 7), evidence_rows.Place(2, 7)}


def test_a_row_that_another_makes_is_left_to_it(plan, monkeypatch) -> None:
    row = next(iter(evidence_rows.rows_of(plan[0])))
    monkeypatch.setattr(evidence_rows, "_run", lambda *_: pytest.fail("made by two"))
    assert not row.claimed
    with evidence_rows._locked(evidence_rows._lock_of(row)) as mine:
        assert mine
        assert row.claimed
        assert not evidence_rows.make(row)
    assert not row.claimed


def test_rows_of_one_encoder_and_what_they_need(place, made, monkeypatch) -> None:
    entry = json.loads(json.dumps(PLAN["tables"][0]))
    entry["encoders"].append(
        {"name": "Third", "recipe": RECIPE, "keys": ["model.encoder.depth={run:Other}"]}
    )
    (place / "plan.yaml").write_text(yaml.safe_dump({"tables": [entry]}))
    monkeypatch.setattr(
        evidence_rows, "_resolved", lambda recipe, keys: ({"keys": list(keys), "method": {}}, 1)
    )
    evidence.work(evidence_rows.tables(place / "plan.yaml"), hours=1, encoders=["Third"])
    wanted = 2 * ["pretrain", "pretrain", "linear-probe"] + 2 * ["finetune"]
    assert [words[0] for words in made] == wanted


def test_a_row_is_json_with_a_line_an_entry(tmp_path: Path) -> None:
    content = {"b": {"right": {"x": [1, 2]}, "a": {}}, "a": [1, {"c": None}], "empty": {}}
    evidence_rows._write(tmp_path / "row.json", content)
    text = (tmp_path / "row.json").read_text()
    assert json.loads(text) == content
    assert text.splitlines() == [
        "{", ' "a": [1, {"c": null}],', ' "b": {', '  "a": {},', '  "right": {"x": [1, 2]}',
        " },", ' "empty": {}', "}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tables", "smal"], "--tables smal: the plan has few-labels, points-furniture"),
        (["--tables", "demo", "--encoders", "CAE"], "--encoders CAE: the plan has MAE"),
        (["--cores", "0"], "--cores 0: this machine has"),
    ],
)
def test_a_name_that_is_not_there_is_said(words, said, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["evidence.py", *words, "--list"])
    with pytest.raises(SystemExit) as stopped:
        evidence.main()
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
