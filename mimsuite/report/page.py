"""``report.html``: a run on one page that loads nothing from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mimsuite
from mimsuite.console import shown_value, warn
from mimsuite.files import write_atomic
from mimsuite.report.commands import next_steps
from mimsuite.report.curves import ONLINE_PROBES, SIGNALS, save_curves
from mimsuite.report.data_sheet import data_sheet
from mimsuite.report.dictionaries import dictionaries
from mimsuite.report.html import Markup, document, join, picture, preformatted, section, table, tag
from mimsuite.report.reference import beside_reference
from mimsuite.report.results import results
from mimsuite.report.run_facts import RunFacts
from mimsuite.report.slides import SCRIPT, slides
from mimsuite.text import count, duration, memory, number

_PLAIN_EVENTS = ("save", "resume", "start")  # expected ones, not listed one by one
_LISTED = 20  # events shown singly, the latest
_RECONSTRUCTIONS = 12  # at most, so that a page stays a few megabytes


def write_page(run_dir: str | Path) -> Path | None:
    """Write ``report.html``, and ``images/curves.png``, from what the run directory holds now.

    Returns:
        The page; ``None`` after a warning if it cannot be written, which does not fail the run.
    """
    run = RunFacts.read(Path(run_dir))
    name = run.key("recipe.title") or run.path.resolve().name
    sections = [
        *results(run.path, ask=_is_pretrained(run)),
        _card(run.path),
        section("Dictionaries", join(dictionaries(run.path))),
        section("Reconstructions", reconstructions(run.path)),
        section("Curves", curves(run.path, save_curves(run.path))),
        section("Figures", key_figures(run)),
        section("Data", join(data_sheet(run))),
        section("Recipe", _recipe(run)),
        section("Events", join(_events(run))),
        section("Next", _next(run.path)),
        section("Environment", _environment(run.environment)),
    ]
    footer = tag("p", f"mimsuite {mimsuite.__version__}", class_="faint")
    page = document(name, header(run, name), *sections, footer, script=SCRIPT)
    try:
        return write_atomic(run.path / "report.html", page)
    except OSError as error:
        warn(f"cannot write {run.path / 'report.html'}: {error.strerror}")
        return None


def _is_pretrained(run: RunFacts) -> bool:
    done = run.status is not None and run.status[0] == "DONE"
    return done and run.key("recipe.task", "pretrain") == "pretrain"


def _card(path: Path) -> Markup:
    if not (path / "card.html").is_file():
        return Markup("")
    return tag("p", "All of the results: ", tag("a", "report card", href="card.html"))


# Parts that the report card shows too: each is empty where the run has nothing to show.


def header(run: RunFacts, name: str) -> Markup:
    """The run's name, how it ended, its method and place."""
    status = run.status[0] if run.status else "not finished"
    badge = tag("span", status.lower(), class_=f"badge {status.lower().split()[0]}")
    method, paper = run.key("method.name"), run.key("recipe.paper")
    about = " · ".join(str(part) for part in (method, paper, run.path) if part)
    reason = run.status[1].get("reason") if run.status else None
    return tag(
        "header",
        tag("h1", name, " ", badge),
        tag("p", about, class_="faint"),
        tag("p", reason) if reason else "",
    )


