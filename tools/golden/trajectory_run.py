"""A training trajectory by the product's trainer: the sections of its recipe, and the run.

The trainer is the one that `mimsuite pretrain` and `mimsuite finetune` run, with its own step,
schedule, optimizer, parameter groups, clipping and accumulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from golden import build
from golden.case import Case, CaseFault
from golden.results import Results
from golden.trajectory_rules import Group, Record, compare_trajectory, stored_groups
from mimsuite.batch import Batch
from mimsuite.train.trainer import Trainer


def training(
    case: Case,
    accumulation: int,
    kind: str = "half-cosine",
    end: str = "min_lr",
    spans: tuple[str, str] = ("epochs", "warmup_epochs"),
) -> dict[str, Any]:
    """The optim, schedule and train sections.

    Args:
        end: the hyperparameter that is the last rate.
        spans: those that are the length of the training and of its warm-up.
    """
    hparams = case.hparams
    build.refuse_drop_path(case)
    return {
        "optim": {
            "name": "adamw",
            "lr": hparams["lr"],
            "betas": hparams["betas"],
            "eps": hparams["adam_eps"],
            "weight_decay": hparams["weight_decay"],
            "layer_decay": hparams.get("layer_decay", None),
            "clip_grad": hparams["clip_grad"],
        },
        "schedule": {
            "kind": kind,
            "epochs": hparams[spans[0]],
            "warmup_epochs": hparams[spans[1]],
            "min_lr": hparams[end],
        },
        "train": {
            "global_batch": hparams["batch"] * accumulation,
            "micro_batch": hparams["batch"],
            "precision": "fp32",
            "device": str(torch.get_default_device()),
        },
    }


@dataclass
class Run:
    """A trajectory, run on construction."""

    case: Case
    document: dict[str, Any]
    steps_per_epoch: int
    accumulation: int
    inject: Callable[[Any], None]
    fed: tuple[str, str] = ("imgs", "image")  # the stored input, and the view that it is
    idle: frozenset[str] = frozenset()  # published names of the state that only rounding moves
    load: Callable[[Any, Case, str], None] | None = None  # default: `build.load`
    results: Results = field(default_factory=Results)

    def __post_init__(self) -> None:
        resolved = build.resolve(self.document)
        self.recipe = resolved.recipe
        method = build.method_of(self.document)
        (self.load or build.load)(method, self.case, "state0.")
        self.start = {k: v.clone() for k, v in method.export_reference().items()}
        self.names = build.published_names(method)
        self.unused = frozenset(self.names[name] for name in method.unused_parameters())
        self.inject(method)
        absent: Any = None  # no pixels to normalise, no signals
        self.trainer = Trainer(
            method=method,
            resolved=resolved,
            normalize=absent,
            device=torch.get_default_device(),
            steps_per_epoch=self.steps_per_epoch,
            stop=absent,
        )
        self.groups = self._groups()  # as they begin: a decay may be scheduled
        self.columns = self._columns()
        method.train()
        self._train(method)
        self._final(method)

    def _train(self, method: Any) -> None:
        measured: dict[str, list[Any]] = {
            name: [] for name in ("lr", "lr_groups", "loss", "loss_micro", "grad_norm")
        }
        handle = method.register_forward_hook(
            lambda module, args, output: measured["loss_micro"].append(float(output.loss.detach()))
        )
        batches, groups = self._batches(), self.trainer.optimizer.param_groups
        for step in range(self.case.hparams["steps"]):
            for name, value in self.trainer.scheduled_at(step).items():
                measured.setdefault(name, []).append(value)
            done = self.trainer.train_step(batches, self.accumulation)
            measured["lr"].append(groups[0]["lr"] / groups[0]["lr_scale"])
            measured["lr_groups"].append([groups[i]["lr"] for i in self.columns])
            measured["loss"].append(float(done.loss))
            measured["grad_norm"].append(float(done.grad_norm))
            for name, value in done.terms.items():
                measured.setdefault(f"term.{name}", []).append(float(value))
        handle.remove()
        for name, values in measured.items():
            self.results.tensors[name] = torch.tensor(values, dtype=torch.float64)

    def optimizer_groups(self) -> list[Any]:
        """The optimizer's groups in the order of ``lr_groups``."""
        groups = self.trainer.optimizer.param_groups
        return [groups[number] for number in self.columns]

    def _batches(self) -> Iterator[Batch]:
        """The stored micro-batches; a batch's first key is its row in the stored tensors."""
        name, view = self.fed
        samples = self.case.input(name)
        needed = self.case.hparams["steps"] * self.accumulation
        if len(samples) < needed:
            raise CaseFault(f"inputs: {name} holds {len(samples)} micro-batches of {needed}")
        labels = self.case.tensors.get("labels")
        for row in range(needed):
            label = None if labels is None else labels[row]
            batch = Batch.of_views({view: samples[row]}, label)
            yield Batch(batch.views, batch.index, [str(row)] * len(batch), batch.label)

    def _final(self, method: Any) -> None:
        tensors = self.results.tensors
        for name, tensor in method.export_reference().items():
            tensors[f"state_final.{name}"] = tensor
        state = self.trainer.optimizer.state
        for name, parameter in method.named_parameters():
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in state.get(parameter, {}):
                    tensors[f"opt.{moment}.{self.names[name]}"] = state[parameter][moment]

    def judge(self) -> Results:
        """The findings for every stored answer."""
        record = Record(self.results.tensors, self.start, self.groups, self.unused, self.idle)
        self.results.findings += compare_trajectory(self.case, record)
        return self.results

    def _groups(self) -> list[Group]:
        """The optimizer's groups under published names."""
        return [
            Group(
                frozenset(self.names[name] for name in group["names"]),
                group["lr_scale"],
                group["weight_decay"],
            )
            for group in self.trainer.optimizer.param_groups
        ]

    def _columns(self) -> list[int]:
        """Our parameter groups in the order of the case's ``param_groups``, matched by names."""
        ours = [group.names for group in self.groups]
        theirs = [group.names for group in stored_groups(self.case, self.unused)]
        if set(ours) != set(theirs):  # a case without answers, or a finding of its own
            return list(range(len(ours)))
        return [ours.index(names) for names in theirs]
