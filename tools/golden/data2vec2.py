"""data2vec 2.0 (kinds ``latent/data2vec2``, ``-ft``, ``-masks``, ``-mask-stats``), and its entries
of the tables of latent prediction.

Everything runs as a training step runs it: prepare, mask, forward. The masks, and the noise in
place of masked tokens, are the stored ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden import build, classify
from golden.case import Case, Hparams
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.masks import SquareBlockMaskSection
from mimsuite.config.keys.shared import ScheduleSection
from mimsuite.masking import SquareBlockSampler, TokenMask
from mimsuite.methods import Method
from mimsuite.methods.data2vec2 import Data2Vec2
from mimsuite.models.momentum import rising
from mimsuite.noise import FixedNoise, Noise
from mimsuite.schedule import rate_at

SIZES = (
    "img_size patch_size in_chans embed_dim depth prenet_depth num_heads mlp_ratio qkv_bias "
    "norm_eps num_extra_tokens layer_norm_first "
)
MODEL = SIZES + (
    "average_top_k_layers clone_batch decoder_dim decoder_groups decoder_kernel decoder_layers "
    "mask_prob mask_prob_adjust mask_length inverse_mask mask_noise_std cls_loss batch "
)
# Settings of which the product has one value: the published one.
_PUBLISHED = {
    "end_of_block_targets": False,
    "instance_norm_target_layer": True,
    "layer_norm_target_layer": False,
    "batch_norm_target_layer": False,
    "instance_norm_targets": False,
    "layer_norm_targets": True,
    "target_norm_eps": 1e-5,
    "loss_beta": 0.0,
    "loss_scale": None,
    "decoder_residual": True,
    "decoder_norm_eps": 1e-5,
    "add_positions_masked": False,
    "add_positions_all": False,
    "decoder_input_dropout": 0.0,
    "ema_encoder_only": False,
    "ema_local_encoder": True,
}


def pretrain(case: Case) -> Results:
    """A ``latent/data2vec2`` case."""
    case.hparams.require(MODEL)
    build.refuse_drop_path(case)
    method: Data2Vec2 = build.method_of(document(case.hparams) | build.idle_sections())
    build.load(method, case)
    method.train(case.training())
    latents: list[Tensor] = []
    layers: list[Tensor] = []
    keep = lambda m, args, out: latents.append(torch.cat([out.cls, out.tokens], 1))  # noqa: E731
    method.encoder.register_forward_hook(keep)
    for block in method.teacher.module.blocks:  # type: ignore[union-attr]
        block.mlp.register_forward_hook(lambda m, args, out: layers.append(out))
    batch = Batch.of_images(build.images(case))
    masks = masks_of(case.input("mask"), len(batch), method.grid)
    context = method.prepare(batch, fill_of(case.input("mask_noise"), len(batch), method))
    output = method(batch, masks, context)
    output.loss.backward()
    joined, target = TokenMask.interleaved(list(masks.values())), context.prepared["target"]
    repeated = target.repeat_interleave(len(masks), dim=0)
    main = layers[case.hparams["prenet_depth"] :]
    tensors = {
        **{f"teacher_layer.{number}": layer[:, 1:] for number, layer in enumerate(main)},
        "latent": latents[0],
        "target_full": target,
        "target": joined.gather(repeated, "masked").flatten(0, 1),
        "pred": output.prediction.flatten(0, 1),
        "loss": output.loss,
        "loss_regression": output.terms["regression"],
        "loss_cls": output.terms["class_token"],
    }
    return Results({**tensors, **build.gradients(method)}, facts=facts(case, method))


def document(hparams: Hparams) -> dict[str, Any]:
    """The recipe's sections that a pretraining case describes."""
    for name, value in _PUBLISHED.items():
        hparams.only(name, value)
    hparams.skip("init_extra_token_zero")  # every case brings its weights
    first = hparams.get("ema_decay", 0.9998)
    return {
        "method": {
            "name": "data2vec2",
            "clones": hparams["clone_batch"],
            "momentum": [first, hparams.get("ema_end_decay", first)],
            "momentum_steps": hparams.get("ema_anneal_end_step", 1),
        },
        "model": {
            "encoder": encoder_keys(hparams),
            "decoder": {
                "width": hparams["decoder_dim"],
                "depth": hparams["decoder_layers"],
                "kernel": hparams["decoder_kernel"],
                "groups": hparams["decoder_groups"],
                "noise": hparams["mask_noise_std"],
            },
        },
        "mask": mask_keys(hparams),
        "target": {
            "layers": hparams["average_top_k_layers"],
            "class_weight": hparams["cls_loss"],
        },
    }


