"""CAPI (kinds ``latent/capi``, ``-eval``, ``-masks``, ``-mask-stats``), and its entries of the
tables of latent prediction.

Everything runs as a training step runs it: prepare, mask, forward. The masks, and who skips a
branch by drop path, are the stored ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden import build
from golden.case import Case, CaseFault, Hparams, pair
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.rolled_mask import RolledBlockMaskSection
from mimsuite.masking import RolledBlockSampler, TokenMask
from mimsuite.methods.capi import CAPI
from mimsuite.models.momentum import warm_cosine
from mimsuite.models.register_vit import kept_of
from mimsuite.noise import FixedNoise, Noise
from mimsuite.schedule import cosine_per_step

SIZES = (
    "img_size patch_size in_chans embed_dim depth num_heads mlp_ratio norm_layer norm_eps "
    "n_registers register_coordinates scale_reg_to_visible rope_max_freq rope_min_freq "
    "decoder_depth decoder_embed_dim batch "
)
MODEL = SIZES + (
    "num_clusters n_sk_iter target_temp pred_temp student_temp positionwise_sk mask_ratio "
    "prediction_subsampling masking roll "
)
# Settings of which the product has one value: the published one.
_PUBLISHED = {
    "qkv_bias": False,
    "proj_bias": False,
    "mlp_bias": False,
    "patch_bias": True,
    "final_norm_affine": False,
}
_PUBLISHED_HEADS = {
    "head_bias": True,
    "sk_eps": 1e-8,
    "head_norm_eps": 1e-7,
    "student_head_norm_eps": 1e-12,
    "weight_norm_eps": 1e-8,
}


def pretrain(case: Case) -> Results:
    """A ``latent/capi`` case."""
    hparams = case.hparams
    hparams.require(MODEL)
    method: CAPI = build.method_of(document(hparams) | build.idle_sections())
    load(method, case, "state.")
    method.train(case.training())
    batch = Batch.of_images(build.images(case))
    mask = mask_of(case.input("visible_indices"), case.input("predict_indices"), method)
    seen: dict[str, Any] = {}
    for name in ("student", "clusters", "prototypes"):
        module = getattr(method, name)
        module.register_forward_hook(lambda m, a, out, name=name: seen.__setitem__(name, out))
    context = method.prepare(batch, noise_of(case, method, len(batch)))
    output = method(batch, {"image": mask}, context)
    output.loss.backward()
    by_place = seen["clusters"].transpose(0, 1)
    shares = method.assign(seen["clusters"].detach())
    assert output.prediction is not None
    tensors = {
        "teacher_latent": context.prepared["target"],
        "cluster_logits": by_place,
        "assignments": shares.transpose(0, 1),
        "targets": mask.gather(shares, "decoded").flatten(0, 1),
        "latent": seen["student"].tokens,
        "pred": output.prediction.flatten(0, 1),
        "logits": seen["prototypes"].flatten(0, 1),
        "loss": output.terms["prediction"],
        "clustering_loss": output.terms["clustering"],
        "target_entropy": output.terms["target_entropy"],
    }
    return Results({**tensors, **build.gradients(method)}, facts=facts(case, method))


def load(method: CAPI, case: Case, prefix: str) -> None:
    """The case's weights; a copy of the head that it leaves out is never read."""
    state = case.inputs(prefix)
    head = {k: t for k, t in state.items() if k.startswith("student.head.")}
    slow = {name.replace("student.", "student_ema.", 1): tensor for name, tensor in head.items()}
    build.load_published(method, {**slow, **state})


def document(hparams: Hparams) -> dict[str, Any]:
    """The recipe's sections that a pretraining case describes."""
    for name, value in _PUBLISHED_HEADS.items():
        hparams.only(name, value)
    return {
        "method": {"name": "capi"},
        "model": model_keys(hparams),
        "mask": mask_keys(hparams),
        "target": {
            "clusters": hparams["num_clusters"],
            "balance": "place" if hparams["positionwise_sk"] else "batch",
            "iterations": hparams["n_sk_iter"],
            "assignment_temperature": hparams["target_temp"],
            "cluster_temperature": hparams["pred_temp"],
            "temperature": hparams["student_temp"],
        },
    }


