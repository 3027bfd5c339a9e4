"""Attentive probes on given features: one query (``latent/capi-attnpool``), and blocks trained by
several optimizers side by side (``latent/vjepa-probe``).

The frozen encoder returns the features of the case; everything else is the product's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden import build
from golden.case import Case
from golden.results import Results
from mimsuite import methods
from mimsuite.batch import Batch
from mimsuite.config import Resolved
from mimsuite.methods.classify import Classifier
from mimsuite.models import Features, released_head
from mimsuite.noise import FixedNoise
from mimsuite.train.optim import build_optimizer, set_schedules

_TINY = {"image_size": 8, "patch_size": 4, "depth": 1, "heads": 1}  # of an encoder that never runs
_PREFIX = "module."  # of the names of heads that were trained in parallel


def query(case: Case) -> Results:
    """A ``latent/capi-attnpool`` case."""
    hparams = case.hparams
    hparams.require("embed_dim head_dim num_heads num_classes num_tokens batch")
    pooler = {"kind": "query", "head_width": hparams["head_dim"]}
    method = _method(build.resolve(_document(case, pooler)))
    _load(method, case.inputs("state."))
    method.train(case.training())
    tokens = case.input("tokens")
    logits, loss = _step(method, tokens, case.input("labels"))
    loss.backward()
    stated = {
        "batch": len(tokens),
        "num_tokens": tokens.shape[1],
        "num_heads": tokens.shape[2] // hparams["head_dim"],
    }
    return Results(
        {"logits": logits, "loss": loss, **_named(method, "grad.", _gradients(method))},
        facts={f"hparams.{name}": (own, hparams[name]) for name, own in stated.items()},
    )


def blocks(case: Case) -> Results:
    """A ``latent/vjepa-probe`` case: each head is a training of its own."""
    hparams = case.hparams
    hparams.require(
        "embed_dim num_heads depth mlp_ratio qkv_bias norm_eps num_classes batch views tokens "
        "steps iterations_per_epoch epochs heads head_lr head_start_lr head_final_lr head_warmup "
        "head_weight_decay head_final_weight_decay loss_kind"
    )
    hparams.only("loss_kind", "cross_entropy")
    hparams.only("qkv_bias", True)
    features = case.input("features")  # (S, V, B, N, D)
    trained = [_train(case, features, head) for head in range(hparams["heads"])]
    tensors: dict[str, Tensor] = {}
    for name in ("logits", "loss", "lr", "wd"):
        tensors[name] = torch.stack([each[name] for each in trained], dim=1)
    for name in ("eval_logits", "eval_correct"):
        tensors[name] = torch.stack([each[name] for each in trained])
    for head, each in enumerate(trained):
        for kind in ("grad", "after"):
            lead = f"{kind}."
            tensors |= {
                f"{lead}{head}.{name.removeprefix(lead)}": tensor
                for name, tensor in each.items()
                if name.startswith(lead)
            }
    sizes = dict(
        zip(("steps", "views", "batch", "tokens", "embed_dim"), features.shape, strict=True)
    )
    facts = {f"hparams.{name}": (own, hparams[name]) for name, own in sizes.items()}
    return Results(tensors, facts=facts)


def _train(case: Case, features: Tensor, head: int) -> dict[str, Tensor]:
    hparams, steps = case.hparams, case.hparams["iterations_per_epoch"]
    pooler = {
        "kind": "blocks",
        **{key: hparams[key] for key in ("depth", "mlp_ratio", "norm_eps")},
        "heads": hparams["num_heads"],
    }
    own = lambda name: hparams[f"head_{name}"][head]  # noqa: E731
    training = {
        "optim": {
            "lr": own("lr"),
            "betas": [0.9, 0.999],
            "weight_decay": own("weight_decay"),
            "weight_decay_end": own("final_weight_decay"),
            "decay_all": True,
        },
        "schedule": {
            "kind": "cosine-ahead",
            "epochs": hparams["epochs"],
            "warmup_epochs": own("warmup"),
            "warmup_lr": own("start_lr"),
            "min_lr": own("final_lr"),
        },
    }
    recipe = build.resolve(_document(case, pooler) | training)
    method = _method(recipe)
    _load(method, case.inputs(f"state.{head}."))
    optimizer = build_optimizer(method, recipe.recipe)
    labels = case.input("labels")
    found: dict[str, Any] = {"logits": [], "loss": [], "lr": [], "wd": []}
    method.train(case.training())
    for step, views in enumerate(features):
        set_schedules(optimizer, recipe.recipe, step, steps)
        optimizer.zero_grad()
        scored = [_step(method, view, labels[step]) for view in views]
        for _, loss in scored:  # gradients of the views add up
            loss.backward()
        if step == 0:
            gradients = _named(method, f"grad.{_PREFIX}", _gradients(method))
        optimizer.step()
        found["logits"].append(torch.stack([logits for logits, _ in scored]).detach())
        found["loss"].append(torch.stack([loss for _, loss in scored]).sum().detach())
        group = optimizer.param_groups[0]
        found["lr"].append(torch.tensor(group["lr"], dtype=torch.float64))
        found["wd"].append(torch.tensor(group["weight_decay"], dtype=torch.float64))
    after = _named(method, f"after.{_PREFIX}", method.state_dict())
    method.eval()
    asked = case.input("eval_labels")
    with torch.no_grad():
        scores = torch.stack(
            [_step(method, view, asked)[0] for view in case.input("eval_features")]
        )
    answers = scores.softmax(-1).mean(0).argmax(-1)
    return {
        **{name: torch.stack(values) for name, values in found.items()},
        "eval_logits": scores,
        "eval_correct": (answers == asked).sum(),
        **gradients,
        **after,
    }


def probe(width: int, pooler: dict[str, Any], classes: int, *, meta: bool = False) -> Classifier:
    """A probe by blocks without its encoder; ``meta``: without memory for weights."""
    document = _sections(width, {"kind": "blocks"} | pooler, classes)
    return _method(build.resolve(document), meta=meta)


def _document(case: Case, pooler: dict[str, Any]) -> dict[str, Any]:
    return _sections(case.hparams["embed_dim"], pooler, case.hparams["num_classes"])


def _sections(width: int, pooler: dict[str, Any], classes: int) -> dict[str, Any]:
    return {
        "method": {"name": "classify"},
        "model": {
            "encoder": {**_TINY, "width": width},
            "pool": "attentive",
            "pooler": pooler,
            "freeze": True,
            "head_init_std": 0.02,  # every case brings its weights
        },
        "target": {"classes": classes},
        **build.idle_sections(),
    }


def _method(resolved: Resolved, *, meta: bool = False) -> Classifier:
    """The method with an encoder that returns what it is given."""
    with torch.device("meta" if meta else "cpu"):
        method: Classifier = methods.build(resolved.recipe)
    method.encoder = _Given()  # type: ignore[assignment]
    return method


class _Given(torch.nn.Module):
    """An encoder whose tokens are its input."""

    def encode(self, batch: Batch, noise: Any = None) -> Features:
        tokens = batch.image
        return Features(tokens[:, :0], tokens)


def _step(method: Classifier, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, loss) as a training step computes them."""
    batch, rows = Batch.of_images(tokens, labels), FixedNoise({})
    with torch.no_grad():
        context = method.prepare(batch, rows)
    output = method(batch, method.mask(batch, rows, context), context)
    assert output.prediction is not None
    return output.prediction, output.loss


def _load(method: Classifier, state: dict[str, Tensor]) -> None:
    plain = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    method.load_state_dict(released_head.named(method.pooler, plain), strict=True)


def _named(method: Classifier, lead: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies under the published names, behind ``lead``."""
    names = method.pooler.published
    return {lead + names.published(name): tensor.clone() for name, tensor in tensors.items()}


def _gradients(method: Classifier) -> dict[str, Tensor]:
    return {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
