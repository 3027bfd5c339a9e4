"""V-JEPA and V-JEPA 2 pretraining (kinds ``latent/vjepa*``).

Everything runs as a training step runs it: prepare, mask, forward. The masks are the stored ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden import build
from golden.case import Case, CaseFault, Hparams
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.video import ClipViTSection
from mimsuite.masking import TokenMask
from mimsuite.methods.vjepa import VJEPA
from mimsuite.models import ClipViT
from mimsuite.noise import FixedNoise

_ENCODER = (
    "img_size patch_size tubelet_size in_chans embed_dim depth num_heads mlp_ratio qkv_bias "
    "norm_eps drop_path_rate dropout pos uniform_power "
)
MODEL = _ENCODER + (
    "version image clip_lengths pred_embed_dim pred_depth pred_num_heads num_mask_tokens "
    "mask_token_by target_norm_eps loss_exp mask_kinds batch "
)
_BY = {"clip_length": "first", "mask": "set"}


def pretrain(case: Case) -> Results:
    """A ``latent/vjepa`` case."""
    case.hparams.require(MODEL)
    build.refuse_drop_path(case)
    method: VJEPA = build.method_of(document(case.hparams) | build.idle_sections())
    build.load(method, case)
    method.train(case.training())
    contexts: list[Tensor] = []
    method.student.register_forward_hook(lambda m, args, out: contexts.append(out.tokens))
    clips = case.input("clips.0")
    batch = Batch.of_views({method.student.view: clips})
    context = method.prepare(batch, FixedNoise({}))
    masks = {}
    for number in range(case.hparams["mask_kinds"]):
        seen, asked = case.input(f"masks_enc.0.{number}"), case.input(f"masks_pred.0.{number}")
        masks[f"set{number + 1}"] = TokenMask.from_visible(seen, method.grid, asked[None]).check()
    output = method(batch, masks, context)
    output.loss.backward()
    assert output.prediction is not None
    tensors = {"h.0": context.prepared["target"], "loss": output.loss}
    begun = 0
    for number, mask in enumerate(masks.values()):
        assert mask.targets is not None
        length = mask.targets.shape[2]
        tensors[f"context.0.{number}"] = contexts[number]
        tensors[f"target.0.{number}"] = mask.gather_targets(context.prepared["target"])[0]
        tensors[f"pred.0.{number}"] = output.prediction[:, begun : begun + length]
        begun += length
    facts = {"hparams.batch": (len(clips), case.hparams["batch"])}
    return Results({**tensors, **build.gradients(method)}, facts=facts)


def encoder_keys(hparams: Hparams, frames: int) -> dict[str, Any]:
    """`model.encoder` keys of a case."""
    return {
        **build.encoder_keys(hparams),
        "kind": "clip-vit",
        "frames": frames,
        "tubelet": hparams["tubelet_size"],
        "positions": {"rope": "rotary", "sincos": "sin-cos"}[hparams["pos"]],
        "even_positions": hparams["uniform_power"],
    }


def document(hparams: Hparams) -> dict[str, Any]:
    """The recipe's sections that a case describes."""
    hparams.only("target_norm_eps", 1e-5)
    hparams.only("loss_exp", 1.0, 2.0)
    lengths, still = hparams["clip_lengths"], hparams["image"]
    if len(lengths) != 1:
        raise CaseFault("hparams.clip_lengths: several lengths in a batch are not built")
    predictor = {
        "width": hparams["pred_embed_dim"],
        "depth": hparams["pred_depth"],
        "heads": hparams["pred_num_heads"],
        "mask_tokens": hparams["num_mask_tokens"],
        "mask_token_by": _BY[hparams["mask_token_by"]],
    }
    squares = hparams["loss_exp"] == 2.0
    version = hparams["version"]
    return {
        "recipe": {"modality": "image" if still else "video"},
        "method": {"name": "vjepa", "momentum": hparams.get("ema", [0.99925, 0.99925])},
        "model": {
            "encoder": encoder_keys(hparams, lengths[0]),
            "predictor": predictor,
            "scaled_start": version == 2,
        },
        "mask": {"sets": [{"blocks": 1, "scale": [0.5, 0.5]}] * hparams["mask_kinds"]},
        "target": {
            "normalize": "layer-norm",
            "loss": "mse" if squares else "l1",
            "weight": 0.5 if squares else 1.0,
        },
    }


def ids_of(members: Tensor) -> Tensor:
    """(B, K) rising ids of (B, N) 0 and 1."""
    return members.nonzero()[:, 1].view(len(members), -1)


def encode(case: Case) -> Results:
    """A ``latent/vjepa-encoder`` case: other sizes than the trained one, layers, clips joined."""
    hparams = case.hparams
    hparams.require(_ENCODER + "num_frames input_sizes batch")
    section = ClipViTSection(**encoder_keys(hparams, hparams["num_frames"]))
    encoder = ClipViT(section).eval()
    encoder.load_state_dict(case.inputs("state."), strict=True)
    tensors: dict[str, Tensor] = {}
    facts: dict[str, tuple[Any, Any]] = {}
    with torch.no_grad():
        for number, size in enumerate(hparams["input_sizes"]):
            clips = case.input(f"video.{number}")
            facts[f"input_sizes.{number}"] = (list(clips.shape[2:]), size)
            facts["hparams.batch"] = (len(clips), hparams["batch"])
            found = encoder.encode(
                Batch.of_views({"clip": clips}), layers=range(1, 1 + encoder.depth)
            )
            tensors[f"features.{number}"] = found.tokens
            if number == 0:
                for layer, tokens in found.layers.items():
                    tensors[f"layers.{layer - 1}"] = encoder.norm(tokens)
        if case.is_input("clips"):
            for view, clips in enumerate(case.input("clips").unbind(1)):  # (clips, B, C, T, H, W)
                parts = [encoder.encode(Batch.of_views({"clip": one})).tokens for one in clips]
                tensors[f"multiclip.{view}"] = torch.cat(parts, dim=1)
        if case.is_input("image"):
            still = case.input("image").unsqueeze(2).expand(-1, -1, hparams["num_frames"], -1, -1)
            tensors["image_as_video"] = encoder.encode(Batch.of_views({"clip": still})).tokens
    return Results(tensors, facts=facts)
