"""What two ranks do under FSDP2 with 16-bit weights: one step of a toy under autocast.

``train(half, out)`` writes the gradients, a weight as the unit sees it, and the unit's input.
"""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mimsuite.cluster import find_rank_info
from mimsuite.cluster.meeting import join
from mimsuite.cluster.replica import FSDPReplica
from mimsuite.cluster.sharding import whole

CPU = torch.device("cpu")


class Unit(nn.Module):
    """A linear layer that remembers what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(8, 8), dict[str, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {"seen": x.detach().clone(), "gathered": self.linear.weight.detach().clone()}
        return x + self.linear(x)


class Net(nn.Module):
    """Two units and a head outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Unit(), Unit()]), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x).float().square().mean()


def train(half: str, out: str) -> None:
    peers = join(find_rank_info(), CPU, 30)
    torch.manual_seed(0)
    net = Net()
    replica = FSDPReplica(net, [*net.blocks], CPU, torch.bfloat16 if half == "bf16" else None)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(peers.rank))
    with torch.autocast("cpu", torch.bfloat16):
        loss = replica(x)
    loss.backward()
    gradients = whole({name: p.grad for name, p in net.named_parameters()})
    if peers.first:
        save_file(gradients | net.blocks[0].seen, out)
