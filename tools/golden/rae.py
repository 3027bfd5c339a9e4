"""Representation autoencoders: a training step, 20 of them, the discriminator, LPIPS, and their
functions (``rae/*``)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from golden import build
from golden.case import Case, CaseFault, Hparams
from golden.fills import fill
from golden.results import Results
from golden.trajectory_rules import Group, Record, compare_trajectory
from mimsuite.batch import Batch
from mimsuite.config.keys.rae import AdversarialSection, CodebookSection
from mimsuite.evaluate.scoring.reconstruction import picture_psnr
from mimsuite.methods import Context
from mimsuite.methods.rae import split_names
from mimsuite.models import perceptual
from mimsuite.models.discriminator import Discriminator
from mimsuite.models.momentum import follow
from mimsuite.models.teachers.base import frozen
from mimsuite.noise import FixedNoise
from mimsuite.schedule import counted_warmup
from mimsuite.targets import adversarial
from mimsuite.targets.codebook import Codebook, use_of
from mimsuite.targets.latents import LatentStatistics, MomentumStatistics, merged
from mimsuite.train.trainer import Trainer

_MODEL = (
    "encoder_kind image_size encoder_input_size encoder_patch_size latent_dim num_tokens "
    "decoder_dim decoder_depth decoder_heads decoder_mlp decoder_patch_size decoder_norm_eps "
    "noise_tau image_mean image_std batch "
)


def autoencoder(case: Case) -> Results:
    """One forward and backward pass with noise, then a reconstruction without."""
    hparams = case.hparams
    hparams.require(_MODEL)
    if not case.training():
        raise CaseFault('mode: "eval" is not built, only "train" is')
    with tempfile.TemporaryDirectory() as folder:
        return _autoencoder(case, _document(case, Path(folder)))


def _autoencoder(case: Case, document: dict[str, Any]) -> Results:
    method = build.method_of(document)
    _load(method, case.inputs("state.decoder."))
    method._statistics = _statistics(case)
    images = case.input("images")
    batch = Batch.of_images(_normalized(case.hparams, images))
    noise = _latent_noise(case.input("noise_u"), case.input("noise_n"))
    method.train()
    tokens = _tokens(case, method, batch)
    output = method(batch, {}, Context(noise, made={"tokens": tokens}))
    output.loss.backward()
    noised = method.noised(tokens, noise)
    gradients = {f"decoder.{n}": p.grad for n, p in method.decoder.named_parameters()}
    method.eval()
    with torch.no_grad():
        rebuilt = method.pixels(method.decode(tokens))
    psnr = picture_psnr(rebuilt.clamp(0, 1), images).mean()
    with torch.no_grad():
        prediction = method.decoder(method.tokens_of(method.latents(noised)))
    return Results(
        {
            "encoder_input": method.encoder.network.input(batch.image),
            "tokens": tokens,
            "latent": method.latents(noised),
            "pred": prediction,
            "recon": method.pixels(output.prediction),
            "loss": output.loss,
            "eval.latent": method.latents(tokens),
            "eval.recon": rebuilt,
            "eval.psnr": psnr,
            **{f"grad.decoder.{n}": g for n, g in split_names(gradients).items()},
        }
    )


def _document(case: Case, folder: Path) -> dict[str, Any]:
    """The recipe; weights of the case's encoder are written to ``folder``."""
    hparams = case.hparams
    hparams.only("decoder_qkv_bias", True)
    hparams.only("reshape_to_2d", True)
    hparams.only("stat_eps", 1e-5)
    hparams.only("loss_kind", "l1", "l2")
    hparams.only("latent_stats", "mean+var", "mean", "var", "none", None)
    hparams.only("encoder_kind", "mae", "given")
    hparams.only("num_tokens", (hparams["image_size"] // hparams["decoder_patch_size"]) ** 2)
    hparams.only("batch", case.input("images").shape[-4])
    network: dict[str, Any] = {
        "kind": "dino",
        "weights": "random",
        "patch_size": hparams["encoder_patch_size"],
        "width": hparams["latent_dim"],
        "heads": 1,
        "depth": 1,
        "image_size": hparams["encoder_input_size"],
    }
    if hparams["encoder_kind"] == "mae":
        hparams.only("encoder_qkv_bias", True)
        hparams.skip("encoder_image_size")  # the weights say it
        file = folder / "encoder.safetensors"
        state = case.inputs("state.encoder.model.")
        ones = torch.ones(hparams["latent_dim"])  # upstream takes weight and bias away
        save_file({**state, "layernorm.weight": ones, "layernorm.bias": ones * 0}, file)
        network |= {
            "weights": str(file),
            "heads": hparams["encoder_heads"],
            "depth": hparams["encoder_depth"],
            "mlp_ratio": hparams["encoder_mlp"] / hparams["latent_dim"],
            "norm_eps": hparams["encoder_norm_eps"],
        }
    return build.idle_sections() | {
        "method": {"name": "rae"},
        "model": {
            "encoder": {
                "kind": "frozen",
                "image_size": hparams["image_size"],
                "patch_size": hparams["decoder_patch_size"],
                "network": network,
            },
            "decoder": {
                "width": hparams["decoder_dim"],
                "depth": hparams["decoder_depth"],
                "heads": hparams["decoder_heads"],
                "mlp_width": hparams["decoder_mlp"],
                "norm_eps": hparams["decoder_norm_eps"],
            },
            "latent": {"noise": hparams["noise_tau"]},
        },
        "target": {"loss": hparams["loss_kind"]},
        "augment": {"mean": hparams["image_mean"], "std": hparams["image_std"]},
    }


def _load(method: Any, state: dict[str, Tensor]) -> None:
    own = type(method).import_reference(state)
    expected = {f"decoder.{name}" for name in method.decoder.state_dict()}
    if own.keys() != expected:
        raise CaseFault(f"inputs: only one side has {sorted(own.keys() ^ expected)[0]}")
    method.load_state_dict(own, strict=False)


def _statistics(case: Case) -> LatentStatistics:
    return LatentStatistics(case.tensors.get("stats.mean"), case.tensors.get("stats.var"))


def _normalized(hparams: Hparams, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(hparams[f"image_{n}"]).view(-1, 1, 1) for n in ("mean", "std"))
    return (images - mean) / std


def _tokens(case: Case, method: Any, batch: Batch) -> Tensor:
    if case.hparams["encoder_kind"] == "given":
        return case.input("tokens")
    tokens: Tensor = method.encoder.tokens(batch.image)
    return tokens


def _latent_noise(u: Tensor, n: Tensor) -> FixedNoise:
    return FixedNoise({"latent scale": u.flatten(1), "latent": n.flatten(1)})


# --- trajectories ---


def trajectory(case: Case) -> Results:
    """A ``rae/traj`` or ``rae/gan-traj`` case, by the product's trainer."""
    hparams = case.hparams
    hparams.require(
        _MODEL + "lr final_lr betas weight_decay adam_eps ema_decay schedule warmup_epochs "
        "decay_end_epoch steps steps_per_epoch"
    )
    with tempfile.TemporaryDirectory() as folder:
        return _Run(case, Path(folder)).results()


class _Run:
    """A trajectory, run on construction."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, hparams = case, case.hparams
        self.gan = case.kind == "rae/gan-traj"
        document = _document(case, folder) | _training(hparams)
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
        _load(self.method, self.start)
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
            noise = _latent_noise(case.input("noise_u")[step], case.input("noise_n")[step])
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
            batch = Batch.of_images(_normalized(hparams, images[step]))
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


# --- discriminator, LPIPS, functions ---


def discriminator(case: Case) -> Results:
    """A ``rae/discriminator`` case."""
    hparams = case.hparams
    hparams.only("norm_type", "bn")
    hparams.only("spectral_norm", True)
    hparams.only("mlp_ratio", 4.0)
    hparams.only("loss_kind", "hinge", "vanilla")
    fake, real = case.input("fake"), case.input("real")
    hparams.only("batch", len(fake))
    hparams.only("image_size", fake.shape[-1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dino.safetensors"
        save_file({n: t.contiguous() for n, t in case.inputs("state.dino.").items()}, file)
        section = AdversarialSection.model_validate(
            {
                "network": {
                    "kind": "dino",
                    "weights": str(file),
                    "patch_size": hparams["patch_size"],
                    "width": hparams["embed_dim"],
                    "depth": hparams["depth"],
                    "heads": hparams["num_heads"],
                    "norm_eps": hparams["norm_eps"],
                },
                "image_size": hparams["input_size"],
                "layers": tuple(1 + depth for depth in hparams["key_depths"]),
                "kernel": hparams["kernel"],
                "loss": hparams["loss_kind"],
            }
        )
        model = Discriminator(section, "target.adversarial")
        model.network.open()
    model.heads.load_state_dict(case.inputs("state.heads."), strict=True)
    model.eval()
    seen = fake.clone().requires_grad_()
    logits = model(seen)
    generator = adversarial.generator_loss(logits)
    (image_gradient,) = torch.autograd.grad(generator, seen)
    with torch.no_grad():
        features = {f"features.{n}": level for n, level in enumerate(model.features(fake))}
    model.train()
    logits_fake, logits_real = model(fake), model(real)
    loss = adversarial.judge_loss(logits_real, logits_fake, section.loss)
    loss.backward()
    after = {n: t for n, t in model.heads.state_dict().items() if n.endswith(("_u", "_v"))}
    return Results(
        {
            "logits_eval": logits,
            "logits_fake": logits_fake,
            "logits_real": logits_real,
            "loss_gen": generator,
            "loss_disc": loss,
            "accuracy": adversarial.accuracy(logits_real, logits_fake),
            "grad.gen.image": image_gradient,
            **features,
            **_prefixed("after.", after),
            **{
                f"grad.disc.{name}": parameter.grad
                for name, parameter in model.heads.named_parameters()
                if parameter.grad is not None
            },
        }
    )


def lpips(case: Case) -> Results:
    """A ``rae/lpips`` case."""
    hparams = case.hparams
    hparams.only("channels", list(perceptual.CHANNELS))
    hparams.only("norm_eps", perceptual.EPS)
    hparams.only("shift", list(perceptual.SHIFT))
    hparams.only("scale", list(perceptual.SCALE))
    network = frozen(perceptual.LPIPS())
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    hparams.only("keys", len(shapes))
    first, second = case.input("input"), case.input("target").clone().requires_grad_()
    hparams.only("batch", len(first))
    hparams.only("image_size", first.shape[-1])
    network.load_state_dict(fill(case.field("fill"), shapes))
    distances = network(first, second)
    distances.mean().backward()
    norms = [level.norm(dim=1).mean() for level in network.levels(first)]
    return Results(
        {
            "value": distances.mean(),
            "per_image": distances,
            "grad.target": second.grad,
            **{f"feature_norm.{number}": norm for number, norm in enumerate(norms)},
        }
    )


def simvq(case: Case) -> Results:
    """Codes of the nearest vectors, and both gradients."""
    hparams = case.hparams
    hparams.only("legacy", False)
    z = case.input("z").clone().requires_grad_()  # (B, C, h, w)
    hparams.only("batch", len(z))
    hparams.only("grid", z.shape[-1])
    section = CodebookSection(
        codes=hparams["codebook_size"], width=hparams["dim"], commitment=hparams["beta"]
    )
    book = Codebook(section, hparams["dim"])
    names = {"points": "embedding.weight"} | {
        f"map.{n}": f"embedding_proj.{n}" for n in ("weight", "bias")
    }
    state = {ours: case.input(f"state.{theirs}") for ours, theirs in names.items()}
    book.load_state_dict(state | {"fitted": book.fitted})
    found = book(z.permute(0, 2, 3, 1))
    vectors = found.vectors.permute(0, 3, 1, 2)
    (through,) = torch.autograd.grad(vectors, z, case.input("grad_out"), retain_graph=True)
    found.loss.backward()
    used, perplexity = use_of(found.codes, hparams["codebook_size"])
    return Results(
        {
            "codebook": book.table(),
            "z_q": vectors,
            "indices": found.codes.flatten(),
            "loss_commit": found.loss,
            "utilisation": used,
            "perplexity": perplexity,
            "grad.straight_through.z": through,
            "grad.commit.z": z.grad,
            "grad.commit.proj.weight": book.map.weight.grad,
            "grad.commit.proj.bias": book.map.bias.grad,
        }
    )


def functions(case: Case) -> Results:
    """Every function by itself."""
    hparams = case.hparams
    hparams.skip("batch", "image_size")
    tensors: dict[str, Any] = {}
    for kind in ("hinge", "vanilla"):
        real, fake = (case.input(f"gan.logits_{n}").clone().requires_grad_() for n in _SIDES)
        loss = adversarial.judge_loss(real, fake, kind)
        loss.backward()
        tensors |= {
            f"gan.{kind}_d": loss,
            f"grad.{kind}_d.real": real.grad,
            f"grad.{kind}_d.fake": fake.grad,
        }
    fake = case.input("gan.logits_fake").clone().requires_grad_()
    loss = adversarial.generator_loss(fake)
    loss.backward()
    tensors |= {"gan.gen": loss, "grad.gen.fake": fake.grad}
    tensors |= _adaptive(case) | _augmented(case) | _latents(case)
    for name in ("cosine", "linear", "flat_warmup"):
        rate = _rate(hparams[f"schedule_{name}"])
        length = len(case.tensors[f"rate.{name}"]) if f"rate.{name}" in case.tensors else 64
        values = [rate(step) for step in range(length)]
        tensors[f"rate.{name}"] = torch.tensor(values, dtype=torch.float64)
    average = case.input("ema.old").clone()
    follow([average], [case.input("ema.new")], hparams["ema_decay"], torch.zeros(()))
    tensors["ema.value"] = average
    pictures = [
        case.input(f"psnr.{name}").permute(0, 3, 1, 2).float() / 255
        for name in ("reconstruction", "reference")
    ]
    tensors["psnr.value"] = picture_psnr(*pictures).mean()
    return Results(tensors)


_SIDES = ("real", "fake")


def _adaptive(case: Case) -> dict[str, Any]:
    weight = case.input("adaptive.weight").clone().requires_grad_()
    out = case.input("adaptive.x") @ weight.T
    error = (out - case.input("adaptive.target")).abs().mean()
    generator = -(torch.tanh(out) @ case.input("adaptive.direction")).mean()
    largest = case.hparams["max_d_weight"]
    return {
        "adaptive.rec": error,
        "adaptive.gen": generator,
        "adaptive.value": adversarial.adaptive_weight(error, generator, weight),
        "adaptive.clamped": adversarial.adaptive_weight(error, generator, weight, largest),
    }


def _augmented(case: Case) -> dict[str, Any]:
    tensors = {"disc.discretised": adversarial.eight_bit(case.input("aug.image"))}
    for name, cutout in (("plain", 0.0), ("cutout", case.hparams["cutout"])):
        images = case.input("aug.image").clone().requires_grad_()
        out = adversarial.augmented(images, case.input("aug.draws").T, cutout)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        tensors |= {f"aug.{name}": out, f"grad.aug.{name}": images.grad}
    return tensors


def _latents(case: Case) -> dict[str, Any]:
    latents = case.input("stat.latents")
    running = MomentumStatistics(tuple(latents.shape[2:]), case.hparams["stat_momentum"])
    for batch in latents:
        running.add(batch)
    own = running.statistics()
    both = merged(
        torch.stack([own.mean, case.input("stat.mean_rank1")]),
        torch.stack([own.variance, case.input("stat.var_rank1")]),
    )
    return {
        "stat.mean": own.mean,
        "stat.var": own.variance,
        "stat.mean_merged": both.mean,
        "stat.var_merged": both.variance,
    }


def _rate(values: list[Any]) -> Callable[[int], float]:
    shape, per_epoch, warmup, end, lr, final, from_zero = values
    return lambda step: counted_warmup(
        step,
        lr=lr,
        min_lr=final,
        warmup=int(warmup * per_epoch),
        total=int(end * per_epoch),
        shape=shape,
        from_zero=from_zero,
    )
