"""I-JEPA pretraining (kinds ``latent/ijepa`` and ``latent/ijepa-masks``).

Everything runs as a training step runs it: prepare, mask, forward. The masks are the stored ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden import build
from golden.case import Case, Hparams
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.masks import MultiBlockMaskSection
from mimsuite.masking import MultiBlockSampler, TokenMask
from mimsuite.methods.ijepa import IJEPA
from mimsuite.noise import FixedNoise

MODEL = (
    "img_size patch_size in_chans embed_dim depth num_heads mlp_ratio qkv_bias norm_eps "
    "drop_path_rate dropout predictor_embed_dim predictor_depth predictor_num_heads "
    "predictor_mlp_ratio target_norm target_norm_eps loss smooth_l1_beta batch "
)
_MASKS = "num_enc_masks num_pred_masks enc_mask_scale pred_mask_scale aspect_ratio min_keep "


def pretrain(case: Case) -> Results:
    """A ``latent/ijepa`` case."""
    case.hparams.require(MODEL + _MASKS + "allow_overlap")
    build.refuse_drop_path(case)
    method: IJEPA = build.method_of(document(case.hparams) | build.idle_sections())
    build.load(method, case)
    method.train(case.training())
    latents: list[Tensor] = []
    whole: list[Tensor] = []
    method.student.register_forward_hook(lambda m, args, out: latents.append(out.tokens))
    method.encoder.register_forward_hook(lambda m, args, out: whole.append(out.tokens))
    batch = Batch.of_images(build.images(case))
    context = method.prepare(batch, FixedNoise({}))
    masks = masks_of(case.input("enc_idx"), case.input("pred_idx"), method.grid)
    output = method(batch, masks, context)
    output.loss.backward()
    targets = next(iter(masks.values())).gather_targets(context.prepared["target"])  # (K, B, T, D)
    repeated = targets.unsqueeze(1).expand(-1, len(masks), -1, -1, -1)
    tensors = {
        "latent": torch.cat(latents),
        "target_full": whole[0],
        "target": repeated.flatten(0, 2),
        "pred": output.prediction,
        "loss": output.loss,
    }
    return Results({**tensors, **build.gradients(method)}, facts=facts(case, method))


def document(hparams: Hparams) -> dict[str, Any]:
    """The recipe's sections that a case describes."""
    hparams.only("target_norm", "layer_norm")
    hparams.only("target_norm_eps", 1e-5)
    hparams.only("loss", "smooth_l1")
    hparams.only("smooth_l1_beta", 1.0)
    predictor = {
        "width": hparams["predictor_embed_dim"],
        "depth": hparams["predictor_depth"],
        "heads": hparams["predictor_num_heads"],
        "mlp_ratio": hparams["predictor_mlp_ratio"],
    }
    return {
        "method": {"name": "ijepa", "momentum": hparams.get("ema", [0.996, 1.0])},
        "model": {
            "encoder": {**build.encoder_keys(hparams), "class_tokens": 0},
            "predictor": predictor,
        },
        "mask": mask_keys(hparams),
        "target": {"normalize": "layer-norm", "loss": "smooth-l1"},
    }


def mask_keys(given: Any) -> dict[str, Any]:
    """`mask` keys of a case's or an entry's settings."""
    contexts, targets = ("num_enc_masks", "num_pred_masks")
    if contexts not in given:
        contexts, targets = "nenc", "npred"
    return {
        "kind": "multi-block",
        "contexts": given[contexts],
        "context_scale": given["enc_mask_scale"],
        "targets": given[targets],
        "target_scale": given["pred_mask_scale"],
        "aspect": given["aspect_ratio"],
        "min_keep": given["min_keep"],
        "overlap": given["allow_overlap"],
    }


def facts(case: Case, method: IJEPA) -> dict[str, tuple[Any, Any]]:
    """Numbers that a case states and the product derives."""
    own = {
        "num_patches": method.grid[0] * method.grid[1],
        "mlp_hidden": method.student.blocks[0].mlp.fc1.out_features,  # type: ignore[union-attr]
        "batch": len(case.input("imgs").flatten(0, -4)) // case.hparams.get("steps", 1),
    }
    return {f"hparams.{k}": (v, case.hparams.get(k, None)) for k, v in own.items()}


def masks_of(contexts: Tensor, targets: Tensor, grid: tuple[int, int]) -> dict[str, TokenMask]:
    """Masks by (C, B, V) and (K, B, T) stored ids, padded with -1 behind the last in use."""
    targets = _used(targets)
    return {
        f"context{number}": TokenMask.from_visible(rows, grid, targets).check(targets_hidden=False)
        for number, rows in enumerate(_used(contexts), start=1)
    }


def _used(ids: Tensor) -> Tensor:
    return ids[..., : int((ids[0, 0] >= 0).sum())].long()


def masks(case: Case) -> Results:
    """A ``latent/ijepa-masks`` case: exact masks from recorded draws."""
    hparams = case.hparams
    hparams.require(_MASKS + "grid allow_overlap batch calls timeout")
    hparams.only("timeout", 20)
    grid = tuple(hparams["grid"])
    sampler = MultiBlockSampler(MultiBlockMaskSection(**mask_keys(hparams)))
    numbers, corners = case.input("rand").tolist(), case.input("corners").tolist()
    counts = case.input("corner_count").tolist()
    sizes, contexts, targets = [], [], []
    for call in range(hparams["calls"]):
        sizes.append(sampler.sizes(grid, *numbers[call]))
        begun = sum(counts[:call])
        row = iter(corners[begun : begun + counts[call]])
        drawn = [
            sampler.draw(grid, *sizes[-1], lambda size, row=row: tuple(next(row)))  # type: ignore[misc]
            for _ in range(hparams["batch"])
        ]
        if next(row, None) is not None:
            raise ValueError(f"call {call} drew fewer corners than were recorded")
        made = sampler.cut(drawn, grid)
        contexts.append(torch.stack([mask.visible for mask in made.values()]))
        targets.append(next(iter(made.values())).targets)
    return Results(
        {
            "pred_size": torch.tensor([target for target, _ in sizes]),
            "enc_size": torch.tensor([context for _, context in sizes]),
            "enc_idx": _padded(contexts),
            "pred_idx": _padded(targets),
        }
    )


def _padded(calls: list[Any]) -> Tensor:
    """Stacked, with -1 behind the last id of each call."""
    longest = max(ids.shape[-1] for ids in calls)
    pad = torch.nn.functional.pad
    return torch.stack([pad(ids, (0, longest - ids.shape[-1]), value=-1) for ids in calls])
