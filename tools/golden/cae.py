"""CAE and CAE v2: one forward and backward pass, ViT-B at full size, the DALL-E encoder, block
masks (kinds ``image/cae``, ``image/cae-lxt``, ``image/caev2``, ``image/cae-fullsize``,
``image/dalle-encoder``, ``image/blockmask-stats``).
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from golden import build
from golden.case import Case, CaseFault, pair
from golden.fills import fill
from golden.results import Results, statistics
from mimsuite.batch import Batch
from mimsuite.config.keys.masks import BlockMaskSection
from mimsuite.config.keys.tokenizers import DalleTokenizerSection
from mimsuite.masking import BlockSampler, TokenMask
from mimsuite.methods import Context
from mimsuite.methods.cae import CAE, from_published, to_published
from mimsuite.models import dalle
from mimsuite.models.teachers import TeacherFeatures
from mimsuite.noise import FixedNoise, Noise

_SIZES = (
    "mlp_ratio norm_eps qkv_bias img_size patch_size embed_dim depth num_heads init_values "
    "decoder_embed_dim regressor_depth decoder_num_classes decoder_num_heads "
    "decoder_layer_scale_init_value decoder_depth batch num_mask_patches "
)
_MASKS = 12_000  # drawn for each entry of blockmask-stats


def document(hparams: Any) -> dict[str, Any]:
    """The recipe of a CAE case."""
    hparams.require(_SIZES + "align_loss_weight")
    hparams.only("loss_kind", "cross_entropy+mse")
    hparams.only("latent_alignment_loss_weight", None)
    hparams.only("teacher_momentum", 0.0)  # the target's weights are the encoder's
    return {
        "method": {"name": "cae", "alignment_weight": hparams["align_loss_weight"]},
        "model": {
            **model_keys(hparams),
            "decoder": {"depth": hparams["decoder_depth"]},
            "init": "beit" if hparams.get("fix_init_weight", False) else "xavier",
        },
        "mask": {"kind": "block", "count": hparams["num_mask_patches"], "min_block": 1},
        # Never asked: every case brings its codes.
        "target": {
            "tokenizer": {
                "kind": "dalle",
                "weights": "random",
                "codes": hparams["decoder_num_classes"],
            }
        },
        "augment": {"second_view": {"image_size": _codes_view(hparams)}},
        **build.idle_sections(),
    }


def _codes_view(hparams: Any) -> list[int]:
    """Pixels of a view with one code of 8 x 8 pixels for each patch."""
    return [8 * (side // hparams["patch_size"]) for side in pair(hparams["img_size"])]


def model_keys(hparams: Any) -> dict[str, Any]:
    """`model.encoder` and `model.regressor` of a case of the CAE family."""
    hparams.only("attn_drop_rate", 0.0)
    heads, ratio = hparams["decoder_num_heads"], hparams["mlp_ratio"]
    hparams.only("regressor_num_heads", heads)
    hparams.only("decoder_mlp_ratio", ratio)
    return {
        "encoder": {
            **build.encoder_keys(hparams),
            "kind": "beit",
            "layer_scale": hparams["init_values"] or 0.0,
        },
        "regressor": {
            "width": hparams["decoder_embed_dim"],
            "depth": hparams["regressor_depth"],
            "heads": heads,
            "mlp_ratio": ratio,
            "layer_scale": hparams["decoder_layer_scale_init_value"] or 0.0,
        },
    }


def pretrain(case: Case) -> Results:
    """The tensors of an ``image/cae`` case."""
    return _pretrain(case, first=False)


def pretrain_first_layout(case: Case) -> Results:
    """The tensors of an ``image/cae-lxt`` case, whose names are lxtGH's."""
    return _pretrain(case, first=True)


def _pretrain(case: Case, first: bool) -> Results:
    build.refuse_drop_path(case)
    method = build.method_of(document(case.hparams))
    load(method, case.inputs("state."))
    method.train(case.training())
    run = Pass(method, build.images(case), case.input("mask"), case.input("labels_grid"))
    run.output.loss.backward()
    results = Results(run.tensors())
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            results.tensors[f"grad.{to_published(name, first)}"] = parameter.grad
    check_sizes(case, results, run.mask)
    return results


def check_sizes(case: Case, results: Results, mask: TokenMask) -> None:
    """Numbers that a case states and the product derives."""
    sizes = {"num_patches": mask.tokens, "num_mask_patches": mask.masked.shape[1]}
    for name, value in sizes.items():
        if name in case.hparams:
            results.facts[f"hparams.{name}"] = (value, case.hparams[name])
    results.facts["hparams.batch"] = (len(mask.masked), case.hparams["batch"])


def load(method: CAE, state: dict[str, Tensor]) -> None:
    """A published state, strictly; what no layout of it holds stays as it is."""
    ours = type(method).import_reference(state)
    held = {}
    if "regressor.pos_embed" not in ours:  # lxtGH's code makes the fixed table anew
        held["regressor.pos_embed"] = method.state_dict()["regressor.pos_embed"]
    method.load_state_dict({**held, **ours}, strict=True)


