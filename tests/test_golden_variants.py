"""tools/check_golden.py on cases of other sizes and options, answered by plain float64 models."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
import plain_models as plain  # noqa: E402
from golden import run  # noqa: E402
from golden_cases import document, write  # noqa: E402
from plain_models import Sizes, State  # noqa: E402


def check(folder: Path, case: dict[str, Any], tensors: dict[str, Tensor]) -> run.Report:
    single = {name: t.detach().to(_stored_dtype(name, t)) for name, t in tensors.items()}
    return run.check(write(folder, case, {name: t.contiguous() for name, t in single.items()}))


def _stored_dtype(name: str, tensor: Tensor) -> torch.dtype:
    series = ("lr", "lr_groups", "loss_micro", "grad_norm")
    wide = name in series or tensor.dtype == torch.int64
    return tensor.dtype if wide else torch.float32


def assert_passes(report: run.Report) -> None:
    assert not [finding for finding in report.findings if not finding.ok]
    assert (report.verdict, report.error) == ("pass", "")


def encoder_hparams(sizes: Sizes) -> dict[str, Any]:
    height, width = sizes.image_size
    return {
        "img_size": height if height == width else [height, width],
        "patch_size": sizes.patch,
        "in_chans": sizes.channels,
        "embed_dim": sizes.width,
        "depth": sizes.depth,
        "num_heads": sizes.heads,
        "mlp_ratio": sizes.mlp_ratio,
        "norm_eps": sizes.eps,
    }


def mae_hparams(sizes: Sizes) -> dict[str, Any]:
    return encoder_hparams(sizes) | {
        "decoder_embed_dim": sizes.decoder_width,
        "decoder_depth": sizes.decoder_depth,
        "decoder_num_heads": sizes.decoder_heads,
        "mask_ratio": sizes.ratio,
        "norm_pix_loss": sizes.normalize,
    }


# --- random weights of the published shapes -------------------------------------------------------


def block_state(name: str, width: int, depth: int, ratio: float) -> dict[str, tuple[int, ...]]:
    hidden = int(width * ratio)
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(depth):
        for part, shape in {
            "norm1": (width,),
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "norm2": (width,),
            "mlp.fc1": (hidden, width),
            "mlp.fc2": (width, hidden),
        }.items():
            shapes[f"{name}.{i}.{part}.weight"] = shape
            shapes[f"{name}.{i}.{part}.bias"] = shape[:1]
    return shapes


def encoder_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    width = sizes.width
    return {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + sizes.patches, width),
        "patch_embed.proj.weight": (width, sizes.channels, sizes.patch, sizes.patch),
        "patch_embed.proj.bias": (width,),
        **block_state("blocks", width, sizes.depth, sizes.mlp_ratio),
    }


def mae_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    width, out = sizes.decoder_width, sizes.patch**2 * sizes.channels
    return {
        **encoder_shapes(sizes),
        "norm.weight": (sizes.width,),
        "norm.bias": (sizes.width,),
        "mask_token": (1, 1, width),
        "decoder_pos_embed": (1, 1 + sizes.patches, width),
        "decoder_embed.weight": (width, sizes.width),
        "decoder_embed.bias": (width,),
        **block_state("decoder_blocks", width, sizes.decoder_depth, sizes.mlp_ratio),
        "decoder_norm.weight": (width,),
        "decoder_norm.bias": (width,),
        "decoder_pred.weight": (out, width),
        "decoder_pred.bias": (out,),
    }


def classifier_shapes(sizes: Sizes, classes: int, mean_pool: bool) -> dict[str, tuple[int, ...]]:
    norm = "fc_norm" if mean_pool else "norm"
    return {
        **encoder_shapes(sizes),
        f"{norm}.weight": (sizes.width,),
        f"{norm}.bias": (sizes.width,),
        "head.weight": (classes, sizes.width),
        "head.bias": (classes,),
    }


def random_state(shapes: dict[str, tuple[int, ...]], seed: int) -> State:
    """Float64 numbers that float32 holds exactly, so that both sides start from the same."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        fan_in = max(1, torch.Size(shape[1:]).numel())
        norm = "norm" in name and name.endswith("weight")
        value = 1 + 0.1 * noise if norm else noise / fan_in**0.5 if len(shape) > 1 else 0.1 * noise
        state[name] = value.double().requires_grad_("pos_embed" not in name)
    return state


