"""Published checkpoints: their location, licence and matching recipe.

The suite does not download them.
"""

from __future__ import annotations

from typing import NamedTuple

_MAE = "https://dl.fbaipublicfiles.com/mae"
_MAE_LICENCE = "CC-BY-NC-4.0"


class Weights(NamedTuple):
    """A published checkpoint.

    Attributes:
        file: file name.
        url: the authors' page or file.
        holds: contents.
        licence: SPDX identifier.
        recipe: the recipe whose model it matches.
        md5: start of the file's MD5 as the authors publish it; empty if they do not.
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
    # name, recipe, MD5 of the pretrained and the fine-tuned file (facebookresearch/mae README)
    ("base", "vitb16", "8cad7c", "1b25e9"),
    ("large", "vitl16", "b8b06e", "51f550"),
    ("huge", "vith14", "9bdbb0", "2541f2"),
)


def published_weights() -> list[Weights]:
    """All checkpoints that fit a recipe of the catalog."""
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
    found.append(
        Weights(
            "convmae.pth",
            "https://drive.google.com/file/d/1AEPivXw0A0b_m5EwEi6fg2pOAoDr8C31/view",
            "ConvMAE-B encoder, without decoder and fusion",
            "MIT",
            "image/mcmae-b-finetune-in1k",
        )
    )
    found += _hugging_face()
    found += [
        Weights(
            f"{name}.pth.tar",
            f"https://dl.fbaipublicfiles.com/ijepa/{name}.pth.tar",
            "encoder, predictor and target encoder",
            "CC-BY-NC-4.0",
            f"image/ijepa-{recipe}",
        )
        for name, recipe in (
            ("IN1K-vit.h.14-300e", "vith14-in1k"),
            ("IN1K-vit.h.16-448px-300e", "vith16-448-in1k"),
            ("IN22K-vit.h.14-900e", "vith14-in22k"),
            ("IN22K-vit.g.16-600e", "vitg16-in22k"),
        )
    ]
    found += [
        Weights(
            "CAE base and large (a folder)",
            "https://drive.google.com/drive/folders/1wwhg7nj2GQuU9uthVuQLkEEXEjx90G7g",
            "encoder, regressor and decoder; classifiers",
            "NOASSERTION",
            "image/cae-base-in1k",
        ),
        Weights(
            "encoder.pkl",
            "https://cdn.openai.com/dall-e/encoder.pkl",
            "DALL-E's tokenizer: `mimsuite import encoder.pkl --from dalle`",
            "LicenseRef-DALL-E-Modified-MIT",
            "image/cae-base-in1k",
        ),
    ]
    return found + _teachers()


def _hugging_face() -> list[Weights]:
    """Folders of huggingface.co: config.json, preprocessor_config.json and the weights."""
    hub = "https://huggingface.co"
    found = [
        Weights(
            f"facebook/vit-mae-{name}",
            f"{hub}/facebook/vit-mae-{name}",
            "a folder: encoder and decoder, as ViTMAEForPreTraining",
            "Apache-2.0",
            f"image/mae-{size}-in1k",
        )
        for name, size, _, _ in _SIZES
    ]
    return found + [
        Weights(
            f"MCG-NJU/videomae-{name}",
            f"{hub}/MCG-NJU/videomae-{name}",
            holds,
            "CC-BY-NC-4.0",
            recipe,
        )
        for name, holds, recipe in (
            (
                "base",
                "a folder: encoder and decoder, as VideoMAEForPreTraining",
                "video/videomae-vitb16-k400",
            ),
            (
                "base-finetuned-kinetics",
                "a folder: classifier of Kinetics-400, as VideoMAEForVideoClassification",
                "video/videomae-vitb16-finetune-k400",
            ),
        )
    ]


def _teachers() -> list[Weights]:
    """Frozen teachers, for ``target.teacher.weights``."""
    hugging_face = "https://huggingface.co/openai"
    dino, deit = "dino_vitbase16_pretrain", "deit_base_patch16_224-b5f2ef4d"
    meta = "https://dl.fbaipublicfiles.com"
    return (
        [
            Weights(
                f"clip-vit-{name}",
                f"{hugging_face}/clip-vit-{name}",
                "teacher: CLIP; download pytorch_model.bin or model.safetensors",
                "MIT",
                recipe,
            )
            for name, recipe in (
                ("base-patch16", "image/maskalign-b-in1k"),
                ("large-patch14", "image/maskalign-l-in1k"),
            )
        ]
        + [
            Weights(
                f"{dino}.pth",
                f"{meta}/dino/{dino}/{dino}.pth",
                "teacher: DINO ViT-B/16",
                "Apache-2.0",
                "image/mr-mae-vitb16-in1k target.teacher.kind=dino",
            ),
            Weights(
                f"{deit}.pth",
                f"{meta}/deit/{deit}.pth",
                "teacher: DeiT-B/16, for features",
                "Apache-2.0",
                "image/hybrid-vitb16-in1k",
            ),
        ]
        + [
            Weights(
                model,
                f"https://huggingface.co/timm/{model}",
                f"teacher: {name}; download model.safetensors",
                licence,
                f"image/mr-mae-vitb16-in1k target.teacher.kind=timm target.teacher.model={model} "
                f"target.teacher.patch_size={patch}",
            )
            for model, name, licence, patch in (
                ("vit_base_patch14_dinov2.lvd142m", "DINOv2 ViT-B/14", "Apache-2.0", 14),
                ("vit_base_patch14_reg4_dinov2.lvd142m", "DINOv2 with registers", "Apache-2.0", 14),
                ("vit_base_patch16_dinov3.lvd1689m", "DINOv3", "LicenseRef-DINOv3", 16),
            )
        ]
    )
