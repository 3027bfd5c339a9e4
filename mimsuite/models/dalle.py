"""The encoder of DALL-E's discrete autoencoder (Ramesh et al., arXiv:2102.12092, appendix A.2).

Parameter names are those of the published weights, such as
``blocks.group_1.block_1.res_path.conv_1.w``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.tokenizers import DalleTokenizerSection
from mimsuite.errors import UserError

_GROUPS = 4
_OFFSET = 0.1  # pixels in [0, 1] become 0.8 x + 0.1, away from the bounds of the distribution
_WHERE = (
    "the encoder of DALL-E's discrete autoencoder, converted by "
    "`mimsuite import encoder.pkl --from dalle` from https://cdn.openai.com/dall-e/encoder.pkl"
)


class DalleConv(nn.Module):
    """A convolution that keeps the size; parameters ``w`` and ``b``."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(outputs, inputs, size, size))
        self.b = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.w, std=(inputs * size * size) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=(self.w.shape[2] - 1) // 2)


class DalleBlock(nn.Module):
    """``skip(x) + gain * residual(x)``; the residual is 3x3, 3x3, 3x3, 1x1 convolutions.

    A ReLU comes before each convolution.
    """

    def __init__(self, inputs: int, outputs: int, gain: float) -> None:
        super().__init__()
        self.gain, hidden = gain, outputs // 4
        self.id_path: nn.Module = nn.Identity()
        if inputs != outputs:
            self.id_path = DalleConv(inputs, outputs, 1)
        self.res_path = nn.Sequential()
        shapes = [(inputs, hidden, 3), (hidden, hidden, 3), (hidden, hidden, 3)]
        for number, shape in enumerate([*shapes, (hidden, outputs, 1)], start=1):
            self.res_path.add_module(f"relu_{number}", nn.ReLU())
            self.res_path.add_module(f"conv_{number}", DalleConv(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


class DalleEncoder(nn.Module):
    """Images -> scores of codes; one code per 8 x 8 pixels.

    Args:
        width: channels of the first group; the others have 2, 4 and 8 times as many.
        depth: blocks per group.
        codes: K.
        channels: channels of the images.
    """

    def __init__(self, width: int, depth: int, codes: int, channels: int = 3) -> None:
        super().__init__()
        gain = 1 / (_GROUPS * depth) ** 2
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", DalleConv(channels, width, 7))
        inputs = width
        for group in range(1, _GROUPS + 1):
            outputs = width * 2 ** (group - 1)
            blocks = nn.Sequential()
            for block in range(1, depth + 1):
                blocks.add_module(f"block_{block}", DalleBlock(inputs, outputs, gain))
                inputs = outputs
            if group < _GROUPS:
                blocks.add_module("pool", nn.MaxPool2d(2))
            self.blocks.add_module(f"group_{group}", blocks)
        output = nn.Sequential()
        output.add_module("relu", nn.ReLU())
        output.add_module("conv", DalleConv(inputs, codes, 1))
        self.blocks.add_module("output", output)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) pixels in [0, 1] -> (B, K, H/8, W/8)."""
        scores: Tensor = self.blocks((1 - 2 * _OFFSET) * images + _OFFSET)
        return scores


def read_published(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Weights from the published file, which is a whole pickled module; nothing of it runs.

    Returns:
        tensors by name, and the keys ``codes``, ``width`` and ``depth`` of a recipe's tokenizer.

    Raises:
        UserError: another file, or one that asks for more than a network needs.
    """
    from mimsuite.weights.pickled_module import read_module

    tensors = read_module(path, "dall_e")
    first, last = tensors.get("blocks.input.w"), tensors.get("blocks.output.conv.w")
    if first is None or last is None:
        raise UserError(
            f"{path} is not DALL-E's encoder: it has {len(tensors)} tensors but no blocks.input.w "
            f"and blocks.output.conv.w"
        )
    depth = sum(name.startswith("blocks.group_1.") and "conv_1.w" in name for name in tensors)
    return tensors, {"codes": len(last), "width": len(first), "depth": depth}


def load(section: DalleTokenizerSection, key: str, weights: bool = True) -> DalleEncoder:
    """The encoder of a recipe section, with its weights or with random ones.

    Raises:
        UserError: weights are missing or belong to another network.
    """
    if not weights:
        return DalleEncoder(section.width, section.depth, section.codes)
    from mimsuite.models.teachers.files import read_tensors

    state = read_tensors(section.weights, key, _WHERE)
    with torch.device("meta"):
        fresh: dict[str, Any] = DalleEncoder(
            section.width, section.depth, section.codes
        ).state_dict()
    for name in (*(n for n in fresh if n not in state), *(n for n in state if n not in fresh)):
        fault = "lacks" if name in fresh else "has unknown"
        raise UserError(f"{key}.weights={section.weights} {fault} {name}: it should be {_WHERE}")
    for name, tensor in state.items():
        if tensor.shape != fresh[name].shape:
            raise UserError(
                f"{key}.weights={section.weights}: {name} has shape {list(tensor.shape)}, not "
                f"{list(fresh[name].shape)}: {key}.width, depth or codes do not match the file"
            )
    network = DalleEncoder(section.width, section.depth, section.codes)
    network.load_state_dict(state)
    return network
