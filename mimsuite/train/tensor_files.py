"""Writing safetensors files: hashed on the way, and without a copy of what is written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CHUNK = 1 << 24
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a file through to the disk; returns its ``bytes`` and ``sha256``.

    Raises:
        OSError: it cannot be written; a part of it may be there.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for chunk in _chunks(tensors):
            digest.update(chunk)
            view = memoryview(chunk)
            while len(view):
                view = view[file.write(view) :]
            size += len(chunk)
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _chunks(tensors: Mapping[str, Tensor]) -> Iterator[memoryview | bytes]:
    # The widest types first, so that each tensor is aligned for its own.
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    at = 0
    for name in ordered:
        tensor = tensors[name]
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in ordered:
        tensor = tensors[name].detach().cpu().contiguous()
        if tensor.nbytes:
            content = tensor.reshape(-1).view(torch.uint8).numpy().data
            for start in range(0, len(content), _CHUNK):
                yield content[start : start + _CHUNK]
