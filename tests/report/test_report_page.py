from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import pytest
from PIL import Image

from mimsuite.report import first_pictures, save_curves, write_page
from mimsuite.report.html import escape, tag
from mimsuite.report.slides import SCRIPT
from mimsuite.report.smoothing import smoothed

EVIL = "<script>alert('x')</script>\x1b[31m & \"quoted\""
VOID = ("meta", "img", "source", "link", "br")


class Checker(HTMLParser):
    """Collects tags, and fails on tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def checked(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture
def full_run(run, method, batch):
    run.event("start", 0, parameters=12345)
    for step in range(10, 1010, 10):
        loss = math.nan if step == 500 else 1 / step + 0.3
        run.metrics(step, {"epoch": step / 100, "loss": loss, "lr": 1e-4, "grad_norm": 1.0})
    run.event("resume", 300)
    run.event("bad_sample", 310, key=EVIL, shard="s3://key:secret@host/s.tar?sign=hidden")
    first_pictures(run, method, batch, seed=0)
    for step in (200, 400, 600, 800, 1000):
        first_pictures(run, method, batch, seed=0, step=step)
    scores = {"pretrained": 0.81, "random_init": 0.6, EVIL: 0.1, "majority": None}
    probe = {"accuracy": scores, "balanced_accuracy": scores, "protocol": EVIL}
    (run.path / "linear_probe.json").write_text(json.dumps(probe | {"n_train": 50, "n_test": 10}))
    (run.path / "knn.json").write_text("{ not json")
    (run.path / "config.yaml").write_text(
        f"recipe:\n  title: {json.dumps(EVIL[:27])}\n# {EVIL[:27]}"
    )
    run.finish("DONE", step=1000)
    return run


def test_page_shows_the_run_and_escapes_everything(full_run):
    page = write_page(full_run.path).read_text()
    found = checked(page)
    assert found.tags.count("script") == 1
    assert f"<script>{SCRIPT}</script>" in page  # and no other may run:
    assert "script-src 'sha256-" in page
    assert "<script>alert('x')</script>" in found.text
    page = page.replace(SCRIPT, "")
    assert "\x1b" not in page
    assert "secret" not in page
    assert "hidden" not in page
    for text in ("done", "81.0 %", "60.0 %", "Resumed at step 300.", "bad_sample", "12.3 k"):
        assert text in found.text
    assert found.tags.count("img") == 1 + 5 + 1  # curves, reconstructions, first batch
    assert found.text.index("After step 1000") < found.text.index("After step 200")
    titles = [found.text.index(title) for title in ("Probes", "Reconstructions", "Curves", "Data")]
    assert titles == sorted(titles)  # results first


def test_page_loads_nothing_and_suits_phones_and_dark_rooms(full_run):
    page = write_page(full_run.path).read_text()
    found = checked(page)
    for name, value in found.attributes:
        if name in ("src", "srcset", "href", "action"):
            assert value.startswith("data:image/png;base64,")
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert ("name", "viewport") in found.attributes
    assert "max-width: 100%" in page


def test_page_of_a_run_that_has_just_begun(run):
    found = checked(write_page(run.path).read_text())
    assert "not finished" in found.text
    assert "img" not in found.tags


def test_page_of_damaged_files(run):
    run.finish("FAILED", reason="OutOfMemoryError: [bold]")
    for name in ("config.yaml", "env.json", "metrics.jsonl", "events.jsonl", "DONE"):
        (run.path / name).write_bytes(b"\xff\x00[1, {")
    assert write_page(run.path) is not None
    (run.path / "DONE").unlink()
    assert "OutOfMemoryError: [bold]" in checked(write_page(run.path).read_text()).text


def test_a_page_that_cannot_be_written_is_only_a_warning(run, capsys):
    (run.path / "report.html").mkdir()
    assert write_page(run.path) is None
    assert "warning: cannot write" in capsys.readouterr().err


def test_markup_is_escaped_where_it_is_put_together():
    assert escape('<a href="x">') == "&lt;a href=&quot;x&quot;&gt;"
    assert str(tag("p", "<b>", tag("i", "&"), title='"')) == (
        '<p title="&quot;">&lt;b&gt;<i>&amp;</i></p>'
    )


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_curves_of_any_length(run, rows):
    assert save_curves(run.path) is None
    for step in range(1, rows + 1):
        run.metrics(step, {"loss": 100 / step, "lr": 0.0, "grad_norm": math.inf})
    picture = save_curves(run.path)
    path = run.images / "curves.png"
    assert path.read_bytes() == picture
    assert Image.open(path).width > 1000


def test_smoothing_keeps_constants_and_skips_gaps():
    assert smoothed([2.0] * 9, 5) == pytest.approx([2.0] * 9)
    assert smoothed([1.0, math.nan, 1.0], 3) == pytest.approx([1.0, 1.0, 1.0])
    assert smoothed([3.0], 1) == [3.0]
    line = smoothed([float(i) for i in range(50)], 5)
    assert line[25] == pytest.approx(25.0, abs=0.01)  # nothing lags behind


def test_page_shows_figures_of_any_kind(full_run):
    figures = [
        {"name": "ap_25", "title": "AP25", "unit": "%"},
        {"name": "psnr", "title": "PSNR", "unit": "dB"},
    ]
    values = {"ap_25": {"pretrained": 0.5, "from_scratch": None}, "psnr": {"pretrained": 21.5}}
    (full_run.path / "finetune.json").write_text(json.dumps({"figures": figures, **values}))
    found = checked(write_page(full_run.path).read_text())
    for text in ("AP25", "50.0 %", "21.50 dB"):
        assert text in found.text
    (full_run.path / "finetune.json").write_text(json.dumps({"figures": [1, {}], "protocol": EVIL}))
    checked(write_page(full_run.path).read_text())
