"""Classifier on a ViT: one forward and backward pass (kind ``image/mae-vit``)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from golden import build
from golden.case import Case, CaseFault, pair
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.methods.classify import Classifier
from mimsuite.noise import FixedNoise
from mimsuite.tokens import resize_positions

REQUIRED = (
    "mlp_ratio norm_eps qkv_bias drop_path_rate dropout in_chans img_size patch_size embed_dim "
    "depth num_heads global_pool num_classes interp_to_img_size batch loss_kind interp "
    "interp_antialias interp_align_corners"
)


def classify(case: Case) -> Results:
    """The tensors of an ``image/mae-vit`` case."""
    case.hparams.require(REQUIRED)
    build.refuse_drop_path(case)
    method = build.method_of(build.classify_document(case.hparams))
    build.load(method, case)
    method.train(case.training())
    batch = Batch.of_images(build.images(case), case.input("labels"))
    features, logits, loss = step(method, batch)
    loss.backward()
    results = Results({"features": features, "logits": logits, "loss": loss})
    results.tensors.update(build.gradients(method))
    results.tensors["pos_embed_interp"] = _interpolated(case)
    results.facts["hparams.batch"] = (len(batch), case.hparams["batch"])
    return results


def step(method: Classifier, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(features, logits, loss) as a training step computes them; features = input of the head."""
    seen: list[Tensor] = []
    handle = method.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    rows = FixedNoise({})
    with torch.no_grad():
        context = method.prepare(batch, rows)
        masks = method.mask(batch, rows, context)
    output = method(batch, masks, context)
    handle.remove()
    return seen[0], output.prediction, output.loss


def _interpolated(case: Case) -> Tensor:
    """``pos_embed_in`` as the encoder resizes it for another image size."""
    hparams = case.hparams
    hparams.only("interp", "bicubic")
    hparams.only("interp_antialias", False)
    hparams.only("interp_align_corners", False)
    table, patch = case.input("pos_embed_in"), hparams["patch_size"]
    old = tuple(side // patch for side in pair(hparams["img_size"]))
    patches = table.shape[1] - 1  # one class row
    if math.prod(old) != patches:
        old = (math.isqrt(patches), math.isqrt(patches))
        if math.prod(old) != patches:
            raise CaseFault(f"inputs: pos_embed_in has {patches} patches, which is no grid")
    new = tuple(side // patch for side in pair(hparams["interp_to_img_size"]))
    return resize_positions(table, old, new)
