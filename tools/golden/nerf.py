"""NeRF-MAE: one pass (``nerf/nerf-mae``), functions of it (``nerf/pure``) and grid extraction."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden import build
from golden.case import Case
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.volume import RadianceTargetSection, VolumeMaskSection
from mimsuite.data.volume.geometry import mirror, quarter_turn, turn_and_scale
from mimsuite.evaluate.scoring.boxes import Scene, average_precision, recall
from mimsuite.fields import Camera, Cameras, export_grid
from mimsuite.masking import CubeSampler, TokenMask
from mimsuite.methods import Context
from mimsuite.models.swin3d import Merging
from mimsuite.models.windows import WindowAttention, relative_positions
from mimsuite.noise import FixedNoise
from mimsuite.targets.box_code import decode_boxes, encode_boxes
from mimsuite.targets.boxes import corners, diou_loss, giou_loss, iou, iou_matrix
from mimsuite.targets.radiance import RadianceTarget, opacity, valid_voxels, voxels_of
from mimsuite.tokens import sincos_3d

REQUIRED = (
    "resolution patch_size window_size embed_dim depths num_heads mlp_ratio masking_prob "
    "mask_block_tokens batch in_chans out_chans norm_eps density_kind alpha_delta decoder_dims "
    "loss_kind occupied_threshold rgb_weight alpha_weight"
)


def pretrain(case: Case) -> Results:
    """The tensors of a ``nerf/nerf-mae`` case."""
    case.hparams.require(REQUIRED)
    method = build.method_of(_document(case))
    build.load(method, case)
    method.train(case.training())
    results = Results()
    seen = _watch(method, results)
    grids = [case.input(f"input.grid.{i}") for i in range(case.hparams["batch"])]
    batch = _padded(grids, case.hparams["resolution"])
    dense = case.input("mask").flatten(1)  # (B, N)
    masks = {"grid": TokenMask.from_removed(dense, method.encoder.grid)}
    output = method(batch, masks, Context(FixedNoise({})))
    output.loss.backward()
    for handle in seen:
        handle.remove()
    tensors = results.tensors
    tensors |= {"padded": batch.views["grid"], "valid": method.valid(batch).to(torch.uint8)}
    tensors |= {"pred": output.prediction, "loss": output.loss.view(1)}
    tensors |= {"loss_rgb": output.terms["colour"].view(1)}
    tensors |= {"loss_alpha": output.terms["opacity"].view(1)}
    tensors["occupied_patchified"] = _occupied(method, batch)
    gradients = build.gradients(method)
    tensors |= gradients
    norms = torch.stack([g.double().norm() for g in gradients.values()])
    tensors["grad_norm_all"] = norms.norm().view(1)
    for i, raw in enumerate(_raw(case)):
        kind, delta = case.hparams["density_kind"], case.hparams["alpha_delta"]
        alpha = opacity(raw[..., 3:], kind, delta)
        own = torch.cat([raw[..., :3], alpha], dim=-1).permute(3, 0, 1, 2)
        if not torch.allclose(own, grids[i], atol=1e-6, rtol=0):
            results.facts[f"input.grid.{i}"] = ("another alpha rule", "the stored one")
    return results


def _document(case: Case) -> dict[str, Any]:
    hparams = case.hparams
    hparams.only("loss_kind", "mse_rgb+mse_alpha")
    hparams.only("qkv_bias", True)
    for name in ("dropout", "attn_drop_rate"):
        hparams.only(name, 0.0)
    for name in ("rgb_weight", "alpha_weight"):
        hparams.only(name, 1.0)
    hparams.only("leaky_slope", 0.01)
    hparams.only("instance_norm_eps", 1e-5)
    hparams.only("out_chans", 4)
    width = hparams["embed_dim"]
    hparams.only("decoder_dims", [4 * width, 2 * width, width, width // 2])
    hparams.skip("python_random_seed")  # of the mask, which is stored
    hparams.skip("scene_sizes")
    if case.document.get("mode") != "eval":
        hparams.only("drop_path_rate", 0.0)
    hparams.get("drop_path_rate", 0.0)
    encoder = {
        "resolution": hparams["resolution"],
        "patch_size": hparams["patch_size"],
        "in_channels": hparams["in_chans"],
        "width": width,
        "depths": hparams["depths"],
        "heads": hparams["num_heads"],
        "window": hparams["window_size"],
        "mlp_ratio": hparams["mlp_ratio"],
        "norm_eps": hparams["norm_eps"],
    }
    return {
        "method": {"name": "nerf-mae"},
        "recipe": {"modality": "grids"},
        "model": {"encoder": encoder},
        "mask": {
            "ratio": hparams["masking_prob"],
            "cube": hparams["mask_block_tokens"],
            "draw": "bernoulli",
        },
        "target": {"occupied": hparams["occupied_threshold"]},
        **build.idle_sections(),
    }


def _padded(grids: list[Tensor], side: int) -> Batch:
    whole = torch.zeros(len(grids), 4, side, side, side)
    for row, grid in enumerate(grids):
        _, x, y, z = grid.shape
        whole[row, :, :x, :y, :z] = grid
    sizes = torch.tensor([grid.shape[1:] for grid in grids])
    index = torch.arange(len(grids))
    return Batch({"grid": whole, "size": sizes}, index, [str(i) for i in range(len(grids))])


def _raw(case: Case) -> Iterator[Tensor]:
    for i in range(case.hparams["batch"]):
        if f"input.raw.{i}" in case.tensors:
            yield case.input(f"input.raw.{i}")


def _watch(method: Any, results: Results) -> list[Any]:
    """Collect intermediate outputs under the case's names."""
    encoder, decoder = method.encoder, method.decoder
    stages = encoder.stages

    def keep(name: str) -> Any:
        def hook(module: Any, args: Any, output: Tensor) -> None:
            results.tensors[f"mid.{name}"] = output.detach()

        return hook

    def masked(module: Any, args: Any) -> None:
        results.tensors["mid.masked_tokens"] = args[0].detach()

    handles = [stages[0].blocks[0].register_forward_pre_hook(masked)]
    modules = {"patch_embed": encoder.patch_embed}
    modules |= {f"stage0_block{i}": stages[0].blocks[i] for i in range(2)}
    modules |= {f"stage{i}": stage.blocks[-1] for i, stage in enumerate(stages)}
    modules |= {"decoder4": decoder.up4, "decoder3": decoder.up3, "decoder2": decoder.up2}
    return handles + [m.register_forward_hook(keep(name)) for name, m in modules.items()]


