"""ONNX: the encoder as a graph, from one normalised view to its tokens.

* images (B, C, H, W), clips (B, C, T, H, W) or clouds (B, P, 3) of P points, whose grouping is
  part of the graph, become ``cls`` (B, C, D), where the encoder has class tokens, and ``tokens``
  (B, N, D).

The batch size is free, all other sizes are the recipe's. The graph is run with onnxruntime at two
batch sizes and compared before the file gets its final name.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

from mimsuite.checkpoints.opened import Opened
from mimsuite.errors import UserError
from mimsuite.export.check import Outputs, agree
from mimsuite.models.frozen_encoder import FrozenEncoder
from mimsuite.models.swin3d import Swin3D

_LARGEST = 1_900_000_000  # bytes of weights in one file; protobuf's limit is 2 GiB


def refuse_onnx(opened: Opened) -> str | None:
    """Reason why a model cannot be exported; ``None`` where it can."""
    encoder = opened.method.encoder
    if isinstance(encoder, Swin3D):
        return "torch's exporter does not take the shifted windows of a Swin3D encoder"
    if isinstance(encoder, FrozenEncoder):
        return "this encoder is a frozen network with weights of its own: export those"
    size = sum(p.numel() * p.element_size() for p in encoder.parameters())
    if size > _LARGEST:
        return (
            f"this encoder has {size / 1e9:.1f} GB of weights and an ONNX file holds "
            f"{_LARGEST / 1e9:.1f}"
        )
    return None


def write_onnx(opened: Opened, out: Path) -> list[str]:
    """Write the encoder and check it.

    Raises:
        UserError: the extra ``onnx`` is not installed.
        MimsuiteError: onnxruntime computes other features.
    """
    _require_extra()
    outputs = Outputs(opened.method).eval()
    examples = outputs.example(2)
    with torch.no_grad():
        shapes = [tuple(part.shape[1:]) for part in outputs(examples)]
    names = ["cls", "tokens"][-len(shapes) :]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            outputs,
            (examples,),
            str(out),
            input_names=[outputs.view],
            output_names=names,
            dynamic_shapes={"sample": {0: "batch"}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    results = ", ".join(f"{n} ({_dims(s)})" for n, s in zip(names, shapes, strict=True))
    unit = "float32, as augmented" if outputs.view == "points" else "float32, normalised"
    return [
        f"{outputs.view} ({_dims(outputs.shape)}) {unit} -> {results}",
        _check(outputs, out, names),
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


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, ("batch", *shape)))


def _check(outputs: Outputs, path: Path, names: list[str]) -> str:
    """Compare on batch sizes other than the traced one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pairs = []
    for batch in (1, 3):
        sample = outputs.example(batch)
        with torch.no_grad():
            expected = outputs(sample)
        results = session.run(names, {outputs.view: sample.numpy()})
        pairs += [(torch.from_numpy(a), b) for a, b in zip(results, expected, strict=True)]
    return agree("onnxruntime", *pairs)
