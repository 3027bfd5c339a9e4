"""Representation autoencoders: a training step, the discriminator, LPIPS, and their functions
(``rae/*``)."""

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

MODEL = (
    "encoder_kind image_size encoder_input_size encoder_patch_size latent_dim num_tokens "
    "decoder_dim decoder_depth decoder_heads decoder_mlp decoder_patch_size decoder_norm_eps "
    "noise_tau image_mean image_std batch "
)


def autoencoder(case: Case) -> Results:
    """One forward and backward pass with noise, then a reconstruction without."""
    hparams = case.hparams
    hparams.require(MODEL)
    if not case.training():
        raise CaseFault('mode: "eval" is not built, only "train" is')
    with tempfile.TemporaryDirectory() as folder:
        return _autoencoder(case, document_of(case, Path(folder)))


def _autoencoder(case: Case, document: dict[str, Any]) -> Results:
    method = build.method_of(document)
    load(method, case.inputs("state.decoder."))
    method._statistics = _statistics(case)
    images = case.input("images")
    batch = Batch.of_images(normalized(case.hparams, images))
    noise = latent_noise(case.input("noise_u"), case.input("noise_n"))
    method.train()
    tokens = _tokens(case, method, batch)
    output = method(batch, {}, Context(noise, prepared={"tokens": tokens}))
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


def document_of(case: Case, folder: Path) -> dict[str, Any]:
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


def load(method: Any, state: dict[str, Tensor]) -> None:
    own = type(method).import_reference(state)
    expected = {f"decoder.{name}" for name in method.decoder.state_dict()}
    if own.keys() != expected:
        raise CaseFault(f"inputs: only one side has {sorted(own.keys() ^ expected)[0]}")
    method.load_state_dict(own, strict=False)


def _statistics(case: Case) -> LatentStatistics:
    return LatentStatistics(case.tensors.get("stats.mean"), case.tensors.get("stats.var"))


def normalized(hparams: Hparams, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(hparams[f"image_{n}"]).view(-1, 1, 1) for n in ("mean", "std"))
    return (images - mean) / std


def _tokens(case: Case, method: Any, batch: Batch) -> Tensor:
    if case.hparams["encoder_kind"] == "given":
        return case.input("tokens")
    tokens: Tensor = method.encoder.tokens(batch.image)
    return tokens


def latent_noise(u: Tensor, n: Tensor) -> FixedNoise:
    return FixedNoise({"latent scale": u.flatten(1), "latent": n.flatten(1)})


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
            **{f"after.{name}": tensor for name, tensor in after.items()},
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
