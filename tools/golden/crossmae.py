"""CrossMAE pretraining: a pass, mask counts, rates and groups (kinds ``efficient/...``)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from golden import build
from golden.case import Case, Hparams
from golden.mae import outputs_of
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.masks import PartlyDecodedSection
from mimsuite.masking import RandomSampler, TokenMask
from mimsuite.methods import Output
from mimsuite.methods.cross_mae import CrossMAE
from mimsuite.models import Features
from mimsuite.noise import FixedNoise

SIZES = (
    "img_size patch_size embed_dim depth num_heads mlp_ratio qkv_bias norm_eps batch "
    "decoder_embed_dim decoder_depth decoder_num_heads weight_fm use_fm use_input self_attn "
    "norm_pix_loss loss_kind mask_ratio kept_mask_ratio "
)


def document(hparams: Hparams) -> dict[str, Any]:
    """The recipe of a case."""
    hparams.only("weight_fm", True)  # without it the published code does not run
    encoder = {**build.encoder_keys(hparams), "final_norm": False}
    decoder = build.decoder_keys(hparams, hparams["mlp_ratio"]) | {
        "kind": "cross",
        "layers": layers(hparams["use_fm"], hparams["use_input"], hparams["depth"]),
        "self_attention": hparams["self_attn"],
    }
    found = build.autoencoder_document("crossmae", hparams, encoder, decoder, "mse_mean")
    found["mask"]["decode_ratio"] = hparams["kept_mask_ratio"]
    return found


def layers(chosen: list[int], use_input: bool, depth: int) -> list[int] | None:
    """Published block numbers, from 0 or from the end, as layers counted from 1; a single -1
    stands for all."""
    if chosen == [-1]:
        return None if use_input else list(range(1, depth + 1))
    return sorted([*([0] if use_input else []), *(1 + number % depth for number in chosen)])


def pretrain(case: Case) -> Results:
    """The tensors of an ``efficient/crossmae`` case."""
    case.hparams.require(SIZES)
    build.refuse_drop_path(case)
    method: CrossMAE = build.method_of(document(case.hparams))
    build.load(method, case)
    method.train(case.training())
    batch = Batch.of_images(build.images(case))
    rows = FixedNoise({"mask": build.noise(case, math.prod(method.grid))})
    context = method.prepare(batch, rows)
    masks = method.mask(batch, rows, context)
    decoder, seen = method.decoder, _Seen()
    with outputs_of(decoder.blocks, seen.blocks), outputs_of(decoder.memory_norms, seen.memories):
        handles = [
            decoder.register_forward_pre_hook(seen.keep_latent),
            decoder.blocks[0].register_forward_pre_hook(seen.keep_input),
        ]
        output = method(batch, masks, context)
        for handle in handles:
            handle.remove()
    output.loss.backward()
    mask = masks["image"]
    facts = counts(case.hparams, mask)
    facts["hparams.batch"] = (len(batch), case.hparams.get("batch", None))
    return Results(
        {**_tensors(method, batch, mask, output, seen), **build.gradients(method)}, facts
    )


@dataclass
class _Seen:
    """What passes by inside of the decoder."""

    latent: Features | None = None
    asked: Tensor | None = None
    blocks: dict[str, Tensor] = field(default_factory=dict)
    memories: dict[str, Tensor] = field(default_factory=dict)

    def keep_latent(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.latent = args[0]

    def keep_input(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.asked = args[0]


def _tensors(
    method: CrossMAE, batch: Batch, mask: TokenMask, output: Output, seen: _Seen
) -> dict[str, Tensor]:
    assert seen.latent is not None
    assert seen.asked is not None
    assert output.prediction is not None
    decoded = torch.zeros(len(batch), mask.tokens).scatter(1, mask.ids("decoded"), 1.0)
    return {
        "mask": decoded,
        "ids_restore": mask.restore(),
        "ids_keep": mask.visible,
        "latent": torch.cat([seen.latent.cls, seen.latent.tokens], dim=1),
        "decoder_input": seen.asked,
        "pred": output.prediction,
        "target": method.target(method.encoder.patches(batch.image, mask.ids("decoded"))),
        "loss": output.loss,
        **{f"feat.{i}": each for i, each in enumerate(method.decoder.sources(seen.latent))},
        **{f"memory.{number}": each for number, each in seen.memories.items()},
        **{f"debug.decoder_block{number}": each for number, each in seen.blocks.items()},
    }


def counts(hparams: Hparams, mask: TokenMask) -> dict[str, tuple[Any, Any]]:
    """The numbers of patches that a case states, beside ours."""
    visible, decoded = mask.visible.shape[1], mask.ids("decoded").shape[1]
    own = {
        "num_patches": mask.tokens,
        "len_keep": visible,
        "len_skip": mask.tokens - visible - decoded,
        "len_predicted": decoded,
    }
    return {f"hparams.{name}": (own[name], hparams.get(name, None)) for name in own}


# --- tables ---------------------------------------------------------------------------------------


def mask_counts(case: Case, entry: dict[str, Any]) -> dict[str, Any]:
    """Visible, dropped and predicted patches of a pair of ratios."""
    args = entry["args"]
    section = PartlyDecodedSection(ratio=args["mask_ratio"], decode_ratio=args["kept_mask_ratio"])
    tokens = args["num_patches"]
    mask = RandomSampler(section)(torch.rand(1, tokens), (tokens,))
    found = counts(Hparams({}), mask)
    return {name: found[f"hparams.{name}"][0] for name in ("len_keep", "len_skip", "len_predicted")}


def rate(case: Case, entry: dict[str, Any]) -> dict[str, Any]:
    """The peak rate of a recipe."""
    args = entry["args"]
    recipe = build.resolve(
        _small(2, 1, True, False)
        | {
            "method": {"name": "crossmae", "rate_scale": args["kept_scale"]},
            "mask": {"ratio": args["mask_ratio"], "decode_ratio": args["kept_mask_ratio"]},
            "optim": {"lr_per_256": args["blr"]},
            "train": {"global_batch": args["batch"]},
        }
    ).recipe
    return {"lr": recipe.lr}


def small_model(args: dict[str, Any]) -> dict[str, Any]:
    """A recipe of the sizes that an entry about parameter groups tells."""
    return _small(args["depth"], args["decoder_depth"], args["use_input"], args["self_attn"])


def published_model(name: str, stage: str, pool: str | None) -> dict[str, Any] | None:
    """The recipe document of a released model; ``None`` for a name that is not one."""
    size, _, pixels = name.removeprefix("vit_").partition("_")
    if stage != "pretrain" or size not in _SIZES:
        return None
    image = int(pixels or 224)
    width, heads = (256, 8) if size == "small" else (512, 16)
    encoder = {"image_size": image, "patch_size": 14 if size == "huge" else 16, **_SIZES[size]}
    return {
        "method": {"name": "crossmae"},
        "model": {
            "encoder": {**encoder, "final_norm": False},
            "decoder": {"kind": "cross", "width": width, "depth": 12, "heads": heads},
        },
        "mask": {"ratio": 0.75},
        "target": {"normalize": True},
    }


_SIZES = {"small": {"width": 384, "depth": 12, "heads": 6}, **build.SIZES}


def _small(depth: int, decoder_depth: int, use_input: bool, self_attn: bool) -> dict[str, Any]:
    encoder = {"image_size": 16, "patch_size": 4, "width": 8, "depth": depth, "heads": 1}
    decoder = {
        "kind": "cross",
        "width": 8,
        "depth": decoder_depth,
        "heads": 1,
        "layers": layers([-1], use_input, depth),
        "self_attention": self_attn,
    }
    return {
        "method": {"name": "crossmae"},
        "model": {"encoder": {**encoder, "final_norm": False}, "decoder": decoder},
        "mask": {"ratio": 0.75},
        "target": {"normalize": True},
        **build.idle_sections(),
    }