def _occupied(method: Any, batch: Batch) -> Tensor:
    """(B, X, Y, Z, p^3, 1): whether each voxel of a token is occupied."""
    dense = (batch.views["grid"][:, 3] > method.target.section.occupied).float()
    p = method.patch
    cubes = dense.unfold(1, p, p).unfold(2, p, p).unfold(3, p, p)  # (B, X, Y, Z, p, p, p)
    return cubes.flatten(4).unsqueeze(-1)


# --- functions (``nerf/pure``) --------------------------------------------------------------------


def functions(case: Case) -> Results:
    """The tensors of a ``nerf/pure`` case, group by group."""
    hparams, results = case.hparams, Results()
    hparams.only("metric.iou_thresholds", [0.25, 0.5])
    hparams.only("attn.qkv_bias", True)
    hparams.only("winavg.heads", 1)
    hparams.only("merge.norm_eps", 1e-5)
    hparams.only("norm_eps", 1e-5)
    for group in (_alpha, _windows, _merging, _positions, _scenes, _masks, _losses, _moves, _boxes):
        results.tensors |= group(case)
    return results


def _alpha(case: Case) -> dict[str, Tensor]:
    density, delta = case.input("alpha.in"), case.hparams["alpha_delta"]
    return {
        f"alpha.{name}.out": opacity(density, case.hparams[f"alpha.{name}.density_kind"], delta)
        for name in ("ngp", "relu")
    }


def _windows(case: Case) -> dict[str, Tensor]:
    """Relative positions, who attends to whom, and whole attention modules."""
    tensors = {}
    for name in _answers(case, "rpi."):
        window = tuple(int(side) for side in name.removeprefix("rpi.").split("x"))
        tensors[name] = relative_positions(window)
    for name in _answers(case, "winavg."):
        sizes, window, shift = (tuple(case.hparams[f"{name}.{k}"]) for k in _SIZES)
        tensors[name] = _averages(sizes, window, shift)
    for name in sorted({n.split(".")[0] for n in case.tensors if n.startswith("attn_")}):
        keys = [case.hparams[f"{name}.{k}"] for k in ("dim", "heads", "window", "shift")]
        module = WindowAttention(keys[0], keys[1], tuple(keys[2]), tuple(keys[3]))
        module.load_state_dict(case.inputs(f"{name}.state."), strict=True)
        tensors[f"{name}.y"] = module(case.input(f"{name}.x")).detach()
    return tensors


