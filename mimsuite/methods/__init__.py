"""Methods, one file per paper, found by the name in a recipe's ``method:`` section."""

from __future__ import annotations

from mimsuite.methods.base import Context, Method, Output, Panel, evaluating
from mimsuite.methods.registry import build, method_class

__all__ = ["Context", "Method", "Output", "Panel", "build", "evaluating", "method_class"]
