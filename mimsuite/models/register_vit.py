"""A transformer with registers and rotary positions (CAPI, Darcet et al., arXiv:2502.08769).

Registers (Darcet et al., arXiv:2309.16588) are tokens without pixels; here they have places, around
what is visible. Linear layers have no biases, and norms are root mean squares.

Letters: B batch, R registers, N patches, V visible, D width, h heads of d numbers, M memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.config.keys.encoders import RegisterViTSection
from mimsuite.models.attend import attend
from mimsuite.models.blocks import init_linear
from mimsuite.models.encoder import ImageEncoder
from mimsuite.models.features import Features
from mimsuite.models.rotary import frequencies_2d, places_2d, turn_halves
from mimsuite.models.vit import PatchEmbed
from mimsuite.noise import Noise


@dataclass(frozen=True)
class Kept:
    """Who goes through a branch, and what it is multiplied by.

    Attributes:
        rows: (K,) samples; ``None``: all.
        factor: one for all of them, or (B,).
    """

    rows: Tensor | None
    factor: Tensor | float


Memory = tuple[Tensor, Tensor]  # (B, M, D) tokens that are asked, and their (B or 1, M, 2) places


class RotaryAttention(nn.Module):
    """Attention of tokens to one another, or to a memory, whose queries and keys turn."""

    def __init__(self, section: RegisterViTSection) -> None:
        super().__init__()
        width, self.heads = section.width, section.heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        # Published code holds them as parameters, whose rate is 0.
        self.freqs = nn.Parameter(frequencies_2d(width // section.heads, *section.cycles))

    def forward(self, x: Tensor, places: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, T, D) tokens at (B or 1, T, 2) places -> (B, T, D)."""
        asked, where = memory or (x, places)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, h, T, d)
            for part in (self.q_proj(x), self.k_proj(asked), self.v_proj(asked))
        )
        q, k = turn_halves(q, places, self.freqs), turn_halves(k, where, self.freqs)
        out = attend(q, k, v)
        mixed: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return mixed


