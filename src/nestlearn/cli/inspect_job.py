"""What ``nestlearn inspect`` does with its options: settings, the dry run, tables or JSON, and a picture."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from nestlearn.cli.width import columns, wrapped
from nestlearn.descriptions.table import WIDTH, as_text, of_a_sequence, readable_bytes
from nestlearn.errors import SettingsError, as_settings_error
from nestlearn.training import Inspection, TrainSettings, inspect_training, read_settings, resolve_training
from nestlearn.training.run_folder import write_atomic
from nestlearn.training.train_settings import find_settings

__all__ = ["inspect_job"]

FINISHED = 0


def inspect_job(
    given: dict[str, Any],
    model: str | None,
    config: Path | None,
    assignments: list[str],
    *,
    ranks: int | None = None,
    as_json: bool,
    svg: Path | None,
) -> int:
    """Carry an inspection out and print it; returns the exit status."""
    if model is not None and "task" in given:
        raise SettingsError("expected either --task or --model, got both")
    file = read_settings(find_settings(config)) if config else {}
    settings = resolve_training(TrainSettings(), file, given, *assignments)
    with as_settings_error(ValueError, TypeError):
        found = inspect_training(settings, model, ranks)
    if svg is not None:
        write_atomic(svg, found.system.svg() + "\n")
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        typer.echo(f"{as_text(found.system, _width())}\n\n{_summary(found)}")
    return FINISHED


def _width() -> int:
    """Of the tables: that of a terminal; a file has no width to keep to."""
    return min(columns(), WIDTH) if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH


def _summary(found: Inspection) -> str:
    share = found.state_bytes / found.adamw_bytes if found.adamw_bytes else 0.0
    pairs: Iterable[tuple[str, str]] = (
        ("weights", f"{found.system.parameters:,} entries"),
        (
            "state",
            f"{readable_bytes(found.state_bytes)}, {share:.2f} times AdamW's {readable_bytes(found.adamw_bytes)}",
        ),
        *([("of each sequence", of_a_sequence(found.system))] if of_a_sequence(found.system) else []),
        ("forward and backward", _number(found.backward_flops)),
        ("optimizer's step", _number(found.step_flops) + (f", mean of {found.steps} steps" if found.steps > 1 else "")),
    )
    lines = [f"{label:<22}{words}" for label, words in pairs]
    written = [f"{'' if number else 'written':<22}{line}" for number, line in enumerate(found.paths)]
    whole = [*lines, *_on_ranks(found), *written, *(f"not known: {reason}" for reason in found.unknown)]
    return "\n".join(line if len(line) <= _width() else wrapped(line, _width(), " " * 22) for line in whole)


def _on_ranks(found: Inspection) -> Iterator[str]:
    """What the ranks do, those that do most first."""
    if not found.ranks:
        return
    total = sum(load.flops for load in found.ranks)
    busiest = max(found.ranks, key=lambda load: load.flops)
    fullest, sent = max(load.state_bytes for load in found.ranks), [load.sent_bytes for load in found.ranks]
    yield (
        f"{f'on {len(found.ranks)} ranks':<22}matrices: {', '.join(str(load.matrices) for load in found.ranks[:16])}"
        + (", ..." if len(found.ranks) > 16 else "")
    )
    share = busiest.flops / total if total else 0.0
    yield f"{'  the busiest':<22}{_number(busiest.flops)} a step, {share:.3f} of one process"
    yield f"{'  the fullest':<22}{readable_bytes(fullest)} of state"
    yield f"{'  sent a step':<22}{readable_bytes(max(sent))} at most, {readable_bytes(sum(sent))} by all"


def _number(flops: float | None) -> str:
    if flops is None:
        return "not known"
    for unit in ("", "k", "M", "G", "T"):
        if flops < 1000:
            return f"{flops:.3g} {unit}FLOP in matrix products"
        flops /= 1000
    return f"{flops:.3g} PFLOP in matrix products"
