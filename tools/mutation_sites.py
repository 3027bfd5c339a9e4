"""The changes that ``tools/mutation.py`` makes: numbers, signs, bounds, rounding, order, calls."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple

_OPERATORS: dict[type, list[type]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.LShift: [ast.RShift],
    ast.RShift: [ast.LShift],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.BitXor: [ast.BitOr],
    ast.Lt: [ast.LtE],
    ast.LtE: [ast.Lt],
    ast.Gt: [ast.GtE],
    ast.GtE: [ast.Gt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}
_PAIRS = (
    "min max, floor ceil, argmin argmax, amin amax, any all, mean sum, sin cos, zeros ones,"
    " zeros_like ones_like, log exp, softmax log_softmax"
)
_NAMES = {a: b for pair in _PAIRS.split(", ") for a, b in (pair.split(), pair.split()[::-1])}
_NAMES |= {"round": "int", "cumsum": "cumprod"}
_DROPPED = {"sorted": "list", "reversed": "list", "abs": "float"}
_TRANSPARENT = {"detach", "contiguous", "clone", "clamp", "abs", "sqrt", "neg"}


class Mutant(NamedTuple):
    """One change: its number in the module, the line, and the code before and after."""

    number: int
    line: int
    change: str


class _Sites(ast.NodeTransformer):
    """Counts the places that can be changed, and makes the wanted change."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.found = wanted, []  # type: ignore[var-annotated]

    def offer(self, node: Any, *others: ast.AST) -> ast.AST:
        result: ast.AST = node
        before = ast.unparse(node)
        for other in others:
            number = len(self.found)
            change = f"{before} -> {ast.unparse(other)}".replace("\n", " ")
            self.found.append(Mutant(number, node.lineno, change))
            if number == self.wanted:
                result = ast.copy_location(other, node)
        return result

    def rebuilt(self, node: Any, **fields: Any) -> Any:
        return type(node)(**{k: getattr(node, k, None) for k in node._fields} | fields)

    # What says nothing of behaviour is left as it is.
    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return self.offer(node, ast.Pass())

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.value = node.value and self.visit(node.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.args = self.visit(node.args)
        node.body = [self.visit(child) for child in node.body]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Call):
            whole = self.offer(node, ast.Pass())
            return whole if whole is not node else self.generic_visit(node)
        return self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        others = [self.rebuilt(node, op=o()) for o in _OPERATORS.get(type(node.op), [])]
        whole = self.offer(node, ast.Pass(), *others)
        return whole if whole is not node else self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, bool):
            return self.offer(node, ast.Constant(not value))
        if isinstance(value, int):
            others = [ast.Constant(value + 1)] + [ast.Constant(value - 1)] * (value > 1)
            return self.offer(node, *others)
        if isinstance(value, float):
            return self.offer(node, ast.Constant(value * 1.25 if value else 0.25))
        return node

    def _operators(self, node: Any) -> ast.AST:
        op = node.ops[0] if isinstance(node, ast.Compare) else node.op
        several = isinstance(node, ast.Compare)
        others = [
            self.rebuilt(node, **({"ops": [o(), *node.ops[1:]]} if several else {"op": o()}))
            for o in _OPERATORS.get(type(op), [])
        ]
        if isinstance(op, ast.FloorDiv):  # rounded up instead of down
            low = self.rebuilt(node, left=ast.UnaryOp(ast.USub(), node.left))
            others.append(ast.UnaryOp(ast.USub(), low))
        whole = self.offer(node, *others)
        return whole if whole is not node else self.generic_visit(node)

    visit_BinOp = visit_BoolOp = visit_Compare = _operators  # noqa: N815

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        whole = self.offer(node, node.operand)
        return whole if whole is not node else self.generic_visit(node)

    def _condition(self, node: Any) -> ast.AST:
        if not isinstance(node.test, ast.Compare | ast.UnaryOp):
            test = self.offer(node.test, ast.UnaryOp(ast.Not(), node.test))
            if test is not node.test:
                node.test = test
                return node
        return self.generic_visit(node)

    visit_If = visit_While = visit_IfExp = _condition  # noqa: N815

    def visit_Call(self, node: ast.Call) -> ast.AST:
        others: list[ast.AST] = []
        function = node.func
        if isinstance(function, ast.Name) and (_NAMES | _DROPPED).get(function.id):
            name = (_NAMES | _DROPPED)[function.id]
            others.append(self.rebuilt(node, func=ast.Name(name, ast.Load())))
        if isinstance(function, ast.Attribute):
            if function.attr in _NAMES:
                renamed = self.rebuilt(function, attr=_NAMES[function.attr])
                others.append(self.rebuilt(node, func=renamed))
            if function.attr in _TRANSPARENT:
                others.append(function.value)
        simple = all(isinstance(a, ast.Name | ast.Attribute) for a in node.args)
        if len(node.args) >= 2 and simple:
            swapped = [node.args[1], node.args[0], *node.args[2:]]
            others.append(self.rebuilt(node, args=swapped))
        whole = self.offer(node, *others)
        return whole if whole is not node else self.generic_visit(node)


def mutants(source: str) -> list[Mutant]:
    """Every change of a module."""
    sites = _Sites()
    sites.visit(ast.parse(source))
    return sites.found


def mutated(source: str, mutant: Mutant) -> str:
    """The module's source with one change."""
    tree = _Sites(mutant.number).visit(ast.parse(source))
    return ast.unparse(ast.fix_missing_locations(tree))
