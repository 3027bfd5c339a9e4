"""ONNX: the encoder, (B, C, H, W) normalised images -> class token (B, 1, D) and tokens (B, N, D).

The batch size is free, the image size is the recipe's. What was written is run with onnxruntime
and compared before it gets its name.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from mimsuite.errors import MimsuiteError, UserError
from mimsuite.export.opened import Opened
from mimsuite.export.to_timm import require_vit
from mimsuite.models import ViT

_TOLERANCE = 1e-4  # largest difference of a feature; float32 sums in another order
_LARGEST = 1_900_000_000  # bytes of weights in one file; protobuf ends at 2 GiB


class _Features(nn.Module):
    def __init__(self, encoder: ViT) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(self.encoder.patches(image))
        return features.cls, features.tokens


def write_onnx(opened: Opened, out: Path) -> list[str]:
    """Write the encoder and check it.

    Raises:
        UserError: the extra ``onnx`` is not installed, or another encoder than a plain ViT.
        MimsuiteError: onnxruntime computes other features.
    """
    _require_extra()
    encoder = require_vit(opened.method, "the ONNX export")
    section = encoder.section
    size = sum(p.numel() * p.element_size() for p in encoder.parameters())
    if size > _LARGEST:
        raise UserError(
            f"this encoder has {size / 1e9:.1f} GB of weights and an ONNX file holds "
            f"{_LARGEST / 1e9:.1f}: use --format timm or hf"
        )
    rows, columns = section.grid
    side = (rows * section.patch_size, columns * section.patch_size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, section.in_channels, *side, generator=generator)
    wrapped = _Features(encoder).eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapped,
            (images,),
            str(out),
            input_names=["image"],
            output_names=["cls", "tokens"],
            dynamic_shapes={"image": {0: "batch"}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    difference = _difference(wrapped, out, torch.cat([images, images.flip(0)[:1]]))
    return [
        f"image ({', '.join(map(str, ('batch', *images.shape[1:])))}) float32, normalised "
        f"-> cls (batch, 1, {section.width}), tokens (batch, {rows * columns}, {section.width})",
        f"onnxruntime agrees: largest difference {difference:.1e}",
    ]


def _require_extra() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--format onnx needs the package {error.name}: pip install 'mimsuite[onnx]'"
        ) from None


def _difference(module: nn.Module, path: Path, images: Tensor) -> float:
    """Largest difference of any feature, on a batch of another size than was traced."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(["cls", "tokens"], {"image": images.numpy()})
    with torch.no_grad():
        expected = module(images)
    worst = max(
        float((torch.from_numpy(a) - b).abs().max()) for a, b in zip(found, expected, strict=True)
    )
    if not worst <= _TOLERANCE:
        raise MimsuiteError(
            f"the ONNX file computes other features (largest difference {worst:.1e}); not written"
        )
    return worst
