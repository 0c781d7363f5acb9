"""What a loop over chunks repeats, compiled once however many chunks there are.

A compiler unrolls a Python loop, and makes kernels of its own for every turn: most of the time that compiling takes.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["region"]

P = ParamSpec("P")
R = TypeVar("R")


def region(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, of which `torch.compile` makes one piece of code for all calls whose arguments are alike.

    Called as ever where nothing is compiled. What it returns must not be, or look into, what it was given.
    """

    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        # Of views under names of its own: what is made of an argument's attributes, as in x.mT, is else made outside.
        return function(*map(_named, args), **{name: _named(given) for name, given in kwargs.items()})

    nested: Callable[P, R] = torch.compiler.nested_compile_region(inside)

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return nested(*args, **kwargs) if torch.compiler.is_dynamo_compiling() else function(*args, **kwargs)

    return run


def _named(given: Any) -> Any:
    if isinstance(given, dict):
        return {name: _named(held) for name, held in given.items()}
    return given.view_as(given) if isinstance(given, Tensor) else given
