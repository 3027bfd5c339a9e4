"""Counts of what a recipe costs, beside the same of real steps."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.methods import build
from mimsuite.noise import Noise
from mimsuite.train.estimate import estimate
from mimsuite.train.random_batches import random_batch, shapes_of
from mimsuite.train.step import run_method

MEASURE = """
import json, sys
import torch
from mimsuite import config
from mimsuite.data.workers import resident_mb
from mimsuite.train.bench import Stepper
from mimsuite.train.device import peak_memory_mb
import os
torch.set_num_threads(1)
resolved = config.load(sys.argv[2], sys.argv[3:])
torch.mm(torch.ones(64, 64), torch.ones(64, 64))
before = resident_mb([os.getpid()])
run = Stepper(resolved, int(sys.argv[1]), torch.device("cpu"))
for _ in range(2):
    run()
print(json.dumps(2**20 * (peak_memory_mb(torch.device("cpu")) - before)))
"""
# Much of it weights and optimizer, or nearly all of it activations.
SIZES = {
    "weights": (1, ("model.encoder.width=768", "model.encoder.depth=3", "model.decoder.depth=2")),
    "activations": (
        12,
        ("model.encoder.width=192", "model.encoder.heads=3", "model.decoder.width=256"),
    ),
}


def recipe_of(keys: tuple[str, ...] = ()) -> Resolved:
    return config.load("image/mae-vitb16-in1k", list(keys))


@pytest.mark.parametrize("name", SIZES)
def test_the_memory_estimate_is_within_35_percent_of_the_measured_peak(name):
    batch, keys = SIZES[name]
    command = [sys.executable, "-c", MEASURE, str(batch), "image/mae-vitb16-in1k", *keys]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    expected = estimate(recipe_of(keys).recipe).memory(batch).total
    print(f"{name}: estimated {expected / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    assert expected == pytest.approx(measured, rel=0.35)


def test_the_peak_is_that_of_this_process_not_of_its_launcher():
    held = torch.ones(200 * 2**18)  # 200 MiB here, which a child must not count
    code = (
        "import torch; from mimsuite.train.device import peak_memory_mb; "
        "from mimsuite.data.workers import resident_mb; import os; "
        "print(peak_memory_mb(torch.device('cpu')) - resident_mb([os.getpid()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(done.stdout) < held.nbytes / 2**20 / 2, done.stderr


def test_flops_and_parameters_are_those_of_a_real_step():
    recipe = recipe_of(("model.encoder.depth=2", "model.decoder.depth=1")).recipe
    counted = estimate(recipe)
    method = build(recipe).train()
    batch = random_batch(shapes_of(recipe), 2, torch.device("cpu"))
    # Attention as plain matrix products, which torch's own counter knows on every machine.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run_method(method, batch, Noise(0, 0, batch.index)).loss.backward()
    assert counted.flops == counter.get_total_flops() // 2
    assert counted.counted == "forward and backward"
    assert counted.parameters == sum(p.numel() for p in method.parameters())


def test_autocast_halves_most_activations_and_casts_the_weights():
    recipe = recipe_of().recipe
    full, half = estimate(recipe), estimate(recipe, "bf16")
    assert half.flops == full.flops
    assert 0.5 < half.sample_bytes / full.sample_bytes < 0.65
    assert half.fixed_bytes == pytest.approx(2 * full.trained, rel=0.05)


def test_recomputed_blocks_keep_less():
    recipe = recipe_of().recipe
    less = estimate(recipe_of(("train.checkpoint_activations=true",)).recipe)
    assert less.sample_bytes < estimate(recipe).sample_bytes / 4
    assert less.flops > estimate(recipe).flops


@pytest.mark.parametrize("on_host", [False, True])  # there, the first samples cost nothing more
def test_the_largest_micro_batch_fits_and_one_more_does_not(on_host):
    counted = estimate(recipe_of().recipe)
    samples = counted.largest_micro_batch(16e9, on_host=on_host)
    fits, too_many = (counted.memory(n, on_host=on_host).total for n in (samples, samples + 1))
    assert fits <= 16e9 < too_many
    assert counted.largest_micro_batch(1e9) == 0
