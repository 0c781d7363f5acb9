"""What becomes of one check: passed, failed, or not applicable, each in words."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nestlearn.errors import NotApplicable

__all__ = ["FAILED", "NOT_APPLICABLE", "PASSED", "Outcome", "claim", "tried"]

PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


@dataclass(frozen=True)
class Outcome:
    """What became of one check.

    Args:
        name: of the check.
        status: ``"passed"``, ``"failed"`` or ``"not applicable"``.
        message: what went wrong, or why it does not apply; empty if it passed.
        trace: the traceback of a failure.
    """

    name: str
    status: str
    message: str = ""
    trace: str = ""


def claim(condition: bool, otherwise: str) -> None:
    """Fail the check unless a condition holds; ``assert`` would be gone under ``python -O``."""
    if not condition:
        raise AssertionError(otherwise)


def tried(name: str, function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call a check and say what became of it. Whatever the optimizer raises is a failure of it, not of the tool."""
    if "torch._dynamo" in sys.modules:  # what other checks had compiled counts against a limit
        torch.compiler.reset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*arguments)
    except NotApplicable as reason:
        return Outcome(name, NOT_APPLICABLE, str(reason))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told, whatever it is
        words = " ".join(str(error).split())
        own = type(error) is AssertionError and words
        return Outcome(name, FAILED, words if own else f"{type(error).__name__}: {words}", traceback.format_exc())
    return Outcome(name, PASSED)