def key_figures(run: RunFacts) -> Markup:
    """What the run reached and cost."""
    figures: list[tuple[str, str]] = []
    if losses := run.column("loss"):
        figures += [("loss, last", number(losses[-1])), ("loss, lowest", number(min(losses)))]
    if steps := run.column("step"):
        figures.append(("steps", number(steps[-1])))
    if epochs := run.column("epoch"):
        figures.append(("epochs", number(epochs[-1])))
    batch = run.key("train.global_batch")
    if isinstance(batch, int):
        figures.append(("effective batch", str(batch)))
        figures += [("samples seen", count(int(steps[-1]) * batch))] if steps else []
    for column, title in SIGNALS:
        if values := run.column(column):
            figures.append((f"{title} (diagnostic)", number(values[-1])))
    for column, title in ONLINE_PROBES:
        if values := run.column(column):
            figures.append((f"{title} probe while training", f"{100 * values[-1]:.2f} %"))
    if rates := run.column("lr"):
        figures.append(("peak lr", f"{max(rates):.2e}"))
    if speeds := run.column("samples_per_second"):
        middle = sorted(speeds)[len(speeds) // 2]
        figures.append(("samples/s, median", number(middle, 3)))
    if used := run.column("memory_mb"):
        figures.append(("peak memory", memory(max(used)) if max(used) else "-"))
    if (seconds := run.seconds()) is not None:
        figures.append(("from start to end", duration(seconds)))
    for event in run.events_named("start")[-1:]:
        if isinstance(event.get("parameters"), int):
            figures.append(("parameters", count(event["parameters"])))
    pairs = [tag("div", tag("dt", label), tag("dd", value)) for label, value in figures]
    return tag("dl", *pairs, class_="figures", style="margin:0") if pairs else Markup("")


def curves(path: Path, drawn: bytes | None) -> Markup:
    """Loss, signals, learning rate and gradient norm, and how the loss compares with others'.

    Args:
        drawn: the picture; None: there is nothing to show.
    """
    if drawn is None:
        return Markup("")
    said = beside_reference(RunFacts.read(path))
    shown = picture(drawn, "Faint: as logged. Bold: smoothed.", chart=True)
    return join([tag("p", said) if said else "", shown])


def reconstructions(path: Path) -> Markup:
    """Pictures from the last to the first, some of those between left out."""
    files = sorted((path / "images").glob("reconstruction-*.png"), reverse=True)
    last = len(files) - 1
    count = min(len(files), _RECONSTRUCTIONS)
    chosen = [files[round(n * last / max(count - 1, 1))] for n in range(count)]
    shown = [picture(file.read_bytes(), f"After step {_step(file)}") for file in chosen]
    return slides(shown, "Step of the reconstruction")


def _step(picture: Path) -> str:
    return picture.stem.removeprefix("reconstruction-").lstrip("0") or "0"


def _recipe(run: RunFacts) -> Markup:
    changed = [(key, tag("code", shown_value(value))) for key, value in run.changed.items()]
    about = [
        (label, run.key(key))
        for label, key in (
            ("paper", "recipe.paper"),
            ("published", "recipe.published"),
            ("method", "method.name"),
        )
        if run.key(key)
    ]
    try:
        full = (run.path / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        full = ""
    return join(
        [
            table(about) if about else "",
            tag("h3", "Changed against the recipe file"),
            table(changed) if changed else tag("p", "Nothing.", class_="faint"),
            tag("h3", "All keys"),
            tag("details", tag("summary", "config.yaml"), preformatted(full)),
        ]
    )


def _events(run: RunFacts) -> Iterator[Markup]:
    kinds = Counter(str(event.get("event")) for event in run.events)
    if kinds:
        yield table([(kind, times) for kind, times in kinds.most_common()])
    resumes = [str(event.get("step")) for event in run.events_named("resume")]
    if resumes:
        yield tag("p", f"Resumed at step {', '.join(resumes)}.")
    singly = [event for event in run.events if event.get("event") not in _PLAIN_EVENTS]
    if singly:
        yield tag("h3", f"The latest of what was out of the ordinary ({len(singly)} in all)")
        rows = []
        for event in singly[-_LISTED:]:
            rest = {k: v for k, v in event.items() if k not in ("event", "step", "time")}
            detail = ", ".join(f"{key} {value}" for key, value in rest.items())
            rows.append((event.get("event"), f"step {event.get('step')}", detail))
        yield table(rows)


def _next(path: Path) -> Markup:
    steps = next_steps(path)
    return preformatted("\n".join(command for _, command in steps)) if steps else Markup("")


def _environment(environment: dict[str, Any]) -> Markup:
    rows: list[tuple[object, ...]] = []
    for key, value in environment.items():
        if key == "earlier" or value in (None, [], {}):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items() if version)
        elif isinstance(value, list):
            value = ", ".join(f"{times} x {item}" for item, times in Counter(value).items())
        rows.append((key.replace("_", " "), value))
    if earlier := environment.get("earlier"):
        rows.append(("earlier environments", len(earlier)))
    return table(rows) if rows else Markup("")
