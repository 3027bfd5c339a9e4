"""The first hour of a new user, typed into a real terminal: own photos to an encoder in timm."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import needs
from tests.product.terminal import Terminal, terminal

# Pictures that scikit-image brings, all CC0 or in the public domain.
PICTURES = ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel")
TO_FIRST_PICTURE = 180  # seconds
pytestmark = pytest.mark.slow


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of JPEG files, 40 in a folder for each class: pieces of large photographs."""
    data = needs.module("skimage.data")
    rng = np.random.default_rng(0)
    for name in PICTURES:
        whole = Image.fromarray(np.asarray(getattr(data, name)())).convert("RGB")
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            side = int(rng.integers(120, 200))
            left = int(rng.integers(0, whole.width - side))
            top = int(rng.integers(0, whole.height - side))
            piece = whole.crop((left, top, left + side, top + side)).resize((160, 120))
            piece.save(tmp_path / "photos" / name / f"IMG_{number:04}.jpg", quality=85)
    return tmp_path / "photos"


@pytest.fixture
def shell(photos):
    needs.program("tmux")
    with terminal(photos.parent) as opened:
        yield opened


@pytest.fixture
def second(photos):
    """Another window, in the same folder."""
    with terminal(photos.parent) as opened:
        yield opened


def well(done) -> str:
    assert done.code == 0, done.text
    return done.text


def test_from_own_photos_to_an_encoder_in_timm(
    shell: Terminal, second: Terminal, photos: Path
) -> None:
    home, begun = photos.parent, time.monotonic()
    assert "240 image samples" in well(shell.type("mimsuite data pack photos shards"))
    seen = well(shell.type("mimsuite data inspect shards --sheet sheet.png"))
    assert re.search(r"^ chelsea +40$", seen, re.MULTILINE)
    assert Image.open(home / "sheet.png").width > 100

    # Interrupted after its first line of progress, and gone on with as it says.
    keys = "schedule.epochs=20 log.every_steps=5"
    command = f"mimsuite pretrain image/mae-tiny-clipart --data shards {keys} --out runs/photos"
    shell.start(command)
    assert "steps     20 (20 epochs" in shell.wait_for(r"5/20 loss [\d.]+")
    shell.interrupt()
    stopped = shell.finish()
    assert stopped.code == 75, stopped.text
    saved = re.search(r"^stopped by SIGINT after saving step (\d+)$", stopped.text, re.MULTILINE)
    (hint,) = re.findall(r"^next: (mimsuite .*)$", stopped.text, re.MULTILINE)
    assert hint == f"{command} --resume auto"
    assert "photos: PREEMPTED" in well(second.type("mimsuite runs show runs/photos --follow"))
    shell.start(hint)
    shell.wait_for(f"resumed after {saved[1]}")
    followed = well(second.type("mimsuite runs show runs/photos --follow"))
    assert "20/20" in followed
    assert "photos: DONE" in followed
    resumed = well(shell.finish())
    assert re.search(r"^next$", resumed, re.MULTILINE)
    assert (home / "runs/photos/DONE").exists()

    # What it says is next, as it says it.
    following = dict(re.findall(r"^  (look|probe|export) +(mimsuite .*)$", resumed, re.MULTILINE))
    assert "grid.png" in well(shell.type(following["look"]))
    assert time.monotonic() - begun < TO_FIRST_PICTURE
    grid = Image.open(home / "runs/photos/reconstructions/grid.png")
    assert np.asarray(grid.convert("L")).std() > 10
    probed = well(shell.type(following["probe"]))
    accuracy = float(re.search(r"pretrained +([\d.]+) %", probed)[1])
    assert accuracy > 60  # of six classes
    exported = well(shell.type(following["export"]))
    lines = exported.partition("  use  ")[2].splitlines()

    shell.start("python -q")
    for line in [*lines, "tuple(model(torch.zeros(2, 3, 64, 64)).shape)"]:
        shell.wait_for(r"^>>>\s*\Z")
        shell.start(line.strip())
    assert "\n(2, 128)" in shell.wait_for(r"^>>>\s*\Z")
    shell.start("'mimsuite' in __import__('sys').modules")
    assert "\nFalse" in shell.wait_for(r"^>>>\s*\Z")
    well(shell.type("exit()"))
