"""Time a MAE training step beside two others, in fp32 and in bf16.

The others are Hugging Face transformers' ViTMAEForPreTraining with SDPA attention, and
`plain_image.py`, a plain implementation in the published layout, which is checked on the golden
case first. Same sizes, same mask ratio, normalised pixels and fused AdamW on all sides, in one
process, in turns forwards and backwards, on process CPU time. bf16 is autocast; our side takes the
attention that is fastest on this CPU, and keeps its weights' casts for the whole step. Prints one
JSON line; `--check` exits 1 below the ratio that the project promises (0.95, transformers' time in
fp32 over ours).

    .venv/bin/python tools/bench_mae.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from plain_image import PlainMAE, check_plain
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from turns import seconds

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.config.keys.section import height_width
from mimsuite.train.bench import Stepper

PROMISED = 0.95


def transformers_model(recipe: Any) -> nn.Module:
    encoder, decoder = recipe.model.encoder, recipe.model.decoder
    settings = ViTMAEConfig(
        hidden_size=encoder.width,
        num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.heads,
        intermediate_size=int(encoder.width * encoder.mlp_ratio),
        image_size=height_width(encoder.image_size)[0],
        patch_size=encoder.patch_size,
        num_channels=encoder.in_channels,
        decoder_hidden_size=decoder.width,
        decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.heads,
        decoder_intermediate_size=int(decoder.width * decoder.mlp_ratio),
        layer_norm_eps=encoder.norm_eps,
        mask_ratio=recipe.mask.ratio,
        norm_pix_loss=recipe.target.normalize,
        attn_implementation="sdpa",
    )
    return ViTMAEForPreTraining(settings)


def plain_model(recipe: Any) -> nn.Module:
    encoder, decoder = recipe.model.encoder, recipe.model.decoder
    sizes = {
        "img_size": height_width(encoder.image_size)[0],
        "patch_size": encoder.patch_size,
        "embed_dim": encoder.width,
        "depth": encoder.depth,
        "num_heads": encoder.heads,
        "decoder_embed_dim": decoder.width,
        "decoder_depth": decoder.depth,
        "decoder_num_heads": decoder.heads,
        "mask_ratio": recipe.mask.ratio,
    }
    return PlainMAE(sizes)


def peer_stepper(
    model: nn.Module, loss: Callable[[Tensor], Tensor], resolved: Resolved, batch: int, half: bool
) -> Callable[[], None]:
    """The same step of another implementation."""
    recipe: Any = resolved.recipe
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.lr, betas=recipe.optim.betas, weight_decay=0.05, fused=True
    )
    encoder = recipe.model.encoder
    images = torch.randn(batch, encoder.in_channels, *height_width(encoder.image_size))

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            found = loss(images)
        found.backward()
        optimizer.step()

    return run


def sides_of(options: argparse.Namespace, precision: str) -> dict[str, Callable[[], None]]:
    resolved = config.load(options.recipe, [f"train.precision={precision}"])
    half = precision == "bf16"
    theirs, plain = transformers_model(resolved.recipe), plain_model(resolved.recipe)
    return {
        f"ours_{precision}": Stepper(resolved, options.batch, torch.device("cpu")),
        f"transformers_{precision}": peer_stepper(
            theirs, lambda images: theirs(images).loss, resolved, options.batch, half
        ),
        f"plain_{precision}": peer_stepper(plain, plain, resolved, options.batch, half),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="image/mae-vitb16-in1k")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), action="append")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    precisions = options.precision or ["fp32", "bf16"]
    torch.set_num_threads(options.threads)
    check_plain()
    sides = {n: run for name in precisions for n, run in sides_of(options, name).items()}
    for run in sides.values():  # first calls allocate
        run()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name in [*sides, *reversed(sides)]:
            times[name].append(seconds(sides[name]))
    figures: dict[str, Any] = {}
    for above, below in pairs(precisions):
        each = [a / b for a, b in zip(turns(times[above]), turns(times[below]), strict=True)]
        figures[f"{above}/{below}"] = statistics.median(each)
        figures[f"{above}/{below} min max"] = [min(each), max(each)]
    figures |= {f"{name}_seconds": statistics.median(values) for name, values in times.items()}
    figures |= {"batch": options.batch, "threads": options.threads, "rounds": options.rounds}
    print(json.dumps(figures))
    measured = figures.get("transformers_fp32/ours_fp32", PROMISED)
    return 1 if options.check and measured < PROMISED else 0


def pairs(precisions: list[str]) -> list[tuple[str, str]]:
    """Which times are divided by which."""
    found = [(f"{peer}_{p}", f"ours_{p}") for p in precisions for peer in ("transformers", "plain")]
    return found + ([("ours_fp32", "ours_bf16")] if len(precisions) == 2 else [])


def turns(values: list[float]) -> list[float]:
    """The two turns of each round together."""
    return [a + b for a, b in zip(values[::2], values[1::2], strict=True)]


if __name__ == "__main__":
    sys.exit(main())
