"""Does bf16 pay on this CPU? A transformer block is timed in fp32 and in bf16, for about a second.

CPUs with matrix units for bf16 (AMX) train up to several times faster in it, others slower. Which
kernels torch has for a CPU, attention above all, decides too, so the features of the CPU alone do
not tell. The result is kept in the cache folder.

    python -m mimsuite.train.cpu_bf16    # for a ViT-B, as one JSON object
"""

from __future__ import annotations

import json
import time
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimsuite.config.keys.shared import Recipe
from mimsuite.data.cache import cache_folder, write_first_possible
from mimsuite.errors import UserError
from mimsuite.models.attend import WAYS, Way, attending
from mimsuite.models.blocks import Block
from mimsuite.report.environment import cpu_name

_FILE = "cpu-bf16.json"
_LEAST_GAIN = 1.1  # casts outside of the blocks, which are not measured, cost some of the gain
# Narrower models keep fp32 without a measurement: their steps are mostly overhead, and small runs
# have the same bits on all machines.
_LEAST_WIDTH = 192
_BATCH, _TOKENS = 2, 98
_SECONDS = 1.0
_MOST_ROUNDS = 10
_HOPELESS = 1.5  # times as slow as fp32 in the first round: not timed further
_FEATURES = ("amx_bf16", "amx_fp16", "avx512_bf16", "avx10_2", "bf16", "i8mm")


@dataclass(frozen=True)
class Measured:
    """CPU seconds of forward and backward of one block.

    Attributes:
        fp32: in fp32.
        bf16: in bf16, by the way attention is computed.
        width: of the block.
    """

    fp32: float
    bf16: dict[Way, float]
    width: int

    @property
    def fastest(self) -> Way:
        return min(self.bf16, key=lambda way: self.bf16[way])

    @property
    def gain(self) -> float:
        """Speed of bf16 as a multiple of that of fp32."""
        return self.fp32 / self.bf16[self.fastest]

    @property
    def pays(self) -> bool:
        return self.gain >= _LEAST_GAIN

    def line(self) -> str:
        """One line for people."""
        text = f"bf16 has {self.gain:.2f} times the speed of fp32 on this CPU at width {self.width}"
        ways = {"fused": "", "written": ", attention written out", "fp32": ", attention in fp32"}
        return text + ways[self.fastest]


def worth_measuring(recipe: Recipe) -> bool:
    """Whether the model is wide enough for bf16 to matter on a CPU."""
    return _sizes(recipe)[0] >= _LEAST_WIDTH


def bf16_on_this_cpu(recipe: Recipe) -> Measured:
    """Speed of bf16 at the width of a recipe's encoder: measured once, then read from the cache."""
    return kept(*_sizes(recipe))


def kept(width: int, heads: int) -> Measured:
    """The kept measurement of these sizes; made first if there is none."""
    path = cache_folder() / _FILE
    table = _read(path)
    key = f"{_this_cpu()}, width {width}, {heads} heads"
    if key in table:
        with suppress(TypeError, KeyError, ValueError):
            return Measured(**table[key])
    found = measure(width, heads)
    content = json.dumps({**table, key: asdict(found)}, indent=1, sort_keys=True)
    with suppress(UserError):  # measured again next time
        write_first_possible([path], content.encode())
    return found


def measure(width: int, heads: int) -> Measured:
    """Time a block for about a second, in turns in fp32 and in bf16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Block(width, heads, 4.0, 1e-6)
        rows = torch.randn(_BATCH, _TOKENS, width, requires_grad=True)
    names: list[Way | None] = [None, *WAYS]
    for name in names:  # the first calls choose kernels and allocate
        _seconds(block, rows, name)
    times: dict[Way | None, float] = {name: _seconds(block, rows, name) for name in names}
    names = [n for n in names if n is None or times[n] < _HOPELESS * times[None]]
    until = time.perf_counter() + _SECONDS - sum(times.values())
    for _ in range(_MOST_ROUNDS if len(names) > 1 else 0):
        if time.perf_counter() > until:
            break
        times |= {name: min(times[name], _seconds(block, rows, name)) for name in names}
    return Measured(times[None], {way: times[way] for way in WAYS}, width)


def _seconds(block: Block, rows: Tensor, way: Way | None) -> float:
    """CPU time of one forward and backward pass: of all threads, so other load matters less."""
    block.zero_grad(set_to_none=True)
    begun = time.process_time()
    cast = nullcontext() if way is None else torch.autocast("cpu", torch.bfloat16)
    with cast, attending(way or "fused"):
        loss = block(rows).float().square().mean()
    loss.backward()
    return time.process_time() - begun


def _sizes(recipe: Recipe) -> tuple[int, int]:
    """(width, heads) of the block to measure: of the last stage but one, if there are stages."""
    encoder: Any = getattr(recipe.model, "encoder", None)  # a plugin may name it otherwise
    width, heads = (getattr(encoder, name, None) for name in ("width", "heads"))
    if isinstance(heads, tuple):  # by stage; the width of a head stays the same
        width, heads = int(width or 0) * heads[-2] // heads[0], heads[-2]
    width = int(width or 0)
    heads = int(heads or max(1, width // 64))
    return width, heads if width % heads == 0 else 1


def _this_cpu() -> str:
    """Model, features for bf16, threads and torch: what a measurement depends on."""
    flags: set[str] = set()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                flags.update(line.partition(":")[2].split())
                break
    features = " ".join(name for name in _FEATURES if name in flags)
    own = f"{cpu_name()} ({features}), torch {torch.__version__}"
    return f"{own}, {torch.get_num_threads()} threads"


def _read(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


if __name__ == "__main__":
    _found = kept(768, 12)
    print(json.dumps({**asdict(_found), "pays": _found.pays, "line": _found.line()}))
