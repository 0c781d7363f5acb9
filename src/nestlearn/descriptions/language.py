"""The language in which a description says what a memory is shown and how weights move: arithmetic over names.

    (1 - lr * weight_decay) * W        m / (sqrt(v) + eps)        left @ u @ right^T

One text is read by people, stored as JSON and executed by ``descriptions.rebuild``. It is evaluated node by node from a
list of what is allowed (numbers, names, + - * / % ^, the matrix product @, ^T, comparisons, ``a if c else b`` and the
functions of ``descriptions.functions``), so a description from a file cannot run anything else. Names stand for numbers
or tensors, and a dot is a part of a name:

=========  =======================================================================================================
name       meaning
=========  =======================================================================================================
g, u       the gradient as it came; the gradient that memories are shown (sign and coupled decay included). For a
           memory behind a memory u is the gradient of the memory that it helps to write
W          the weights; before the step, for a memory that is written after it the new ones
t          the write, from 1; for weights with a period of 1 that is the step
lr         the rate of the write
present    1 where a sparse gradient has entries, else 0
seen_...   what was measured for the step: seen_inputs and seen_errors (covariances of what a layer is given and of its
           error signals), seen_hessian_diagonal, seen_gauss_newton_diagonal, seen_curvature_product
held_...   what is in the box of a memory of the same rule now, whatever the memory is read through: held_v
M          in a read-out, the answer that it reads
M, k, v    in the update of a rule that consults nobody, the content of the memory, and the key and value it is shown
others     memories by their symbols, settings of the parameter group, and the definitions of the description
=========  =======================================================================================================

A memory's own symbol means its content before the write where its own value is computed, and its answer elsewhere.
Only the memories that a rule consults have a name in its expressions, so memories behind memories may be called alike.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from nestlearn.descriptions.functions import FUNCTIONS

__all__ = ["evaluate", "names_in", "specialise"]

Value = Any  # a number, a truth value, a word or a tensor


def evaluate(text: str, names: Callable[[str], Value]) -> Value:
    """The value of an expression; ``names`` is asked for a name only when its value is needed.

    Raises:
        ValueError: the text is no expression of the language; the message says what is not.
    """
    return _value(_parse(text), names)


def names_in(text: str) -> set[str]:
    """The names that an expression mentions, functions left out."""
    return set(_names(_parse(text)))


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


def _names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name() | ast.Attribute():
            yield _dotted(node)
        case ast.BinOp(op=ast.Pow(), right=ast.Name(id="T")):
            yield from _names(node.left)
        case ast.Call():
            for argument in node.args:
                yield from _names(argument)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _names(child)


def _dotted(node: ast.expr) -> str:
    """A name with its dots; empty for anything else."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute() if above := _dotted(node.value):
            return f"{above}.{node.attr}"
    return ""


_OPERATORS: Mapping[type, Callable[..., Value]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.MatMult: operator.matmul,
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
            case ast.Attribute() if _dotted(node):
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
        case ast.Name() | ast.Attribute():
            return names(_dotted(node))
        case ast.BinOp(op=ast.Pow(), right=ast.Name(id="T")):
            return _value(node.left, names).mT
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
