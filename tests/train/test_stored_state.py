"""Tensors on the disk and the state they restore: every byte, row, name and generator."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mimsuite.errors import UserError
from mimsuite.train import checkpoint, saving, state, stored, tensor_files
from mimsuite.train.checkpoint import CheckpointState
from mimsuite.train.stored import Stored

# --- what is written ------------------------------------------------------------------------------


def test_every_type_reads_back_with_size_and_digest(tmp_path: Path) -> None:
    tensors = {
        f"{number}{kind}": torch.arange(1, 6).to(kind)
        for number, kind in enumerate(tensor_files._TYPES)
    }
    tensors |= {"none": torch.empty(0, 3), "one": torch.tensor(2.5), "turned": torch.eye(3)[:2].T}
    path = tmp_path / "t.safetensors"
    said = tensor_files.write_tensors(path, tensors)
    content = path.read_bytes()
    assert said == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, place in header.items():  # the widest first, each aligned for its own type
        assert place["data_offsets"][0] % tensors[name].element_size() == 0
    back = load_file(path)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name].cpu(), tensor) for name, tensor in tensors.items())


def test_what_is_larger_than_a_chunk_is_written_whole(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tensor_files, "_CHUNK", 16)
    tensors = {"a": torch.arange(10.0), "b": torch.arange(4.0), "c": torch.arange(5.0)}
    tensor_files.write_tensors(tmp_path / "t", tensors)
    back = load_file(tmp_path / "t")
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    sizes = [len(chunk) for chunk in tensor_files._chunks(tensors)]
    assert sizes[1:] == [16, 16, 8, 16, 16, 4]


# --- what is read ---------------------------------------------------------------------------------


@pytest.fixture
def pieces(tmp_path: Path) -> Stored:
    """``w`` of 7 rows in three files, and ``one`` in a single one."""
    rows = torch.arange(21.0).view(7, 3)
    save_file({"m/w": rows[:3].clone(), "m/one": torch.ones(2)}, tmp_path / "a")
    save_file({"m/w": rows[3:4].clone()}, tmp_path / "b")
    save_file({"m/w": rows[4:].clone()}, tmp_path / "c")
    return Stored(tmp_path, "m/", {"w": ["a", "b", "c"], "one": ["a"]})


def test_pieces_are_one_tensor(pieces: Stored) -> None:
    assert (len(pieces), [*pieces]) == (2, ["w", "one"])
    entry, rows = pieces.entry("w"), torch.arange(21.0).view(7, 3)
    assert entry.shape == (7, 3)
    assert pieces.entry("one").shape == (2,)
    assert torch.equal(pieces["w"], rows)
    for start in range(8):
        for stop in range(8):
            part = entry[start:stop]
            assert torch.equal(part, rows[start:stop]), (start, stop)
            assert part.shape[1] == 3


def test_only_the_bytes_of_the_rows_are_read(pieces: Stored) -> None:
    pieces.entry("w")[2:4]
    assert {name: file._read for name, file in pieces._open.items()} == {"a": 12, "b": 12, "c": 0}


def test_a_file_is_mapped_anew_when_much_was_read(pieces: Stored, monkeypatch) -> None:
    monkeypatch.setattr(stored, "_HELD_BYTES", 16)
    file = pieces._open["a"]
    for read, total in ((8, 8), (8, 16), (8, 24)):  # of the last tensor, as float32
        assert file.read("m/one").nbytes == read
        assert file._read == total
    before = file._mapped
    file.read("m/one")
    assert file._mapped is not before
    assert file._read == 8


def test_what_is_not_there_is_none(tmp_path: Path, pieces: Stored) -> None:
    assert dict(Stored.of_file(tmp_path / "nowhere")) == {}
    assert stored.unread(pieces, "x") is None
    assert stored.unread(pieces, "one").shape == (2,)
    assert stored.unread({"y": torch.ones(3)}, "y").shape == (3,)


# --- generators and optimizer ---------------------------------------------------------------------


def drawn() -> tuple[list[float], list[float], list[float], list[int]]:
    some = [random.random() for _ in range(5)]
    return torch.rand(5).tolist(), np.random.rand(5).tolist(), some, [random.getrandbits(9)]


def test_generators_go_on_where_they_were() -> None:
    kept = state.generator_tensors()
    try:
        state.seed_generators(2**40 + 5)
        first = drawn()
        between = {name: tensor.clone() for name, tensor in state.generator_tensors().items()}
        after = drawn()
        assert after != first
        state.load_generators(between)
        assert drawn() == after
        state.seed_generators(2**40 + 5)
        assert drawn() == first
        state.seed_generators(2**40 + 5)
        assert np.random.rand() == np.random.RandomState((2**40 + 5) % 2**32).rand()
        state.seed_generators(2**40 + 6)
        assert all(a != b for a, b in zip(drawn(), first, strict=True))
    finally:
        state.load_generators(kept)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the state is for machines without CUDA")
def test_generators_of_a_gpu_are_left_out_without_one(monkeypatch) -> None:
    # Without a GPU torch would keep the call for later, and say nothing.
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda _: pytest.fail("no GPU here"))
    kept = state.generator_tensors()
    assert "cuda" not in kept
    state.load_generators(kept | {"cuda": torch.zeros(16, dtype=torch.uint8)})


def trained(steps: int) -> tuple[nn.Linear, torch.optim.AdamW]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    named = [*layer.named_parameters()]
    groups = [{"params": [p], "names": [name]} for name, p in named]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    for _ in range(steps):
        layer(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return layer, optimizer


def test_an_optimizer_goes_on_where_it_was() -> None:
    _, optimizer = trained(3)
    tensors = {name: tensor.clone() for name, tensor in state.optimizer_tensors(optimizer).items()}
    assert {"weight/exp_avg", "weight/exp_avg_sq", "weight/step", "bias/step"} <= tensors.keys()
    layer, other = trained(0)
    state.load_optimizer(other, tensors)
    assert all(torch.equal(state.optimizer_tensors(other)[n], t) for n, t in tensors.items())
    assert other.state[layer.weight]["step"] == 3
    with pytest.raises(UserError, match="optimizer trains more, this recipe not"):
        state.load_optimizer(other, tensors | {"more/exp_avg": torch.ones(1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.ones(2, 4)}, r"weight: 2 x 4 there, 2 x 3 here"),
        ({"extra": torch.tensor(1.0)}, r"extra: scalar there, none here"),
        ({"bias": None}, r"bias: none there, 2 here"),
    ],
)
def test_another_model_is_refused_by_its_first_tensor(change, message: str) -> None:
    layer = nn.Linear(3, 2)
    tensors = {**layer.state_dict(), **change}
    with pytest.raises(UserError, match=message):
        state.load_model(layer, {n: t for n, t in tensors.items() if t is not None})


def test_a_model_is_restored() -> None:
    layer, other = nn.Linear(3, 2), nn.Linear(3, 2)
    state.load_model(layer, other.state_dict())
    assert torch.equal(layer.weight, other.weight)
    assert torch.equal(layer.bias, other.bias)


# --- folders of checkpoints -----------------------------------------------------------------------


def saved(root: Path, step: int) -> Path:
    ranks = [{"torch": torch.tensor([rank])} for rank in range(2)]
    return checkpoint.save(root, CheckpointState(step, {}, {"w": torch.ones(4)}, ranks=ranks))


def test_steps_come_newest_first_and_older_ones_are_found(tmp_path: Path) -> None:
    paths = {step: saved(tmp_path, step) for step in (3, 120, 20)}
    assert [checkpoint.step_of(path) for path in checkpoint.steps(tmp_path)] == [120, 20, 3]
    assert checkpoint.newest_before(tmp_path, 120) == paths[20]
    assert checkpoint.newest_before(tmp_path, 3) is None
    (paths[20] / "model.safetensors").write_bytes(b"")
    assert checkpoint.newest_before(tmp_path, 120) == paths[3]


def test_each_rank_has_its_own(tmp_path: Path) -> None:
    back = checkpoint.read(saved(tmp_path, 1))
    assert [int(one["torch"]) for one in back.ranks] == [0, 1]


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    (path / "model.safetensors").write_bytes(b"")
    assert checkpoint.damage(saved(tmp_path, 1)) is None
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_sizes_only_looks_at_no_content(tmp_path: Path) -> None:
    path = saved(tmp_path, 1) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert checkpoint.damage(path.parent, sizes_only=True) is None
    assert "sha256" in str(checkpoint.damage(path.parent))
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.read(path.parent)
    assert checkpoint.read(path.parent, verified=True).step == 1


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no checkpoint"):
        checkpoint.require_sound(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="is a run directory"):
        checkpoint.require_sound(tmp_path)


def test_one_and_a_half_times_the_last_one_must_be_free(tmp_path: Path, monkeypatch) -> None:
    size = sum(file.stat().st_size for file in saved(tmp_path, 1).iterdir())
    saved(tmp_path / "other", 9)
    for free, enough in ((1.5 * size, True), (1.5 * size - 1, False)):
        usage = SimpleNamespace(free=free if enough else int(free))
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _, usage=usage: usage)
        if enough:
            checkpoint.need_space(tmp_path)
        else:
            with pytest.raises(OSError, match=f"0 MiB free in {tmp_path}, a checkpoint takes 0"):
                checkpoint.need_space(tmp_path)


def test_the_mean_of_the_good_steps() -> None:
    assert saving._mean(6.0, 4.0) == 1.5
    assert saving._mean(torch.tensor(3.0), torch.tensor(2.0)) == 1.5
    assert saving._mean(0.0, 0.0) is None
