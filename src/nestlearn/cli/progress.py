"""Progress of a sweep or of a training run: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nestlearn.training import RunResult, Training, TrainSettings

__all__ = ["show_progress", "show_training"]

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
                bar.update(job, advance=1, total=total, description=escape(_describe(result, reused)))

            yield show
        return
    done = 0

    def line(result: RunResult, reused: bool, total: int) -> None:
        nonlocal done
        done += 1
        if done % max(1, total // PLAIN_LINES) == 0 or done == total:
            console.print(
                f"{done} of {total} runs; latest: {_describe(result, reused)}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )

    yield line


@contextmanager
def show_training(console: Console, settings: TrainSettings) -> Iterator[Callable[[Training], None]]:
    """Yield the function that training calls whenever it has recorded something."""
    every = max(1, settings.steps // PLAIN_LINES)
    if console.is_terminal and not console.quiet:
        columns = (
            TextColumn("[bold]{task.description}[/] step {task.completed:>5.0f} of {task.total:.0f}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[losses]}"),
        )
        with Progress(*columns, console=console) as bar:
            jobs = {
                seed: bar.add_task(f"seed {seed}", total=settings.steps, losses="", start=False, visible=False)
                for seed in settings.seeds
            }

            def show(training: Training) -> None:
                job = jobs[training.spec.seed]
                bar.start_task(job)
                bar.update(job, completed=training.steps_taken, losses=_losses(training), visible=True)

            yield show
        return
    shown: dict[int, int] = {}

    def line(training: Training) -> None:
        """About twenty lines a seed: the first rows at or after every twentieth part."""
        seed, step = training.spec.seed, training.steps_taken
        if step // every > shown.get(seed, 0) // every or training.done:
            shown[seed] = step
            console.print(
                f"seed {seed}, step {step} of {settings.steps}: {_losses(training)}, {training.clock.seconds:.1f} s",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )

    yield line


def _losses(training: Training) -> str:
    """The latest training and validation loss."""
    curves = {"training loss": training.train, "validation": training.curve}
    found = [f"{name} {points[-1].loss:.4f}" for name, points in curves.items() if points]
    return ", ".join(found) or "no loss yet"


def _describe(result: RunResult, reused: bool) -> str:
    outcome = f"validation loss {result.score:.4f}" if result.status == "finished" else "diverged"
    return f"{result.task} {result.variant}: {outcome}{' (kept)' if reused else ''}"
