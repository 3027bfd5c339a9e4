"""Loss scaling (fp16) where weights are sharded; run by each rank.

``train(parallel, bad, out)``: at step ``bad`` rank 1's gradients overflow.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from mimsuite.cluster import find_rank_info
from mimsuite.cluster.meeting import join
from mimsuite.cluster.sharding import whole
from mimsuite.train.precision import Precision
from mimsuite.train.step import _grad_norm

CPU = torch.device("cpu")


def train(parallel: str, bad: str, out: str) -> None:
    info = find_rank_info()
    peers = join(info, CPU, 30)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))
    replica = peers.replicate(model, [model[0]], parallel)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    precision = Precision("fp32", CPU)  # the rest of fp16 needs CUDA
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    seen = []
    for step in range(6):
        optimizer.zero_grad()
        images = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        loss = replica(images.chunk(peers.world)[peers.rank]).square().mean()
        if step == int(bad) and peers.rank == peers.world - 1:
            loss = loss * torch.tensor(float("inf"))
        precision.backward(loss)
        precision.unscale(optimizer)
        norm = _grad_norm(list(model.parameters()))
        skipped = (~torch.isfinite(peers.mean(loss.detach().clone()) + norm)).float()
        precision.step(optimizer, skipped)
        weights = whole(model.state_dict())
        seen.append(
            [float(skipped), precision.scaler.get_scale(), *weights["0.weight"][0].tolist()]
        )
    Path(f"{out}-{peers.rank}").write_text(json.dumps(seen))
