"""All checks of one optimizer, here and in processes of their own."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib import metadata
from typing import Any

import torch

from nestlearn.check.catalogue import HOSTS, ONE_PROCESS, TWO_RANKS, chosen
from nestlearn.check.launch import PATIENCE, launch
from nestlearn.check.outcome import Outcome, tried
from nestlearn.check.prepared import prepared
from nestlearn.check.ranks import RANKS
from nestlearn.check.report import Report
from nestlearn.check.subject import Subject
from nestlearn.errors import as_settings_error
from nestlearn.imported import imported
from nestlearn.version import __version__

__all__ = ["check"]


def check(
    optimizer: str | Callable[..., torch.optim.Optimizer],
    settings: Mapping[str, Any] | None = None,
    *,
    model: bool = False,
    graph: bool = False,
    only: Collection[str] = (),
    hosts: bool = True,
    ranks: bool = True,
    isolated: bool = False,
    patience: float = PATIENCE,
    watch: Callable[[Outcome], None] = lambda _: None,
) -> Report:
    """Check that an optimizer does what every optimizer should.

    Args:
        optimizer: a class, or a function that returns an optimizer, or the name of one, ``"module:Name"``. It is called
            as ``optimizer(params, **settings)``.
        settings: the same for every check.
        model: it is also given ``model=``, the network. A class that cannot be made without is given it anyway.
        graph: its steps need a closure that keeps the graph of the loss. Those that need any closure are known.
        only: names of checks; all of them by default.
        hosts: check it inside of other libraries that train, where they are installed.
        ranks: check it on two processes, under DDP and FSDP2.
        isolated: run every check in another process, so that nothing it does can end this one.
        patience: seconds that a check in another process may take.
        watch: called with each outcome when it is there.

    Returns:
        The report. ``print`` shows it; ``score`` is the share that passed.

    Raises:
        SettingsError: no optimizer can be made, or there is no check of a name.

    Example:
        >>> from nestlearn.check import check
        >>> report = check(torch.optim.SGD, only=["round-trip", "maximize"])
        >>> report.score
        1.0
    """
    where = {ONE_PROCESS, *([HOSTS] if hosts else []), *([TWO_RANKS] if ranks else [])}
    wanted = chosen(only, where)
    if isinstance(optimizer, str):
        with as_settings_error():
            make, name = imported(optimizer, "optimizer"), optimizer
    else:
        make, name = optimizer, _name_of(optimizer)
    with torch.random.fork_rng(devices=[]):
        subject = prepared(Subject(make, name, settings or {}, model=model, graph=graph))
        found: list[Outcome] = []
        here = [] if isolated else [each for each in wanted if each.where == ONE_PROCESS]
        for each in here:
            found.append(tried(each.name, each.function, subject))
            watch(found[-1])
    alone = [each.name for each in wanted if each not in here and each.where != TWO_RANKS]
    paired = [each.name for each in wanted if each.where == TWO_RANKS]
    for names, number in ((alone, 1), (paired, RANKS)):
        if names:
            found += launch(subject, names, number, patience, watch)
    options = tuple(option for option, given in (("--model", model), ("--graph", graph)) if given)
    return Report(name, dict(settings or {}), tuple(found), options, _versions(name))


def _name_of(optimizer: Callable[..., Any]) -> str:
    """``module:Name`` if it is found there, else what Python calls it."""
    module, name = getattr(optimizer, "__module__", ""), getattr(optimizer, "__qualname__", repr(optimizer))
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is optimizer else name


def _versions(name: str) -> dict[str, str]:
    found = {"Python": platform.python_version(), "torch": str(torch.__version__), "nestlearn": __version__}
    package = name.partition(":")[0].partition(".")[0]
    distributions = _distributions().get(package, [])
    return found | {each: metadata.version(each) for each in distributions if each not in found}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Which distributions a package comes from; Python goes through the files of all to say it."""
    return metadata.packages_distributions()