_SIZES = ("shape", "window", "shift")


@torch.no_grad()
def _averages(sizes: Any, window: Any, shift: Any) -> Tensor:
    """(n, n): row i is how voxel i averages over the voxels that it may attend to."""
    count = sizes[0] * sizes[1] * sizes[2]
    module = WindowAttention(count, 1, window, shift)
    for parameter in module.parameters():
        parameter.zero_()
    module.qkv.weight[2 * count :] = torch.eye(count)
    module.proj.weight.copy_(torch.eye(count))
    tokens = torch.eye(count).reshape(1, *sizes, count)
    return module(tokens).reshape(count, count)


def _merging(case: Case) -> dict[str, Tensor]:
    tensors = {}
    for name in ("merge_even", "merge_odd"):
        module = Merging(case.hparams["merge.in_dim"], 1e-5)
        module.load_state_dict(case.inputs(f"{name}.state."), strict=True)
        tensors[f"{name}.y"] = module(case.input(f"{name}.x")).detach()
    return tensors


def _positions(case: Case) -> dict[str, Tensor]:
    tensors = {}
    for name in _answers(case, "sincos."):
        width, side = (int(part) for part in name.split(".")[1:])
        case.hparams.only(f"{name.rpartition('.')[0]}.grid", side)
        tensors[name] = sincos_3d(width, (side, side, side))[None]
    return tensors


def _scenes(case: Case) -> dict[str, Tensor]:
    """Padding, and the cubes of voxels that tokens stand for."""
    tensors = {}
    side, patch = case.hparams["pad.size"][0], case.hparams["patchify.patch_size"]
    case.hparams.only("pad.size", [side] * 3)
    for i in range(2):
        batch = _padded([case.input(f"pad.{i}.x")], side)
        valid = valid_voxels(batch.views["size"], side)
        tensors[f"pad.{i}.y"] = batch.views["grid"]
        tensors[f"pad.{i}.mask"] = valid.expand(-1, 4, -1, -1, -1).float()
    grid = case.input("patchify.x")
    cubes = grid.unfold(2, patch, patch).unfold(3, patch, patch).unfold(4, patch, patch)
    tensors["patchify.y"] = cubes.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(4, 6)
    return tensors