def of_layout(published: dict[str, Tensor], first: bool) -> dict[str, Tensor]:
    """A state with Atten4Vis' names under those of lxtGH, which came ``first``."""
    if not first:
        return published
    state: dict[str, Tensor] = {}
    for name, tensor in published.items():
        if name.startswith("alignment_encoder."):
            state[name.replace("alignment_encoder.", "teacher.", 1)] = tensor
        elif name != "rd_pos_embed":
            state[to_published(from_published(name), first=True)] = tensor
    return state


class Pass:
    """One pass of CAE under a given mask and given codes."""

    def __init__(self, method: CAE, images: Tensor, removed: Tensor, codes: Tensor) -> None:
        self.method, self.codes = method, codes
        self.batch = Batch.of_images(images)
        self.mask = TokenMask.from_removed(removed, method.grid)
        seen: dict[str, list[Any]] = {"encoder": [], "regressor": []}
        handles = [
            getattr(method, part).register_forward_hook(
                lambda module, args, output, part=part: seen[part].append(output)
            )
            for part in seen
        ]
        context = Context(FixedNoise({}), prepared={"codes": codes})
        self.output = method(self.batch, {"image": self.mask}, context)
        for handle in handles:
            handle.remove()
        self.encoded, self.aligned = seen["encoder"]
        (self.latents,) = seen["regressor"]

    def tensors(self) -> dict[str, Tensor]:
        """All but gradients, under the names of the goldens."""
        terms, logits = self.output.terms, self.output.prediction
        assert logits is not None
        return {
            "encoder_out": torch.cat([self.encoded.cls, self.encoded.tokens], dim=1),
            "latent_predict": self.latents,
            "latent_target": self.method.regressor.project(self.aligned.tokens),
            "logits": logits.flatten(0, 1),
            "labels_masked": self.codes.gather(1, self.mask.masked).flatten(),
            "loss_main": terms["tokens"],
            "loss_align": terms["alignment"],
            "loss": self.output.loss,
        }


def pretrain_v2(case: Case) -> Results:
    """The tensors of an ``image/caev2`` case, whose teacher's features are given."""
    build.refuse_drop_path(case)
    hparams = case.hparams
    hparams.require(_SIZES + "num_out_dim latent_alignment_loss_weight")
    hparams.only("loss_kind", "cosine_embedding")
    hparams.only("align_loss_weight", None)
    hparams.only("decoder_depth", 0)
    hparams.skip("decoder_num_classes")  # of the head that CAE has in its place
    method = build.method_of(_document_v2(hparams))
    load(method, case.inputs("state."))
    method.train(case.training())
    given = case.input("teacher_features")  # (B, 1 + N, E)
    teacher = TeacherFeatures(cls=given[:, 0], tokens=given[:, 1:])
    mask = TokenMask.from_removed(case.input("mask"), method.grid)
    seen: dict[str, Any] = {}
    for name, module in (("encoder", method.encoder), ("normed", method.decoder.norm)):
        module.register_forward_hook(
            lambda module, args, output, name=name: seen.__setitem__(name, output)
        )
    context = Context(FixedNoise({}), prepared={"teacher": teacher})
    output = method(Batch.of_images(build.images(case)), {"image": mask}, context)
    output.loss.backward()
    results = Results(
        {
            "encoder_out": torch.cat([seen["encoder"].cls, seen["encoder"].tokens], dim=1),
            # Behind the norm that all tokens share, as the published code hands them out.
            "latent_predict": seen["normed"][:, -mask.masked.shape[1] :],
            "output_normalised": F.normalize(output.prediction, dim=-1),
            "labels_normalised": method.targets(teacher, mask),
            "loss": output.loss,
        }
    )
    results.tensors.update(build.gradients(method))
    check_sizes(case, results, mask)
    return results


def _document_v2(hparams: Any) -> dict[str, Any]:
    """The recipe of a CAE v2 case; its teacher is never asked."""
    width = hparams["embed_dim"]
    teacher = {
        "kind": "clip",
        "weights": "random",
        "patch_size": hparams["patch_size"],
        "width": width,
        "depth": 1,
        "heads": hparams["num_heads"],
        "projection": hparams["num_out_dim"],
    }
    hparams.only("fix_init_weight", False)
    return {
        "method": {"name": "cae-v2"},
        "model": model_keys(hparams),
        "mask": {"kind": "block", "count": hparams["num_mask_patches"], "min_block": 1},
        "target": {
            "normalize": "unit",
            "loss": "cosine",
            "weight": hparams["latent_alignment_loss_weight"],
            "teacher": teacher,
        },
        **build.idle_sections(),
    }


