"""Carry courses of runs out on a pool of workers, and keep every finished run.

The main process is the only one that writes to the run folder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial

import torch

from nestlearn.comparison.course import Course
from nestlearn.comparison.executors import Pool, stopping
from nestlearn.errors import RunFolderError, SweepError
from nestlearn.imported import own_frames
from nestlearn.training import RunResult, RunSpec
from nestlearn.training.loop import Interrupted, train
from nestlearn.training.run_folder import RunFolder

__all__ = ["Progress", "SweepError", "run_courses"]

Progress = Callable[[RunResult, bool, int], None]
"""Called with a result, whether it was reused, and how many runs there are in all, as far as is known by then."""


def run_courses(
    courses: Sequence[Course],
    folder: RunFolder,
    pool: Pool,
    *,
    known: Mapping[str, RunResult] | None = None,
    progress: Progress = lambda result, reused, total: None,
) -> None:
    """Run the courses to their end; every finished run is in ``folder`` before the next one is started.

    Args:
        known: finished runs of an earlier attempt, by key: they are taken as they are.
        progress: called with every result.

    Raises:
        SweepError: a run failed with an error of its own, or a worker died. Finished runs stay in the folder.
        KeyboardInterrupt: passed on after the runs in progress were stopped. Finished runs stay in the folder.
    """
    with folder.appended() as files:
        _run_courses(_Feed(courses, partial(folder.add, files=files), known or {}, progress), pool)


def _run_courses(feed: _Feed, pool: Pool) -> None:
    running: dict[Future[RunResult], RunSpec] = {}
    try:
        while True:
            while len(running) < pool.slots() and (spec := feed.next()) is not None:
                running[pool.executor.submit(_run, spec)] = spec
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                spec = running.pop(future)
                feed.done(spec, _checked(spec, future))
    except RunFolderError:
        feed.keep = lambda result: None  # the folder is not what it was: nothing more goes there
        raise
    finally:
        if running:
            pool.stop(running)
        for future in running:  # finished while another failed or the user interrupted: keep these too
            if future.done() and not future.cancelled() and future.exception() is None:
                feed.keep(future.result())


def _run(spec: RunSpec) -> RunResult:
    """What a worker does with a spec."""
    with _one_thread():
        try:
            return train(spec, should_stop=stopping)
        except Exception as error:
            for frame in own_frames(error):  # as text: a traceback does not cross the border of a process
                error.add_note(frame)
            raise


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _checked(spec: RunSpec, future: Future[RunResult]) -> RunResult:
    """The result, or a SweepError that names the run."""
    try:
        return future.result()
    except Interrupted as error:
        raise KeyboardInterrupt from error
    except Exception as error:
        failure = SweepError(
            f"the run {spec.key} failed: {type(error).__name__}: {error}. Finished runs are kept: correct the cause "
            "and continue with --resume."
        )
        for note in getattr(error, "__notes__", ()):
            failure.add_note(note)
        raise failure from error


class _Feed:
    """The runs still to do, across all courses, and where their results go."""

    def __init__(
        self,
        courses: Sequence[Course],
        keep: Callable[[RunResult], None],
        known: Mapping[str, RunResult],
        progress: Progress,
    ) -> None:
        self.courses, self.keep, self.known, self.progress = courses, keep, known, progress
        self.queue: deque[RunSpec] = deque()
        self.owner: dict[str, Course] = {}
        for course in courses:
            self._advance(course)

    def _advance(self, course: Course) -> None:
        """Queue what the course can run now; what an earlier attempt already ran is recorded on the spot."""
        while fresh := course.next():
            for spec in fresh:
                if spec.key in self.known:
                    course.record(self.known[spec.key])
                    self._tell(self.known[spec.key], reused=True)
                else:
                    self.owner[spec.key] = course
                    self.queue.append(spec)

    def next(self) -> RunSpec | None:
        return self.queue.popleft() if self.queue else None

    def done(self, spec: RunSpec, result: RunResult) -> None:
        self.keep(result)
        course = self.owner[spec.key]
        course.record(result)
        self._advance(course)
        self._tell(result, reused=False)

    def _tell(self, result: RunResult, *, reused: bool) -> None:
        self.progress(result, reused, sum(course.planned for course in self.courses))
