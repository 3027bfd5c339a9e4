"""Point clouds: functions, and one forward and backward pass of the pretraining methods.

Every model case runs its own grouping of the stored points; the stored groups only say whether
that came to the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from golden import build
from golden.case import Case, Hparams
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.data.points.geometry import normalize, rotate_y, scale_translate
from mimsuite.methods import Context, Method, Output
from mimsuite.noise import FixedNoise
from mimsuite.targets import chamfer, consistency
from mimsuite.tokens import Groups, farthest_points, group, nearest
from mimsuite.tokens.points import distances, gather
from mimsuite.tokens.positions import sincos_points

_PRETRAIN = (
    "group_size num_group mask_ratio mask_type trans_dim encoder_dims depth drop_path_rate "
    "num_heads decoder_depth decoder_num_heads norm_eps bn_eps bn_momentum mlp_ratio qkv_bias "
    "batch npoints loss_kind"
)

_CENTER_LOSSES = {"l2": "l2", "l1": "l1", "sml1": "smooth-l1", "cos": "cosine"}


def mae(case: Case) -> Results:
    """The tensors of a ``point/mae`` case."""
    case.hparams.require(_PRETRAIN)
    run = _Pretraining(case, "point-mae")
    mask, method = run.masks["points"], run.method
    run.output.loss.backward()
    results = run.results
    results.tensors |= {
        "encoded_vis": run.seen["encoder"][0].tokens,
        "decoder_out_masked": run.seen["decoder.norm"][0],
        "rebuilt": run.output.prediction.flatten(0, 1),
        "target": mask.gather(run.groups.points, "masked").flatten(0, 1),
        "loss": run.output.loss,
        **build.gradients(method),
    }
    return results


def cmae(case: Case) -> Results:
    """The tensors of a ``point/cmae`` case."""
    hparams = case.hparams
    hparams.require(_PRETRAIN + " recon_weight contras_weight contras_eps proj_dim")
    hparams.only("contras_eps", 1e-8)
    hparams.only("proj_dim", 256)
    run = _Pretraining(case, "point-cmae")
    results, method, tensors = run.results, run.method, run.results.tensors
    decoded, reconstruction = [], []
    for number, view in enumerate(("view1", "view2")):
        mask, name = run.masks[view], number + 1
        features, visfirst = run.seen["encoder"][number], run.seen[f"decoder.{number}"][0]
        ordered = gather(visfirst, mask.restore())
        rebuilt = method.decoder[number].predict(visfirst[:, -mask.masked.shape[1] :])
        target = mask.gather(run.groups.points, "masked")
        reconstruction.append(chamfer(rebuilt.flatten(0, 1), target.flatten(0, 1), method.norm))
        decoded.append(ordered)
        tensors |= {
            f"encoded{name}_with_cls": torch.cat([features.cls, features.tokens], dim=1),
            f"proj_cls{name}": run.seen["proj_cls"][number],
            f"decoder{name}_tokens_visfirst": visfirst,
            f"decoder{name}_tokens_ordered": ordered,
            f"rebuilt{name}": rebuilt.flatten(0, 1),
            f"target{name}": target.flatten(0, 1),
            f"loss_recon{name}": reconstruction[-1],
        }
    comasked = run.masks["view1"].dense() & run.masks["view2"].dense()
    same, count = consistency(*decoded, comasked, "same_token")
    first, second = (nn.functional.normalize(tokens, dim=-1) for tokens in decoded)
    terms = run.output.terms
    tensors |= {
        "comask": comasked,
        "cosine": first @ second.transpose(1, 2),
        "loss_recon": terms["chamfer"],
        "loss_contras": terms["consistency"],
        "loss_total": run.output.loss,
        "derived.loss_contras_same_token": same / count,
    }
    apart, count = consistency(*decoded, comasked, "all_pairs")
    for parameter in method.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    for name, loss in (("contras", apart / count), ("total", run.output.loss)):
        method.zero_grad(set_to_none=False)  # what a loss does not reach has gradient zero
        loss.backward(retain_graph=True)
        for key, gradient in build.gradients(method).items():
            tensors[f"grad_{name}.{key.removeprefix('grad.')}"] = gradient.clone()
    return results


def pcp(case: Case) -> Results:
    """The tensors of a ``point/pcp`` case."""
    hparams = case.hparams
    hparams.require(_PRETRAIN + " pred_loss ita pred_pos_depth add_detach pos_temperature")
    run = _Pretraining(case, "pcp-mae")
    mask, method, output = run.masks["points"], run.method, run.output
    results, terms = run.results, run.output.terms
    encoded = run.seen["encoder"][0].tokens
    visible = mask.visible.shape[1]
    centers = mask.gather(run.groups.center, "masked")
    target = mask.gather(run.groups.points, "masked").flatten(0, 1)
    rebuilt = output.prediction.flatten(0, 1)
    results.tensors |= {
        "encoded_vis": encoded[:, :visible],
        "encoded_masked": encoded[:, visible:],
        "pos_pred": run.seen["centers"][0],
        "pos_target": sincos_points(centers, method.encoder.width),
        "decoder_out_masked": run.seen["decoder.norm"][0],
        "rebuilt": rebuilt,
        "target": _in_order(target, mask.gather(case.input("neighborhood"), "masked")),
        "loss_recon": terms["chamfer"],
        "loss_center": terms["centers"],
        "loss": output.loss,
    }
    reconstruction = chamfer(rebuilt, target, method.target.norm)
    for start, loss in (("grad_recon", reconstruction), ("grad", output.loss)):
        for parameter in method.parameters():  # what a loss does not reach has gradient zero
            parameter.grad = torch.zeros_like(parameter)
        loss.backward(retain_graph=True)
        for key, gradient in build.gradients(method).items():
            results.tensors[f"{start}.{key.removeprefix('grad.')}"] = gradient.clone()
    return results


def functions(case: Case) -> Results:
    """The tensors of a ``point/funcs`` case."""
    hparams = case.hparams
    hparams.require("batch npoints num_group group_size chamfer_kinds")
    hparams.only("fps_start", 0)
    hparams.only("fps_min_norm_sq", 1e-3)
    hparams.only("fps_threads_max", 512)
    hparams.only("rotate_axis", "y")
    hparams.skip("scale_low", "scale_high", "translate_range", "norm_eps")  # draws are stored
    points, count, size = case.input("points"), hparams["num_group"], hparams["group_size"]
    groups = group(points, count, size)
    # Neighbours of the stored rule's centres; where those differ, so do these.
    to_center = distances(groups.center, points)
    results = Results(
        {
            "fps_idx": groups.center_ids,
            "fps_idx_plain": farthest_points(points, count, "plain"),
            "knn_idx": nearest(points, groups.center, size),
            "knn_dist": to_center.gather(2, groups.ids),
            "center": groups.center,
            "neighborhood": groups.points,
        }
    )
    results.facts["hparams.batch"] = (len(points), hparams["batch"])
    results.facts["hparams.npoints"] = (points.shape[1], hparams["npoints"])
    for kind in hparams["chamfer_kinds"]:
        sides = [case.input(f"chamfer_{side}").clone().requires_grad_() for side in "ab"]
        loss = chamfer(*sides, kind)
        loss.backward()
        results.tensors[f"chamfer_{kind}"] = loss
        for side, tensor in zip("ab", sides, strict=True):
            results.tensors[f"chamfer_{kind}.grad_{side}"] = tensor.grad
    centred = torch.stack([normalize(cloud) for cloud in case.input("norm_in")])
    shifts = zip(centred, case.input("aug_scale"), case.input("aug_translate"), strict=True)
    turns = zip(centred, case.input("aug_rot_angle"), strict=True)
    results.tensors |= {
        "norm_out": centred,
        "aug_scale_translate_out": torch.stack([scale_translate(*each) for each in shifts]),
        "aug_rotate_y_out": torch.stack([rotate_y(cloud, float(turn)) for cloud, turn in turns]),
    }
    return results


def encoder_keys(hparams: Hparams) -> dict[str, Any]:
    """`model.encoder` keys of a case."""
    hparams.only("qkv_bias", False)
    hparams.only("bn_eps", 1e-5)
    hparams.only("bn_momentum", 0.1)
    hparams.only("encoder_dims", hparams["trans_dim"])
    return {
        "points": hparams["npoints"],
        "groups": hparams["num_group"],
        "group_size": hparams["group_size"],
        "width": hparams["trans_dim"],
        "depth": hparams["depth"],
        "heads": hparams["num_heads"],
        "mlp_ratio": hparams["mlp_ratio"],
        "norm_eps": hparams["norm_eps"],
        "drop_path": hparams["drop_path_rate"],
        "positions": _positions(hparams),
    }


def _positions(hparams: Hparams) -> str:
    """PCP-MAE reads codes of the centres, and says their temperature."""
    if "pos_temperature" not in hparams:
        return "coordinates"
    hparams.only("pos_temperature", 10000)
    return "sincos"


def pretrain_document(method: str, hparams: Hparams) -> dict[str, Any]:
    """The recipe of a pretraining case."""
    names = {"chamfer_l1": "l1", "cdl1": "l1", "chamfer_l2": "l2", "cdl2": "l2"}
    hparams.only("loss_kind", *names)
    hparams.skip("upstream_loss")
    hparams.only("mask_type", "rand", "block")
    keys = {"name": method}
    if method == "point-cmae":
        keys |= {
            "reconstruction_weight": hparams["recon_weight"],
            "consistency_weight": hparams["contras_weight"],
        }
    model, target = {}, {"norm": names[hparams["loss_kind"]]}
    if method == "pcp-mae":
        keys["detach"] = hparams["add_detach"]
        model["centers"] = {
            "depth": hparams["pred_pos_depth"],
            "heads": hparams["decoder_num_heads"],
            "mlp_ratio": hparams.get("decoder_mlp_ratio", hparams["mlp_ratio"]),
        }
        target |= {
            "center_loss": _CENTER_LOSSES[hparams["pred_loss"]],
            "center_weight": hparams["ita"],
        }
    decoder = {
        "depth": hparams["decoder_depth"],
        "heads": hparams["decoder_num_heads"],
        "mlp_ratio": hparams.get("decoder_mlp_ratio", hparams["mlp_ratio"]),
        "drop_path": hparams["drop_path_rate"],
    }
    return {
        "recipe": {"modality": "points"},
        "method": keys,
        "model": {"encoder": encoder_keys(hparams), "decoder": decoder, **model},
        "mask": {"kind": "random", "ratio": hparams["mask_ratio"]},
        "target": target,
        **build.idle_sections(),
    }


def trajectory_document(hparams: Hparams) -> dict[str, Any]:
    """The recipe of a case that holds the published code's own configuration."""
    config = hparams["config"]
    sizes = {
        "npoints": hparams["npoints"],
        "num_group": config["num_group"],
        "group_size": config["group_size"],
        "loss_kind": config["loss"],
        "mlp_ratio": 4.0,  # of every published model, as what follows
        "norm_eps": 1e-5,
        "qkv_bias": False,
        "recon_weight": 1000.0,
        "contras_weight": 1.0,
        **config["transformer_config"],
    }
    document = pretrain_document("point-cmae", Hparams(sizes))
    batch = hparams["batch"]
    document["optim"] = {
        "name": "adamw",
        "lr": hparams["lr"],
        "betas": hparams["betas"],
        "eps": hparams["adam_eps"],
        "weight_decay": hparams["weight_decay"],
        "clip_grad": hparams["clip_grad"],
    }
    document["schedule"] = {
        "kind": "epoch-lagged",
        "epochs": hparams["schedule_epochs"],
        "warmup_epochs": hparams["warmup_epochs"],
        "min_lr": hparams["min_lr"],
        "warmup_lr": hparams["warmup_lr"],
    }
    document["train"] = {
        "global_batch": batch,
        "precision": "fp32",
        "device": str(torch.get_default_device()),
    }
    return document