def draws(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).double()


# --- one pass -------------------------------------------------------------------------------------

PASSES = {
    "rectangle": Sizes(grid=(3, 5), patch=4, width=24, heads=3, decoder_width=16, decoder_heads=4),
    "deep": Sizes(depth=3, decoder_depth=3, mlp_ratio=4.0, ratio=0.6),
    "gray-plain-pixels": Sizes(channels=1, normalize=False, ratio=0.9),
    "many-channels": Sizes(channels=6, eps=1e-5, mlp_ratio=1.5),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", PASSES)
def test_pretraining_pass(tmp_path: Path, name: str, mode: str) -> None:
    sizes, batch = PASSES[name], 3
    state = random_state(mae_shapes(sizes), seed=1)
    images = draws(batch, sizes.channels, *sizes.image_size, seed=2)
    noise = torch.rand(batch, sizes.patches, generator=torch.Generator().manual_seed(3))
    answers = plain.masked_autoencoder(state, images, noise, sizes)
    answers.loss.backward()

    case = document("mae-a") | {"mode": mode}
    case["hparams"] |= mae_hparams(sizes) | {
        "decoder_mlp_ratio": sizes.mlp_ratio,
        "len_keep": sizes.visible,
        "num_patches": sizes.patches,
        "batch": batch,
    }
    kept = ("loss", "pred", "mask", "grad.*")
    case["compare"] = {name: case["compare"][name] for name in kept}
    tensors = {f"state.{name}": tensor for name, tensor in state.items()}
    tensors |= {f"grad.{name}": t.grad for name, t in state.items() if t.grad is not None}
    tensors |= {"imgs": images, "noise": noise, "mask": answers.mask.float()}
    assert_passes(
        check(tmp_path, case, tensors | {"loss": answers.loss, "pred": answers.prediction})
    )


@pytest.mark.parametrize("mean_pool", [True, False])
def test_classifier_pass(tmp_path: Path, mean_pool: bool) -> None:
    sizes, classes = Sizes(grid=(2, 3), patch=4, width=24, heads=3, depth=3, mlp_ratio=4.0), 7
    state = random_state(classifier_shapes(sizes, classes, mean_pool), seed=1)
    state["pos_embed"].requires_grad_()
    images, labels = draws(4, 3, *sizes.image_size, seed=2), torch.tensor([6, 0, 3, 3])
    logits = plain.classifier_logits(state, images, sizes, mean_pool)
    loss = plain.smoothed_cross_entropy(logits, labels, 0.0)
    loss.backward()

    case = document("mae-vit-a-globalpool")
    case["hparams"] |= encoder_hparams(sizes) | {
        "global_pool": mean_pool,
        "num_classes": classes,
        "interp_to_img_size": [16, 24],
        "batch": 4,
    }
    case["compare"] = {name: case["compare"][name] for name in ("logits", "loss", "grad.*")}
    tensors = {f"state.{name}": tensor for name, tensor in state.items()}
    tensors |= {f"grad.{name}": tensor.grad for name, tensor in state.items()}
    tensors |= {"imgs": images, "labels": labels, "pos_embed_in": state["pos_embed"]}
    assert_passes(check(tmp_path, case, tensors | {"logits": logits, "loss": loss}))


# --- trajectories ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A training run of the plain models."""

    steps: int
    steps_per_epoch: int
    epochs: int
    warmup_epochs: float
    lr: float
    min_lr: float
    weight_decay: float
    betas: tuple[float, float]
    accumulation: int = 1
    batch: int = 4
    clip: float | None = None
    layer_decay: float | None = None

    def hparams(self) -> dict[str, Any]:
        names = "steps epochs warmup_epochs lr min_lr weight_decay batch"
        return {name: getattr(self, name) for name in names.split()} | {
            "betas": list(self.betas),
            "clip_grad": self.clip,
        }


@dataclass
class Trained:
    """What a trajectory stores."""

    tensors: dict[str, Tensor]
    groups: list[dict[str, Any]]
    clipped: int


def train(state: State, plan: Plan, depth: int, undecayed: set[str], loss_of: Any) -> Trained:
    """The loop of the papers: clip, step, one micro-batch after the other."""
    scale, decay = {}, {}
    for name, tensor in state.items():
        if tensor.requires_grad:
            scale[name] = _layer_scale(name, depth, plan.layer_decay)
            spared = tensor.ndim == 1 or name in undecayed
            decay[name] = 0.0 if spared else plan.weight_decay
    kinds = sorted({(scale[name], decay[name]) for name in scale})
    groups = [
        {
            "lr_scale": s,
            "weight_decay": d,
            "params": [n for n in scale if (scale[n], decay[n]) == (s, d)],
        }
        for s, d in kinds
    ]
    optimizer = plain.PlainAdamW(plan.betas, 1e-8)
    series: dict[str, list[Any]] = {
        key: [] for key in ("lr", "lr_groups", "loss", "loss_micro", "grad_norm")
    }
    clipped = 0
    start = {f"state0.{name}": tensor.detach().clone() for name, tensor in state.items()}
    for step in range(plan.steps):
        lr = plain.half_cosine(
            step / plan.steps_per_epoch, plan.lr, plan.min_lr, plan.warmup_epochs, plan.epochs
        )
        for tensor in state.values():
            tensor.grad = None
        losses = [loss_of(state, step * plan.accumulation + i) for i in range(plan.accumulation)]
        loss = sum(losses) / plan.accumulation
        loss.backward()
        norm = float(sum((state[name].grad ** 2).sum() for name in scale)) ** 0.5
        if plan.clip is not None and norm > plan.clip:
            clipped += 1
            for name in scale:
                state[name].grad *= plan.clip / (norm + 1e-6)
        series["lr"].append(lr)
        series["lr_groups"].append([lr * s for s, _ in kinds])
        series["loss"].append(float(loss.detach()))
        series["loss_micro"] += [float(each.detach()) for each in losses]
        series["grad_norm"].append(norm)
        optimizer.step(state, {name: lr * scale[name] for name in scale}, decay)
    tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in series.items()}
    tensors |= {f"state_final.{name}": tensor for name, tensor in state.items()}
    tensors |= {f"opt.exp_avg.{name}": tensor for name, tensor in optimizer.mean.items()}
    tensors |= {f"opt.exp_avg_sq.{name}": tensor for name, tensor in optimizer.square.items()}
    return Trained(start | tensors, groups, clipped)


