"""bf16 on a CPU: chosen by measurement, kept by a run, and as good as fp32."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mimsuite import config
from mimsuite.methods import build
from mimsuite.models.attend import WAYS, attend, attending
from mimsuite.noise import Noise
from mimsuite.train import cpu_bf16
from mimsuite.train.blocks import prepare_blocks
from mimsuite.train.cpu_bf16 import Measured, kept, measure
from mimsuite.train.optim import build_optimizer, set_lr
from mimsuite.train.precision import Precision, precision_of
from mimsuite.train.random_batches import random_batch, shapes_of
from mimsuite.train.run import train
from mimsuite.train.step import train_step

CPU = torch.device("cpu")
WIDE = config.load("image/mae-vitb16-in1k").recipe
TINY = "image/mae-tiny-fashion"
PAYS = Measured(3.0, {"fused": 2.5, "written": 1.0, "fp32": 1.5}, 768)
SLOW = Measured(1.0, {"fused": 2.5, "written": 3.0, "fp32": 2.0}, 768)


def wanting(precision: str):
    section = WIDE.train.model_copy(update={"precision": precision})
    return WIDE.model_copy(update={"train": section})


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch):
    """Set what the measurement finds; counts how often it is made."""
    calls: list[tuple[int, int]] = []

    def fake(found: Measured) -> list[tuple[int, int]]:
        def instead(width: int, heads: int) -> Measured:
            calls.append((width, heads))
            return found

        monkeypatch.setattr(cpu_bf16, "measure", instead)
        return calls

    return fake


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMSUITE_CACHE", str(tmp_path / "cache"))


def test_bf16_is_chosen_where_it_pays(faked) -> None:
    calls = faked(PAYS)
    for _ in range(2):
        chosen = precision_of(wanting("auto"), CPU)
        assert (chosen.name, chosen.attention, chosen.warning) == ("bf16", "written", None)
        assert "3.00 times the speed of fp32" in chosen.facts()["measured"]
    assert calls == [(768, 12)]  # then read from the cache
    assert precision_of(wanting("fp32"), CPU).name == "fp32"


def test_fp32_is_kept_where_bf16_does_not_pay(faked) -> None:
    faked(SLOW)
    chosen = precision_of(wanting("auto"), CPU)
    assert (chosen.name, chosen.warning) == ("fp32", None)
    forced = precision_of(wanting("bf16"), CPU)
    assert (forced.name, forced.attention) == ("bf16", "fp32")
    assert "bf16 has 0.50 times the speed of fp32" in str(forced.warning)


def test_a_narrow_model_is_not_measured(faked) -> None:
    calls = faked(PAYS)
    assert precision_of(config.load(TINY, smoke=True).recipe, CPU).name == "fp32"
    assert calls == []


@pytest.mark.parametrize("before", ["fp32", "bf16"])
def test_a_resumed_run_keeps_its_precision(faked, before: str) -> None:
    calls = faked(PAYS if before == "fp32" else SLOW)
    facts = {"name": before, "device": "cpu", "attention": "fp32", "measured": "as found"}
    chosen = precision_of(wanting("auto"), CPU, facts)
    assert (chosen.name, chosen.measured) == (before, "as found")
    assert before == "fp32" or chosen.attention == "fp32"
    assert calls == []


def test_a_run_without_recorded_precision_was_in_fp32(faked) -> None:
    faked(PAYS)
    assert precision_of(wanting("auto"), CPU, {}).name == "fp32"


def test_a_run_of_another_device_chooses_anew(faked) -> None:
    faked(PAYS)
    facts = {"name": "fp16", "device": "cuda", "attention": "fused"}
    assert precision_of(wanting("auto"), CPU, facts).name == "bf16"


def test_a_damaged_cache_is_measured_again(faked, tmp_path: Path) -> None:
    calls = faked(PAYS)
    assert kept(768, 12) == PAYS
    path = tmp_path / "cache" / "cpu-bf16.json"
    table = json.loads(path.read_text())
    odd = ({key: {"fp32": 1} for key in table}, {"a": 1})
    for damaged in ("{", "[]", *map(json.dumps, odd)):
        path.write_text(damaged)
        assert kept(768, 12) == PAYS
    assert len(calls) == 5


def test_the_measurement_is_real_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    found = measure(64, 1)
    assert found.fp32 > 0
    assert set(found.bf16) == set(WAYS)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_the_same_in_all_ways(way, biased: bool) -> None:
    chance = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=chance) for n in (5, 7, 7))
    bias = torch.randn(1, 3, 5, 7, generator=chance) if biased else None
    with attending(way):
        for scale in (None, 0.5):
            wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
            torch.testing.assert_close(attend(q, k, v, bias, scale), wanted)
    half = [x.bfloat16() for x in (q, k, v)]
    with attending(way), torch.autocast("cpu", torch.bfloat16):
        out = attend(*half, None if bias is None else bias.bfloat16())
    assert out.dtype == torch.bfloat16
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    torch.testing.assert_close(out.float(), wanted, atol=0.03, rtol=0.03)


class Casts(TorchDispatchMode):
    """Counts casts of these tensors to bf16."""

    def __init__(self, tensors) -> None:
        super().__init__()
        self.own, self.counts = {t.data_ptr() for t in tensors}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "_to_copy" and out.dtype == torch.bfloat16:
            where = args[0].data_ptr()
            if where in self.own:
                self.counts[where] = self.counts.get(where, 0) + 1
        return out


def steps(precision: Precision, count: int, *keys: str, micro: int = 1) -> list[float]:
    """Losses of ``count`` steps of the tiny MAE on the same few random images."""
    resolved = config.load(TINY, keys, smoke=True)
    torch.manual_seed(0)
    method = build(resolved.recipe).train()
    prepare_blocks(method, resolved.recipe.train, CPU)
    optimizer = build_optimizer(method, resolved.recipe)
    set_lr(optimizer, 1e-3)
    batch = random_batch(shapes_of(resolved.recipe), 32, CPU)
    size = 32 // micro
    losses = []
    for step in range(count):
        result = train_step(
            method,
            optimizer,
            [batch.rows(n * size, (n + 1) * size) for n in range(micro)],
            micro,
            noise=lambda rows, step=step: Noise(0, step, rows.index),
            precision=precision,
        )
        losses.append(float(result.loss))
    return losses


def test_weights_are_cast_once_a_step() -> None:
    resolved = config.load(TINY, smoke=True)
    method = build(resolved.recipe).train()
    optimizer = build_optimizer(method, resolved.recipe)
    set_lr(optimizer, 1e-3)
    rows = random_batch(shapes_of(resolved.recipe), 4, CPU)
    named = ((n, p) for n, p in method.named_parameters() if "blocks" in n)
    weights = [p for n, p in named if "mlp" in n or "proj" in n]
    for _ in range(2):  # the second step must cast the new weights
        with Casts(weights) as casts:
            train_step(
                method,
                optimizer,
                [rows, rows, rows],
                3,
                noise=lambda rows: Noise(0, 0, rows.index),
                precision=Precision("bf16", CPU),
            )
        assert set(casts.counts.values()) == {1}
        assert len(casts.counts) > 8


def test_accumulated_gradients_are_those_of_casts_for_each_micro_batch(monkeypatch) -> None:
    together = steps(Precision("bf16", CPU), 4, micro=4)
    monkeypatch.setattr(Precision, "one_cast", lambda self: nullcontext())
    assert together == pytest.approx(steps(Precision("bf16", CPU), 4, micro=4), rel=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_the_loss_curve_is_that_of_fp32(way) -> None:
    wide = ("model.encoder.width=64", "model.decoder.width=64")
    wanted = steps(Precision("fp32", CPU), 40, *wide)
    found = steps(Precision("bf16", CPU, way), 40, *wide)
    assert wanted[-1] < 0.9 * wanted[0]
    assert found == pytest.approx(wanted, rel=0.01)
    assert found != wanted


def test_recomputed_blocks_attend_in_the_same_way() -> None:
    again = "train.checkpoint_activations=true"
    plain = steps(Precision("bf16", CPU, "written"), 3)
    assert steps(Precision("bf16", CPU, "written"), 3, again) == pytest.approx(plain, rel=1e-4)


def test_a_run_records_its_precision_and_resumes_with_it(
    faked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_bf16, "_LEAST_WIDTH", 8)
    faked(PAYS)
    keys = ("data.limit=64", "train.global_batch=16", "data.workers=0", "train.device=cpu")
    short = config.load(TINY, [*keys, "schedule.epochs=1"], smoke=True)
    train(short, tmp_path / "run", quiet=True)
    found = json.loads((tmp_path / "run" / "env.json").read_text())["precision"]
    assert (found["name"], found["attention"]) == ("bf16", "written")
    faked(SLOW)
    (tmp_path / "cache" / "cpu-bf16.json").unlink()
    longer = config.load(TINY, [*keys, "schedule.epochs=2"], smoke=True)
    train(longer, tmp_path / "run", resume="auto", quiet=True)
    events = [json.loads(x) for x in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [e["precision"]["name"] for e in events if e["event"] == "start"] == ["bf16", "bf16"]
    fresh = train(longer, tmp_path / "fresh", quiet=True)
    assert json.loads((fresh.run_dir / "env.json").read_text())["precision"]["name"] == "fp32"
