"""MaskAlign: one forward and backward pass (kind ``image/maskalign``), and its sampling.

The teacher's answers are stored, so the teacher itself is never opened; everything else runs as in
training. The drawn order is injected as the noise from which the product's sampler draws it.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from golden import build
from golden.case import Case, CaseFault, Hparams
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.masks import AttentiveMaskSection
from mimsuite.masking import build_sampler
from mimsuite.methods import Context
from mimsuite.models.teachers import TeacherFeatures
from mimsuite.noise import FixedNoise, Noise

REQUIRED = (
    "mlp_ratio norm_eps qkv_bias drop_path_rate dropout in_chans img_size patch_size embed_dim "
    "depth num_heads loss_weights mask_type fusion_type target_norm loss_type head_type "
    "teacher_model mask_ratio teacher_dim teacher_depth batch"
)
_MASKS = {"attention": "attentive", "random": "random"}
_FUSIONS = {"linear": "linear", "sum": "sum", "simple": "none", "none": "none"}
_HEADS = {"linear": "linear", "norm_linear": "norm-linear", "mlp": "mlp", "mlp2": "mlp2"}
_NORMS = {"whiten": "layer-norm", "l2": "unit", "none": "none"}
_LOSSES = {"smoothl1": "smooth-l1", "l2": "mse"}
_LEVELS = {"top5": "top5", "mean": "mean", "last": "last"}
_TRIALS = 40_000


def document(hparams: Hparams) -> dict[str, Any]:
    """The recipe of a MaskAlign case."""
    hparams.require(REQUIRED)
    smooth = hparams["loss_type"] == "smoothl1"
    if smooth:
        hparams.only("smooth_l1_beta", 1.0)
    if hparams["target_norm"] == "whiten":
        hparams.only("target_norm_eps", 1e-5)
    weight = hparams["smooth_l1_scale"] if smooth else 1.0
    hparams.skip("smooth_l1_beta", "smooth_l1_scale", "target_norm_eps")
    encoder = build.encoder_keys(hparams)
    teacher = {
        "kind": "clip" if "clip" in hparams["teacher_model"] else "dino",
        "patch_size": encoder["patch_size"],
        "width": hparams["teacher_dim"],
        "depth": hparams["teacher_depth"],
        "heads": 1,  # they show in its attention only, which the case brings
    }
    return {
        "method": {"name": "mask-align"},
        "model": {
            "encoder": encoder,
            "fusion": _one_of(hparams, "fusion_type", _FUSIONS),
            "head": _one_of(hparams, "head_type", _HEADS),
        },
        "mask": {
            "kind": _one_of(hparams, "mask_type", _MASKS),
            "ratio": hparams["mask_ratio"],
        },
        "target": {
            "teacher": teacher,
            "levels": _one_of(hparams, "loss_weights", _LEVELS),
            "normalize": _one_of(hparams, "target_norm", _NORMS),
            "loss": _one_of(hparams, "loss_type", _LOSSES),
            "weight": weight,
        },
        **build.idle_sections(),
    }


def pretrain(case: Case) -> Results:
    """The tensors of an ``image/maskalign`` case."""
    build.refuse_drop_path(case)
    method = build.method_of(document(case.hparams))
    build.load(method, case)
    method.train(case.training())
    batch = Batch.of_images(build.images(case))
    context = _context(case, method, len(batch))
    masks = method.mask(batch, context.noise, context)
    output = method(batch, masks, context)
    output.loss.backward()
    mask, found = masks["image"], context.prepared["teacher"]
    results = Results(build.gradients(method))
    results.tensors |= {
        "loss": output.loss,
        "student_last": output.prediction,
        "teacher_target_last": method.targets(found, mask)[-1],
        "ids_keep": mask.visible,
        "teacher_input_pixels": method.teacher.input(batch.image),
    }
    if found.cls_attention is not None:
        results.tensors["importance"] = found.cls_attention.mean(dim=1)
    facts = {
        "len_keep": mask.visible.shape[1],
        "num_patches": mask.tokens,
        "num_levels": len(method.alignment.heads),
        "batch": len(batch),
    }
    for name, value in facts.items():
        if name in case.hparams:
            results.facts[f"hparams.{name}"] = (value, case.hparams[name])
    return results


def sampling(case: Case) -> Results:
    """How often each token is kept, and drawn first, of an ``image/maskalign-sampling`` table."""
    results = Results()
    case.hparams.skip(*case.hparams.unread())  # each entry repeats them
    importance = case.input("importance")  # (N,)
    for entry in case.field("table"):
        if entry["family"] != "maskalign" or entry["group"] != "sampling":
            results.not_built.append(entry["id"])
            continue
        tokens, kept = entry["args"]["num_patches"], entry["args"]["len_keep"]
        if importance.shape != (tokens,):
            raise CaseFault(f"inputs: importance is not of {tokens} tokens")
        sampler = build_sampler(AttentiveMaskSection(kind="attentive", ratio=1 - kept / tokens))
        noise = Noise(0, 0, torch.arange(_TRIALS))
        drawn = sampler.sample(noise, (tokens,), importance.expand(_TRIALS, -1)).visible
        for name, ids in (("keep", drawn.flatten()), ("first_pick", drawn[:, 0])):
            share = ids.bincount(minlength=tokens) / _TRIALS
            results.tensors[f"{name}_probability"] = share
        results.facts[f"{entry['id']}.len_keep"] = (drawn.shape[1], kept)
        results.entries[entry["id"]] = {}
    return results


def published_model(name: str, stage: str, pool: str | None) -> dict[str, Any] | None:
    """The recipe document of a released model; ``None`` for a name that is not one."""
    named = re.fullmatch(r"vit_(base|large)_patch(\d+)", name)
    if not named or stage != "pretrain":
        return None
    size = build.SIZES[named[1]]
    return {
        "method": {"name": "mask-align"},
        "model": {
            "encoder": {"image_size": 224, "patch_size": int(named[2]), **size},
            "fusion": "linear",
        },
        "mask": {"kind": "attentive", "ratio": 0.7},
        "target": {
            "teacher": {"kind": "clip", "patch_size": int(named[2]), **size},
            "levels": "top5",
            "normalize": "layer-norm",
            "loss": "smooth-l1",
            "weight": 2.0,
        },
    }


def _context(case: Case, method: Any, batch: int) -> Context:
    """What ``prepare`` returns, with the stored answers of the teacher."""
    found = case.inputs("teacher_hidden.")
    hidden = {int(number): tensor for number, tensor in found.items()}
    attentive = case.hparams["mask_type"] == "attention"
    attention = case.input("attn_last_cls_to_patch") if attentive else None
    missing = [number for number in method.levels if number not in hidden]
    if missing:
        raise CaseFault(f"inputs: tensor teacher_hidden.{missing[0]} is missing")
    last = hidden[method.levels[-1]]
    answers = TeacherFeatures(last[:, 0], last[:, 1:], hidden, attention)
    guide = None if attention is None else attention.mean(dim=1)
    rows = _noise_of(case.input("ids_shuffle"), guide)
    return Context(FixedNoise({"mask": rows}), prepared={"teacher": answers})


def _noise_of(order: Tensor, guide: Tensor | None) -> Tensor:
    """Noise (B, N) from which the samplers draw ``order`` (B, N).

    Random masking keeps the least noise; attentive masking draws by ``log w - log(-log u)``, which
    falls with the place in the order where ``-log u`` is the weight times a growing factor.
    """
    place = (order.argsort(dim=1) + 0.5) / order.shape[1]  # (B, N) in (0, 1)
    if guide is None:
        return place.float()
    exponent = guide.double() / guide.double().max() * place
    return (-exponent).exp().float()


def _one_of(hparams: Hparams, name: str, table: dict[str, str]) -> str:
    hparams.only(name, *table)
    return table[hparams[name]]
