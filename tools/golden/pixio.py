"""Pixio: a pass of pretraining and of distillation, features of the encoder (kinds
``efficient/pixio...``)."""

from __future__ import annotations

from typing import Any

import torch

from golden import build, mae
from golden.case import Case, CaseFault, Hparams
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.config.keys.masks import SquareMaskSection
from mimsuite.masking import gather_tokens
from mimsuite.models import ViT
from mimsuite.models.drop_path import drop_path_factors
from mimsuite.models.teachers import Teacher
from mimsuite.models.teachers.run import EncoderTeacher
from mimsuite.noise import FixedNoise, Noise
from mimsuite.tokens import patchify, resize_positions

_DECODER = {"width": 512, "depth": 32, "heads": 16}
_SIZES = {
    "base": build.SIZES["base"],
    "large": build.SIZES["large"],
    "huge": build.SIZES["huge"],
    "1b": {"width": 1536, "depth": 48, "heads": 24},
    "5b": {"width": 3072, "depth": 48, "heads": 32},
}
_LOSSES = {"cosine": "cosine", "l1": "l1", "mse": "mse"}
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


def distill(case: Case) -> Results:
    """The tensors of an ``efficient/pixio-distill`` case."""
    hparams = case.hparams
    build.refuse_drop_path(case)
    hparams.only("proj_norm_eps", 1e-5)
    method = build.method_of(_distillation(hparams))
    build.load(method, case)
    method.train(case.training())
    batch = Batch.of_images(case.input("imgs").float())
    method.teacher = _teacher(case, method)
    masked = hparams["mask_ratio"] > 0
    rows = FixedNoise({"mask": case.input("noise")}) if masked else Noise(0, 0, batch.index)
    context = method.prepare(batch, rows)
    masks = method.mask(batch, rows, context)
    output = method(batch, masks, context)
    output.loss.backward()
    mask, target = masks["image"], method.recipe.target
    results = Results(build.gradients(method))
    count, prediction = method.encoder.class_tokens, output.prediction
    if not masked:  # all patches, in raster order
        patches = gather_tokens(prediction[:, count:], mask.restore())
        prediction = torch.cat([prediction[:, :count], patches], dim=1)
    results.tensors |= {
        "teacher_feat": context.prepared["teacher"],
        "student_feat": prediction,
        "loss": output.loss,
        "loss_cls": output.terms["classes"] / target.classes.weight,
        "loss_patch": output.terms["patches"] / target.patches.weight,
    }
    if masked:
        results.tensors["ids_keep"] = mask.visible
    size = hparams["mask_grid"] ** 2
    facts = {
        "num_patches": mask.tokens,
        "len_keep": mask.visible.shape[1],
        "blocks": mask.tokens // size,
        "blocks_kept": mask.visible.shape[1] // size,
        "batch": len(batch),
    }
    for name, own in facts.items():
        if name in hparams:
            results.facts[f"hparams.{name}"] = (own, hparams[name])
    return results


def _distillation(hparams: Hparams) -> dict[str, Any]:
    encoder = {**build.encoder_keys(hparams), **_TRAINED, "class_tokens": hparams["n_cls_tokens"]}
    mask = {"kind": "squares", "side": hparams["mask_grid"], "ratio": hparams["mask_ratio"]}
    hparams.only("loss_fuse", "avg", "sum")
    classes = 0.5
    if hparams["loss_fuse"] == "sum":  # by their numbers of tokens
        visible = SquareMaskSection(**mask).visible(_patches(encoder))
        classes = hparams["n_cls_tokens"] / (hparams["n_cls_tokens"] + visible)
    losses = {}
    for name, key, weight in (("classes", "cls", classes), ("patches", "patch", 1 - classes)):
        hparams.only(f"loss_fn_{key}", *_LOSSES)
        loss = _LOSSES[hparams[f"loss_fn_{key}"]]
        losses[name] = {"normalize": "none", "loss": loss, "weight": weight}
    teacher = {
        "kind": "run",
        "weights": "random",  # replaced by the case's
        "patch_size": encoder["patch_size"],
        "width": hparams["teacher_embed_dim"],
        "depth": hparams["teacher_depth"],
        "heads": hparams["teacher_num_heads"],
        "mlp_ratio": encoder["mlp_ratio"],
        "class_tokens": encoder["class_tokens"],
    }
    return {
        "method": {"name": "pixio-distill"},
        "model": {"encoder": encoder},
        "mask": mask,
        "target": {"teacher": teacher, **losses},
        **build.idle_sections(),
    }


def _patches(encoder: dict[str, Any]) -> int:
    rows, columns = (side // encoder["patch_size"] for side in encoder["image_size"])
    return int(rows * columns)


def _teacher(case: Case, method: Any) -> Teacher:
    """A teacher with the case's weights, that reads the images as they are."""
    section = method.recipe.target.teacher
    own = method.recipe.model.encoder
    sizes = {key: getattr(section, key) for key in ("width", "depth", "heads", "class_tokens")}
    encoder = ViT(own.model_copy(update=sizes))
    encoder.load_state_dict(case.inputs("teacher."), strict=True)
    statistics = method.teacher.statistics
    section = section.model_copy(update=dict(zip(("mean", "std"), statistics, strict=True)))
    return Teacher(section, own.grid, statistics, lambda weights: EncoderTeacher(encoder))


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
