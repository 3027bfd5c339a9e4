"""ViT-B/16 at 224 pixels with weights by rule (``image/mae-fullsize``, ``image/mae-vit-fullsize``).

The cases are tables of statistics; entries are found by their id.
"""

from __future__ import annotations

from typing import Any

import torch

from golden import build, classify
from golden.case import Case
from golden.mae import Pass
from golden.results import Results, statistics
from golden.tables import FAMILIES
from mimsuite.batch import Batch
from mimsuite.config.keys.targets import PixelTargetSection
from mimsuite.methods import Method
from mimsuite.noise import FixedNoise
from mimsuite.targets import PixelTarget

_VIT = "mlp_ratio norm_eps qkv_bias img_size patch_size embed_dim depth num_heads batch "


@torch.no_grad()
def pretrain(case: Case) -> Results:
    """The table of an ``image/mae-fullsize`` case."""
    case.hparams.require(
        _VIT + "decoder_embed_dim decoder_depth decoder_num_heads mask_ratio imgs noise"
    )
    method, results = _begin(case, build.mae_document(case.hparams))
    images = build.images(case)
    noise = build.noise(case, method.grid[0] * method.grid[1])
    run = Pass(method, images, noise)
    mask = run.output.masks["image"]
    values: dict[str, dict[str, Any]] = {
        "latent": statistics(run.latent),
        "pred": statistics(run.prediction),
        "mask_sum": {"counts": mask.dense().sum(1).tolist()},
        "ids_keep_first8": {"ids": mask.visible[:, :8].tolist()},
        "fill_checks": {"first3": {k: v.flatten()[:3] for k, v in _state(method).items()}},
    }
    for name, normalize in (("loss_norm_pix", True), ("loss_pix", False)):
        method.target = PixelTarget(PixelTargetSection(normalize=normalize))
        values[name] = {"value": float(_loss(method, images, noise))}
    _hand_over(case, results, values)
    results.facts["hparams.len_keep"] = (mask.visible.shape[1], case.hparams.get("len_keep", None))
    results.facts["hparams.num_patches"] = (mask.tokens, case.hparams.get("num_patches", None))
    return results


@torch.no_grad()
def finetune(case: Case) -> Results:
    """The table of an ``image/mae-vit-fullsize`` case."""
    case.hparams.require(_VIT + "num_classes global_pool imgs")
    method, results = _begin(case, build.classify_document(case.hparams))
    images = build.images(case)
    batch = Batch.of_images(images, torch.zeros(len(images), dtype=torch.int64))
    features, logits, _ = classify.step(method, batch)
    values = {
        "features": statistics(features),
        "logits": statistics(logits),
        "argmax": {"ids": logits.argmax(1).tolist()},
        "fill_checks": {"first3": {k: v.flatten()[:3] for k, v in _state(method).items()}},
    }
    _hand_over(case, results, values)
    tokens = method.encoder.grid[0] * method.encoder.grid[1]
    results.facts["hparams.num_patches"] = (tokens, case.hparams.get("num_patches", None))
    return results


def _begin(case: Case, document: dict[str, Any]) -> tuple[Any, Results]:
    """The method with its weights, and what is countable about it."""
    build.refuse_drop_path(case)
    method = build.method_of(document)
    build.load(method, case)
    method.train(case.training())
    counts = {
        "num_keys": len(_state(method)),
        "params": sum(p.numel() for p in method.parameters()),
        "trainable_params": sum(p.numel() for p in method.parameters() if p.requires_grad),
    }
    facts = {f"hparams.{key}": (own, case.hparams.get(key, None)) for key, own in counts.items()}
    return method, Results(facts=facts)


def _loss(method: Any, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    batch, rows = Batch.of_images(images), FixedNoise({"mask": noise})
    context = method.prepare(batch, rows)
    return method(batch, method.mask(batch, rows, context), context).loss


def _state(method: Method) -> dict[str, torch.Tensor]:
    return method.export_reference()


def _hand_over(case: Case, results: Results, values: dict[str, dict[str, Any]]) -> None:
    """Give each table entry its values; an id that is not known is not built."""
    for entry in case.field("table"):
        name = entry["id"]
        if entry["family"] not in FAMILIES or name not in values:
            results.not_built.append(name)
            continue
        stored = entry.get("expected", {}).get("first3")
        if stored is not None:  # a sample of the keys
            first = values[name]["first3"]
            values[name]["first3"] = {key: first[key] for key in stored if key in first}
        results.entries[name] = values[name]
