"""CLIP's image encoder (Radford et al., arXiv:2103.00020), projecting all tokens.

Layouts: OpenAI's and open_clip's state dicts (``visual.*``), and Hugging Face's
``CLIPModel``, ``CLIPVisionModel`` and ``CLIPVisionModelWithProjection``.
"""

from __future__ import annotations

from torch import Tensor

from mimsuite.config.keys.teachers import ClipTeacherSection
from mimsuite.errors import UserError
from mimsuite.models.teachers.files import read_tensors
from mimsuite.models.teachers.names import renamed
from mimsuite.models.teachers.transformer import FrozenViT, Shape, load_state

_BLOCK = r"visual\.transformer\.resblocks\.(\d+)\."
_ORIGINAL = (
    (r"visual\.conv1\.weight", "patch_embed.weight"),
    (r"visual\.class_embedding", "cls_token"),
    (r"visual\.positional_embedding", "pos_embed"),
    (r"visual\.ln_pre\.(\w+)", r"pre_norm.\1"),
    (_BLOCK + r"ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (_BLOCK + r"attn\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
    (_BLOCK + r"attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (_BLOCK + r"mlp\.c_fc\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (_BLOCK + r"mlp\.c_proj\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"visual\.ln_post\.(\w+)", r"norm.\1"),
    (r"visual\.proj", "projection.transposed"),
)
_LAYER = r"(?:vision_model\.)?encoder\.layers\.(\d+)\."
_HUGGING_FACE = (
    (r"(?:vision_model\.)?embeddings\.patch_embedding\.weight", "patch_embed.weight"),
    (r"(?:vision_model\.)?embeddings\.class_embedding", "cls_token"),
    (r"(?:vision_model\.)?embeddings\.position_embedding\.weight", "pos_embed"),
    (r"(?:vision_model\.)?pre_layrnorm\.(\w+)", r"pre_norm.\1"),
    (_LAYER + r"layer_norm([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (_LAYER + r"self_attn\.([qkv])_proj\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (_LAYER + r"self_attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"mlp\.(fc[12])\.(\w+)", r"blocks.\1.mlp.\2.\3"),
    (r"(?:vision_model\.)?post_layernorm\.(\w+)", r"norm.\1"),
    (r"visual_projection\.weight", "projection.weight"),
)
_WHERE = (
    "CLIP's image encoder: pytorch_model.bin or model.safetensors of "
    "huggingface.co/openai/clip-vit-base-patch16 (or clip-vit-large-patch14), or a state dict with "
    "OpenAI's names"
)


def load(
    section: ClipTeacherSection, grid: tuple[int, int], key: str, weights: bool = True
) -> FrozenViT:
    """CLIP's image encoder for a grid of tokens.

    Raises:
        UserError: the file is missing or holds something else.
    """
    quick = section.activation == "quick-gelu"
    vit = FrozenViT(section, grid, Shape(section.norm_eps, True, quick, section.projection))
    if weights:
        load_state(vit, _read(section, key), section, grid, key)
    return vit


def _read(section: ClipTeacherSection, key: str) -> dict[str, Tensor]:
    tensors = read_tensors(section.weights, key, _WHERE)
    rules = _ORIGINAL if "visual.conv1.weight" in tensors else _HUGGING_FACE
    state = renamed(tensors, rules)
    if not {"cls_token", "pos_embed", "patch_embed.weight"} <= state.keys():
        raise UserError(f"{key}.weights={section.weights} is not {_WHERE}")
    state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    state["pos_embed"] = state["pos_embed"][None]
    if "projection.transposed" in state:
        state["projection.weight"] = state.pop("projection.transposed").T
    return state
