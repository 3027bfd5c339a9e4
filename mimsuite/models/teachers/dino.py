"""Plain vision transformers such as DINO's (Caron et al., arXiv:2104.14294).

Layouts: DINO's release (also that of timm and MAE), and Hugging Face's ``ViTModel``.
"""

from __future__ import annotations

from torch import Tensor

from mimsuite.config.keys.teachers import DinoTeacherSection
from mimsuite.errors import UserError
from mimsuite.models.teachers.files import read_tensors
from mimsuite.models.teachers.names import renamed
from mimsuite.models.teachers.transformer import FrozenViT, Shape, load_state

_PLAIN = (
    (r"(?:backbone\.)?(cls_token|pos_embed)", r"\1"),
    (r"(?:backbone\.)?patch_embed\.proj\.(\w+)", r"patch_embed.\1"),
    (r"(?:backbone\.)?(blocks\.\d+\.(?:norm|attn|mlp).*)", r"\1"),
    (r"(?:backbone\.)?(norm\.\w+)", r"\1"),
)
_LAYER = r"(?:vit\.)?encoder\.layer\.(\d+)\."
_HUGGING_FACE = (
    (r"(?:vit\.)?embeddings\.cls_token", "cls_token"),
    (r"(?:vit\.)?embeddings\.position_embeddings", "pos_embed"),
    (r"(?:vit\.)?embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.\1"),
    (_LAYER + r"layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"attention\.attention\.([qkv])\w+\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (_LAYER + r"attention\.output\.dense\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"intermediate\.dense\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"output\.dense\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"(?:vit\.)?layernorm\.(\w+)", r"norm.\1"),
)
_WHERE = (
    "a plain ViT: dino_vitbase16_pretrain.pth of github.com/facebookresearch/dino, or "
    "model.safetensors of huggingface.co/facebook/dino-vitb16"
)


def load(
    section: DinoTeacherSection, grid: tuple[int, int], key: str, weights: bool = True
) -> FrozenViT:
    """A plain vision transformer for a grid of tokens.

    Raises:
        UserError: the file is missing or holds something else.
    """
    vit = FrozenViT(section, grid, Shape(section.norm_eps))
    if weights:
        load_state(vit, _read(section, key), section, grid, key)
    return vit


def _read(section: DinoTeacherSection, key: str) -> dict[str, Tensor]:
    tensors = read_tensors(section.weights, key, _WHERE)
    plain = any(name.endswith("blocks.0.attn.qkv.weight") for name in tensors)
    state = renamed(tensors, _PLAIN if plain else _HUGGING_FACE)
    if not {"cls_token", "pos_embed", "patch_embed.weight"} <= state.keys():
        raise UserError(f"{key}.weights={section.weights} is not {_WHERE}")
    return state
