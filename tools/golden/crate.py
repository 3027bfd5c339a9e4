"""CRATE and CRATE-MAE: one forward and backward pass (``image/crate``, ``image/crate-mae``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from golden import build, mae
from golden import classify as classifier
from golden.case import Case, Hparams
from golden.results import Results
from mimsuite.batch import Batch

_COMMON = "drop_path_rate dropout step_size batch loss_kind "
CLASSIFIER = _COMMON + (
    "image_size patch_size num_classes dim depth heads dim_head lambd norm_eps pool channels "
    "emb_dropout"
)
AUTOENCODER = _COMMON + (
    "in_chans img_size patch_size embed_dim depth num_heads decoder_embed_dim decoder_depth "
    "decoder_num_heads norm_pix_loss lambd norm_eps_final norm_eps_prenorm mask_ratio "
    "norm_pix_eps patch_norm_variance"
)
SIZES = {  # width, depth, heads
    "tiny": {"width": 384, "depth": 12, "heads": 6},
    "small": {"width": 576, "depth": 12, "heads": 12},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
}


def classify(case: Case) -> Results:
    """The tensors of an ``image/crate`` case."""
    case.hparams.require(CLASSIFIER)
    method = build.method_of(classifier_document(case.hparams))
    build.load(method, case)
    method.train(case.training())
    batch = Batch.of_images(build.images(case), case.input("labels"))
    halves: dict[str, Tensor] = {}
    handles = []
    for number, block in enumerate(method.encoder.blocks):
        for name, half in (("mssa", block.attn), ("ista", block.ista)):
            handles.append(half.register_forward_hook(_keeper(halves, f"debug.{name}{number}")))
    _, logits, loss = classifier.step(method, batch)
    for handle in handles:
        handle.remove()
    loss.backward()
    results = Results({"logits": logits, "loss": loss, **halves, **build.gradients(method)})
    results.facts["hparams.batch"] = (len(batch), case.hparams["batch"])
    return results


def pretrain(case: Case) -> Results:
    """The tensors of an ``image/crate-mae`` case."""
    hparams = case.hparams
    hparams.require(AUTOENCODER)
    hparams.only("dropout", 0)
    hparams.only("drop_path_rate", 0)
    hparams.only("decoder_embed_dim", hparams["embed_dim"])
    encoder = {
        **_blocks(hparams),
        "image_size": hparams["img_size"],
        "in_channels": hparams["in_chans"],
        "width": hparams["embed_dim"],
        "heads": hparams["num_heads"],
        "norm_eps": hparams["norm_eps_prenorm"],
        "final_norm_eps": hparams["norm_eps_final"],
    }
    decoder = {"depth": hparams["decoder_depth"], "heads": hparams["decoder_num_heads"]}
    document = build.autoencoder_document("crate-mae", hparams, encoder, decoder)
    run, results = mae.run_case(case, build.method_of(document))
    results.on_masked["pred"] = (run.output.prediction, run.mask)
    return results


def classifier_document(hparams: Hparams) -> dict[str, Any]:
    """The recipe of a CRATE classifier."""
    hparams.only("loss_kind", "cross_entropy")
    hparams.only("pool", "cls", "mean")
    hparams.only("dim_head", hparams["dim"] // hparams["heads"])
    for name in ("dropout", "emb_dropout", "drop_path_rate"):
        hparams.only(name, 0)
    encoder = {
        **_blocks(hparams),
        "embed": "normed",
        "trained_positions": True,
        "image_size": hparams["image_size"],
        "in_channels": hparams["channels"],
        "width": hparams["dim"],
        "heads": hparams["heads"],
        "norm_eps": hparams["norm_eps"],
        "final_norm_eps": hparams["norm_eps"],
    }
    return {
        "method": {"name": "classify"},
        "model": {
            "encoder": encoder,
            "pool": "mean_all" if hparams["pool"] == "mean" else "cls",
            "head_init_std": 0.01,
        },
        "target": {"classes": hparams["num_classes"]},
        **build.idle_sections(),
    }


def published_classifier(name: str, stage: str, pool: str | None) -> dict[str, Any] | None:
    """The recipe document of a CRATE classifier of ImageNet-1K; ``None`` if there is none."""
    size = SIZES.get(name.removeprefix("CRATE_"))
    if stage != "classifier" or size is None:
        return None
    encoder = {"kind": "crate", "embed": "normed", "trained_positions": True, **size}
    return {
        "method": {"name": "classify"},
        "model": {"encoder": encoder, "pool": "cls", "head_init_std": 0.01},
        "target": {"classes": 1000},
    }


def published_autoencoder(name: str, stage: str, pool: str | None) -> dict[str, Any] | None:
    """The recipe document of a CRATE-MAE; ``None`` if there is none of that name."""
    size = SIZES.get(name)
    if stage != "pretrain" or size is None:
        return None
    decoder = {"depth": size["depth"], "heads": size["heads"]}
    return {
        "method": {"name": "crate-mae"},
        "model": {"encoder": {"kind": "crate", **size}, "decoder": decoder},
        "mask": {"ratio": 0.75},
        "target": {"normalize": True},
    }


def _blocks(hparams: Hparams) -> dict[str, Any]:
    return {
        "kind": "crate",
        "patch_size": hparams["patch_size"],
        "depth": hparams["depth"],
        "step_size": hparams["step_size"],
        "sparsity": hparams["lambd"],
    }


def _keeper(kept: dict[str, Tensor], name: str) -> Any:
    return lambda module, args, output: kept.__setitem__(name, output.detach())
