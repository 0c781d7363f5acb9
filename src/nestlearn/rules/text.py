"""Rules as they are printed, read back without running anything: only calls of what is in the library, and literals."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from nestlearn.errors import choice
from nestlearn.rules.data import kinds
from nestlearn.rules.link import Link
from nestlearn.rules.named import adam, muon

__all__ = ["parse"]


def parse(text: str) -> Link:
    """The rule that an expression such as ``"chain(average(0.9), orthogonal())"`` stands for.

    Args:
        text: what ``repr`` prints of a rule, or a user types: calls of links, targets, models and objectives by their
            names, with numbers, words, truth values and tuples.

    Raises:
        ValueError: it is no such expression, names something unknown, or a setting is not in its range.

    Example:
        >>> parse("muon(0.9)") == muon(0.9)
        True
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"expected a rule such as 'chain(average(0.9), orthogonal())', got {text!r}") from error
    rule = _value(tree, _names(), text)
    if not isinstance(rule, Link):
        raise ValueError(f"expected a rule such as 'chain(average(0.9), orthogonal())', got {text!r}")
    return rule


def _names() -> Mapping[str, Callable[..., Any]]:
    return {**{kind.__name__: kind for kind in kinds().values()}, "adam": adam, "muon": muon}


def _value(node: ast.expr, names: Mapping[str, Callable[..., Any]], text: str) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name)) if all(keyword.arg for keyword in node.keywords):
            choice("rule", name, names)
            arguments = [_value(each, names, text) for each in node.args]
            settings = {str(each.arg): _value(each.value, names, text) for each in node.keywords}
            if any(isinstance(each, str) and ":" in each for each in settings.values()):
                raise ValueError(f"{ast.unparse(node)}: what is somebody else's is named in a file, as data")
            try:
                return names[name](*arguments, **settings)
            except TypeError as error:
                raise ValueError(f"{ast.unparse(node)}: {error}") from error
        case ast.Tuple() | ast.List():
            return tuple(_value(each, names, text) for each in node.elts)
        case ast.Constant() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return ast.literal_eval(node)
    raise ValueError(f"{ast.unparse(node)!r} in {text!r} is neither a rule nor a number, a word or a tuple of them")
