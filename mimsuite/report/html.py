"""Building blocks of a self-contained page; all foreign text is escaped here, in one place."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mimsuite.text import clean, without_credentials

STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #ffffff; --ink: #1f2937;
  --faint: #6b7280; --line: #e5e7eb; --accent: #2563eb; --good: #047857; --bad: #b91c1c;
  --wait: #b45309; --code: #f1f3f5; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --card: #161b22; --ink: #d1d5db;
  --faint: #8b949e; --line: #2d333b; --accent: #60a5fa; --good: #34d399; --bad: #f87171;
  --wait: #fbbf24; --code: #0d1117; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 940px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 12px; }
h3 { font-size: .9rem; margin: 16px 0 6px; color: var(--faint); font-weight: 600; }
p { margin: 0 0 10px; } a { color: var(--accent); }
.faint { color: var(--faint); overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin-top: 16px; }
.badge { display: inline-block; padding: 0 10px; border-radius: 99px; border: 1px solid;
  font-size: .8rem; font-weight: 600; vertical-align: middle; }
.done { color: var(--good); } .failed { color: var(--bad); } .preempted { color: var(--wait); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 14px; }
.figures dt { color: var(--faint); font-size: .8rem; }
.figures dd { margin: 0; font-size: 1.2rem; font-weight: 600; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr));
  gap: 14px; }
.columns > * { min-width: 0; } .columns h3 { margin-top: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0; overflow-wrap: anywhere;
  border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
th { color: var(--faint); font-weight: 600; overflow-wrap: normal; }
.pairs th { width: 34%; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll + p { margin-top: 6px; } main > p { margin-top: 14px; }
.bar { background: var(--line); border-radius: 3px; height: 8px; margin-top: 7px; min-width: 50px; }
.bar i { display: block; height: 8px; border-radius: 3px; background: var(--faint); }
.bar.ours i { background: var(--accent); }
figure { margin: 0 0 14px; } figure:last-child { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 6px; margin: 0 auto; }
figcaption { color: var(--faint); font-size: .85rem; margin-bottom: 6px; }
label:has(+ .slides) { display: flex; gap: 14px; align-items: center; margin-bottom: 10px; }
input[type=range] { flex: 1; min-width: 0; height: 28px; accent-color: var(--accent); }
output { font-size: .85rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.single figcaption { display: none; } .single figure { margin: 0; }
pre, code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--code); border: 1px solid var(--line); border-radius: 6px; margin: 0;
  padding: 8px 12px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
details summary { cursor: pointer; color: var(--faint); } details pre { margin-top: 10px; }
@media (max-width: 560px) { section { padding: 14px; border-radius: 8px; }
  main { padding: 16px 10px 32px; } .chart img { max-width: none; width: 600px; }
  th, td { padding-right: 8px; } }
@media screen and (prefers-color-scheme: dark) { .chart { background: var(--card); }
  .chart img { filter: invert(.91) hue-rotate(180deg); mix-blend-mode: lighten; } }
@media print { section { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Markup:
    """HTML that is ready; plain strings are escaped wherever they meet it."""

    text: str

    def __str__(self) -> str:
        return self.text


def escape(value: object) -> str:
    """One line of foreign text as HTML, without control characters and passwords."""
    if isinstance(value, Markup):
        return value.text
    return html.escape(without_credentials(clean(value)))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """``<name attr="...">children</name>``; ``class_`` is the class attribute."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value
    )
    return Markup(f"<{name}{given}>{''.join(map(escape, children))}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Parts one after the other."""
    return Markup("".join(map(escape, parts)))


def preformatted(text: str) -> Markup:
    """Text of several lines, as it is."""
    return tag("pre", Markup("\n".join(map(escape, text.splitlines()))))


def table(rows: Sequence[Sequence[object]], head: Sequence[object] = ()) -> Markup:
    """Rows of cells, the first of each a heading; it scrolls by itself where it is too wide."""
    lines = [tag("tr", *(tag("th", cell) for cell in head))] if head else []
    lines += [tag("tr", tag("th", row[0]), *(tag("td", cell) for cell in row[1:])) for row in rows]
    pairs = not head and all(len(row) == 2 for row in rows)
    return tag("div", tag("table", *lines, class_="pairs" if pairs else ""), class_="scroll")


def picture(png: bytes, caption: str, *, chart: bool = False) -> Markup:
    """An embedded picture.

    Args:
        chart: it is drawn on white: dark pages invert it. On a phone it scrolls by itself, so that
            its words stay readable.
    """
    image = Markup(f'<img src="{_data(png)}" alt="{escape(caption)}">')
    if chart:
        image = tag("div", image, class_="scroll chart")
    return tag("figure", tag("figcaption", caption), image)


def section(title: str, content: Markup) -> Markup:
    """A part under its title; empty without content."""
    return tag("section", tag("h2", title), content) if content.text else content


def document(title: str, *body: object, script: str = "") -> str:
    """A whole page that loads nothing from elsewhere, and is forbidden to.

    Args:
        script: the only one that may run; the page's policy names it by its hash.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = hashlib.sha256(script.encode()).digest()
        policy += f"; script-src 'sha256-{base64.b64encode(digest).decode()}'"
    ending = f"<script>{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{tag('main', *body)}\n{ending}</body>\n</html>\n"
    )


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
