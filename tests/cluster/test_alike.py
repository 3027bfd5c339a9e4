"""Ranks find their devices, and are refused by name where they do not fit together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mimsuite.cluster.alike import facts_of, require_alike
from mimsuite.errors import UserError
from mimsuite.train.device import choose_device

ODD = Path(__file__).with_name("odd_ranks.py")


@pytest.fixture
def gpus(monkeypatch):
    chosen: list[torch.device] = []

    def have(count: int) -> list[torch.device]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen

    return have


def test_a_task_that_sees_one_gpu_takes_it_whatever_its_number(gpus):
    gpus(1)
    assert choose_device("auto", local_rank=3, world=8) == torch.device("cuda", 0)
    assert choose_device("cuda", local_rank=3, world=8) == torch.device("cuda", 0)


def test_tasks_that_see_all_gpus_take_that_of_their_number(gpus):
    gpus(4)
    assert choose_device("cuda", local_rank=3, world=8) == torch.device("cuda", 3)
    with pytest.raises(UserError, match="local rank 4 has no device of its own: there are 4"):
        choose_device("cuda", local_rank=4, world=8)


def test_one_numbered_device_is_for_one_process(gpus):
    chosen = gpus(2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)]
    with pytest.raises(UserError, match=r"train.device=cuda:1 is one device, but there are 2"):
        choose_device("cuda:1", local_rank=1, world=2)
    with pytest.raises(UserError, match="there is no device 'cuda:2' here: they are cuda:0 to cu"):
        choose_device("cuda:2")


def test_facts_of_a_gpu_name_it(monkeypatch):
    about = SimpleNamespace(name="H100", uuid="1234", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    facts = facts_of(torch.device("cuda", 0))
    assert facts["id"] == "H100, GPU-1234"
    require_alike([facts, {**facts, "id": "H100, GPU-5678"}])
    with pytest.raises(UserError, match=r"rank 0 and rank 2 have the same device \(H100, GPU-12"):
        require_alike([facts, {**facts, "id": "H100, GPU-5678"}, facts])


@pytest.mark.parametrize(
    ("name", "value"), [("device", "cpu"), ("torch", "2.0"), ("train.precision", "fp32")]
)
def test_ranks_that_differ_are_named(name, value):
    facts = {"device": "cuda", "torch": "2.14", "train.precision": "bf16"}
    with pytest.raises(UserError, match=f"rank 2 has {name} {value}, rank 0 has {facts[name]}"):
        require_alike([facts, facts, {**facts, name: value}])


def test_all_ranks_say_the_same_before_any_connection_is_made(ranks):
    codes, said = ranks.call(f"{ODD}:meet", ranks=3)
    assert codes == [2, 2, 2], said
    assert [text.startswith("rank 1 has device tpu, rank 0 has cpu") for text in
            said.splitlines()] == [True] * 3, said  # fmt: skip