def _layer_scale(name: str, depth: int, layer_decay: float | None) -> float:
    if layer_decay is None:
        return 1.0
    if name.startswith(("cls_token", "pos_embed", "patch_embed")):
        return layer_decay ** (depth + 1)
    if name.startswith("blocks."):
        return layer_decay ** (depth - int(name.split(".")[1]))
    return 1.0


def test_pretraining_trajectory(tmp_path: Path) -> None:
    """Accumulation, a floor of the rate, plain pixels, 25 patches."""
    sizes = Sizes(grid=(5, 5), patch=4, width=16, heads=4, decoder_depth=1, normalize=False)
    plan = Plan(
        steps=12,
        steps_per_epoch=6,
        epochs=2,
        warmup_epochs=0.7,
        lr=2e-3,
        min_lr=1e-4,
        weight_decay=0.3,
        betas=(0.9, 0.95),
        accumulation=2,
    )
    state = random_state(mae_shapes(sizes), seed=4)
    images = draws(24, plan.batch, 3, *sizes.image_size, seed=5).half().double()
    noise = torch.rand(24, plan.batch, sizes.patches, generator=torch.Generator().manual_seed(6))

    def loss_of(state: State, row: int) -> Tensor:
        return plain.masked_autoencoder(state, images[row], noise[row], sizes).loss

    trained = train(state, plan, sizes.depth, set(), loss_of)
    case = document("mae-traj-a") | {"param_groups": trained.groups}
    case["hparams"] |= mae_hparams(sizes) | plan.hparams()
    case["hparams"] |= {"accum_iter": 2, "micro_steps_per_epoch": 12}
    del trained.tensors["lr_groups"]
    report = check(tmp_path, case, trained.tensors | {"imgs": images, "noise": noise})
    assert_passes(report)
    compared = {finding.name for finding in report.findings}
    assert {"param_groups", "lr", "loss", "loss_micro", "grad_norm"} <= compared
    assert {"state_final.mask_token", "opt.exp_avg_sq.mask_token"} <= compared


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("mean_pool", [True, False])
def test_finetuning_trajectory(tmp_path: Path, mean_pool: bool, soft: bool) -> None:
    """Layer decay, clipping that is active in some steps, smoothed labels."""
    sizes, classes, smoothing = Sizes(grid=(3, 3), width=16, mlp_ratio=4.0), 5, 0.1
    plan = Plan(
        steps=10,
        steps_per_epoch=5,
        epochs=2,
        warmup_epochs=0.5,
        lr=3e-3,
        min_lr=1e-6,
        weight_decay=0.2,
        betas=(0.9, 0.999),
        clip=4.0,
        layer_decay=0.75,
    )
    state = random_state(classifier_shapes(sizes, classes, mean_pool), seed=7)
    state["pos_embed"].requires_grad_()
    images = draws(10, plan.batch, 3, *sizes.image_size, seed=8)
    generator = torch.Generator().manual_seed(9)
    labels = torch.randint(0, classes, (10, plan.batch), generator=generator)
    one_hot = torch.nn.functional.one_hot(labels, classes).double()
    targets = one_hot * (1 - smoothing) + smoothing / classes

    def loss_of(state: State, row: int) -> Tensor:
        logits = plain.classifier_logits(state, images[row], sizes, mean_pool)
        return plain.smoothed_cross_entropy(logits, labels[row], smoothing)

    trained = train(state, plan, sizes.depth, {"cls_token", "pos_embed"}, loss_of)
    assert 0 < trained.clipped < plan.steps
    case = document("mae-ft-traj-a") | {"param_groups": trained.groups}
    case["hparams"] |= (
        encoder_hparams(sizes)
        | plan.hparams()
        | {
            "steps_per_epoch": 5,
            "global_pool": mean_pool,
            "num_classes": classes,
            "layer_decay": 0.75,
            "label_smoothing": None if soft else smoothing,
        }
    )
    fed = {"targets_soft": targets} if soft else {"labels": labels}
    case["inputs"] = ["state0.*", "imgs", *fed]
    del trained.tensors["loss_micro"]
    report = check(tmp_path, case, trained.tensors | {"imgs": images, **fed})
    assert_passes(report)
    assert "lr_groups" in {finding.name for finding in report.findings}


def test_clipping_that_is_left_out_fails(tmp_path: Path, monkeypatch: Any) -> None:
    from mimsuite.train import step

    norm = step._grad_norm
    monkeypatch.setattr(step, "_grad_norm", lambda parameters, clip: norm(parameters, None))
    with pytest.raises(AssertionError):
        test_finetuning_trajectory(tmp_path, mean_pool=True, soft=True)


def test_a_summed_gradient_fails(tmp_path: Path, monkeypatch: Any) -> None:
    """AdamW hardly sees the factor; the gradient norm does."""
    from mimsuite.train.precision import Precision

    backward = Precision.backward
    monkeypatch.setattr(Precision, "backward", lambda self, loss: backward(self, loss * 2))
    with pytest.raises(AssertionError):
        test_pretraining_trajectory(tmp_path)


def test_sizes_are_their_own() -> None:
    """Guards the fixtures above: a case must not fall back on the stored one's sizes."""
    assert len({replace(sizes, normalize=True) for sizes in PASSES.values()}) == len(PASSES)
