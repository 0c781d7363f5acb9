"""Progress of a sweep or of a training run: a bar on a terminal, a plain line now and then elsewhere.

Whatever the width, the steps and the time that is left are there whole; the bar, and what is said beside it, give way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from nestlearn.cli.width import fitting
from nestlearn.training import RunResult, Training, TrainSettings

__all__ = ["show_progress", "show_training"]

PLAIN_LINES = 20
BAR, NARROW_BAR, WIDE = 40, 10, 120  # letters of the bar, in a terminal at least so wide and in a narrower one
TIME = len("0:00:00")


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[RunResult, bool, int], None]]:
    """Yield the function that a sweep calls with every result, whether it was reused, and how many runs it plans."""
    done = 0
    if console.is_terminal and not console.quiet:
        columns = _columns("[bold]{task.completed:>4.0f}[/] of {task.total:.0f} runs", console.width)
        with Progress(*columns, console=console) as bar:
            job = bar.add_task("", total=0)

            def show(result: RunResult, reused: bool, total: int) -> None:
                nonlocal done
                done += 1
                room = _room(console, f"{done:>4} of {total} runs")
                said = fitting(_describe(result, reused), room)
                bar.update(job, advance=1, total=total, description=escape(said))

            yield show
        return

    def line(result: RunResult, reused: bool, total: int) -> None:
        nonlocal done
        done += 1
        if done % max(1, total // PLAIN_LINES) == 0 or done in (1, total):
            console.print(
                f"{done} of {total} runs; latest: {_describe(result, reused)[0]}",
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
        columns = _columns("[bold]{task.description}[/] step {task.completed:>5.0f} of {task.total:.0f}", console.width)
        with Progress(*columns, console=console) as bar:
            jobs = {
                seed: bar.add_task(
                    f"seed {seed}", total=settings.steps, losses="", start=False, visible=seed == settings.seeds[0]
                )
                for seed in settings.seeds
            }

            def show(training: Training) -> None:
                job, steps = jobs[training.spec.seed], training.steps_taken
                said = f"seed {training.spec.seed} step {steps:>5} of {settings.steps}"
                bar.start_task(job)
                bar.update(job, completed=steps, losses=fitting(_losses(training), _room(console, said)), visible=True)

            yield show
        return
    shown: dict[int, int] = {}

    def line(training: Training) -> None:
        """About twenty lines a seed: the first rows at or after every twentieth part."""
        seed, step = training.spec.seed, training.steps_taken
        if seed not in shown or step // every > shown[seed] // every or training.done:
            shown[seed] = step
            console.print(
                f"seed {seed}, step {step} of {settings.steps}: {_losses(training)[0]}, {training.clock.seconds:.1f} s",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )

    yield line


def _columns(done: str, width: int) -> tuple[ProgressColumn, ...]:
    """What is done, the bar, the time so far and the time left, and what is said: in all no wider than the terminal."""
    whole = Column(no_wrap=True)
    return (
        TextColumn(done, table_column=whole),
        BarColumn(bar_width=BAR if width >= WIDE else NARROW_BAR),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=TIME)),
        TextColumn("left", table_column=whole),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=TIME)),
        TextColumn("[dim]{task.description}" if "runs" in done else "[dim]{task.fields[losses]}", table_column=whole),
    )


def _room(console: Console, done: str) -> int:
    """For what is said at the end of a line of `_columns`."""
    bar = BAR if console.width >= WIDE else NARROW_BAR
    return console.width - len(done) - bar - 2 * TIME - len("left") - 5


def _losses(training: Training) -> list[str]:
    """The latest training and validation loss, and less of it."""
    curves = {"training loss": training.train, "validation": training.curve}
    found = [f"{name} {points[-1].loss:.4f}" for name, points in curves.items() if points]
    return [", ".join(found), *found[::-1]] if found else ["no loss yet"]


def _describe(result: RunResult, reused: bool) -> list[str]:
    """What a run came to, and less of it."""
    score = f"{result.score:.4f}" if result.status == "finished" else "diverged"
    outcome = f"validation loss {score}" if result.status == "finished" else score
    kept = " (kept)" if reused else ""
    return [
        f"{result.task} {result.variant}: {outcome}{kept}",
        f"{result.task} {result.variant}: {score}",
        f"{result.variant}: {score}",
        score,
    ]
