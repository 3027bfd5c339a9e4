"""The suite's own weights file: one ``.safetensors`` with the whole recipe in its header.

The header's entry ``mimsuite`` is a JSON object: ``format`` (1), ``recipe`` (the resolved document,
as in ``config.yaml``), ``step`` (or null), ``has_decoder``, ``version``. Tensors have the method's
parameter names. Any safetensors reader can open the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import mimsuite
from mimsuite.errors import UserError

FORMAT = 1
ENTRY = "mimsuite"


@dataclass(frozen=True)
class NativeHeader:
    """Content of the header; see the module's docstring."""

    document: dict[str, Any]
    step: int | None
    has_decoder: bool


def encode_header(header: NativeHeader) -> dict[str, str]:
    """The metadata of a native file; other readers expect ``format: pt``."""
    content = {
        "format": FORMAT,
        "version": mimsuite.__version__,
        "step": header.step,
        "has_decoder": header.has_decoder,
        "recipe": header.document,
    }
    return {"format": "pt", ENTRY: json.dumps(content)}


def decode_header(metadata: Mapping[str, str], where: object) -> NativeHeader | None:
    """The header of a native file, ``None`` for any other safetensors file.

    Raises:
        UserError: the format is newer than this version, or the header is damaged.
    """
    text = metadata.get(ENTRY)
    if text is None:
        return None
    try:
        content = json.loads(text)
        version = content["format"]
        if version > FORMAT:
            raise UserError(
                f"{where} has weights format {version}, this version reads up to {FORMAT}: "
                f"update mimsuite"
            )
        step = None if content["step"] is None else int(content["step"])
        document = content["recipe"]
        if not isinstance(document, dict):
            raise TypeError(type(document).__name__)
        return NativeHeader(document, step, bool(content["has_decoder"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{where} has a damaged mimsuite header ({error!r})") from None


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that safetensors can store: on the CPU, contiguous, sharing no memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
