"""Progress of a sweep: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nestlearn.training import RunResult

__all__ = ["show_progress"]

PLAIN_LINES = 20


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[RunResult, bool, int], None]]:
    """Yield the function that a sweep calls with every result, whether it was reused, and how many runs it plans."""
    if console.is_terminal and not console.quiet:
        columns = (
            TextColumn("[bold]{task.completed:>4.0f}[/] of {task.total:.0f} runs"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.description}"),
        )
        with Progress(*columns, console=console) as bar:
            job = bar.add_task("", total=0)

            def show(result: RunResult, reused: bool, total: int) -> None:
                bar.update(job, advance=1, total=total, description=_describe(result, reused))

            yield show
        return
    done = 0

    def line(result: RunResult, reused: bool, total: int) -> None:
        nonlocal done
        done += 1
        if done % max(1, total // PLAIN_LINES) == 0 or done == total:
            console.print(
                f"{done} of {total} runs; latest: {_describe(result, reused)}", soft_wrap=True, highlight=False
            )

    yield line


def _describe(result: RunResult, reused: bool) -> str:
    outcome = f"validation loss {result.score:.4f}" if result.status == "finished" else "diverged"
    return f"{result.task} {result.variant}: {outcome}{' (kept)' if reused else ''}"
