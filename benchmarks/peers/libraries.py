"""The libraries that are compared: which are here, in which version, and how a class of theirs is found."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

__all__ = ["LIBRARIES", "Library", "find_class", "installed"]


@dataclass(frozen=True)
class Library:
    """A distribution by its name on the package index, and the module that holds its optimizers."""

    distribution: str
    module: str


LIBRARIES = {
    library.distribution: library
    for library in (
        Library("torch", "torch.optim"),
        Library("nestlearn", "nestlearn.optim"),
        Library("heavyball", "heavyball"),
        Library("pytorch-optimizer", "pytorch_optimizer"),
        Library("nested-learning", "nested_learning.optim.m3"),
    )
}


def installed(libraries: Mapping[str, Library] = LIBRARIES) -> dict[str, dict[str, str | None]]:
    """For every library its version, None when it is missing, and why it can not be used, None when it can."""
    return {name: _look(library) for name, library in libraries.items()}


def _look(library: Library) -> dict[str, str | None]:
    try:
        version = metadata.version(library.distribution)
    except metadata.PackageNotFoundError:
        return {"version": None, "problem": "not installed"}
    try:
        importlib.import_module(library.module)
    except (ImportError, AttributeError, RuntimeError) as error:  # what an incompatible torch brings about
        return {"version": version, "problem": f"does not import: {error}"}
    return {"version": version, "problem": None}


def find_class(distribution: str, name: str, compiled: bool) -> Any:
    """The optimizer class ``name``.

    Args:
        distribution: a key of ``LIBRARIES``.
        name: the attribute of the library's module.
        compiled: heavyball compiles its kernels by default, seconds to minutes for every new process and shape. The
            arithmetic is the same without, so only the step time is taken with it.
    """
    module = importlib.import_module(LIBRARIES[distribution].module)
    if distribution == "heavyball" and not compiled:
        importlib.import_module("heavyball.utils").compile_mode = None
    return getattr(module, name)
