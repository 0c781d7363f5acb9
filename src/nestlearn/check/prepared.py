"""What an optimizer needs by default: the network, a closure, matrices alone."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from itertools import product

import torch

from nestlearn.check.subject import Subject, signature
from nestlearn.check.training import Run
from nestlearn.errors import SettingsError

__all__ = ["prepared"]


def prepared(subject: Subject) -> Subject:
    """The subject with all that its class needs by default. One that takes no vectors is checked on matrices, one that
    takes no float64 in float32; each fails the checks that are about it.

    Raises:
        SettingsError: no optimizer can be made of it; the message says what it said.
    """
    needed = signature(subject.make).get("model")
    if needed is not None and needed.default is inspect.Parameter.empty:
        subject = replace(subject, model=True)
    made: Subject | None = None
    problem: Exception | None = None
    for dtype, matrices in product((torch.float64, torch.float32), (False, True)):
        found = replace(subject, matrices=matrices, dtype=dtype)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = _with_closure(found)
                made = made or found
                Run(found).steps(range(2))
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            problem = problem or error
            continue
        return found
    if made is not None:  # it fails in its steps, which is for the checks to say
        return made
    raise SettingsError(
        f"{subject.name} cannot be made of the parameters of a network ({_words(problem)}): expected "
        "a class that takes them and settings alone. Give settings by --set, --model if it takes model=, or the name "
        "of a function that makes it of parameters"
    )


def _words(problem: Exception | None) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"


def _with_closure(subject: Subject) -> Subject:
    """The subject with a closure if its steps demand one."""
    optimizer = subject.build(subject.network())
    if not callable(getattr(optimizer, "step", None)):
        raise SettingsError(f"expected {subject.name} to make an optimizer, got {type(optimizer).__name__}")
    closure = signature(optimizer.step).get("closure")
    demanded = closure is not None and closure.default is inspect.Parameter.empty
    return replace(subject, closure=subject.graph or subject.closure or demanded)