def training(hparams: Hparams) -> dict[str, Any]:
    """Method, optim, schedule and train sections of a trajectory, whose epochs are steps."""
    total = hparams["total_iters"]
    rate, clusters, momentum = (
        hparams[name] for name in ("lr_schedule", "clustering_lr_schedule", "momentum_schedule")
    )
    if {each["truncate_cos"] for each in (rate, clusters, momentum)} != {rate["truncate_cos"]}:
        raise CaseFault("hparams: the product has one truncate_cos for all schedules")
    starts = (each.get("start_warmup_value", 0.0) for each in (rate, clusters))
    if any(starts) or any(each.get("freeze_iters", 0) for each in (rate, clusters, momentum)):
        raise CaseFault("hparams: the product has rates that begin at 0, and freezes none")
    return {
        "method": {
            "name": "capi",
            "momentum": [
                momentum.get("start_warmup_value", 0.0),
                momentum["base_value"],
                momentum["final_value"],
            ],
            "momentum_warmup_epochs": momentum["warmup_iters"],
            "patch_rate": hparams["patch_embed_lr_mult"],
            "norm_decay": hparams["layernorm_wd_mult"],
            "clusters": {
                "lr": clusters["base_value"],
                "min_lr": clusters["final_value"],
                "warmup_epochs": clusters["warmup_iters"],
                "weight_decay": hparams["clustering_weight_decay"],
                "decay_all": True,
            },
        },
        "optim": {
            "name": "adamw",
            "lr": rate["base_value"],
            "betas": hparams["betas"],
            "eps": hparams["adam_eps"],
            "weight_decay": hparams["weight_decay"],
            "clip_grad": hparams["clip_grad"],
        },
        "schedule": {
            "kind": "cosine-per-step",
            "epochs": total,
            "warmup_epochs": rate["warmup_iters"],
            "min_lr": rate["final_value"],
            "cosine_share": rate["truncate_cos"],
        },
        "train": {
            "global_batch": hparams["batch"],
            "micro_batch": hparams["batch"],
            "precision": "fp32",
            "device": str(torch.get_default_device()),
        },
    }


def gradient_norms(method: CAPI) -> list[float]:
    """Of the student, decoder and head, and of the clusters."""
    squares = [0.0, 0.0]
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            square = float(parameter.grad.double().square().sum())
            squares[name.startswith("clusters.")] += square
    return [square**0.5 for square in squares]


def model_keys(hparams: Hparams) -> dict[str, Any]:
    """`model` keys of a case."""
    for name, value in _PUBLISHED.items():
        hparams.only(name, value)
    hparams.only("decoder_embed_dim", hparams["embed_dim"])
    hparams.only("norm_layer", "RMSNorm", "LayerNorm")
    hparams.only("register_coordinates", "edge", "zeros")
    hparams.only("drop_path_type", "efficient", "naive")
    encoder = {
        "kind": "register-vit",
        "image_size": pair(hparams["img_size"]),
        "patch_size": hparams["patch_size"],
        "in_channels": hparams["in_chans"],
        "width": hparams["embed_dim"],
        "depth": hparams["depth"],
        "heads": hparams["num_heads"],
        "mlp_ratio": hparams["mlp_ratio"],
        "norm": "rms" if hparams["norm_layer"] == "RMSNorm" else "layer",
        "norm_eps": hparams["norm_eps"],
        "registers": hparams["n_registers"],
        "register_places": "edge" if hparams["register_coordinates"] == "edge" else "corner",
        "registers_in_box": hparams["scale_reg_to_visible"],
        "cycles": [hparams["rope_max_freq"], hparams["rope_min_freq"]],
        "drop_path": hparams["drop_path_rate"],
        "drop_path_by": "batch" if hparams["drop_path_type"] == "efficient" else "sample",
    }
    return {"encoder": encoder, "decoder": {"depth": hparams["decoder_depth"]}}


def mask_keys(given: Any) -> dict[str, Any]:
    """`mask` keys of a case's or an entry's settings."""
    block = {"InverseBlock": "visible", "Block": "masked"}[given["masking"]]
    keys = {"ratio": given["mask_ratio"], "block": block, "roll": given["roll"]}
    if "prediction_subsampling" in given:
        keys["predicted"] = given["prediction_subsampling"]
    if "min_aspect" in given:
        keys["aspect"] = [given["min_aspect"], given["max_aspect"]]
    return keys


def mask_of(visible: Tensor, predicted: Tensor, method: CAPI) -> TokenMask:
    """The mask by stored ids, which count over the flattened batch."""
    tokens = method.grid[0] * method.grid[1]
    return _mask(visible, predicted, tokens, method.grid)