class RotaryBlock(nn.Module):
    """Pre-norm block ``x += Attn(norm x); x += MLP(norm x)``; a memory is not normed again."""

    def __init__(self, section: RegisterViTSection) -> None:
        super().__init__()
        hidden = int(section.width * section.mlp_ratio)
        self.norm1 = norm_of(section)
        self.attn = RotaryAttention(section)
        self.norm2 = norm_of(section)
        self.mlp = Mlp(section.width, hidden_features=hidden, act_layer=nn.GELU, bias=False)

    def forward(
        self,
        x: Tensor,
        places: Tensor,
        memory: Memory | None = None,
        keep: tuple[Kept, Kept] | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); ``keep``: drop path of the two branches."""

        def attend(rows: Tensor | None) -> Tensor:
            given = None if memory is None else (_rows(memory[0], rows), _rows(memory[1], rows))
            attended: Tensor = self.attn(self.norm1(_rows(x, rows)), _rows(places, rows), given)
            return attended

        x = _plus(x, attend, None if keep is None else keep[0])
        return _plus(
            x, lambda rows: self.mlp(self.norm2(_rows(x, rows))), None if keep is None else keep[1]
        )


class RegisterViT(ImageEncoder):
    """Encoder of visible patches; its registers are returned as class tokens."""

    classifier_published = False
    section: RegisterViTSection

    def __init__(self, section: RegisterViTSection) -> None:
        super().__init__(section)
        self.class_tokens = section.registers
        self.registers = nn.Parameter(torch.zeros(1, section.registers, section.width))
        self.patch_embed = PatchEmbed(section.in_channels, section.patch_size, section.width)
        self.blocks = nn.ModuleList(RotaryBlock(section) for _ in range(section.depth))
        self.norm = norm_of(section, affine=False)
        nn.init.normal_(self.registers, std=0.02)
        self.apply(init_linear)

    def forward(
        self,
        patches: Tensor,
        ids: Tensor | None = None,
        *,
        noise: Noise | None = None,
        layers: Collection[int] = (),
        grid: tuple[int, int] | None = None,
    ) -> Features:
        """Encode patch vectors.

        Args:
            patches: (B, V, P).
            ids: (B, V) which patches they are; ``None`` = all of ``grid``, in raster order.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            layers: numbers, from 1, of the blocks whose output is wanted too.
            grid: patches per column and row where it is not the trained one.
        """
        x = torch.cat([self.registers.expand(len(patches), -1, -1), self.patch_embed(patches)], 1)
        places = self.places(ids, grid)
        keep = drop_path(self, noise, len(x))
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, places, keep=keep[number - 1])
            if number in layers:
                outputs[number] = x
        x, count = self.norm(x), self.class_tokens
        pools = ("mean", "max", "cls_mean", "cls") if count else ("mean", "max")
        return Features(x[:, :count], x[:, count:], outputs, pools=pools)

    def places(self, ids: Tensor | None = None, grid: tuple[int, int] | None = None) -> Tensor:
        """(B or 1, R + V, 2) row and column of registers and patches, from 0 to 1."""
        section = self.section
        device = self.registers.device if ids is None else ids.device
        every = places_2d(grid or self.grid, device)
        seen = every[None] if ids is None else every[ids]  # (B or 1, V, 2)
        first = register_places(section.registers, section.register_places).to(device)
        if not section.registers_in_box:
            return torch.cat([first.expand(len(seen), -1, -1), seen], dim=1)
        low, high = seen.amin(1, keepdim=True), seen.amax(1, keepdim=True)
        return torch.cat([low + first * (high - low), seen], dim=1)

    def layer_id(self, name: str) -> int:
        return 0 if name.startswith("registers") else super().layer_id(name)


def register_places(count: int, kind: str) -> Tensor:
    """(R, 2) places: ``edge``, as many on each side of the image in turn; ``corner``: (0, 0)."""
    if kind == "corner":
        return torch.zeros(count, 2)
    along = torch.arange(count // 4) / max(count // 4, 1)
    none, all_ = torch.zeros_like(along), torch.ones_like(along)
    sides = [(along, none), (all_, along), (1 - along, all_), (none, 1 - along)]
    return torch.cat([torch.stack(side, dim=1) for side in sides])


def norm_of(section: RegisterViTSection, affine: bool = True) -> nn.Module:
    """A norm over the width, of the kind that the section names."""
    kind = nn.RMSNorm if section.norm == "rms" else nn.LayerNorm
    return kind(section.width, eps=section.norm_eps, elementwise_affine=affine)


def drop_path(
    model: RegisterViT, noise: Noise | None, batch: int, depth: int | None = None
) -> list[tuple[Kept, Kept] | None]:
    """Who goes through the branches of each block, ``depth`` of them; the rate is that of the
    encoder in every block."""
    section, depth = model.section, depth or model.depth
    if not model.training or section.drop_path == 0:
        return [None] * depth
    if noise is None:
        raise ValueError("drop_path > 0 needs keyed noise while training")
    uniform = noise.rows("drop_path", 2 * depth)  # (B, 2 * depth)
    if section.drop_path_by == "sample":
        factors = (uniform >= section.drop_path) / (1 - section.drop_path)
        branches = [Kept(None, factor) for factor in factors.unbind(1)]
    else:
        count = kept_of(batch, section.drop_path)
        rows = uniform.argsort(dim=0)[:count]
        branches = [Kept(each, batch / count) for each in rows.unbind(1)]
    return list(zip(branches[::2], branches[1::2], strict=True))


def kept_of(batch: int, rate: float) -> int:
    """How many samples of a batch go through a branch: in float64, as published."""
    return max(int(batch * (1 - rate)), 1)


def _rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
    """Those rows of a batch; one row stands for all."""
    return tensor if rows is None or len(tensor) == 1 else tensor[rows]


def _plus(x: Tensor, branch: Callable[[Tensor | None], Tensor], kept: Kept | None) -> Tensor:
    """``x`` and what a branch adds to the samples that go through it."""
    if kept is None:
        return x + branch(None)
    if kept.rows is None:
        assert isinstance(kept.factor, Tensor)
        return x + branch(None) * kept.factor.view(-1, 1, 1)
    # The only sample of a batch goes through every branch, as it is.
    return x.index_add(0, kept.rows, (branch(kept.rows) * kept.factor).to(x.dtype))
