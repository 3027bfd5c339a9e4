"""Twenty steps of a representation autoencoder, with and without its discriminator (``rae/traj``,
``rae/gan-traj``)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from golden import build
from golden.case import Case, Hparams
from golden.rae import MODEL, document_of, latent_noise, load, normalized
from golden.results import Results
from golden.trajectory_rules import Group, Record, compare_trajectory
from mimsuite.batch import Batch
from mimsuite.methods import Context
from mimsuite.methods.rae import split_names
from mimsuite.train.trainer import Trainer


def trajectory(case: Case) -> Results:
    """A ``rae/traj`` or ``rae/gan-traj`` case, by the product's trainer."""
    hparams = case.hparams
    hparams.require(
        MODEL + "lr final_lr betas weight_decay adam_eps ema_decay schedule warmup_epochs "
        "decay_end_epoch steps steps_per_epoch"
    )
    with tempfile.TemporaryDirectory() as folder:
        return _Run(case, Path(folder)).results()


class _Run:
    """A trajectory, run on construction."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, hparams = case, case.hparams
        self.gan = case.kind == "rae/gan-traj"
        document = document_of(case, folder) | _training(hparams)
        if self.gan:
            file = folder / "dino.safetensors"
            save_file({n: t.contiguous() for n, t in case.inputs("dino.").items()}, file)
            document["target"]["adversarial"] = _adversarial(hparams, str(file))
        else:
            hparams.only("disc_weight", 0.0)
            hparams.skip(
                "disc_start", "disc_update_start", "disc_loss", "disc_updates", "max_d_weight"
            )
        hparams.only("perceptual_weight", 0.0)
        resolved = build.resolve(document)
        self.method = build.method_of(document)
        self.start = case.inputs("state0.")
        load(self.method, self.start)
        if self.gan:
            self.method.discriminator.load_state_dict(case.inputs("disc0."), strict=False)
        self._inject()
        absent: Any = None
        self.trainer = Trainer(
            method=self.method,
            resolved=resolved,
            normalize=absent,
            device=torch.get_default_device(),
            steps_per_epoch=hparams["steps_per_epoch"],
            stop=absent,
        )
        self.logged: dict[str, list[float]] = {}
        self.method.train()
        self._train()

    def _inject(self) -> None:
        """The stored tokens and draws, in place of the encoder's and of keyed ones."""
        case, hparams = self.case, self.case.hparams
        tokens = case.input("tokens")
        calls = iter(case.input("aug").transpose(1, 2)) if self.gan else iter(())

        def prepare(batch: Batch, rows: Any, gather: Any) -> Context:
            step = int(batch.keys[0])
            noise = latent_noise(case.input("noise_u")[step], case.input("noise_n")[step])
            epoch = step // hparams["steps_per_epoch"]
            if self.gan and epoch >= hparams["disc_start"]:
                noise._rows["deceive"] = next(calls)
            if self.gan and epoch >= hparams["disc_update_start"]:
                for number in range(hparams["disc_updates"]):
                    for name in ("fake", "real"):
                        noise._rows[f"{name} {number}"] = next(calls)
            return Context(noise, gather, {"tokens": tokens[step]})

        self.method.prepare = prepare

    def _train(self) -> None:
        hparams, images = self.case.hparams, self.case.input("images")
        for step in range(hparams["steps"]):
            batch = Batch.of_images(normalized(hparams, images[step]))
            batch = Batch(batch.views, batch.index, [str(step)] * len(batch))
            done = self.trainer.train_step(iter([batch]), 1)
            self._log(
                loss=done.loss,
                loss_l1=done.terms["l1"],
                grad_norm=done.grad_norm,
                rate=self.trainer.optimizer.param_groups[0]["lr"],
            )
            if not self.gan:
                continue
            self._log(loss_gen=done.terms["generator"])
            epoch = step // hparams["steps_per_epoch"]
            if epoch >= hparams["disc_start"]:
                self._log(adaptive_weight=done.terms["adaptive_weight"])
            if epoch >= hparams["disc_update_start"]:
                judged = self.method.judged
                self._log(
                    loss_disc=judged["loss"],
                    logits_real=judged["real"],
                    logits_fake=judged["fake"],
                    rate_disc=judged["lr"],
                )

    def _log(self, **values: Any) -> None:
        for name, value in values.items():
            self.logged.setdefault(name, []).append(float(value))

    def results(self) -> Results:
        """The findings for every stored answer."""
        tensors = {n: torch.tensor(v, dtype=torch.float64) for n, v in self.logged.items()}
        own = {name: p.detach() for name, p in self.method.named_parameters()}
        state = self.trainer.optimizer.state
        trained = {name: p for name, p in self.method.named_parameters() if p in state}
        tensors |= _prefixed("state_final.", split_names({n: own[n] for n in trained}))
        average = self.trainer.average.tensors  # type: ignore[union-attr]
        tensors |= _prefixed("state_final.ema.", split_names({n: average[n] for n in trained}))
        for moment in ("exp_avg", "exp_avg_sq"):
            held = {name: state[p][moment] for name, p in trained.items()}
            tensors |= _prefixed(f"opt.{moment}.", split_names(held))
        start = dict(self.start)
        start |= _prefixed("ema.", self.start)
        if self.gan:
            heads = self.method.discriminator.state_dict()
            tensors |= _prefixed("state_final.disc.", heads)
            start |= _prefixed("disc.", self.case.inputs("disc0."))
        groups = [
            Group(frozenset(split_names(dict.fromkeys(g["names"], torch.zeros(3)))), 1.0, decay)
            for g in self.trainer.optimizer.param_groups
            for decay in [g["weight_decay"]]
        ]
        record = Record(tensors, start, _joined(groups))
        return Results(tensors, findings=compare_trajectory(_renamed(self.case), record))


