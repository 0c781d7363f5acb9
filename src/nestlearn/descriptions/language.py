"""The language in which a description says what a memory is shown and how weights move: arithmetic over names.

    (1 - lr * weight_decay) * W        m / (sqrt(v) + eps)        u + momentum * M if nesterov else M

One text is read by people, stored as JSON and executed by ``descriptions.rebuild``. It is evaluated node by node
from a list of what is allowed (numbers, names, + - * / ^, comparisons, ``a if c else b`` and the functions below), so a
description from a file cannot run anything else. Names stand for numbers or tensors:

=========  =======================================================================================================
name       meaning
=========  =======================================================================================================
g, u       the gradient as it came; the gradient that memories are shown (sign and coupled decay included)
W          the weights; before the step, for a memory that is written after it the new ones
t          the step, from 1
present    1 where a sparse gradient has entries, else 0
others     memories by their symbols, settings of the parameter group, and the definitions of the description
=========  =======================================================================================================

A memory's own symbol means its content before the write where its own value is computed, and its answer elsewhere.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nestlearn.ops.whitening import newton_schulz

__all__ = ["FUNCTIONS", "evaluate", "names_in", "specialise"]

Value = Any  # a number, a truth value, a word or a tensor


def evaluate(text: str, names: Callable[[str], Value]) -> Value:
    """The value of an expression; ``names`` is asked for a name only when its value is needed.

    Raises:
        ValueError: the text is no expression of the language; the message says what is not.
    """
    return _value(_parse(text), names)


def names_in(text: str) -> set[str]:
    """The names that an expression mentions, functions left out."""
    called = {id(node.func) for node in ast.walk(_parse(text)) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(_parse(text)) if isinstance(node, ast.Name) and id(node) not in called}


def specialise(text: str, settings: Mapping[str, Value]) -> str:
    """The expression for these settings: conditions that they decide are decided, and idle terms are gone."""
    tree = _Decide(settings).visit(ast.parse(ast.unparse(_parse(text)), mode="eval").body)
    return ast.unparse(tree).replace(" ** ", "^")


@lru_cache(maxsize=512)
def _parse(text: str) -> ast.expr:
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"expected an expression such as 'm / (sqrt(v) + eps)', got {text!r}") from error
    return _checked(tree, text)


def _rows(tensor: Tensor) -> int:
    return tensor.shape[-2]


def _columns(tensor: Tensor) -> int:
    return tensor.shape[-1]


def _either(choose: Callable[[Value, Value], Value], chosen: Callable[..., Tensor]) -> Callable[[Value, Value], Value]:
    """A function of two numbers or tensors, entry by entry."""

    def function(first: Value, second: Value) -> Value:
        tensors = [item for item in (first, second) if isinstance(item, Tensor)]
        if not tensors:
            return choose(first, second)
        return chosen(*(torch.as_tensor(item, dtype=tensors[0].dtype) for item in (first, second)))

    return function


def _where(condition: Tensor, then: Value, otherwise: Value) -> Tensor:
    # Two plain numbers become float64, so that they keep their digits whatever dtype they meet.
    tensors = [item for item in (then, otherwise) if isinstance(item, Tensor)]
    dtype = tensors[0].dtype if tensors else torch.float64
    return torch.where(condition, torch.as_tensor(then, dtype=dtype), torch.as_tensor(otherwise, dtype=dtype))


def _newton_schulz(matrix: Tensor, steps: float, a: float, b: float, c: float, eps: float) -> Tensor:
    return newton_schulz(matrix, int(steps), (a, b, c), eps, dtype=torch.bfloat16)


FUNCTIONS: Mapping[str, tuple[Callable[..., Value], str]] = {
    "abs": (abs, "size without sign"),
    "sign": (torch.sign, "1, 0 or -1"),
    "sqrt": (lambda x: x.sqrt() if isinstance(x, Tensor) else x**0.5, "square root"),
    "max": (_either(max, torch.maximum), "the larger of two"),
    "min": (_either(min, torch.minimum), "the smaller of two"),
    "clip": (lambda x, low, high: x.clamp(low, high), "moved into [low, high]"),
    "where": (_where, "where(condition, a, b): a where it holds, else b"),
    "rows": (_rows, "number of rows"),
    "columns": (_columns, "number of columns"),
    "row_means": (lambda x: x.mean(-1, keepdim=True), "one mean a row"),
    "column_means": (lambda x: x.mean(-2, keepdim=True), "one mean a column"),
    "rms": (lambda x: x.norm() / x.numel() ** 0.5, "root mean square of all entries"),
    "precision": (lambda x: torch.finfo(x.dtype).eps, "distance from 1 to the next number of this dtype"),
    "newton_schulz": (_newton_schulz, "newton_schulz(M, steps, a, b, c, eps): singular values to about 1, in bfloat16"),
}
"""Every function of the language and what it does."""

_OPERATORS: Mapping[type, Callable[..., Value]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
}


def _checked(tree: ast.expr, text: str) -> ast.expr:
    """The tree, after every node of it has been found among those that the language has."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
                continue
            case ast.Constant(value=bool() | int() | float() | str() | None) | ast.Compare(ops=[_]):
                continue
            case ast.Name() | ast.Load() | ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.And() | ast.IfExp():
                continue
        if type(node) not in _OPERATORS:
            raise ValueError(
                f"expected arithmetic over names and the functions {', '.join(FUNCTIONS)}; "
                f"{type(node).__name__} is neither, in {text!r}"
            )
    return tree


def _value(node: ast.expr, names: Callable[[str], Value]) -> Value:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Constant():
            return node.value
        case ast.Name():
            return names(node.id)
        case ast.BinOp():
            return _OPERATORS[type(node.op)](_value(node.left, names), _value(node.right, names))
        case ast.UnaryOp():
            return _OPERATORS[type(node.op)](_value(node.operand, names))
        case ast.BoolOp():
            return all(_value(part, names) for part in node.values)
        case ast.Compare():
            return _OPERATORS[type(node.ops[0])](_value(node.left, names), _value(node.comparators[0], names))
        case ast.IfExp():
            return _value(node.body if _value(node.test, names) else node.orelse, names)
        case ast.Call(func=ast.Name(id=name)):
            return FUNCTIONS[name][0](*(_value(argument, names) for argument in node.args))
    raise AssertionError(f"{type(node).__name__} was let in by the check and has no meaning")


class _Decide(ast.NodeTransformer):
    """Decides conditions over settings, and drops + 0 and * 1, which such conditions leave behind."""

    def __init__(self, settings: Mapping[str, Value]) -> None:
        self.settings = settings

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        text = ast.unparse(node.test)
        if names_in(text) <= set(self.settings):
            chosen: ast.expr = self.visit(node.body if evaluate(text, self.settings.__getitem__) else node.orelse)
            return chosen
        self.generic_visit(node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        idle = {ast.Add: 0, ast.Sub: 0, ast.Mult: 1, ast.Div: 1}.get(type(node.op))
        if idle is not None and isinstance(node.right, ast.Constant) and node.right.value == idle:
            return node.left
        return node