def _masks(case: Case) -> dict[str, Tensor]:
    tensors = {}
    for number in range(3):
        name = f"masking.{number}"
        side, ratio = case.hparams[f"{name}.tokens"], case.hparams[f"{name}.p"]
        cube = case.hparams["masking.block_tokens"]
        draws = random.Random(case.hparams[f"{name}.seed"])
        noise = np.array([draws.random() for _ in range((side // cube) ** 3)])
        section = VolumeMaskSection(ratio=ratio, cube=cube, draw="bernoulli")
        tokens, fill = case.input(f"{name}.x"), case.input(f"{name}.token")
        mask = CubeSampler(section).thrown(noise, (side, side, side))
        hidden = mask.dense().view(1, *tokens.shape[1:4], 1).expand(len(tokens), -1, -1, -1, -1)
        tensors[f"{name}.mask"] = hidden.float()
        tensors[f"{name}.y"] = torch.where(hidden, fill, tokens)
    return tensors


def _losses(case: Case) -> dict[str, Tensor]:
    prediction = case.input("loss.pred").clone().requires_grad_()
    hidden = case.input("loss.tokenmask")[..., 0].bool()
    masked = voxels_of(hidden, case.hparams["loss.patch_size"])
    target = RadianceTarget(RadianceTargetSection())
    loss = target.loss(
        prediction, case.input("loss.target"), masked, case.input("loss.valid").bool()
    )
    loss.total.backward()
    found = {"rgb": loss.colour, "alpha": loss.opacity, "total": loss.total}
    tensors = {f"loss.{name}": value.detach().view(1) for name, value in found.items()}
    assert prediction.grad is not None
    return tensors | {"loss.grad_pred": prediction.grad}


def _moves(case: Case) -> dict[str, Tensor]:
    grid, tensors = case.input("aug.x"), {}
    for kind in ("obb", "aabb"):
        boxes = case.input(f"aug.{kind}")
        turned = quarter_turn(grid, boxes)
        moves = {"rot": turned, "flip": _mirrored(grid, boxes), "both": _mirrored(*turned)}
        for name, (moved, where) in moves.items():
            tensors |= {f"aug.{name}.grid": moved, f"aug.{name}.{kind}": where}
    angle, scale = (case.hparams[f"aug.rotscale.{key}"] for key in ("angle", "scale"))
    moved, where = turn_and_scale(grid, angle, scale, case.input("aug.obb"))
    return tensors | {"aug.rotscale.grid": moved, "aug.rotscale.obb": where}


def _mirrored(grid: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Along both axes."""
    grid, moved = mirror(grid, 0, boxes)
    grid, moved = mirror(grid, 1, moved)
    assert moved is not None
    return grid, moved


def _boxes(case: Case) -> dict[str, Tensor]:
    """Overlaps, losses, codes and metrics of boxes."""
    a, b, outer = case.input("obb.a"), case.input("obb.b"), case.input("aabb.boxes")
    upright = torch.cat([outer[:, :3] + outer[:, 3:], 2 * (outer[:, 3:] - outer[:, :3])], 1) / 2
    upright = torch.cat([upright, torch.zeros(len(outer), 1)], dim=1)
    points = case.input("fcos.loc")
    code = encode_boxes(points, a)
    scenes = [
        Scene(*(case.input(f"metric.{key}.{i}") for key in ("prop", "score", "gt")))
        for i in range(3)
    ]
    tensors = {
        "obb.iou_exact": iou(a, b),
        "obb.iou_ref": iou(a, b).float(),
        "obb.matrix_exact": iou_matrix(a[:10], b[:12]),
        "obb.matrix_ref": iou_matrix(a[:10], b[:12]).float(),
        "obb.corners": corners(a),
        "obb.giou_loss": giou_loss(a[12:], b[12:]).float(),
        "obb.diou_loss": diou_loss(a[12:], b[12:]).float(),
        "aabb.iou": iou_matrix(upright, upright.flip(0)).float(),
        "fcos.enc": code,
        "fcos.dec": decode_boxes(points, code),
        "metric.recall_25_50": torch.tensor([recall(scenes, 0.25), recall(scenes, 0.5)]),
    }
    for threshold in (0.25, 0.5):
        value = average_precision(scenes, threshold)
        tensors[f"metric.ap_voc.{threshold}"] = torch.tensor([value])
    return tensors


def _answers(case: Case, prefix: str) -> list[str]:
    return sorted(name for name in case.tensors if name.startswith(prefix))


# --- extraction (``nerf/extract``) ----------------------------------------------------------------


def extract(case: Case) -> Results:
    """The tensors of a ``nerf/extract`` case: an analytic field, sampled."""
    hparams = case.hparams
    for name in ("max_res", "num_poses", "resolution", "bbox_min_pts", "bbox_max_pts"):
        hparams.skip(name)  # box and resolution are stored
    scale, a, b = hparams["density_scale"], case.input("A"), case.input("B")
    poses = case.input("poses").double().cpu().numpy()
    box = torch.stack([case.input("bbox_min"), case.input("bbox_max")]).double().cpu().numpy()
    grid = export_grid(
        lambda points: scale * (points @ case.input("c")),
        lambda points, views: torch.sigmoid(points @ a.T + views @ b.T),
        Cameras([Camera(pose[:3]) for pose in poses]),
        bbox=box,
        resolution=case.input("resolution").tolist(),
        delta=hparams["alpha_delta"],
        store=hparams["density_kind"],
        rgb_everywhere=True,
    )
    values = torch.from_numpy(grid.values)  # (X, Y, Z, 4)
    alpha = opacity(values[..., 3:], grid.density_kind, grid.delta)
    return Results(
        {
            "flat": values.permute(2, 1, 0, 3).reshape(-1, 4),  # x fastest
            "grid_wlh": values,
            "grid_chw_alpha": torch.cat([values[..., :3], alpha], -1).permute(3, 0, 1, 2),
        }
    )