def _joined(groups: list[Group]) -> list[Group]:
    """Groups of the same rate and decay as one: ours keep vectors apart even without decay."""
    names: dict[tuple[float, float], frozenset[str]] = {}
    for group in groups:
        key = group.lr_scale, group.weight_decay
        names[key] = names.get(key, frozenset()) | group.names
    return [Group(together, *key) for key, together in names.items()]


def _renamed(case: Case) -> Case:
    """The case with its averages and heads as weights that are compared by their update."""
    moved = (("ema_final.", "state_final.ema."), ("disc_final.", "state_final.disc."))
    tensors = {}
    for name, tensor in case.tensors.items():
        for old, new in moved:
            name = name.replace(old, new, 1) if name.startswith(old) else name
        tensors[name] = tensor
    return Case(case.path, case.document, tensors)


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _training(hparams: Hparams) -> dict[str, Any]:
    hparams.only("schedule", "cosine")
    return {
        "optim": {
            "name": "adamw",
            "lr": hparams["lr"],
            "betas": hparams["betas"],
            "eps": hparams["adam_eps"],
            "weight_decay": hparams["weight_decay"],
            "decay_all": True,
            "clip_grad": hparams["clip_grad"] or None,
        },
        "schedule": {
            "kind": "cosine-counted",
            "epochs": hparams["decay_end_epoch"],
            "warmup_epochs": hparams["warmup_epochs"],
            "min_lr": hparams["final_lr"],
        },
        "train": {
            "global_batch": hparams["batch"],
            "precision": "fp32",
            "device": str(torch.get_default_device()),
            "ema": hparams["ema_decay"],
        },
    }


def _adversarial(hparams: Hparams, weights: str) -> dict[str, Any]:
    return {
        "weight": hparams["disc_weight"],
        "network": {
            "kind": "dino",
            "weights": weights,
            "patch_size": hparams["disc_patch"],
            "width": hparams["disc_dim"],
            "depth": hparams["disc_depth"],
            "heads": hparams["disc_heads"],
            "norm_eps": hparams["disc_norm_eps"],
        },
        "layers": [1 + depth for depth in hparams["disc_key_depths"]],
        "kernel": hparams["disc_kernel"],
        "loss": hparams["disc_loss"],
        "from_epoch": hparams["disc_start"],
        "heads_from_epoch": hparams["disc_update_start"],
        "updates": hparams["disc_updates"],
        "largest_weight": hparams["max_d_weight"],
        "cutout": hparams["cutout"],
    }
