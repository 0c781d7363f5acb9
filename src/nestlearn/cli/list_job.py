"""What ``nestlearn list`` prints: names, and what each is, in the words of its own class or file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

import typer

from nestlearn.cli.width import pairs

__all__ = ["KINDS", "list_job"]

FINISHED = 0


def list_job(kind: str) -> int:
    """Print the names of a kind; returns the exit status."""
    names, remark = KINDS[kind]()
    typer.echo(pairs(names))
    typer.echo(f"\n{remark}", err=True)
    return FINISHED


def _about(kind: type) -> str:
    """The first sentence of a class's docstring."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()).replace("``", "")


def _tasks() -> tuple[dict[str, str], str]:
    from nestlearn.tasks import TASKS

    return {name: _about(task) for name, task in TASKS.items()}, "nestlearn train --task NAME; or module:function"


def _optimizers() -> tuple[dict[str, str], str]:
    from nestlearn.contenders import CONTENDERS
    from nestlearn.contenders.by_class import optimizer_classes

    own = {name: contender.about for name, contender in CONTENDERS.items()}
    others = {name: _about(kind) for name, kind in optimizer_classes().items() if name.rpartition(".")[2] not in own}
    classes = {name: about if name.startswith("nestlearn") else "torch's own" for name, about in others.items()}
    return {**own, **classes}, "nestlearn train --optimizer NAME; or a rule, or module:function"


def _rules() -> tuple[dict[str, str], str]:
    from nestlearn.rules.registry import LINKS

    return {name: _about(link) for name, link in sorted(LINKS.items())}, (
        "nestlearn train --optimizer 'chain(average(0.9), orthogonal())'"
    )


def _targets() -> tuple[dict[str, str], str]:
    from nestlearn.targets import TARGETS

    return {name: _about(target) for name, target in TARGETS.items()}, (
        "nestlearn train --optimizer DeepMomentum --set optimizer.target=NAME"
    )


def _configs() -> tuple[dict[str, str], str]:
    from nestlearn.training.train_settings import shipped_settings

    def first(text: str) -> str:
        line = text.split("\n", 1)[0]
        return line.lstrip("# ") if line.startswith("#") else ""

    files = shipped_settings()
    return {name: first(path.read_text(encoding="utf-8")) for name, path in files.items()}, (
        "nestlearn train --config NAME"
    )


def _presets() -> tuple[dict[str, str], str]:
    from nestlearn.comparison import PRESETS

    found = {}
    for name, settings in PRESETS.items():
        count, seeds = len(settings.optimizers), len(settings.seeds)
        found[name] = f"{count} optimizers on {', '.join(settings.tasks)}, {seeds} seeds, {settings.steps} steps"
    return found, "nestlearn compare --preset NAME"


KINDS: Mapping[str, Callable[[], tuple[dict[str, str], str]]] = MappingProxyType(
    {
        "tasks": _tasks,
        "optimizers": _optimizers,
        "rules": _rules,
        "targets": _targets,
        "configs": _configs,
        "presets": _presets,
    }
)
"""What there are names of: the names with what they are, and where one is given."""
