"""LPIPS: a learnt distance of images in the features of VGG16 (Zhang et al., arXiv:1801.03924).

Letters: B batch, C channels of a level.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import vgg16

from mimsuite.config.keys.rae import PerceptualSection
from mimsuite.config.keys.teachers import RANDOM
from mimsuite.errors import UserError
from mimsuite.models.teachers.files import read_tensors
from mimsuite.tokens.constants import constant

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_CUTS = (0, 4, 9, 16, 23, 30)  # layers of VGG16 at which levels end
CHANNELS = (64, 128, 256, 512, 512)
EPS = 1e-10
_WHERE = (
    "LPIPS's weights for VGG16 (vgg.pth of github.com/richzhang/PerceptualSimilarity, "
    "lpips/weights/v0.1)"
)
_WHERE_VGG = "torchvision's vgg16-397923af.pth (download.pytorch.org/models)"


class LPIPS(nn.Module):
    """Distance of two images in five levels of features; names are the published ones."""

    def __init__(self) -> None:
        super().__init__()
        layers = list(vgg16(weights=None).features)
        self.net = nn.ModuleDict()
        for number in range(5):
            level = nn.ModuleDict()
            for index in range(_CUTS[number], _CUTS[number + 1]):
                level[str(index)] = _not_in_place(layers[index])
            self.net[f"slice{number + 1}"] = level
            head = nn.ModuleDict({"1": nn.Conv2d(CHANNELS[number], 1, 1, bias=False)})
            setattr(self, f"lin{number}", nn.ModuleDict({"model": head}))

    def levels(self, images: Tensor) -> list[Tensor]:
        """Features (B, C, h, w) of (B, 3, H, W) images in [-1, 1], per level."""
        shift, scale = (constant(v, images).view(1, 3, 1, 1) for v in (SHIFT, SCALE))
        x, found = (images - shift) / scale, []
        for level in self.net.values():
            for layer in level.values():  # type: ignore[operator]
                x = layer(x)
            found.append(x)
        return found

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) distances of (B, 3, H, W) images in [-1, 1]."""
        total = first.new_zeros(len(first))
        pairs = zip(self.levels(first), self.levels(second), strict=True)
        for number, (ours, theirs) in enumerate(pairs):
            head: Any = getattr(self, f"lin{number}")["model"]["1"]
            error = (_unit(ours) - _unit(theirs)) ** 2
            total = total + head(error).mean(dim=(1, 2, 3))
        return total


def load(section: PerceptualSection, key: str, weights: bool = True) -> LPIPS:
    """The network of a recipe's section.

    Raises:
        UserError: a file is missing or holds something else.
    """
    network = LPIPS()
    if not weights or section.weights == RANDOM:
        for parameter in network.parameters():  # no distance is negative
            parameter.data.abs_()
        return network
    state = _named(read_tensors(section.weights, key, _WHERE))
    if section.vgg:
        vgg = read_tensors(section.vgg, key, _WHERE_VGG)
        state |= {_vgg_name(n): t for n, t in vgg.items() if n.startswith("features.")}
    own = network.state_dict()
    for name, tensor in own.items():
        if name in state and state[name].shape == tensor.shape:
            continue
        if name.startswith("net.") and not section.vgg:
            raise UserError(f"{key}.weights lacks VGG16: get {_WHERE_VGG}, and set {key}.vgg=FILE")
        raise UserError(f"{key}.weights={section.weights} is not {_WHERE}: {name}")
    network.load_state_dict({name: state[name] for name in own})
    return network


def _named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Its levels, whether named ``lin0.model.1`` or ``lins.0.model.1``."""
    return {name.replace("lins.", "lin", 1): tensor for name, tensor in state.items()}


def _vgg_name(name: str) -> str:
    """``features.5.bias`` -> ``net.slice2.5.bias``."""
    _, index, leaf = name.split(".")
    level = next(n for n in range(1, 6) if int(index) < _CUTS[n])
    return f"net.slice{level}.{index}.{leaf}"


def _unit(features: Tensor) -> Tensor:
    return features / (features.norm(dim=1, keepdim=True) + EPS)


def _not_in_place(layer: nn.Module) -> nn.Module:
    return nn.ReLU() if isinstance(layer, nn.ReLU) else layer


def centred(images: Tensor) -> Tensor:
    """Images in [0, 1] -> [-1, 1]."""
    return 2 * images - 1
