"""Sharded training (FSDP2) is the training of one process, and its checkpoints are anybody's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mimsuite
from mimsuite.train import checkpoint
from tests.cluster.test_ranks import SMALL, STEPS, assert_close, figures, rows, tensors

FSDP = "train.parallel=fsdp"
PARTS = "checkpoint.gather_gib=1e-6"


@pytest.fixture(scope="module")
def train(ranks):
    def run(out: Path, *words: object, world: int = 2, code: int = 0) -> str:
        codes, said = ranks.run("pretrain", *SMALL, "--out", out, *words, ranks=world)
        assert codes == [code] * world, said
        return said

    return run


@pytest.fixture(scope="module")
def one(train, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sharded") / "one"
    train(out, world=1)
    return out


@pytest.fixture(scope="module")
def two(train, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sharded") / "two"
    train(out, FSDP, PARTS)
    return out


def step(out: Path, number: int) -> Path:
    return out / "checkpoints" / f"step-{number:08d}"


def whole_state(path: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.read(path)
    groups = {"model": state.model, "optim": state.optim, "ema": state.ema}
    return {f"{g}/{n}": t for g, tensors in groups.items() for n, t in tensors.items()}


def test_two_ranks_equal_one_process(train, one, two, tmp_path):
    train(tmp_path / "gathered", FSDP)
    assert_close(tmp_path / "gathered", one)
    more = ("train.micro_batch=8", "train.checkpoint_activations=true")
    train(tmp_path / "accumulated", FSDP, *more)
    assert_close(tmp_path / "accumulated", one)
    # The two ways of saving hold the same bits.
    gathered = whole_state(step(tmp_path / "gathered", STEPS))
    parts = whole_state(step(two, STEPS))
    assert gathered.keys() == parts.keys()
    assert all(torch.equal(gathered[name], parts[name]) for name in parts)


def test_four_ranks_then_two_then_one(train, one, tmp_path):
    train(tmp_path / "four", FSDP, PARTS, world=4)
    train(tmp_path / "two", FSDP, PARTS, "--resume", step(tmp_path / "four", 10))
    out = tmp_path / "last"
    train(out, "--resume", step(tmp_path / "two", 20), world=1)
    joined = [
        *figures(tmp_path / "four")[:10],
        *figures(tmp_path / "two")[:10],
        *figures(out),
    ]
    lines = [dict(zip(("step", "loss", "grad_norm"), row, strict=True)) for row in joined]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert_close(out, one)
    assert [row["step"] for row in rows(out, "events") if row["event"] == "resume"] == [20]


def test_the_same_ranks_go_on_bit_for_bit(train, two, tmp_path):
    out = tmp_path / "again"
    train(out, FSDP, PARTS, "--resume", step(two, 10))
    assert figures(out) == figures(two)[10:]
    ours, wanted = tensors(out), tensors(two)
    assert ours.keys() == wanted.keys()
    for file, content in wanted.items():
        for name, value in content.items():
            assert (ours[file][name] == value).all(), (file, name)


def test_parts_are_read_by_whoever_reads_checkpoints(two, one):
    files = {file.name for file in step(two, STEPS).iterdir()}
    assert "model.safetensors" not in files
    assert {"part-00000-of-00002.safetensors", "part-00001-of-00002.safetensors"} <= files
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    ours, wanted = (mimsuite.load(path).encode(images) for path in (two, one))
    assert torch.allclose(ours.tokens, wanted.tokens, atol=1e-4)
    assert mimsuite.load(two).method.encoder.patch_embed.proj.weight.shape[0] > 1


def test_training_goes_on_while_parts_are_written(ranks, two, tmp_path):
    function = f"{Path(__file__).with_name('slow_save.py')}:train_on"
    out = tmp_path / "run"
    words = ("pretrain", *SMALL, "--out", str(out), FSDP, PARTS)
    codes, said = ranks.call(function, str(out), *words, ranks=2)
    assert codes == [0, 0], said
    assert "not written" not in said
    saves = [row["step"] for row in rows(out, "events") if row["event"] == "save"]
    assert saves == [*range(5, STEPS, 5), STEPS]
    assert figures(out) == figures(two)
    assert tensors(out, 5).keys() == tensors(two, 5).keys()
    for file, content in tensors(two, 5).items():
        assert all((tensors(out, 5)[file][n] == value).all() for n, value in content.items())


def test_the_mean_loss_since_the_last_save_is_kept(two):
    state = json.loads((step(two, 10) / "state.json").read_text())
    losses = [loss for number, loss, _ in figures(two) if 5 < number <= 10]
    assert state["mean_loss"] == pytest.approx(sum(losses) / 5)


def test_fine_tuning_in_shards_gives_the_figure_of_one_process(ranks, one, tmp_path):
    found = []
    for world in (1, 2):
        words = ("finetune", one, "--smoke", FSDP, "data.per_class=4", "train.global_batch=20")
        out = tmp_path / f"tuned-{world}"
        codes, said = ranks.run(*words, "schedule.epochs=2", "--out", out, ranks=world)
        assert codes == [0] * world, said
        found.append(json.loads((one / "finetune.json").read_text()))
    assert found[1]["accuracy"] == found[0]["accuracy"]
    assert found[1]["right"] == found[0]["right"]


@pytest.mark.parametrize("file", ["part-00001-of-00002.safetensors", "parts.json"])
def test_damage_of_a_part_is_found(two, tmp_path, file):
    root = tmp_path / "checkpoints"
    shutil.copytree(two / "checkpoints", root)
    content = bytearray((root / f"step-{STEPS:08d}" / file).read_bytes())
    content[len(content) // 2] ^= 1
    (root / f"step-{STEPS:08d}" / file).write_bytes(content)
    found, rejected = checkpoint.newest(root)
    assert found == root / "step-00000020"
    assert rejected == [f"step-{STEPS:08d}: {file} does not match its sha256"]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_an_overflow_of_one_rank_lowers_the_loss_scale_of_all(ranks, tmp_path, parallel):
    function = f"{Path(__file__).with_name('scaled.py')}:train"
    found = {}
    for world in (1, 2):
        out = tmp_path / f"{world}"
        codes, said = ranks.call(function, parallel, "2", str(out), ranks=world)
        assert codes == [0] * world, said
        found[world] = [json.loads(Path(f"{out}-{rank}").read_text()) for rank in range(world)]
    (one,) = found[1]
    assert [row[0] for row in one] == [0, 0, 1, 0, 0, 0]
    assert [row[1] for row in one] == [1024, 2048, 1024, 1024, 2048, 2048]
    for rows_of_rank in found[2]:
        for ours, wanted in zip(rows_of_rank, one, strict=True):
            assert ours == pytest.approx(wanted, rel=1e-4)


HYBRID = (
    "image/hybrid-tiny-clipart",
    "--smoke",
    "data.limit=32",
    "train.global_batch=16",
    "data.lanes=4",
    "schedule.epochs=2",
    "log.every_steps=1",
    "checkpoint.every_minutes=null",
)


def test_queries_and_keys_of_sharded_blocks_are_of_whole_weights(ranks, tmp_path):
    """A method that reads what the attention of blocks computes trains as in one process."""
    for name, world, words in (("one", 1, ()), ("two", 2, (FSDP,))):
        codes, said = ranks.run("pretrain", *HYBRID, "--out", tmp_path / name, *words, ranks=world)
        assert codes == [0] * world, said
    two, one = (figures(tmp_path / name) for name in ("two", "one"))
    assert len(one) == 4
    for ours, wanted in zip(two, one, strict=True):
        assert ours == pytest.approx(wanted, rel=1e-4)


def test_units_gather_bf16_under_bf16(ranks, tmp_path):
    call = f"{Path(__file__).parent / 'half.py'}:train"
    for half in ("none", "bf16"):
        codes, said = ranks.call(call, half, str(tmp_path / f"{half}.safetensors"))
        assert codes == [0, 0], said
    half, full = (load_file(tmp_path / f"{name}.safetensors") for name in ("bf16", "none"))
    assert half["gathered"].dtype == torch.bfloat16
    assert full["gathered"].dtype == torch.float32
    assert half["seen"].dtype == full["seen"].dtype == torch.float32  # inputs are not cast
    for name in full.keys() - {"gathered"}:
        assert half[name].dtype == torch.float32
        assert float((half[name] - full[name]).norm() / full[name].norm()) < 0.02, name