def encoder_keys(hparams: Hparams) -> dict[str, Any]:
    """`model.encoder` keys; a case counts the blocks of the stem for themselves."""
    hparams.only("num_extra_tokens", 1)
    hparams.only("layer_norm_first", False)
    keys = build.encoder_keys(hparams)
    prenet = hparams["prenet_depth"]
    own = {"kind": "post-norm-vit", "depth": keys["depth"] + prenet, "prenet": prenet}
    return {**keys, **own}


def mask_keys(given: Any) -> dict[str, Any]:
    """`mask` keys of a case's or an entry's settings."""
    return {
        "ratio": given["mask_prob"],
        "squares": "visible" if given["inverse_mask"] else "masked",
        "side": given["mask_length"],
        "adjust": given["mask_prob_adjust"],
    }


def facts(case: Case, method: Data2Vec2) -> dict[str, tuple[Any, Any]]:
    """Numbers that a case states and the product derives."""
    tokens, hparams = method.grid[0] * method.grid[1], case.hparams
    masked = tokens - method.recipe.mask.visible(tokens)
    rows = hparams["batch"] * hparams["clone_batch"]
    own = {"num_patches": tokens, "n_masked": masked, "sample_size": masked * rows}
    return {f"hparams.{k}": (v, hparams[k]) for k, v in own.items() if k in hparams}


def masks_of(stored: Tensor, batch: int, grid: tuple[int, int]) -> dict[str, TokenMask]:
    """Masks by name of (B R, N) stored flags, whose rows of a sample are neighbours."""
    clones = stored.unflatten(0, (batch, -1)).unbind(1)
    return {f"clone{i}": TokenMask.from_removed(rows, grid) for i, rows in enumerate(clones, 1)}


def fill_of(stored: Tensor, batch: int, method: Data2Vec2) -> Noise:
    """Noise from which the method makes the (B R, M, D) stored numbers."""
    unit = stored / method.recipe.model.decoder.noise
    clones = unit.unflatten(0, (batch, -1)).unbind(1)
    return FixedNoise({f"clone{i}/fill": rows.flatten(1) for i, rows in enumerate(clones, 1)})


def finetune(case: Case) -> Results:
    """A ``latent/data2vec2-ft`` case."""
    hparams = case.hparams
    hparams.require(SIZES + "pool num_classes label_smoothing batch")
    build.refuse_drop_path(case)
    hparams.only("pool", "mean")
    hparams.only("fc_norm_eps", hparams["norm_eps"])
    method: Any = build.method_of(classifier(hparams) | build.idle_sections())
    build.load(method, case)
    method.train(case.training())
    batch = Batch.of_images(build.images(case), case.input("labels"))
    _, logits, loss = classify.step(method, batch)
    loss.backward()
    stated = {
        "num_patches": method.encoder.grid[0] * method.encoder.grid[1],
        "batch": len(batch),
    }
    return Results(
        {"logits": logits, "loss": loss, **build.gradients(method)},
        facts={f"hparams.{k}": (v, hparams[k]) for k, v in stated.items() if k in hparams},
    )


def classifier(hparams: Hparams) -> dict[str, Any]:
    """The recipe's sections that a fine-tuning case describes."""
    return {
        "method": {"name": "classify"},
        "model": {"encoder": encoder_keys(hparams), "pool": "mean", "head_init_std": 0.01},
        "target": {
            "classes": hparams["num_classes"],
            "label_smoothing": hparams["label_smoothing"],
        },
    }


