"""VideoMAE: one forward and backward pass of pretraining or fine-tuning (``video/*``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden import build
from golden.case import Case, CaseFault, Hparams, pair
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.masking import TokenMask
from mimsuite.methods import Context
from mimsuite.methods.video_mae import VideoMAE
from mimsuite.models import Features
from mimsuite.noise import FixedNoise

SIZES = (
    "img_size patch_size mlp_ratio qkv_bias init_values tubelet_size all_frames cos_attn norm_eps "
    "batch drop_path_rate use_learnable_pos_emb "
)
PRETRAIN = (
    SIZES + "encoder_embed_dim encoder_depth encoder_num_heads decoder_embed_dim decoder_depth "
    "decoder_num_heads mask_ratio decoder_mask_ratio normlize_target mean std "
)


def pretrain(case: Case) -> Results:
    """The tensors of a ``video/pretrain`` case."""
    case.hparams.require(PRETRAIN)
    build.refuse_drop_path(case)
    method: VideoMAE = build.method_of(document(case.hparams))
    build.load(method, case)
    method.train(case.training())
    clips, mask = case.input("video"), mask_of(case, method, slice(None))
    features: list[Features] = []
    handle = method.encoder.register_forward_hook(lambda m, args, out: features.append(out))
    output = _forward(method, clips, mask)
    handle.remove()
    output.loss.backward()
    results = Results({"loss": output.loss.reshape(1), "pred": output.prediction})
    results.tensors |= build.gradients(method)
    with torch.no_grad():
        first = _forward(method, clips, TokenMask(mask.grid, mask.visible, mask.masked))
        vectors = method.encoder.tubelets(clips)
        target = method.target(vectors, method.channels)
        results.tensors |= {
            "pred_v1": first.prediction,
            "loss_v1": first.loss.reshape(1),
            "patch_embed": method.encoder.patch_embed(vectors),
            "pos_embed_encoder": method.encoder.pos_embed,
            "pos_embed_decoder": method.decoder.pos_embed,
            "encoder_visible": features[0].tokens,
            "target_full": target,
            "target": mask.gather(target, "decoded"),
        }
    counted = mask.decoded_masked
    assert counted is not None
    results.tensors["loss_token_mask"] = counted
    results.facts |= facts(case, method, mask)
    if "loss_tokens_per_sample" in case.hparams:
        stated = list(case.hparams["loss_tokens_per_sample"])
        results.facts["hparams.loss_tokens_per_sample"] = (counted.sum(1).tolist(), stated)
    return results


def finetune(case: Case) -> Results:
    """The tensors of a ``video/finetune`` case."""
    hparams = case.hparams
    hparams.require(SIZES + "num_classes embed_dim depth num_heads use_mean_pooling init_scale")
    build.refuse_drop_path(case)
    hparams.only("use_mean_pooling", True)
    hparams.only("loss_kind", "cross_entropy")
    hparams.only("cos_attn_scale_max", 4.6052)
    hparams.skip("init_scale")  # every case brings its weights
    recipe = {
        "method": {"name": "classify-video"},
        "model": {"encoder": _encoder(hparams, ""), "head_init_std": 0.02},
        "target": {"classes": hparams["num_classes"]},
        **build.idle_sections(),
    }
    method: Any = build.method_of(recipe)
    build.load(method, case)
    method.train(case.training())
    seen: list[Tensor] = []
    handle = method.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch, rows = Batch.of_views({"clip": case.input("video")}, case.input("label")), FixedNoise({})
    output = method(batch, {}, method.prepare(batch, rows))
    handle.remove()
    output.loss.backward()
    results = Results({"features": seen[0], "logits": output.prediction})
    results.tensors["loss"] = output.loss.reshape(1)
    results.tensors |= build.gradients(method)
    results.facts |= _grid_facts(case, method.encoder.grid)
    results.facts["hparams.batch"] = (len(batch), hparams["batch"])
    return results


def document(hparams: Hparams) -> dict[str, Any]:
    """The recipe of a pretraining case."""
    hparams.only("loss_kind", "mse_masked_mean")
    hparams.only("target_norm_eps", 1e-6)
    decoder = {
        "width": hparams["decoder_embed_dim"],
        "depth": hparams["decoder_depth"],
        "heads": hparams["decoder_num_heads"],
        "mlp_ratio": hparams["mlp_ratio"],
    }
    return {
        "method": {"name": "videomae"},
        "model": {"encoder": _encoder(hparams, "encoder_"), "decoder": decoder},
        "mask": {"ratio": hparams["mask_ratio"], "decoder_ratio": hparams["decoder_mask_ratio"]},
        "target": {"normalize": hparams["normlize_target"]},
        "augment": {"mean": hparams["mean"], "std": hparams["std"]},
        **build.idle_sections(),
    }


def _encoder(hparams: Hparams, prefix: str) -> dict[str, Any]:
    """`model.encoder` keys."""
    hparams.only("qkv_bias", True)
    hparams.only("use_learnable_pos_emb", False)
    hparams.only("dropout", 0)
    hparams.only("attn_drop_rate", 0)
    return {
        "kind": "video-vit",
        "frames": hparams["all_frames"],
        "tubelet": hparams["tubelet_size"],
        "image_size": pair(hparams["img_size"]),
        "patch_size": hparams["patch_size"],
        "in_channels": hparams.get("in_chans", 3),
        "width": hparams[f"{prefix}embed_dim"],
        "depth": hparams[f"{prefix}depth"],
        "heads": hparams[f"{prefix}num_heads"],
        "mlp_ratio": hparams["mlp_ratio"],
        "norm_eps": hparams["norm_eps"],
        "drop_path": hparams["drop_path_rate"],
        "layer_scale": hparams["init_values"],
        "cosine_attention": hparams["cos_attn"],
    }


def mask_of(case: Case, method: VideoMAE, row: Any) -> TokenMask:
    """The stored masks of some rows."""
    removed, skipped = case.input("enc_mask")[row], case.input("dec_mask")[row]
    if removed.shape[-1] != skipped.shape[-1]:
        raise CaseFault("inputs: enc_mask and dec_mask are of different grids")
    return TokenMask.from_removed(removed, method.grid, not_decoded=skipped)


def _forward(method: VideoMAE, clips: Tensor, mask: TokenMask) -> Any:
    """As a training step runs it, but for the mask, which is given."""
    batch, rows = Batch.of_views({"clip": clips}), FixedNoise({})
    context: Context = method.prepare(batch, rows)
    return method(batch, {"clip": mask}, context)


def facts(case: Case, method: VideoMAE, mask: TokenMask) -> dict[str, tuple[Any, Any]]:
    """Numbers that a case states and the product derives."""
    own = {
        "visible_tokens": mask.visible.shape[1],
        "decoded_tokens": mask.ids("decoded").shape[1],
        "decoder_num_classes": method.decoder.head.out_features,
        "batch": len(mask.visible),
    }
    derived = {f"hparams.{k}": (v, case.hparams[k]) for k, v in own.items() if k in case.hparams}
    return derived | _grid_facts(case, method.grid)


def _grid_facts(case: Case, grid: tuple[int, int, int]) -> dict[str, tuple[Any, Any]]:
    own = {"window": list(grid), "num_tokens": grid[0] * grid[1] * grid[2]}
    return {f"hparams.{k}": (v, case.hparams[k]) for k, v in own.items() if k in case.hparams}
