"""A modality of one's own is one file: it is packed, trained on, drawn and probed as others are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

PLUGIN = '''
"""Signals of one dimension as .npy, and a method that fills in their masked parts."""
import io
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from mimsuite.config.vocabulary import *
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.modalities import Modality, register
from mimsuite.data.views import Views
from mimsuite.masking import RandomSampler
from mimsuite.methods import Method, Output, Panel
from mimsuite.models import Features


class SignalModelSection(Section):
    length: Positive = 64  # numbers
    patch: Positive = 8
    width: Positive = 16


class SignalSection(MethodSection):
    name: Literal["signal"]


class SignalRecipe(Recipe):
    method: SignalSection
    model: SignalModelSection
    mask: RandomMaskSection
    target: Nothing = Nothing()


class SignalDecoder(Decoder):
    extensions = ("npy",)
    channel_count = 1

    def __init__(self, channels="native", max_pixels=0):
        pass

    def __call__(self, payload):
        try:
            array = np.load(io.BytesIO(payload), allow_pickle=False)
        except ValueError as fault:
            raise CorruptSample("decode", str(fault)) from None
        return torch.from_numpy(array.astype(np.float32))


class SignalViews(Views):
    main = "signal"

    def __init__(self, recipe):
        self.length = recipe.model.length

    def train(self, sample, rng):
        return {"signal": sample[: self.length] * float(rng.uniform(0.9, 1.1))}

    def evaluate(self, sample):
        return {"signal": sample[: self.length]}

    def normalizer(self, device):
        return lambda batch: batch.to(device)

    def shapes(self):
        return {"signal": (self.length,)}

    def raw(self, batch):
        return batch.views["signal"].flatten(1)


class SignalCodec:
    def facts(self, source, sample):
        return {"length": len(source.decode(sample))}

    def store(self, source, sample, options):
        source.decode(sample)
        return {"npy": sample.payload}

    def picture(self, source, sample):
        return Image.new("RGB", (96, 96), "white")


register(
    Modality(
        "signals", stored=("npy",), decoder=SignalDecoder, views=SignalViews, codec=SignalCodec
    )
)


class SignalEncoder(nn.Module):
    depth = 1

    def __init__(self, section):
        super().__init__()
        self.section, self.grid = section, (section.length // section.patch,)
        self.embed = nn.Linear(section.patch, section.width)

    def patches(self, signal):
        return signal.unflatten(1, (-1, self.section.patch))

    def encode(self, batch, layers=()):
        tokens = self.embed(self.patches(batch.views["signal"])).abs()
        return Features(tokens[:, :0], tokens, {n: tokens for n in layers})

    def layer_id(self, name):
        return 0


class Signal(Method):
    Recipe = SignalRecipe

    def __init__(self, recipe):
        super().__init__(recipe)
        self.encoder = SignalEncoder(recipe.model)
        self.head = nn.Linear(recipe.model.width, recipe.model.patch)
        self.sampler = RandomSampler(recipe.mask)

    def mask(self, batch, noise, ctx):
        (count,) = self.encoder.grid
        return {"signal": self.sampler(noise.rows("mask", count), self.encoder.grid)}

    def forward(self, batch, masks, ctx):
        mask = masks["signal"]
        patches = self.encoder.patches(batch.views["signal"])
        seen = mask.gather(self.encoder.embed(patches), "visible").mean(1, keepdim=True)
        guess = self.head(seen).expand(-1, mask.masked.shape[1], -1)
        loss = (guess - mask.gather(patches, "masked")).square().mean()
        return Output(loss, {}, guess, masks)

    def panels(self, batch, masks, ctx):
        signal = batch.views["signal"]
        rows = torch.linspace(1, -1, 32)[None, :, None]
        return [Panel("signal", (signal[:, None] > rows).float()[:, None].expand(-1, 3, -1, -1))]
'''

RECIPE = """
recipe: {title: signals, modality: signals}
method: {name: signal}
model: {length: 64}
mask: {ratio: 0.5}
data: {channels: native, workers: 1}
optim: {lr: 1e-2}
schedule: {epochs: 2}
train: {global_batch: 8}
"""


def mimsuite(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mimsuite", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def test_signals_are_packed_trained_on_drawn_and_probed(tmp_path: Path) -> None:
    plugin, recipe, run = tmp_path / "signals.py", tmp_path / "signals.yaml", tmp_path / "run"
    plugin.write_text(PLUGIN)
    recipe.write_text(RECIPE)
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 16)):
        for number in range(count):
            wave = np.sin(np.arange(64) / (2, 5)[number % 2] + rng.uniform(0, 6))
            path = tmp_path / "waves" / split / ("fast", "slow")[number % 2] / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, wave.astype(np.float32))
    (tmp_path / "waves/train/fast/0.npy").write_bytes(b"damaged")
    own, shards = ("--plugin", plugin), tmp_path / "shards"
    packed = mimsuite("data", "pack", tmp_path / "waves", shards, "--modality", "signals", *own)
    assert "55 signals samples" in packed.stderr
    assert "0.npy" in packed.stderr
    mimsuite("pretrain", recipe, *own, "--data", shards, "--out", run)
    assert (run / "DONE").exists()
    mimsuite("reconstruct", run, *own, "--input", shards, "--out", tmp_path / "drawn", "--n", 2)
    assert list((tmp_path / "drawn").glob("*.png"))
    probe = json.loads(mimsuite("linear-probe", run, *own, "--data", shards, "--json").stdout)
    assert probe["accuracy"]["pretrained"] > 0.5
    wrong = mimsuite("data", "inspect", shards, code=2)
    assert "no modality 'signals'" in wrong.stderr
