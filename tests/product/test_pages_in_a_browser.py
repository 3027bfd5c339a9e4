"""The pages that a run writes, opened in a browser: phone and desk, light and dark."""

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

PHONE, DESK = 390, 1200  # CSS pixels
# Light and dark, by the number that Chromium has for them, and what a page's margin may be.
SCHEMES = {"dark": (0, (0, 60)), "light": (1, (230, 255))}
# Reads a page from outside, in a frame, so that its own policy against scripts stays.
LOOK = """<!doctype html><body style="margin: 0"><iframe id="page" style="border: 0" width="{width}"
 height="800" srcdoc="{page}"></iframe><pre id="seen"></pre><script>
addEventListener("load", () => {{
  const page = document.getElementById("page");
  const inside = page.contentDocument, frame = page.contentWindow;
  const all = (what) => [...inside.querySelectorAll(what)];
  const place = (one) => one.getBoundingClientRect();
  const named = (one) => one.tagName + ": " + one.textContent.slice(0, 40);
  const outside = all("main *").filter(one => !one.closest(".scroll, pre") && place(one).width
    && (place(one).right > {width} || place(one).left < 0));
  const cut = all("main *").filter(one => !one.closest(".scroll, pre, svg")
    && one.scrollWidth > one.clientWidth + 1 && one.clientWidth);
  const over = all("main > *, section > *, figure > *").filter(one => {{
    let next = one.nextElementSibling;
    while (next && !place(next).height) next = next.nextElementSibling;
    return next && place(one).height && place(next).top < place(one).bottom - 1;
  }});
  const slider = inside.querySelector("input[type=range]");
  const shown = () => [...slider.parentElement.nextElementSibling.children]
    .filter(one => place(one).height).map(one => one.querySelector("figcaption").textContent);
  const moved = {{}};
  for (const value of slider ? [slider.value, "0"] : []) {{
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
    moved[value] = [slider.getAttribute("aria-valuetext"), ...shown()];
  }}
  if (slider) slider.focus();
  document.getElementById("seen").textContent = "seen " + JSON.stringify({{
    wide: inside.documentElement.scrollWidth,
    headings: all("h2").map(h => h.textContent),
    images: inside.images.length,
    broken: [...inside.images].filter(i => !i.naturalWidth).length,
    requests: frame.performance.getEntriesByType("resource").map(e => e.name),
    faults: [...outside, ...cut, ...over].map(named),
    moved, focused: slider && inside.activeElement === slider,
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Run a headless Chromium that reaches no network."""
    program = needs.program("chromium")
    profile = tmp_path_factory.mktemp("profile")

    def run(page: Path, *options: str) -> str:
        """What it prints; an error or a warning on the page's console is a failure."""
        command = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"),
            "--enable-logging=stderr",
            *(f"--user-data-dir={profile}", *options, page.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("pages") / "run"
    every = "log.pictures_every_epochs=0.5"
    for words in (
        ["pretrain", "image/mae-tiny-fashion", "--smoke", "--out", run, "data.limit=600", every],
        ["knn", run, "--baselines", "data.limit=600"],
        ["card", run],
        ["runs", "compare", run, run, "--out", run / "both.html"],
    ):
        assert main([str(word) for word in words]) == 0
    return run


PAGES = ("report.html", "card.html", "both.html")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_is_light_or_dark(chromium, run_dir, tmp_path, name, scheme):
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


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_page_fits_loads_nothing_and_its_slider_moves(chromium, run_dir, tmp_path, name, width):
    page = (run_dir / name).read_text(encoding="utf-8")
    outer = tmp_path / "look.html"
    outer.write_text(LOOK.format(width=width, page=html.escape(page)), encoding="utf-8")
    size = f"--window-size={width},1000"
    shown = re.search(r"seen (\{.*\})</pre>", chromium(outer, "--dump-dom", size))
    seen = json.loads(html.unescape(shown[1]))
    assert seen["faults"] == []
    assert seen["wide"] <= width
    assert len(seen["headings"]) >= 3
    assert seen["images"] >= 2
    assert seen["broken"] == 0
    assert seen["requests"] == []
    assert len(seen["moved"]) == 2
    newest, oldest = sorted(seen["moved"].items(), reverse=True)
    assert newest[1] == ["After step 8"] * 2  # one picture, and what the slider says of it
    assert oldest[1] == ["After step 2"] * 2
    assert seen["focused"]


def test_results_come_first(run_dir):
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    found = re.findall("<h2>(.*?)</h2>", page)
    assert found[:3] == ["Verdict", "Against the baselines", "Probes"]
    assert found[3:5] == ["Reconstructions", "Curves"]
    assert found[-1] == "Environment"
    assert 'href="card.html"' in page
