"""The part of a run's page that shows its dictionaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mimsuite.dictionaries.show import figure_lines
from mimsuite.report.html import Markup, picture, table, tag
from mimsuite.report.run_facts import read_json


def dictionaries(run: Path) -> Iterator[Markup]:
    """Figures, the concept sheet and links to the files, of each dictionary of a run."""
    for path in sorted(run.glob("dictionary*/dictionary.json")):
        result = read_json(path)
        if "explained_variance" not in result:
            continue
        folder = path.parent
        title = f"{folder.name}: {result.get('kind')}, {result.get('codes')} codes"
        yield tag("h3", title)
        yield table(list(figure_lines(result)))
        yield tag("p", str(result.get("protocol", "")), class_="faint")
        sheet = folder / "concepts.png"
        if sheet.is_file():
            caption = (
                "Codes of most energy. Below each, the held-out images that have most of it, dark "
                "where the code is silent."
            )
            yield picture(sheet.read_bytes(), caption)
        files = [f"{folder.name}/{name}" for name in _FILES if (folder / name).is_file()]
        links = [tag("a", name, href=name) for name in files]
        yield tag("p", *(part for link in links for part in (link, " ")))


_FILES = ("concepts.png", "dictionary.json", "dictionary.safetensors", "overcomplete.safetensors")
