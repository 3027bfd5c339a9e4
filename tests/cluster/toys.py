"""Methods whose loss looks across samples, trained for a few steps; run by each rank.

``train(kind, parallel, accumulation, scope, out)`` writes losses and weights as safetensors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.cluster import find_rank_info
from mimsuite.cluster.meeting import join
from mimsuite.cluster.sharding import whole
from mimsuite.methods.base import Context, Method, Output, Progress
from mimsuite.models.momentum import MomentumCopy
from mimsuite.noise import Noise
from mimsuite.train.batchnorm import sync_batchnorm
from mimsuite.train.blocks import blocks_of
from mimsuite.train.precision import Precision
from mimsuite.train.step import train_step

CPU = torch.device("cpu")
BATCH, WIDTH, STEPS = 24, 6, 5


class Toy(Method):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.norm = nn.BatchNorm1d(8)
        # No bias: batch norm takes it out, and what Adam makes of no gradient is chance.
        self.first, self.second = nn.Linear(WIDTH, 8, bias=False), nn.Linear(8, 4)

    def mask(self, batch: Batch, noise: Noise, ctx: Any) -> dict:
        return {}

    def hidden(self, batch: Batch) -> Tensor:
        return self.first(batch.image)


class Contrastive(Toy):
    """Each sample must find its own other view among those of the whole global batch."""

    def forward(self, batch: Batch, masks: dict, ctx: Any) -> Output:
        one = F.normalize(self.second(self.hidden(batch).tanh()), dim=1)
        other = F.normalize(self.second(self.hidden(batch).sin()), dim=1)
        everyone = ctx.gather(other)  # (world B, 4)
        rows = ctx.gather(batch.index.float())
        target = (rows[None] == batch.index[:, None]).float().argmax(1)
        loss = F.cross_entropy(one @ everyone.T / 0.1, target)
        return Output(loss, {"entropy": loss.detach()})


class Normalised(Toy):
    """Batch norm before the loss."""

    def forward(self, batch: Batch, masks: dict, ctx: Any) -> Output:
        loss = (self.second(self.norm(self.hidden(batch)).relu()) - 1).square().mean()
        return Output(loss, {})


class Prepared(Toy):
    """Weights are used before the forward pass, for the target."""

    def prepare(self, batch: Batch, noise: Noise, gather: Any = None) -> Any:
        return Context(noise, prepared={"target": self.hidden(batch).sin()})

    def forward(self, batch: Batch, masks: dict, ctx: Any) -> Output:
        hidden = self.hidden(batch)
        loss = (hidden.tanh() - ctx.prepared["target"]).square().mean()
        return Output(loss + self.second(hidden).square().mean(), {})


class Student(nn.Module):
    """A weight that is a unit of its own where weights are sharded, and two that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, 8, bias=False), nn.Linear(8, 4)
        self.blocks = nn.ModuleList([nn.Linear(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks[0](self.first(x).tanh()).tanh())


class Momentum(Toy):
    """A student that predicts what a momentum copy of it makes of another view."""

    def __init__(self) -> None:
        super().__init__()
        del self.first, self.second
        self.student = Student()
        self.teacher = MomentumCopy(self.student)

    def prepare(self, batch: Batch, noise: Noise, gather: Any = None) -> Any:
        return Context(noise, prepared={"target": self.teacher(batch.image.roll(1, 1)).cos()})

    def forward(self, batch: Batch, masks: dict, ctx: Any) -> Output:
        error = (self.student(batch.image) - ctx.prepared["target"]).square().mean()
        return Output(error * (1 + ctx.progress.step / ctx.progress.total), {})

    def after_step(self, progress: Progress) -> None:
        momentum = 0.5 + 0.5 * progress.step / progress.total
        self.teacher.follow(self.student, momentum, progress.skipped)


class Unsplittable(Prepared):
    """A parameter without an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))


class Ratio(Toy):
    """A mean over the valid numbers, of which samples have different counts."""

    def forward(self, batch: Batch, masks: dict, ctx: Any) -> Output:
        valid = (batch.index[:, None] * 4 + torch.arange(4)) % 7 < batch.index[:, None] % 5 + 1
        error = (self.second(self.hidden(batch).tanh()) - 1).square()
        weight = valid.sum().float()
        loss = (error * valid).sum() / weight
        return Output(loss, {"error": loss.detach()}, weight=weight)


KINDS = {
    "contrastive": Contrastive,
    "momentum": Momentum,
    "norm": Normalised,
    "prepared": Prepared,
    "ratio": Ratio,
    "unsplittable": Unsplittable,
}


def train(kind: str, parallel: str, accumulation: str, scope: str, out: str) -> None:
    info = find_rank_info()
    peers = join(info, CPU, 30)
    torch.manual_seed(0)
    method: Method = KINDS[kind]()
    if kind == "norm":
        sync_batchnorm(method, peers, CPU)
    else:
        del method.norm
    replica = peers.replicate(method.train(), blocks_of(method), parallel)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05, fused=True)
    micro = BATCH // peers.world // int(accumulation)
    losses = []
    for step in range(STEPS):
        images = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(step))
        rows = torch.arange(BATCH).view(-1, peers.world, micro)[:, peers.rank]  # (micro-batch, row)
        batches = [Batch({"image": images[r]}, r, [str(i) for i in r.tolist()]) for r in rows]
        result = train_step(
            method,
            optimizer,
            batches,
            int(accumulation),
            noise=lambda batch: Noise(0, 0, batch.index),
            precision=Precision("fp32", CPU),
            clip_grad=1.0,
            peers=peers,
            replica=replica,
            loss_scope=scope,
            progress=Progress(step, STEPS, STEPS),
        )
        losses.append(torch.stack([result.loss, result.grad_norm, *result.terms.values()]))
    tensors = whole(method.state_dict())
    if peers.first:
        save_file(tensors | {"losses": torch.stack(losses)}, out)
