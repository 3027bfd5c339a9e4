"""A method of one's own is one file and one recipe: nothing else is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

METHOD = '''
"""Toy: predict the mean colour of each masked patch from the average of the visible tokens."""
from typing import Literal

from torch import nn

from mimsuite.config.vocabulary import *
from mimsuite.masking import RandomSampler
from mimsuite.methods import Method, Output, Panel
from mimsuite.models import build_encoder
from mimsuite.tokens import unpatchify


class ToySection(MethodSection):
    name: Literal["toy"]
    weight: float = 1.0


class ToyModelSection(Section):
    encoder: ViTSection


class ToyRecipe(Recipe):
    method: ToySection
    model: ToyModelSection
    mask: RandomMaskSection
    target: EmptySection = EmptySection()


class Toy(Method):
    Recipe = ToyRecipe

    def __init__(self, recipe):
        super().__init__(recipe)
        self.encoder = build_encoder(recipe.model.encoder)
        self.head = nn.Linear(recipe.model.encoder.width, 1)
        self.sampler = RandomSampler(recipe.mask)

    def mask(self, batch, noise, ctx):
        grid = self.encoder.grid
        return {"image": self.sampler(noise.rows("mask", grid[0] * grid[1]), grid)}

    def forward(self, batch, masks, ctx):
        ids = masks["image"].visible
        visible = self.encoder.patches(batch.image, ids)
        guess = self.head(self.encoder(visible, ids, noise=ctx.noise).pool("mean"))
        wanted = self.encoder.patches(batch.image, masks["image"].masked).mean(-1)
        loss = self.recipe.method.weight * (guess - wanted).square().mean()
        return Output(loss, {"colour": loss.detach()}, guess, masks)

    def panels(self, batch, masks, ctx):
        hidden = masks["image"].dense()[..., None]
        seen = self.encoder.patches(batch.image).masked_fill(hidden, 0.0)
        picture = unpatchify(seen, self.recipe.model.encoder.patch_size, self.encoder.grid)
        return [Panel("original", batch.image), Panel("masked", picture)]
'''

RECIPE = """
recipe: {title: toy}
method: {name: toy, weight: 2.0}
model: {encoder: {image_size: 28, patch_size: 7, in_channels: 1, width: 16, depth: 1, heads: 2}}
mask: {ratio: 0.5}
data: {source: "embedded:fashion-mnist", channels: gray, workers: 0}
augment: {crop: none, mean: [0.29], std: [0.35]}
optim: {lr: 1e-3}
schedule: {epochs: 0.05}
train: {global_batch: 64}
"""


def mimsuite(*arguments: object) -> str:
    command = [sys.executable, "-m", "mimsuite", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_toy_method_pretrains_reconstructs_and_is_probed(tmp_path: Path) -> None:
    plugin, recipe, run = tmp_path / "toy.py", tmp_path / "toy.yaml", tmp_path / "run"
    plugin.write_text(METHOD)
    recipe.write_text(RECIPE)
    mimsuite("pretrain", recipe, "--plugin", plugin, "--out", run)
    assert (run / "DONE").exists()
    pictures = tmp_path / "pictures"
    source = "embedded:fashion-mnist"
    mimsuite(
        *("reconstruct", run, "--plugin", plugin, "--input", source, "--out", pictures, "--n", 2)
    )
    assert list(pictures.glob("*.png"))
    probe = mimsuite("linear-probe", run, "--plugin", plugin, "--data", source, "--json")
    assert 0 < json.loads(probe)["accuracy"]["pretrained"] < 1
