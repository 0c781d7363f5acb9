"""Our optimizers under names that ``timm.optim.create_optimizer_v2(model, opt=...)`` and timm's scripts know.

timm reads a name up to the last "_" as something else ("lookahead_muon"), so ours have a hyphen there: ``nl-muon``.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from nestlearn import optim
from nestlearn.errors import MissingPackageError

__all__ = ["register"]


def register() -> list[str]:
    """Make every optimizer class of ``nl.optim`` known to timm, as "nl-" and its name in small letters.

    Weight decay of matrices alone, layer decay and schedules are timm's and work. Settings are keywords of
    ``create_optimizer_v2``; an optimizer that watches layers is given ``model=`` there once more.

    Returns:
        The names, sorted.

    Raises:
        MissingPackageError: timm is not installed.

    Example:
        >>> from nestlearn.integrations.timm import register
        >>> register()  # doctest: +SKIP
        ['nl-adam', 'nl-deepadam', 'nl-deepmomentum', ...]
    """
    try:
        timm: Any = import_module("timm.optim._optim_factory")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "registering optimizers with timm needs timm, which is not installed: pip install timm", name=error.name
        ) from error
    names = []
    for kind in (getattr(optim, name) for name in sorted(optim.__all__)):
        if not (inspect.isclass(kind) and issubclass(kind, optim.Optimizer)) or kind is optim.Optimizer:
            continue
        takes = inspect.signature(kind).parameters
        names.append(f"nl-{kind.__name__.lower()}")
        if timm.default_registry.list_optimizers(filter=names[-1]):
            continue  # called a second time
        timm.default_registry.register(
            timm.OptimInfo(
                name=names[-1],
                opt_class=kind,
                description=(inspect.getdoc(kind) or "").partition("\n")[0],
                # timm's scripts give both to all; it takes them out again where they are unknown.
                has_eps="eps" in takes,
                has_betas="betas" in takes,
            )
        )
    return names