def masks(case: Case) -> Results:
    """A ``latent/data2vec2-masks`` case: exact masks from recorded draws."""
    hparams = case.hparams
    hparams.require("grid mask_prob mask_prob_adjust mask_length inverse_mask")
    hparams.skip("calls", "rows")  # the draws say it
    grid = hparams["grid"]
    grid = (grid, grid) if isinstance(grid, int) else tuple(grid)
    section = SquareBlockMaskSection(**mask_keys(hparams))
    sampler, tokens = SquareBlockSampler(section), grid[0] * grid[1]
    centres = case.input("centres").long().flatten(0, 1)
    picks = case.input("picks").long().flatten(0, 1)
    marked = sampler.covered(centres, grid)
    # Cells that were picked are the first to go where squares cover them, else the first to come.
    chosen = torch.zeros(len(picks), tokens + 1).scatter(1, picks % (tokens + 1), 1.0)[:, :tokens]
    scores = 0.5 + 0.25 * chosen * (1 - 2 * marked.float())
    mask = sampler(torch.cat([(centres + 0.5) / tokens, scores], dim=1), grid)
    stated = {
        "goal": section.covered(tokens),
        "n_centres": section.centres(tokens),
        "n_tokens": tokens,
        "n_masked": tokens - section.visible(tokens),
    }
    shape = case.input("centres").shape[:2]
    return Results(
        {"mask": mask.dense().unflatten(0, shape)},
        facts={f"hparams.{k}": (v, hparams[k]) for k, v in stated.items() if k in hparams},
    )


# --- entries of tables ---------------------------------------------------------------------------

# Width, heads, stem and other blocks, patch; decoder width, layers, kernel (fairseq's configs).
_MODELS = {
    "vit_base16": (768, 12, 2, 10, 16, 768, 6, 3),
    "vit_large16": (1024, 16, 0, 24, 16, 1024, 3, 5),
    "vit_huge14": (1280, 16, 0, 32, 14, 1024, 3, 5),
    "vit_huge16": (1280, 16, 0, 32, 16, 1024, 3, 5),
}


def model(name: str) -> Data2Vec2:
    """A published model, without memory for weights."""
    width, heads, prenet, main, patch, wide, layers, kernel = _MODELS[name]
    encoder = {"width": width, "heads": heads, "depth": prenet + main, "prenet": prenet}
    made: Data2Vec2 = build.method_of(
        {
            "method": {"name": "data2vec2", "momentum": [0.9998, 0.99999], "momentum_steps": 1},
            "model": {
                "encoder": {**encoder, "kind": "post-norm-vit", "patch_size": patch},
                "decoder": {"width": wide, "depth": layers, "kernel": kernel},
            },
            "mask": {"ratio": 0.75},
            "target": {"layers": 1},
            **build.idle_sections(),
        },
        meta=True,
    )
    return made


def tuned(prenet: int, main: int, drop_path: float) -> Method:
    """A small classifier with these blocks."""
    encoder = {"kind": "post-norm-vit", "image_size": 32, "width": 16, "heads": 2}
    blocks = {"depth": prenet + main, "prenet": prenet, "drop_path": drop_path}
    method: Method = build.method_of(
        {
            "method": {"name": "classify"},
            "model": {"encoder": encoder | blocks, "pool": "mean", "head_init_std": 0.01},
            "target": {"classes": 2},
            **build.idle_sections(),
        },
        meta=True,
    )
    return method


def rates(lr: float, warmup: int, total: int, last: float, at: list[int]) -> list[float]:
    """Rates of updates ``at``; warm-up begins where the cosine ends."""
    keys = {"epochs": total, "warmup_epochs": warmup, "warmup_lr": last, "min_lr": last}
    section = ScheduleSection(kind="half-cosine", **keys)
    return [rate_at(section, lr, step, 1) for step in at]


def momenta(first: float, last: float, steps: int, at: list[int]) -> list[float]:
    """Momentum of updates ``at``."""
    return [rising(step, first, last, steps) for step in at]


def mask_fields(entry: dict[str, Any]) -> dict[str, Any]:
    """Statistics of masks by an entry's settings."""
    given = entry["args"]
    grid = (given["grid"], given["grid"])
    sampler = SquareBlockSampler(SquareBlockMaskSection(**mask_keys(given)))
    hidden = sampler.sample(Noise(0, 0, torch.arange(given["samples"])), grid).dense()
    counts = hidden.sum(1)
    marked = ~hidden if given["inverse_mask"] else hidden
    cells = marked.unflatten(1, grid)
    pairs = (cells[:, 1:] & cells[:, :-1]).sum() + (cells[:, :, 1:] & cells[:, :, :-1]).sum()
    mean = hidden.float().mean(0).view(grid)
    return {
        "tensors": {f"{entry['id']}.masked_mean": mean},
        "counts": [int(counts.min()), int(counts.max())],
        "adjacent_marked_pairs_mean": float(pairs) / len(hidden),
        "corner": float(mean[0, 0]),
        "center": float(mean[grid[0] // 2, grid[1] // 2]),
    }