def _mask(visible: Tensor, predicted: Tensor, tokens: int, grid: tuple[int, int]) -> TokenMask:
    batch = int(visible.max()) // tokens + 1
    ids = [each.long().view(batch, -1) % tokens for each in (visible, predicted)]
    made = TokenMask.from_visible(ids[0], grid)
    flags = torch.ones_like(ids[1], dtype=torch.bool)
    return TokenMask(grid, made.visible, made.masked, ids[1], flags).check()


def noise_of(case: Case, method: CAPI, batch: int) -> Noise:
    """Noise by which the stored samples go through each branch."""
    if not method.recipe.model.encoder.drop_path:
        return FixedNoise({})
    kept = case.input("drop_path_kept").long()  # (branches, K)
    rows = torch.ones(len(kept), batch).scatter(1, kept, 0.0).T  # those kept have the least
    count = 2 * method.recipe.model.encoder.depth
    return FixedNoise({"drop_path": rows[:, :count], "decoder/drop_path": rows[:, count:]})


def facts(case: Case, method: CAPI) -> dict[str, tuple[Any, Any]]:
    """Numbers that a case states and the product derives."""
    tokens, hparams = method.grid[0] * method.grid[1], case.hparams
    section, encoder = method.recipe.mask, method.recipe.model.encoder
    masked = section.masked(tokens)
    kept = kept_of(hparams["batch"], encoder.drop_path) if encoder.drop_path else None
    own = {
        "num_patches": tokens,
        "batch": len(case.input("imgs").flatten(0, -4)) // hparams.get("steps", 1),
        "n_masked": masked,
        "n_predict": section.decoded(tokens),
        "n_visible": tokens - masked,
        "drop_path_n_keep": kept,
    }
    return {f"hparams.{k}": (v, hparams[k]) for k, v in own.items() if k in hparams}


def encode(case: Case) -> Results:
    """A ``latent/capi-eval`` case."""
    hparams = case.hparams
    hparams.require(SIZES)
    own = {"target": {"clusters": 8}, "mask": {"ratio": 0.65, "predicted": 1.0}}
    sections = {"method": {"name": "capi"}, "model": model_keys(hparams), **own}
    method: CAPI = build.method_of(sections | build.idle_sections())
    state = {f"student_ema.{name}": tensor for name, tensor in case.inputs("state.").items()}
    ours = CAPI.import_reference(state)
    missing, unexpected = method.load_state_dict(ours, strict=False)
    if unexpected or any(name.startswith(("encoder.", "slow_decoder.")) for name in missing):
        raise ValueError(f"keys that do not fit: {[*unexpected, *missing][:3]}")
    method.eval()
    batch = Batch.of_images(build.images(case))
    with torch.no_grad():
        found = method.encode(batch)
        registers = method.encoder.encode(batch).cls
    return Results(
        {
            "global_repr": found.cls[:, 0],
            "registers": registers,
            "feature_map": found.tokens.unflatten(1, method.grid),
        },
        facts={
            "hparams.num_patches": (method.grid[0] * method.grid[1], hparams["num_patches"]),
            "hparams.batch": (len(batch), hparams["batch"]),
        },
    )


def masks(case: Case) -> Results:
    """A ``latent/capi-masks`` case: exact masks from recorded draws."""
    hparams = case.hparams
    hparams.require("grid masking roll min_aspect max_aspect mask_ratio prediction_subsampling")
    hparams.skip("calls", "batch")  # the draws say it
    grid = tuple(hparams["grid"])
    tokens = grid[0] * grid[1]
    section = RolledBlockMaskSection(**mask_keys(hparams))
    section.require_grid(grid)
    sampler = RolledBlockSampler(section)
    aspects, draws = case.input("aspect"), case.input("integers").long()
    scores = case.input("predict_score")
    visible, predicted = [], []
    for call in range(len(aspects)):
        mask = sampler.mask(sampler.block(aspects[call], draws[call], grid), scores[call], grid)
        first = torch.arange(len(mask.visible)).unsqueeze(1) * tokens  # of each sample
        visible.append((mask.visible + first).flatten())
        predicted.append((mask.ids("decoded") + first).flatten())
    stated = {
        "n_tokens": tokens,
        "n_masked": section.masked(tokens),
        "n_predict": section.decoded(tokens),
        "n_visible": tokens - section.masked(tokens),
    }
    return Results(
        {
            "visible_indices": torch.stack(visible),
            "predict_indices": torch.stack(predicted),
            "aspect_log_range": torch.tensor(section.aspects(grid), dtype=torch.float64),
        },
        facts={f"hparams.{k}": (v, hparams[k]) for k, v in stated.items() if k in hparams},
    )


