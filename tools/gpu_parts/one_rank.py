"""A process group of one: every collective call, DDP and FSDP2 as with several devices."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from gpu_parts.stage import Stage, begun
from mimsuite import config
from mimsuite.cluster.group import ProcessGroupPeers
from mimsuite.cluster.port import free_port
from mimsuite.cluster.rank_info import RankInfo
from mimsuite.cluster.sharding import whole
from mimsuite.train.bench import Stepper
from mimsuite.train.state import load_model, load_optimizer, optimizer_tensors

NAME = "one-rank"
RECIPES = ("image/mae-vitb16-in1k", "image/hybrid-vitb16-in1k", "points/mae-shapenet55")
STEPS = 3


def run(stage: Stage) -> None:
    peers = _group(stage)
    with stage.findings.trying("collective calls"):
        _calls(stage, peers)
    for name in RECIPES:
        with stage.findings.trying(name):
            _train(stage, peers, name)
    dist.destroy_process_group()


def _group(stage: Stage) -> ProcessGroupPeers:
    if not stage.dry:
        torch.cuda.set_device(stage.device)
    address = f"tcp://127.0.0.1:{free_port()}"
    backend = stage.size("nccl", "gloo")
    dist.init_process_group(backend, init_method=address, rank=0, world_size=1)
    return ProcessGroupPeers(RankInfo(0, 1, 0, "127.0.0.1", 0, "torchrun"), stage.device)


def _calls(stage: Stage, peers: ProcessGroupPeers) -> None:
    peers.start(60.0)
    x = torch.ones(3, device=stage.device, requires_grad=True)
    (peers.gather(x).sum() + peers.sum(x).sum()).backward()
    peers.run_on_first(lambda: None)
    peers.report_step(1)
    peers.steps_begin()
    rows = peers.gather_rows(torch.ones(2, 3))
    right = {
        "gradient": x.grad is not None and float(x.grad.sum()) == 6.0,
        "mean": float(peers.mean(torch.ones(2, device=stage.device)).sum()) == 2.0,
        "any": peers.any_rank(True, False) == (True, False),
        "texts": peers.gather_texts("a") == ["a"]
        and peers.gather_texts("b", patient=True) == ["b"],
        "rows": rows is not None and rows.shape == (2, 3),
        "tensors": len(peers.gather_tensors({"a": torch.ones(2)})) == 1,
    }
    wrong = [name for name, holds in right.items() if not holds]
    vote = stage.milliseconds(lambda: peers.any_rank(False), 20)["ms"]
    stage.findings.add("collective calls", not wrong, wrong=wrong, vote_ms=vote)


def _train(stage: Stage, peers: ProcessGroupPeers, name: str) -> None:
    """Losses of DDP and FSDP2 beside those of a process without peers; their state restored."""
    plain = _losses(_stepper(stage, name))
    for kind in ("ddp", "fsdp"):
        label = f"{name}, {kind}"
        with stage.findings.trying(label):
            step = _stepper(stage, name, peers, kind)
            losses = _losses(step)
            near = max(abs(a - b) / abs(b) for a, b in zip(losses, plain, strict=True))
            holds = near < 2e-2 and _restores(step)
            stage.findings.add(label, holds, loss_off_plain=near)


def _stepper(
    stage: Stage, name: str, peers: ProcessGroupPeers | None = None, kind: str = "ddp"
) -> Stepper:
    resolved = config.load(name, [f"train.parallel={kind}"], smoke=True)
    torch.manual_seed(0)
    more = {} if peers is None else {"peers": peers}
    begin: Callable[[Stepper], Stepper] = begun
    return begin(Stepper(resolved, 4, stage.device, **more))


def _losses(step: Stepper) -> list[float]:
    return [float(step().loss) for _ in range(STEPS)]


def _restores(step: Stepper) -> bool:
    """Whether weights and moments survive being gathered and put back."""
    weights, moments = whole(step.method.state_dict()), whole(optimizer_tensors(step.optimizer))
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    load_model(step.method, kept)
    load_optimizer(step.optimizer, moments)
    again = whole(step.method.state_dict())
    return all(torch.equal(again[name].cpu(), kept[name].cpu()) for name in kept)
