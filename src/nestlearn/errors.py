"""Our own exceptions, and what makes a message a good one: what was expected, what came, what was probably meant.

    NestlearnError           the base of all below; the message says what is wrong and what to do
     +-- SettingsError       ValueError           settings, given as text, that cannot be what they say
     +-- VariableError       ValueError           an environment variable that cannot have its value
     +-- MissingPackageError ModuleNotFoundError  an optional package that is not installed
     +-- DataFileError       RuntimeError         a data file that is missing or holds other bytes
     +-- StateFileError      ValueError           a file that is no memory, or not one for this model
     +-- RunFolderError      RuntimeError         a run folder that is none, is taken or is broken
     +-- CheckpointError     RuntimeError         a checkpoint that cannot be read or does not fit
     +-- SweepError          RuntimeError         a run of a sweep that failed, or its worker
     +-- RankError           RuntimeError         a rank of a run on many that is gone, or could not go on
     +-- Interrupted                              no fault: a training that was told to stop
     +-- NotApplicable                            no fault: a check of what an optimizer does not claim to do

Beside each stands the builtin that it also is. They are for what lies outside of the program: files, folders, settings
as text, what is installed. Bad arguments of a function stay what Python's own are, ValueError and TypeError.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

__all__ = [
    "CheckpointError",
    "DataFileError",
    "Interrupted",
    "MissingPackageError",
    "NestlearnError",
    "NotApplicable",
    "RankError",
    "RunFolderError",
    "SettingsError",
    "StateFileError",
    "SweepError",
    "VariableError",
    "as_settings_error",
    "choice",
    "did_you_mean",
]


class NestlearnError(Exception):
    """Something outside of the program is not as it has to be. The base class of all our exceptions."""


class SettingsError(NestlearnError, ValueError):
    """Settings from a file, from ``--set`` or from options are none, or ask for what cannot be."""


class VariableError(NestlearnError, ValueError):
    """An environment variable has a value that it cannot have."""


class MissingPackageError(NestlearnError, ModuleNotFoundError):
    """A package that only some of the library needs is not installed; the message has the line that installs it."""


class DataFileError(NestlearnError, RuntimeError):
    """A data file is missing, cannot be had, or holds other bytes than it should."""


class StateFileError(NestlearnError, ValueError):
    """A file is no state, or not one for this model."""


class RunFolderError(NestlearnError, RuntimeError):
    """A run folder cannot be written, is not one, or holds a broken file."""


class CheckpointError(NestlearnError, RuntimeError):
    """A checkpoint cannot be read, or is not one."""


class SweepError(NestlearnError, RuntimeError):
    """A run ended with an error that is not a divergence, or a worker died."""


class RankError(NestlearnError, RuntimeError):
    """Another process of a run on many ranks is gone, or could not go on."""


class Interrupted(NestlearnError):
    """Training was asked to stop before it was finished."""


class NotApplicable(NestlearnError):
    """Raised by a check of something that the optimizer does not claim to do; the message says why."""


@contextmanager
def as_settings_error(*kinds: type[Exception]) -> Iterator[None]:
    """A block, or as a decorator a function, that carries out settings given as text: what refuses them there with one
    of ``kinds`` (ValueError if none is given) raises SettingsError, in the same words.
    """
    refusals = kinds or (ValueError,)
    try:
        yield
    except refusals as error:
        if isinstance(error, NestlearnError):
            raise
        raise SettingsError(str(error)) from error


def choice(what: str, given: Any, known: Iterable[str]) -> None:
    """Raise ValueError unless ``given`` is one of ``known``, with the nearest name as a hint."""
    names = sorted(known)
    if given not in names:
        raise ValueError(
            f"unknown {what} {given!r:.200}: expected one of {', '.join(names)}.{did_you_mean(given, names)}"
        )


def did_you_mean(given: Any, known: Iterable[str]) -> str:
    """A hint with the nearest known name, whatever its case, to end a message; empty if none is near."""
    folded = {name.casefold(): name for name in known}
    near = get_close_matches(str(given)[:100].casefold(), folded, n=1, cutoff=0.4)
    return f" Did you mean {folded[near[0]]!r}?" if near else ""
