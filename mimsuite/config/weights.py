"""Where published checkpoints are, under which licence, and which recipe takes them.

The suite downloads none of them.
"""

from __future__ import annotations

from typing import NamedTuple

_MAE = "https://dl.fbaipublicfiles.com/mae"
_MAE_LICENCE = "CC-BY-NC-4.0"


class Weights(NamedTuple):
    """A published checkpoint.

    Attributes:
        file: its name.
        url: where its authors keep it.
        holds: what is in it.
        licence: SPDX identifier.
        recipe: the recipe whose model it fits.
        md5: start of the file's MD5 as its authors print it; empty where they do not.
    """

    file: str
    url: str
    holds: str
    licence: str
    recipe: str
    md5: str = ""


def _mae(folder: str, file: str, holds: str, recipe: str, md5: str = "") -> Weights:
    return Weights(file, f"{_MAE}/{folder}/{file}", holds, _MAE_LICENCE, recipe, md5)


_SIZES = (
    # name, recipe, MD5 of the pretrained and of the fine-tuned file (facebookresearch/mae README)
    ("base", "vitb16", "8cad7c", "1b25e9"),
    ("large", "vitl16", "b8b06e", "51f550"),
    ("huge", "vith14", "9bdbb0", "2541f2"),
)


def published_weights() -> list[Weights]:
    """All checkpoints that recipes of the catalog take."""
    found = []
    for name, size, pretrained, finetuned in _SIZES:
        recipe = f"image/mae-{size}"
        found += [
            _mae(
                "pretrain",
                f"mae_pretrain_vit_{name}_full.pth",
                "encoder and decoder, normalised pixels",
                f"{recipe}-in1k",
            ),
            _mae(
                "pretrain",
                f"mae_pretrain_vit_{name}.pth",
                "encoder",
                f"{recipe}-finetune-in1k",
                pretrained,
            ),
            _mae(
                "visualize",
                f"mae_visualize_vit_{name}.pth",
                "encoder and decoder, plain pixels",
                f"{recipe}-in1k target.normalize=false",
            ),
            _mae(
                "finetune",
                f"mae_finetuned_vit_{name}.pth",
                "classifier of ImageNet-1K",
                f"{recipe}-finetune-in1k",
                finetuned,
            ),
        ]
    found.append(
        _mae(
            "visualize",
            "mae_visualize_vit_large_ganloss.pth",
            "encoder and decoder, plain pixels with a GAN loss",
            "image/mae-vitl16-in1k target.normalize=false",
        )
    )
    return found