def batch_of(points: Tensor, label: Tensor | None = None) -> Batch:
    """A batch around stored clouds (B, N, 3)."""
    keys = [str(i) for i in range(len(points))]
    return Batch({"points": points}, torch.arange(len(points)), keys, label)


def mask_noise(masks: dict[str, Tensor]) -> FixedNoise:
    """Noise under which a random sampler draws the given (B, G) masks, groups in their order."""
    rows = {}
    for view, mask in masks.items():
        place = torch.arange(mask.shape[1]) / (4 * mask.shape[1])
        rows["mask" if view == "points" else f"{view}/mask"] = mask.float() / 2 + place
    return FixedNoise(rows)


def grouping(groups: Groups) -> dict[str, Tensor]:
    """Groups under the names of the goldens."""
    return {
        "fps_idx": groups.center_ids,
        "knn_idx": groups.ids,
        "center": groups.center,
        "neighborhood": groups.points,
    }


@contextmanager
def outputs(method: Method, names: tuple[str, ...]) -> Iterator[dict[str, list[Any]]]:
    """What the named modules return while the context lasts, call by call."""
    seen: dict[str, list[Any]] = {name: [] for name in names}

    def keep(name: str) -> Any:
        return lambda module, args, output: seen[name].append(output)

    handles = [method.get_submodule(n).register_forward_hook(keep(n)) for n in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _in_order(points: Tensor, like: Tensor) -> Tensor:
    """(P, K, 3) groups of points, each in the order of ``like`` (..., K, 3): there it is free."""
    return gather(points, distances(like.flatten(0, 1), points).argmin(dim=2))


class _Pretraining:
    """A pretraining method under the stored masks, on construction."""

    def __init__(self, case: Case, name: str) -> None:
        hparams = case.hparams
        build.refuse_drop_path(case)
        self.method = build.method_of(pretrain_document(name, hparams))
        build.load(self.method, case)
        self.method.train(case.training())
        cmae = name == "point-cmae"
        views = {"view1": "mask1", "view2": "mask2"} if cmae else {"points": "mask"}
        batch = batch_of(case.input("points"))
        noise = mask_noise({view: case.input(key) for view, key in views.items()})
        parts = {
            "point-cmae": ("decoder.0", "decoder.1", "proj_cls"),
            "pcp-mae": ("decoder.norm", "centers"),
        }.get(name, ("decoder.norm",))
        with outputs(self.method, ("encoder.tokenizer", "encoder", *parts)) as seen:
            with torch.no_grad():
                context: Context = self.method.prepare(batch, noise)
                self.masks = self.method.mask(batch, noise, context)
            self.output: Output = self.method(batch, self.masks, context)
        self.seen, self.groups = seen, context.prepared["groups"]
        tokens = self.seen["encoder.tokenizer"][0]
        self.results = Results({**grouping(self.groups), "tokens": tokens})
        buffers = {n for n, _ in self.method.named_buffers()}
        names = build.published_names(self.method)
        for key, value in self.method.state_dict().items():
            if key in buffers:
                self.results.tensors[f"after.{names[key]}"] = value.clone()
        masked = next(iter(self.masks.values())).masked.shape[1]
        for fact, own in (("batch", len(batch)), ("num_masked", masked)):
            if fact in hparams:
                self.results.facts[f"hparams.{fact}"] = (own, hparams[fact])
