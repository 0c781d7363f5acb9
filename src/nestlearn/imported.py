"""What users bring by name: ``module:function``, from a file of the current folder or any module that Python finds."""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from nestlearn.errors import did_you_mean

__all__ = ["again", "imported", "only"]

_allowed: set[str] | None = None
"""The modules that may be imported; None while all names come from whoever calls."""


def again(text: str) -> str:
    """The options with which a command imports what a run folder names: " --import mine", or nothing.

    Args:
        text: the settings of the folder.
    """
    return "".join(f" --import {module}" for module in dict.fromkeys(_modules(text)))


def _modules(text: str) -> list[str]:
    """The modules of all names like ``module:function`` in a text."""
    return re.findall(r"[\w.]+(?=:[A-Za-z_])", text)


@contextmanager
def only(modules: Iterable[str], *typed: Iterable[str]) -> Iterator[None]:
    """A block in which names are read from a run folder: what it names is imported only if the user has typed it too.

    Args:
        modules: modules that the user has named as such.
        *typed: other texts of the user's, in which ``module:function`` names a module and a word alone does not:
            the task "digits" is no leave to import a file digits.py.
    """
    global _allowed
    words = [word for texts in typed for text in texts for word in _modules(text)]
    before, _allowed = _allowed, {*modules, *words}
    try:
        yield
    finally:
        _allowed = before


def imported(name: str, what: str) -> Callable[..., Any]:
    """The function or class ``module:function``.

    Args:
        what: what it is wanted as, in one word, for the messages: "task", "optimizer" or "model".

    Raises:
        ValueError: there is no such module, it imports something that is not there, or it has no such function.
    """
    module_name, _, function_name = name.partition(":")
    if _allowed is not None and module_name not in _allowed:
        raise ValueError(
            f"the run folder names the {what} {name!r}, which is imported only if you say so: add --import "
            f"{module_name}"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        reason = f"no module {error.name!r} in {os.getcwd()} or where Python looks" if missing else str(error)
        raise ValueError(f"cannot import the module of the {what} {name!r}: {reason}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        callables = [key for key, value in vars(module).items() if inspect.isfunction(value) or inspect.isclass(value)]
        raise ValueError(
            f"no function {function_name!r} for the {what} in {getattr(module, '__file__', None) or module_name}."
            f"{did_you_mean(function_name, callables)}"
        )
    found: Callable[..., Any] = function
    return found
