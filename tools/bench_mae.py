"""Time a MAE training step beside that of Hugging Face transformers' ViTMAEForPreTraining.

Same sizes, same mask ratio, normalised pixels, SDPA attention and fused AdamW on both sides, in one
process, in turns A B B A, on process CPU time. Prints one JSON line; `--check` exits 1 below the
ratio that the project promises (0.95, peer's time over ours).

    .venv/bin/python tools/bench_mae.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.config.keys.section import height_width
from mimsuite.train.bench import Stepper

PROMISED = 0.95


def peer_stepper(resolved: Resolved, batch: int) -> Callable[[], None]:
    """The same step in transformers."""
    recipe = resolved.recipe
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
    model = ViTMAEForPreTraining(settings).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.lr, betas=recipe.optim.betas, weight_decay=0.05, fused=True
    )
    images = torch.randn(batch, encoder.in_channels, *height_width(encoder.image_size))

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(images).loss.backward()
        optimizer.step()

    return run


def seconds(run: Callable[[], None]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="image/mae-vitb16-in1k")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    resolved = config.load(options.recipe)
    ours = Stepper(resolved, options.batch, torch.device("cpu"))
    theirs = peer_stepper(resolved, options.batch)
    ours(), theirs()  # first calls allocate
    ratios, times = [], {"ours": [], "transformers": []}
    for _ in range(options.rounds):
        a, b = seconds(ours), seconds(theirs)
        b, a = b + seconds(theirs), a + seconds(ours)
        ratios.append(b / a)
        times["ours"].append(a / 2)
        times["transformers"].append(b / 2)
    figures = {
        "ratio": statistics.median(ratios),
        "ratio_min_max": [min(ratios), max(ratios)],
        **{f"{name}_seconds": statistics.median(values) for name, values in times.items()},
        "batch": options.batch,
        "threads": options.threads,
        "rounds": options.rounds,
    }
    print(json.dumps(figures))
    return 1 if options.check and figures["ratio"] < PROMISED else 0


if __name__ == "__main__":
    sys.exit(main())
