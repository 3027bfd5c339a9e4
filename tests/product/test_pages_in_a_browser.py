"""The pages that a run writes, opened in a browser at a phone's width, in light and in dark."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite.cli.main import main
from tests import needs

PHONE = 390  # CSS pixels
# Light and dark, by the number that Chromium has for them, and what a page's margin may be.
SCHEMES = {"dark": (0, (0, 60)), "light": (1, (230, 255))}
# Reads a page from outside, in a frame, so that its own policy against scripts stays.
LOOK = """<!doctype html><body style="margin: 0"><iframe id="page" style="border: 0" width="{width}"
 height="800" srcdoc="{page}"></iframe><pre id="seen"></pre><script>
addEventListener("load", () => {{
  const page = document.getElementById("page");
  const inside = page.contentDocument, frame = page.contentWindow;
  document.getElementById("seen").textContent = "seen " + JSON.stringify({{
    wide: inside.documentElement.scrollWidth,
    headings: [...inside.querySelectorAll("h2")].map(h => h.textContent),
    images: inside.images.length,
    broken: [...inside.images].filter(i => !i.naturalWidth).length,
    requests: frame.performance.getEntriesByType("resource").map(e => e.name),
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Run a headless Chromium that reaches no network."""
    program = needs.program("chromium")
    profile = tmp_path_factory.mktemp("profile")

    def run(page: Path, *options: str) -> str:
        command = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--user-data-dir={profile}", *options, page.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("pages") / "run"
    for words in (
        ["pretrain", "image/mae-tiny-fashion", "--smoke", "--out", run, "data.limit=600"],
        ["knn", run, "--baselines", "data.limit=600"],
        ["card", run],
    ):
        assert main([str(word) for word in words]) == 0
    return run


@pytest.mark.parametrize("name", ["report.html", "card.html"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_on_a_phone(chromium, run_dir, tmp_path, name, scheme):
    number, (least, most) = SCHEMES[scheme]
    colours = f"--blink-settings=preferredColorScheme={number}"
    picture = tmp_path / "page.png"
    chromium(
        run_dir / name, colours, f"--window-size={PHONE},1600", "--hide-scrollbars",
        f"--screenshot={picture}",
    )  # fmt: skip
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.shape == (1600, PHONE)
    assert least <= pixels[:, 0].min() <= pixels[:, 0].max() <= most  # the margin
    assert pixels.std() > 10  # and something on it


@pytest.mark.parametrize("name", ["report.html", "card.html"])
def test_a_page_fits_a_phone_and_loads_nothing(chromium, run_dir, tmp_path, name):
    page = (run_dir / name).read_text(encoding="utf-8")
    outer = tmp_path / "look.html"
    outer.write_text(LOOK.format(width=PHONE, page=html.escape(page)), encoding="utf-8")
    shown = re.search(r"seen (\{.*\})</pre>", chromium(outer, "--dump-dom"))
    seen = json.loads(html.unescape(shown[1]))
    assert seen["wide"] <= PHONE
    assert len(seen["headings"]) >= 3
    assert seen["images"] >= 2
    assert seen["broken"] == 0
    assert seen["requests"] == []
