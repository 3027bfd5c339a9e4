"""Classifiers on CAE's encoder: fine-tuning and the attentive probe (``image/cae-ft``,
``image/cae-attentive``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden import build, classify
from golden.case import Case
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.methods.classify import UNUSED, Classifier

_SIZES = (
    "mlp_ratio norm_eps qkv_bias drop_path_rate dropout in_chans img_size patch_size embed_dim "
    "depth num_heads init_values num_classes batch loss_kind use_rel_pos_bias "
)


def finetune(case: Case) -> Results:
    """The tensors of an ``image/cae-ft`` case."""
    hparams = case.hparams
    hparams.require(_SIZES + "use_mean_pooling init_scale")
    hparams.skip("init_scale")  # of the head's first weights; every case brings its own
    pool = "mean" if hparams["use_mean_pooling"] else "cls"
    method, batch = _begin(case, {"pool": pool, "fc_norm": "encoder"})
    _, logits, loss = classify.step(method, batch)
    loss.backward()
    return Results(
        {"logits": logits, "loss": loss, **_gradients(method)}, facts=_facts(case, method, batch)
    )


def attentive(case: Case) -> Results:
    """The tensors of an ``image/cae-attentive`` case."""
    hparams = case.hparams
    hparams.require(_SIZES + "linear_type attentive_depth attentive_num_heads bn_eps bn_momentum")
    hparams.only("linear_type", "attentive")
    hparams.only("attentive_depth", 1)
    hparams.only("attentive_num_heads", hparams["num_heads"])
    hparams.only("bn_eps", 1e-5)
    hparams.only("bn_momentum", 0.1)
    hparams.only("bn_affine", False)
    method, batch = _begin(case, {"pool": "attentive", "freeze": True})
    _, logits, loss = classify.step(method, batch)
    loss.backward()
    results = Results({"logits_train": logits, "loss": loss}, facts=_facts(case, method, batch))
    results.tensors.update(_gradients(method))
    for name, tensor in _published(method).items():
        results.tensors[f"after.{name}"] = tensor.clone()
    method.eval()
    with torch.no_grad():
        results.tensors["logits_eval_after"] = method.logits(batch.image)
    return results


def _begin(case: Case, keys: dict[str, Any]) -> tuple[Classifier, Batch]:
    hparams = case.hparams
    hparams.only("loss_kind", "cross_entropy")
    build.refuse_drop_path(case)
    document = {
        "method": {"name": "classify"},
        "model": {
            "encoder": {
                **build.encoder_keys(hparams),
                "kind": "beit",
                "layer_scale": hparams["init_values"] or 0.0,
                "relative_positions": hparams["use_rel_pos_bias"],
            },
            "head_init_std": 2e-5,
            **keys,
        },
        "target": {"classes": hparams["num_classes"]},
        **build.idle_sections(),
    }
    method = build.method_of(document)
    state = case.inputs("state.")
    method.load_state_dict(type(method).import_reference(state), strict=True)
    method.train(case.training())
    return method, Batch.of_images(build.images(case), case.input("labels"))


def _published(method: Classifier) -> dict[str, Tensor]:
    names = method.encoder.published
    return {names.published(name): tensor for name, tensor in method.state_dict().items()}


def _gradients(method: Classifier) -> dict[str, Tensor]:
    names = method.encoder.published
    return {
        f"grad.{names.published(name)}": parameter.grad
        for name, parameter in method.named_parameters()
        if parameter.grad is not None
    }


def _facts(case: Case, method: Classifier, batch: Batch) -> dict[str, Any]:
    facts: dict[str, Any] = {"hparams.batch": (len(batch), case.hparams["batch"])}
    trainable = case.document.get("meta", {}).get("trainable")
    if trainable is not None:  # of an attentive probe; one norm of it is never used
        names = method.encoder.published
        own = [names.published(n) for n, p in method.named_parameters() if p.requires_grad]
        stated = [name for name in trainable if not name.startswith(UNUSED)]
        facts["meta.trainable"] = (sorted(own), sorted(stated))
    return facts
