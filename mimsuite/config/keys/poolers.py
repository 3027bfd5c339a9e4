"""Recipe keys of attentive pooling: trained queries over the tokens of an encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from mimsuite.config.keys.section import Dimension, PathText, Section, by_kind


class NormPoolerSection(Section):
    """One query over all tokens, then a batch norm without affine parameters (CAE,
    arXiv:2202.03026); the query has as many heads as the encoder."""

    kind: Literal["batch-norm"] = "batch-norm"


class QueryPoolerSection(Section):
    """One query over the patch tokens, without norm and output layer (CAPI, arXiv:2502.08769)."""

    kind: Literal["query"] = "query"
    head_width: Dimension = 64  # channels of an attention head
    weights: PathText | None = None  # file of a released head to start from; null: fresh


class BlockPoolerSection(Section):
    """Blocks over all tokens, the last of which reads them by one query (V-JEPA 2,
    arXiv:2506.09985)."""

    kind: Literal["blocks"] = "blocks"
    depth: Dimension = 4  # blocks; all but the last are self-attention
    heads: Dimension = 16
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5
    weights: PathText | None = None  # file of a released head to start from; null: fresh


PoolerSection = Annotated[
    Annotated[NormPoolerSection, Tag("batch-norm")]
    | Annotated[QueryPoolerSection, Tag("query")]
    | Annotated[BlockPoolerSection, Tag("blocks")],
    by_kind("batch-norm"),
]


def require_heads(pooler: Section, width: int) -> None:
    """Refuse, with ``ValueError``, attention heads that do not divide an encoder's width."""
    key = {"query": "head_width", "blocks": "heads"}.get(pooler.kind, "")  # type: ignore[attr-defined]
    if key and width % getattr(pooler, key):
        raise ValueError(
            f"pooler.{key} {getattr(pooler, key)} does not divide the encoder's width {width}"
        )
