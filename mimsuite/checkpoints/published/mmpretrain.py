"""Translate OpenMMLab mmpretrain's vision transformers and MAE to the names of MAE's code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from mimsuite.models.teachers.names import Rule, renamed, without_rule
from mimsuite.weights.files import WeightsFile, listed

_PARTS: tuple[Rule, ...] = (
    (r"ln([12])\.(\w+)", r"norm\2.\3"),
    (r"attn\.(qkv|proj)\.(\w+)", r"attn.\2.\3"),
    (r"ffn\.layers\.0\.0\.(\w+)", r"mlp.fc1.\2"),
    (r"ffn\.layers\.1\.(\w+)", r"mlp.fc2.\2"),
)
_RULES: tuple[Rule, ...] = (
    (r"(?:backbone\.)?(cls_token|pos_embed)", r"\1"),
    (r"(?:backbone\.)?patch_embed\.projection\.(\w+)", r"patch_embed.proj.\1"),
    *((rf"(?:backbone\.)?layers\.(\d+)\.{part}", rf"blocks.\1.{to}") for part, to in _PARTS),
    (r"(?:backbone\.)?ln1\.(\w+)", r"norm.\1"),
    (r"(?:backbone\.)?ln2\.(\w+)", r"fc_norm.\1"),
    (r"neck\.(mask_token|decoder_pos_embed)", r"\1"),
    (r"neck\.(decoder_(?:embed|pred)\.\w+)", r"\1"),
    *((rf"neck\.decoder_blocks\.(\d+)\.{part}", rf"decoder_blocks.\1.{to}") for part, to in _PARTS),
    (r"neck\.ln1\.(\w+)", r"decoder_norm.\1"),
    (r"head\.(?:fc|layers\.head)\.(\w+)", r"head.\1"),
)
_MARK = "layers.0.ffn.layers.0.0.weight"


def translate(file: WeightsFile) -> WeightsFile | None:
    """The file under the names of MAE's code; ``None`` if it is not from mmpretrain."""
    if not _is_plain_vit(file.tensors):
        return None
    left = without_rule(file.tensors, _RULES)
    notes = [*file.notes, "mmpretrain's names read as MAE's"]
    notes += [f"dropped: {listed(left, 20)}"] if left else []
    return replace(file, tensors=renamed(file.tensors, _RULES), notes=notes)


def _is_plain_vit(tensors: Mapping[str, Tensor]) -> bool:
    """Whether it has the names of a plain ViT, and no parts that change its function."""
    found = any(f"{lead}{_MARK}" in tensors for lead in ("", "backbone."))
    return found and not any(".gamma" in name or "pre_norm" in name for name in tensors)