@torch.no_grad()
def fullsize(case: Case) -> Results:
    """The table of an ``image/cae-fullsize`` case."""
    build.refuse_drop_path(case)
    hparams = case.hparams
    hparams.only("alignment_encoder", "copy of encoder after the fill")
    method = build.method_of(document(hparams))
    shapes = {name: tensor.shape for name, tensor in method.export_reference().items()}
    load(method, fill(case.field("fill"), shapes))
    method.train(case.training())
    images = build.images(case)
    tokens = method.grid[0] * method.grid[1]
    count = hparams["num_mask_patches"]
    least = build.noise(case, tokens).argsort(dim=1, stable=True)[:, :count]
    removed = torch.zeros(len(images), tokens, dtype=torch.bool).scatter(1, least, True)
    # The labels are stated for the masked patches in order; the product gathers them from a grid.
    codes = torch.zeros(len(images), tokens, dtype=torch.int64)
    codes[removed] = 131 * torch.arange(count * len(images)) % hparams["decoder_num_classes"]
    run = Pass(method, images, removed, codes)
    tensors = run.tensors()
    results = Results()
    check_sizes(case, results, run.mask)
    for entry in case.field("table"):
        name = entry["id"]
        if name not in tensors or entry["family"] != "cae":
            results.not_built.append(name)
        elif tensors[name].ndim == 0:
            results.entries[name] = {"value": float(tensors[name])}
        else:
            results.entries[name] = statistics(tensors[name])
    return results


@torch.no_grad()
def dalle_encoder(case: Case) -> Results:
    """The tensors of an ``image/dalle-encoder`` case."""
    hparams = case.hparams
    hparams.only("group_count", 4)
    hparams.only("in_chans", 3)
    hparams.only("stride", 8)
    section = DalleTokenizerSection(
        kind="dalle",
        weights="random",
        width=hparams["n_hid"],
        depth=hparams["n_blk_per_group"],
        codes=hparams["vocab_size"],
    )
    network = dalle.load(section, "target.tokenizer", weights=False)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    network.load_state_dict(fill(case.field("fill"), shapes))
    mapped = case.input("imgs_mapped")
    logits = network.blocks(mapped)  # behind the map of the pixels, which the case has done
    results = Results({"logits": logits, "indices": logits.argmax(1)})
    results.facts["hparams.img_size"] = (mapped.shape[-1], hparams["img_size"])
    results.facts["hparams.batch"] = (len(mapped), hparams["batch"])
    return results


def block_masks(case: Case) -> Results:
    """The table of an ``image/blockmask-stats`` case: how often each place is masked."""
    hparams = case.hparams
    hparams.only("family", "cae")
    hparams.skip("tries")  # after so many failures the published code starts the next ten
    results = Results()
    for entry in case.field("table"):
        if entry["family"] != "cae" or entry["group"] != "block_mask":
            results.not_built.append(entry["id"])
            continue
        args = entry["args"]
        try:
            section = BlockMaskSection(
                kind="block",
                count=args["num_masking_patches"],
                min_block=args["min_num_patches"],
                max_block=args["max_num_patches"],
                aspect=(args["min_aspect"], args["max_aspect"]),
            )
        except KeyError as missing:
            raise CaseFault(f"table: {entry['id']} has no args.{missing.args[0]}") from None
        rows, columns = pair(args["input_size"])
        noise = Noise(0, 0, torch.arange(_MASKS))
        masks = BlockSampler(section).sample(noise, (rows, columns)).dense()
        counts = masks.sum(1)
        results.tensors[f"{entry['id']}.position_mean"] = masks.float().mean(0).view(rows, columns)
        results.entries[entry["id"]] = {"counts": [int(counts.min()), int(counts.max())]}
    return results


def published_model(name: str, stage: str, pool: str | None) -> dict[str, Any] | None:
    """The recipe document of a released model; ``None`` for a name that is not one."""
    named = re.fullmatch(r"(base|large)_patch(\d+)_224(_8k_vocab)?", name)
    if not named:
        return None
    size = build.SIZES[named[1]]
    encoder = {"kind": "beit", "image_size": 224, "patch_size": int(named[2]), **size}
    encoder["layer_scale"] = 0.1 if named[1] == "base" else 1e-5
    if stage == "pretrain":
        return {
            "method": {"name": "cae"},
            "model": {
                "encoder": encoder,
                "regressor": {"width": size["width"], "heads": size["heads"]},
                "decoder": {"depth": 4},
            },
            "mask": {"kind": "block", "ratio": 0.5},
            "target": {"tokenizer": {"kind": "dalle", "weights": "random"}},
            "augment": {"second_view": {"image_size": 112}},
        }
    if stage == "finetune" and pool == "mean":
        encoder["relative_positions"] = True
        return {
            "method": {"name": "classify"},
            "model": {"encoder": encoder, "pool": pool, "head_init_std": 2e-5},
            "target": {"classes": 1000},
        }
    return None
