"""What users bring by name: ``module:function``, from a file of the current folder or any module that Python finds."""

import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from nestlearn.errors import did_you_mean

__all__ = ["again", "forget", "imported", "only", "own_frames"]

_own: set[str] = set()
"""The files of the modules that were imported by name, and folders whose files are the same person's."""

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
    except (Exception, SystemExit) as error:  # what stands in the file itself, or a name that can be none
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        for file in (getattr(error, "filename", None), *files):
            _note(file, libraries=False)
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"cannot import the module of the {what} {name!r}: {reason}") from error
    _note(getattr(module, "__file__", None))
    function = getattr(module, function_name, None)
    if not callable(function):
        callables = [key for key, value in vars(module).items() if inspect.isfunction(value) or inspect.isclass(value)]
        raise ValueError(
            f"no function {function_name!r} for the {what} in {getattr(module, '__file__', None) or module_name}."
            f"{did_you_mean(function_name, callables)}"
        )
    found: Callable[..., Any] = function
    return found


def _note(file: object, *, libraries: bool = True) -> None:
    """Remember whose file it is: a module of a library is alone, one of the user's has those beside it."""
    if isinstance(file, str) and os.path.isabs(file) and not file.startswith(os.path.dirname(__file__) + os.sep):
        folders = {sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")}
        alone = any(file.startswith(f"{folder}{os.sep}") for folder in folders)
        if not alone:
            _own.add(os.path.dirname(file))
        elif libraries:
            _own.add(file)


def forget() -> None:
    """Nothing was imported by name yet: a command begins."""
    _own.clear()


def own_frames(error: BaseException) -> list[str]:
    """Where an error went through files of the user's own, those that were imported by name and their neighbours: a
    line each, the innermost last; none if it went through no such file.
    """
    frames: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame in traceback.extract_tb(error.__traceback__):
            if not _own.isdisjoint((frame.filename, os.path.dirname(frame.filename))):
                frames.append(
                    f"  {frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line or ''}".rstrip(": ")
                )
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return list(dict.fromkeys(frames))
