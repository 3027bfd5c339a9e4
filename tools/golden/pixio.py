"""Pixio: a pass of pretraining, features of the encoder (kinds ``efficient/pixio...``)."""

from __future__ import annotations

from typing import Any

import torch

from golden import build, mae
from golden.case import Case, CaseFault, Hparams
from golden.results import Results
from mimsuite.models.drop_path import drop_path_factors
from mimsuite.tokens import patchify, resize_positions

_DECODER = {"width": 512, "depth": 32, "heads": 16}
_SIZES = {
    "base": build.SIZES["base"],
    "large": build.SIZES["large"],
    "huge": build.SIZES["huge"],
    "1b": {"width": 1536, "depth": 48, "heads": 24},
    "5b": {"width": 3072, "depth": 48, "heads": 32},
}
_TRAINED = {"trained_positions": True, "position_start": "random"}


def document(hparams: Hparams) -> dict[str, Any]:
    """The recipe of a case."""
    encoder = {**build.encoder_keys(hparams), **_TRAINED, "class_tokens": hparams["n_cls_tokens"]}
    decoder = build.decoder_keys(hparams, hparams["mlp_ratio"]) | _TRAINED
    found = build.autoencoder_document("pixio", hparams, encoder, decoder)
    found["mask"] |= {"kind": "squares", "side": hparams["mask_grid"]}
    return found


def pretrain(case: Case) -> Results:
    """The tensors of an ``efficient/pixio`` case."""
    hparams = case.hparams
    hparams.require(mae.REQUIRED + " n_cls_tokens mask_grid")
    build.refuse_drop_path(case)
    method = build.method_of(document(hparams))
    run, results = mae.run_case(case, method)
    results.tensors.update(run.debug)
    results.on_masked["pred"] = (run.output.prediction, run.mask)
    size = hparams["mask_grid"] ** 2
    for name, own in (("blocks", run.mask.tokens), ("blocks_kept", run.mask.visible.shape[1])):
        results.facts[f"hparams.{name}"] = (own // size, hparams.get(name, None))
    return results


@torch.no_grad()
def encode(case: Case) -> Results:
    """The tensors of an ``efficient/pixio-encoder`` case."""
    hparams = case.hparams
    if hparams["input_size"] != list(case.input("imgs").shape[2:]):
        raise CaseFault("hparams.input_size: not that of imgs")
    hparams.skip("batch")
    method = build.method_of(_small(hparams["img_size"], hparams))
    state = type(method).import_reference(case.inputs("state."))
    encoder = method.encoder
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in state.items()}, strict=True)
    encoder.eval()
    images, patch, count = case.input("imgs"), hparams["patch_size"], encoder.class_tokens
    grid = (images.shape[2] // patch, images.shape[3] // patch)
    numbers = hparams["block_ids"]
    found = encoder(patchify(images, patch), layers=[1 + number for number in numbers], grid=grid)
    results = Results({"pos_embed_interp": resize_positions(encoder.pos_embed, encoder.grid, grid)})
    for number in numbers:
        raw = found.layers[1 + number]
        for ending, block in (("", raw), ("_norm", encoder.norm(raw))):
            results.tensors[f"cls_tokens{ending}.{number}"] = block[:, :count]
            results.tensors[f"patch_tokens{ending}.{number}"] = block[:, count:]
    return results


def _small(side: int, hparams: Hparams) -> dict[str, Any]:
    encoder = {**build.encoder_keys(hparams), **_TRAINED, "class_tokens": hparams["n_cls_tokens"]}
    return _document(encoder, {"width": 8, "depth": 1, "heads": 1}, 1) | build.idle_sections()


def _document(encoder: dict[str, Any], decoder: dict[str, Any], side: int) -> dict[str, Any]:
    return {
        "method": {"name": "pixio"},
        "model": {"encoder": encoder, "decoder": {**decoder, **_TRAINED}},
        "mask": {"kind": "squares", "ratio": 0.75, "side": side},
        "target": {"normalize": True},
    }


# --- tables ---------------------------------------------------------------------------------------


def published_model(name: str, stage: str, pool: str | None) -> dict[str, Any] | None:
    """The recipe document of a released model; ``None`` for a name that is not one."""
    size = name.removeprefix("vit_")
    if size not in _SIZES or stage not in ("pretrain", "encoder"):
        return None
    encoder = {"image_size": 256, "patch_size": 16, **_SIZES[size], **_TRAINED, "class_tokens": 8}
    return _document(encoder, _DECODER, 4)


def small_model(args: dict[str, Any]) -> dict[str, Any]:
    """A recipe of the sizes that an entry about parameter groups tells."""
    encoder = {"image_size": 16, "patch_size": 4, "width": 8, "heads": 1, "depth": args["depth"]}
    encoder |= {**_TRAINED, "class_tokens": args["n_cls_tokens"]}
    decoder = {"width": 8, "depth": args["decoder_depth"], "heads": 1}
    return _document(encoder, decoder, 2) | build.idle_sections()


def drop_path(case: Case, entry: dict[str, Any]) -> dict[str, Any]:
    """The rate of every encoder block, as the factor of what survives tells it."""
    depth, rate = entry["args"]["depth"], entry["args"]["drop_path"]
    factors = drop_path_factors(torch.ones(1, 2 * depth, dtype=torch.float64), rate)
    return {"drop_path": [float(1 - 1 / first) for first, _ in factors]}
