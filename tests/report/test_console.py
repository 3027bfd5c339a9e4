from __future__ import annotations

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mimsuite import console
from mimsuite.report import banner, progress, say, warn
from mimsuite.report import progress as progress_module
from mimsuite.text import clean, count, duration, number, steady, without_credentials

FIGURES = {
    "loss": 0.81,
    "lr": 1.5e-4,
    "grad_norm": 0.5,
    "samples_per_second": 3120.0,
    "data_wait": 0.025,
    "memory_mb": 1234.0,
}


@given(st.text())
def test_clean_text_is_one_printable_line(text):
    line = clean(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)
    assert line.splitlines() in ([line], [])
    line.encode()


def test_clean_removes_what_a_terminal_would_obey():
    assert clean("a\x1b[31mred\x1b[0m\x1b]0;title\x07b") == "aredb"
    assert clean("photo\u202egpj.exe") == "photogpj.exe"
    assert clean("bad\udcffbyte") == "bad\\udcffbyte"


def test_credentials_are_not_shown():
    shown = without_credentials("s3://key:secret@host/a?X-Signature=abc and file.tar")
    assert shown == "s3://***@host/a?... and file.tar"


def test_figures_read_easily():
    assert [count(n) for n in (999, 12_345, 111_907_840)] == ["999", "12.3 k", "111.9 M"]
    assert [duration(s) for s in (9, 3723, 100_000, float("inf"))] == [
        "0:09", "1:02:03", "1d 03:46", "-",
    ]  # fmt: skip
    assert [number(v) for v in (0.8, 31240.4, 1.2e-5, 4.0)] == ["0.8", "31240", "1.2e-05", "4"]
    assert [steady(v) for v in (0.8, 12.0, 31240.4)] == ["0.8000", "12.00", "31240"]


def test_markup_of_others_is_text(capsys):
    say("[bold]x[/bold] [/nonsense]")
    warn("see [link=http://x]here[/link]\nand \x1b[2Jthere")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "[bold]x[/bold] [/nonsense]",
        "warning: see [link=http://x]here[/link] and there",
    ]


def test_banner_says_what_runs(resolved, tmp_path, capsys):
    logged = []
    banner(
        resolved, run_dir=tmp_path, accumulation=4, devices=2, steps=1000, start=20,
        parameters=111_907_840, trained=111_000_000, samples=5_000, samples_dropped=7,
        unused=[".heic files (4): a.heic ..."], device="cuda:0",
        precision="bf16", notes=["weights from x"], log=logged.append,
    )  # fmt: skip
    printed = capsys.readouterr()
    for text in (
        "pretrain image/small",
        "mask.ratio=0.75  (command line)",
        "64 = 8 per device x 2 devices x 4 accumulation",
        "3.75e-05 = 0.00015 x 64 / 256",
        "1000 (2 epochs, 7 samples of each left out), resumed after 20",
        "111.9 M parameters, 111.0 M trained; bf16 on cuda:0",
        str(tmp_path),
        "weights from x",
        ": 5,000 samples",
        ".heic files (4): a.heic ...",
    ):
        assert text in printed.err
    assert printed.out == ""
    assert len(logged) == len(printed.err.splitlines())


def test_plain_lines_outside_a_terminal(capsys):
    logged = []
    with progress(100, 40, every=20, log=logged.append) as line:
        for step in range(45, 101, 5):
            line.update(step, **FIGURES)
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert [text.split("  ")[0] for text in lines] == ["step 60/100", "step 80/100", "step 100/100"]
    assert "loss 0.8100  lr 1.50e-04  grad 0.500  3120 samples/s  wait 2%  mem 1.2 GB" in lines[0]
    assert lines[-1].endswith("eta 0:00")
    assert logged == lines


def test_quiet_is_quiet(capsys):
    with progress(10, quiet=True) as line:
        line.update(10, **FIGURES)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("width", [60, 80, 140])
def test_live_line_on_a_terminal_fits(monkeypatch, capsys, width):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=width, color_system=None)
    monkeypatch.setitem(progress_module.__globals__, "stderr", lambda: terminal)
    with progress(100) as line:
        line.update(20, **FIGURES)
        print("for machines")
    shown = screen.getvalue()
    assert "20/100" in shown
    assert "eta" in shown
    assert ("samples/s" in shown) == (width == 140)
    assert capsys.readouterr().out == "for machines\n"
    lines = shown.replace("\r", "\n").split("\n")
    assert all(len(clean(text)) <= width for text in lines)


def test_eta_follows_recent_speed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress(1000, quiet=True) as line:
        assert line.eta() == float("inf")
        for step in range(1, 101):
            now[0] += 100.0 if step == 1 else 0.5  # the first step compiles
            line.update(step, **FIGURES)
        assert line.eta() == pytest.approx(450.0)


def test_importing_the_report_does_not_import_torch():
    code = "import mimsuite.report, sys; print({'torch', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_one_console_for_all():
    assert console.stderr() is console.stderr()
