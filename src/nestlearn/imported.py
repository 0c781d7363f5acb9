"""What users bring by name: ``module:function``, from a file of the current folder or any module that Python finds."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from nestlearn.errors import did_you_mean

__all__ = ["imported"]


def imported(name: str, what: str) -> Callable[..., Any]:
    """The function or class ``module:function``.

    Args:
        what: what it is wanted as, in one word, for the messages: "task", "optimizer" or "model".

    Raises:
        ValueError: there is no such module, it imports something that is not there, or it has no such function.
    """
    module_name, _, function_name = name.partition(":")
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
