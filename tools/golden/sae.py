"""Sparse dictionaries: a training step, 20 of them, and their functions (``sae/*``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from golden.case import Case, CaseFault, Hparams
from golden.results import Results
from golden.trajectory_rules import Group, Record, compare_trajectory
from mimsuite.config.keys.dictionaries import PenaltySection
from mimsuite.dictionaries import figures, losses
from mimsuite.dictionaries.atoms import ArchetypalAtoms, Atoms, project
from mimsuite.dictionaries.base import Coded, Dictionary
from mimsuite.dictionaries.batchtopk import BatchTopKDictionary
from mimsuite.dictionaries.dark import linear_r2
from mimsuite.dictionaries.encoders import Coder
from mimsuite.dictionaries.jumprelu import JumpReLUDictionary, jump_relu, step
from mimsuite.dictionaries.kernels import KERNELS
from mimsuite.dictionaries.orthogonal import OrthogonalDictionary, non_negative_fit
from mimsuite.dictionaries.pursuit import PursuitDictionary
from mimsuite.dictionaries.rates import published_rate, rate_table
from mimsuite.dictionaries.relu import ReLUDictionary
from mimsuite.dictionaries.stability import pairing
from mimsuite.dictionaries.topk import TopKDictionary
from mimsuite.dictionaries.training import train_step

VARIANTS = ("vanilla", "topk", "batchtopk", "jumprelu", "mp", "omp", "ra-topk", "ra-jumprelu")
# Their names of losses: what is added to the error.
_PENALTIES = {
    "mse": "none",
    "mse_l1": "l1",
    "mse_hoyer": "hoyer",
    "mse_kappa_4": "kappa",
    "mse_elastic": "elastic",
    "mse_auxk": "unchosen",
    "mse_reanimate": "reanimate",
    "mse_reanimate_mean": "reanimate-mean",
    "mse_revive_mp": "revive",
    "mse_l0": "l0",
}
_PLAIN = ("linear", "mlp_ln_1", "mlp_bn_1", "mlp_ln_3", "mlp_bn_3")


class _GivenMask:
    """Keep masks of atoms, one a forward pass in train mode, in place of random ones."""

    def __init__(self, dictionary: Dictionary, masks: list[Tensor]) -> None:
        left = iter(masks)
        assert isinstance(dictionary, PursuitDictionary)
        dictionary.keep = lambda atoms: next(left) if dictionary.training else None  # type: ignore[method-assign]


def step_forward(case: Case) -> Results:
    """One forward and backward pass, then the evaluation of other rows."""
    hparams = case.hparams
    hparams.require(_REQUIRED)
    if not case.training():
        raise CaseFault('mode: "eval" is not built, only "train" is')
    x = case.input("x")
    dictionary, section = _dictionary(hparams, case, len(x)), _penalty(hparams, len(x))
    state = case.inputs("state.")
    _load(dictionary, state)
    if hparams.get("dropout", None):
        _GivenMask(dictionary, [case.input("drop")])
    coded = dictionary(x)
    error = losses.squared_error(x, coded)
    extra = losses.penalty(section, dictionary, x, coded)
    (error + extra).backward()
    tensors = {
        "pre_codes": coded.before,
        "codes": coded.codes,
        "x_hat": coded.output,
        "dictionary": coded.atoms,
        "loss": error + extra,
        "loss_recon": error,
        "loss_extra": extra,
        "metric.r2": figures.r2(x, coded.output),
        "metric.l0": (coded.codes > 0).float().sum(dim=1).mean(),
        "metric.dead": (~losses.is_used(coded.codes)).float(),
    }
    after = {f"after.{name}": tensor for name, tensor in dictionary.state_dict().items()}
    gradients = {
        f"grad.{name}": torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in dictionary.named_parameters()
    }
    tensors |= {name: tensor.clone() for name, tensor in (after | gradients).items()}
    return Results(tensors | _evaluated(dictionary, case))


def trajectory(case: Case) -> Results:
    """Steps of training, then the evaluation of other rows."""
    hparams = case.hparams
    hparams.require(_REQUIRED)
    hparams.require("lr betas adam_eps clip_grad schedule steps steps_per_epoch")
    hparams.only("schedule", None, "cosine")
    batches = case.input("x")  # (steps, B, D)
    dictionary = _dictionary(hparams, case, batches.shape[1])
    section = _penalty(hparams, batches.shape[1])
    start = case.inputs("state0.")
    _load(dictionary, start)
    if hparams.get("dropout", None):
        _GivenMask(dictionary, list(case.input("drop")))
    optimizer = torch.optim.Adam(
        dictionary.parameters(),
        lr=hparams["lr"],
        betas=tuple(hparams["betas"]),
        eps=hparams["adam_eps"],
    )
    rate = _rates(hparams)
    logged: dict[str, list[float]] = {}
    epochs: dict[str, list[float]] = {}
    passed: list[dict[str, Any]] = []
    for number in range(hparams["steps"]):
        x = batches[number]
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        done = train_step(dictionary, x, optimizer, section, hparams["clip_grad"])
        z = done.coded.codes.detach()
        _log(
            logged,
            loss=done.loss,
            loss_recon=done.error,
            grad_norm=done.grad_norm,
            rate=rate(number),
            l0=float((z > 0).float().sum(dim=1).mean()),
        )
        if (threshold := getattr(dictionary, "running_threshold", None)) is not None:
            _log(logged, running_threshold=float(threshold))
        l0 = float((z.abs() >= 1e-6).float().sum(dim=1).mean())
        fit = float(figures.r2(x, done.coded.output.detach()))
        passed.append({"loss": done.loss, "r2": fit, "l0": l0, "used": losses.is_used(z)})
        if len(passed) == hparams["steps_per_epoch"]:
            used = torch.stack([one.pop("used") for one in passed]).any(dim=0)
            means = {key: sum(one[key] for one in passed) / len(passed) for key in passed[0]}
            _log(epochs, **means, dead=float(1 - used.float().mean()))
            passed = []
    tensors = {name: torch.tensor(v, dtype=torch.float64) for name, v in logged.items()}
    tensors |= {f"epoch.{n}": torch.tensor(v, dtype=torch.float64) for n, v in epochs.items()}
    tensors |= {f"state_final.{n}": t.clone() for n, t in dictionary.state_dict().items()}
    for name, parameter in dictionary.named_parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"opt.{key}.{name}"] = optimizer.state[parameter][key]
    tensors |= _evaluated(dictionary, case)
    names = frozenset(name for name, _ in dictionary.named_parameters())
    record = Record(tensors, start, [Group(names, 1.0, 0.0)])
    return Results(tensors, findings=compare_trajectory(case, record))


def functions(case: Case) -> Results:
    """Every function by itself."""
    hparams = case.hparams
    hparams.skip("in_dim", "nb_concepts", "batch")
    hparams.only("metric_eps", 1e-6)
    hparams.only("nnls_tol", 1e-5)
    tensors: dict[str, Tensor] = {}
    for kind in ("l2", "l1", "max_l2", "max_l1"):
        tensors[f"norm.{kind}"] = project(case.input("norm.in"), kind)
    tensors |= _archetypal(case) | _kernels(case) | _losses(case) | _metrics(case)
    tensors["nnls.Z"] = non_negative_fit(
        case.input("nnls.D"), case.input("nnls.X"), case.input("nnls.Z_init"), hparams["nnls_iter"]
    )
    for name in ("warm", "plain"):
        base, final, total, warmup, start = hparams[f"schedule_{name}"]
        table = rate_table(base, final, total, warmup, start)
        tensors[f"schedule.{name}"] = torch.tensor(
            [
                published_rate(table, number, hparams["optimizer_lr"], final)
                for number in range(total + 3)
            ],
            dtype=torch.float64,
        )
    tensors |= _dark(case)
    return Results(tensors)


_REQUIRED = (
    "variant in_dim nb_concepts encoder normalization use_multiplier loss_kind batch norm_eps"
)


def _dictionary(hparams: Hparams, case: Case, rows: int) -> Dictionary:
    hparams.only("norm_eps", 1e-8)
    width, codes, variant = hparams["in_dim"], hparams["nb_concepts"], hparams["variant"]
    hparams.only("batch", rows)
    atoms = _atoms(hparams, codes, width)
    if variant in ("mp", "omp"):
        hparams.only("encoder", "identity")
        steps, dropout = hparams["pursuit_steps"], hparams["dropout"]
        if variant == "mp":
            return PursuitDictionary(atoms, steps, dropout)
        return OrthogonalDictionary(atoms, steps, dropout, hparams["nnls_iter"])
    hparams.only("encoder", *_PLAIN)
    coder = Coder(width, codes, hparams["encoder"])
    kind = variant.removeprefix("ra-")
    if kind == "vanilla":
        return ReLUDictionary(atoms, coder)
    if kind == "topk":
        return TopKDictionary(atoms, coder, hparams["top_k"])
    if kind == "batchtopk":
        active = hparams["top_k"] / rows
        return BatchTopKDictionary(atoms, coder, active, hparams["threshold_momentum"])
    if kind == "jumprelu":
        return JumpReLUDictionary(atoms, coder, codes, hparams["kernel"], hparams["bandwidth"])
    raise CaseFault(f"hparams.variant: '{variant}' is unknown")


def _atoms(hparams: Hparams, codes: int, width: int) -> nn.Module:
    multiplier, kind = hparams["use_multiplier"], hparams["normalization"]
    if kind == "archetypal":
        points = torch.zeros(hparams["num_candidates"], width)
        return ArchetypalAtoms(points, codes, hparams["delta"], multiplier)
    hparams.only("normalization", "l2", "l1", "max_l2", "max_l1", "identity")
    return Atoms(codes, width, kind, multiplier)


def _penalty(hparams: Hparams, rows: int) -> PenaltySection:
    kind = hparams["loss_kind"]
    if kind not in _PENALTIES:
        raise CaseFault(f"hparams.loss_kind: '{kind}' is unknown")
    weight = hparams.get("loss_weight", None) or 0.0
    # Theirs is a sum over the batch, ours a mean over its rows.
    weight *= rows if kind == "mse_l1" else 1
    return PenaltySection(kind=_PENALTIES[kind], weight=weight)  # type: ignore[arg-type]


def _load(dictionary: Dictionary, state: dict[str, Tensor]) -> None:
    own = dictionary.state_dict().keys() - {"running_threshold"}
    if state.keys() - {"running_threshold"} != own:
        odd = sorted((state.keys() ^ own) - {"running_threshold"})
        raise CaseFault(f"inputs: only one side has {odd[0]}")
    dictionary.load_state_dict(state, strict=False)
    dictionary.train()


def _evaluated(dictionary: Dictionary, case: Case) -> dict[str, Tensor]:
    with torch.no_grad():
        coded = dictionary.eval()(case.input("x_eval"))
    return {
        "eval.pre_codes": coded.before,
        "eval.codes": coded.codes,
        "eval.x_hat": coded.output,
    }


def _rates(hparams: Hparams) -> Callable[[int], float]:
    lr = hparams["lr"]
    if hparams["schedule"] is None:
        hparams.skip("final_lr", "start_warmup", "warmup_iters", "total_iters")
        return lambda number: lr
    final = hparams["final_lr"]
    table = rate_table(
        lr, final, hparams["total_iters"], hparams["warmup_iters"], hparams["start_warmup"]
    )
    return lambda number: published_rate(table, number, lr, final)


def _log(into: dict[str, list[float]], **values: float) -> None:
    for name, value in values.items():
        into.setdefault(name, []).append(value)


def _archetypal(case: Case) -> dict[str, Tensor]:
    weights = case.input("ra.W")
    atoms = ArchetypalAtoms(case.input("ra.C"), len(weights), case.hparams["delta"])
    with torch.no_grad():
        atoms.W.copy_(weights)
        atoms.Relax.copy_(case.input("ra.Relax"))
        atoms.multiplier.copy_(case.input("ra.multiplier"))
    found = atoms.train()()
    found.backward(case.input("ra.grad_out"))
    gradients = {f"grad.ra.{n}": p.grad for n, p in atoms.named_parameters()}
    return {
        "ra.dictionary": found,
        "ra.W_after": atoms.W,
        "ra.Relax_after": atoms.Relax,
        **{name: grad for name, grad in gradients.items() if grad is not None},
    }


def _kernels(case: Case) -> dict[str, Tensor]:
    width, x = case.hparams["bandwidth"], case.input("kernel.x")
    tensors = {f"kernel.{name}": kernel(x, width) for name, kernel in KERNELS.items()}
    for (name, function), kernel in itertools.product(
        (("jump_relu", jump_relu), ("heaviside", step)), KERNELS
    ):
        given = case.input("jump.x").clone().requires_grad_()
        threshold = case.input("jump.threshold").clone().requires_grad_()
        out = function(given, threshold, kernel, width)
        out.backward(case.input("jump.grad_out"))
        tensors[f"{name}.{kernel}.out"] = out
        tensors[f"grad.{name}.{kernel}.threshold"] = threshold.grad  # type: ignore[assignment]
        zero = torch.zeros_like(given)
        tensors[f"grad.{name}.{kernel}.x"] = zero if given.grad is None else given.grad
    return tensors


def _losses(case: Case) -> dict[str, Tensor]:
    x, hparams = case.input("loss.x"), case.hparams
    weights = {
        "mse_l1": hparams["penalty_mse_l1"],
        "mse_hoyer": hparams["penalty_mse_hoyer"],
        "mse_kappa_4": hparams["penalty_mse_kappa_4"],
        "mse_elastic": hparams["alpha_mse_elastic"],
        "auxk": hparams["penalty_auxk"],
        "reanimation": hparams["penalty_reanimation"],
    }
    kinds = _PENALTIES | {"auxk": "unchosen", "reanimation": "reanimate"}
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        given = {
            key: case.input(f"loss.{key}").clone().requires_grad_()
            for key in ("pre_codes", "codes", "x_hat", "dictionary")
        }
        coded = Coded(*given.values())
        section = PenaltySection(
            kind=kinds[name],  # type: ignore[arg-type]
            weight=weight * (len(x) if name == "mse_l1" else 1),
        )
        loss = losses.penalty(section, Dictionary(nn.Identity()), x, coded)
        if name != "reanimation":  # that one is the penalty alone
            loss = loss + losses.squared_error(x, coded)
        loss.backward()  # type: ignore[no-untyped-call]
        tensors[f"loss.{name}"] = loss
        for key, tensor in given.items():
            if tensor.grad is not None:
                tensors[f"grad.{name}.{key}"] = tensor.grad
    return tensors


def _metrics(case: Case) -> dict[str, Tensor]:
    x, output = case.input("metric.x"), case.input("metric.x_hat")
    codes, others = case.input("metric.codes"), case.input("metric.codes2")
    atoms, other_atoms = case.input("metric.dictionary"), case.input("metric.dictionary2")
    found = {
        "l2": output.norm(),
        "l1": output.norm(p=1),
        "avg_l2": figures.row_errors(x, output).mean(),
        "avg_l1": figures.row_errors(x, output, 1).mean(),
        "rel_l2": figures.relative_errors(x, output).mean(),
        "rel_l1": figures.relative_errors(x, output, 1).mean(),
        "l0": figures.share_used(codes).mean(),
        "l0_eps": figures.share_used(codes, 1e-6).mean(),
        "l0_per_code": figures.share_used(codes, 1e-6),
        "l1_l2_ratio": figures.l1_l2_ratio(codes),
        "hoyer": figures.hoyer(codes),
        "kappa_4": figures.kappa(codes),
        "r2": figures.r2(x, output),
        "dead_codes": figures.dead(codes),
        "hungarian": pairing(atoms, other_atoms, "euclid").sum(),
        "cosine_hungarian": pairing(atoms, other_atoms).sum(),
        "collinearity": figures.collinearity(atoms),
        "wasserstein_1d": figures.wasserstein(codes, others),
        "codes_correlation": figures.correlation(others),
        "energy": figures.energy(codes, atoms),
        "frechet": figures.frechet(x, output),
    }
    return {f"metric.{name}": tensor for name, tensor in found.items()}


def _dark(case: Case) -> dict[str, Tensor]:
    fit, (start, stop) = case.hparams["dark_fit"], case.hparams["dark_eval"]
    if start != fit:
        raise CaseFault("hparams.dark_eval: must begin where dark_fit ends")
    order = case.input("dark.order")[:stop]
    x, error = case.input("dark.x")[order], case.input("dark.error")[order]
    tensors = {}
    for name, y in (("vector", error), ("norm", error.square().sum(dim=1, keepdim=True))):
        share, solution = linear_r2(x, y, fit)
        tensors[f"dark.r2_{name}"] = torch.tensor(share)
        tensors[f"dark.solution_{name}"] = solution
    return tensors