# --- entries of tables ---------------------------------------------------------------------------

# Width, depth of encoder and decoder, heads, patch, clusters.
_MODELS = {"vit_large14": (1024, 24, 12, 16, 14, 16384)}


def model(name: str, patch_rate: float = 0.2, norm_decay: float = 0.1) -> CAPI:
    """A published model, without memory for weights."""
    width, depth, decoder, heads, patch, clusters = _MODELS[name]
    encoder = {"width": width, "depth": depth, "heads": heads, "patch_size": patch}
    made: CAPI = build.method_of(
        {
            "method": {"name": "capi", "patch_rate": patch_rate, "norm_decay": norm_decay},
            "model": {"encoder": encoder, "decoder": {"depth": decoder}},
            "mask": {"ratio": 0.65},
            "target": {"clusters": clusters},
            **build.idle_sections(),
        },
        meta=True,
    )
    return made


def state_fields(name: str) -> dict[str, Any]:
    """Released keys and counts of a published model."""
    method, lead = model(name), "student_ema."
    published = method.export_reference()
    released = {
        k.removeprefix(lead): t
        for k, t in published.items()
        if k.startswith((lead, "teacher.head."))
    }
    count = lambda *parts: sum(p.numel() for part in parts for p in part.parameters())  # noqa: E731
    encoder, decoder = count(method.encoder), count(method.slow_decoder.blocks)
    token = method.slow_decoder.mask_token.numel()  # of neither
    return {
        "keys": {name: list(tensor.shape) for name, tensor in released.items()},
        "params": {
            "backbone": encoder + decoder + token,
            "encoder_only": encoder,
            "decoder": decoder,
            "student_head": count(method.prototypes),
            "clustering_head": count(method.clusters),
        },
    }


def schedule(args: dict[str, Any]) -> list[float]:
    """Values of a schedule at the updates of an entry, behind those at which it is frozen at 0."""
    frozen = args.get("freeze_iters", 0)
    return [
        0.0
        if step < frozen
        else warm_cosine(
            step - frozen,
            start=args.get("start_warmup_value", 0.0),
            peak=args["base_value"],
            end=args["final_value"],
            warmup=args["warmup_iters"],
            total=args["total_iters"] - frozen,
            share=args["truncate_cos"],
        )
        for step in args["at"]
    ]


def probe_schedule(total: int, warmup: int, at: list[int]) -> list[float]:
    """Factors of the rate of the published probe, whose cosine ends on its last step."""
    return [
        cosine_per_step(step, lr=1.0, min_lr=0.0, warmup=warmup, total=total - 1) for step in at
    ]


def counts(args: dict[str, Any]) -> dict[str, Any]:
    """Numbers of masked and of predicted tokens."""
    names = ("tokens", "mask_ratio", "prediction_subsampling")
    rows = [
        (tokens, RolledBlockMaskSection(ratio=ratio, predicted=predicted))
        for tokens, ratio, predicted in zip(*(args[name] for name in names), strict=True)
    ]
    return {
        "n_masked": [section.masked(tokens) for tokens, section in rows],
        "n_predict": [section.decoded(tokens) for tokens, section in rows],
    }


def kept_counts(args: dict[str, Any]) -> dict[str, Any]:
    """Numbers of samples that go through a branch."""
    pairs = zip(args["batch"], args["rate"], strict=True)
    return {"n_keep": [kept_of(batch, rate) for batch, rate in pairs]}


def mask_fields(entry: dict[str, Any]) -> dict[str, Any]:
    """Statistics of masks by an entry's settings."""
    given = entry["args"]
    grid = tuple(given["grid"])
    sampler = RolledBlockSampler(RolledBlockMaskSection(**mask_keys(given)))
    hidden = sampler.sample(Noise(0, 0, torch.arange(given["samples"])), grid).dense()
    found, cells = hidden.sum(1), hidden.unflatten(1, grid)
    pairs = (cells[:, 1:] & cells[:, :-1]).sum() + (cells[:, :, 1:] & cells[:, :, :-1]).sum()
    return {
        "tensors": {f"{entry['id']}.masked_mean": hidden.float().mean(0).view(*grid)},
        "counts": [int(found.min()), int(found.max())],
        "adjacent_masked_pairs_mean": float(pairs) / len(hidden),
    }
