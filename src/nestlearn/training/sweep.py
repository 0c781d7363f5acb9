"""Run all searches of a comparison in worker processes, one thread each, and keep every finished run.

One thread a worker makes the times of contenders comparable and the results independent of how many workers there
are. The main process is the only one that writes to the run folder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import torch

from nestlearn.training.loop import Interrupted, train
from nestlearn.training.run_folder import RunFolder
from nestlearn.training.spec import RunResult, RunSpec
from nestlearn.training.tuning import Search

__all__ = ["SweepError", "run_searches"]

Progress = Callable[[RunResult, bool], None]


class SweepError(RuntimeError):
    """A run ended with an error that is not a divergence, or a worker process died."""


_stop: Event | None = None  # in a worker: set by the main process when all should end


def _start_worker(stop: Event) -> None:
    """Prepare a worker: one thread, interrupts left to the main process, and no life after its death."""
    global _stop
    _stop = stop
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _run(spec: RunSpec) -> RunResult:
    return train(spec, should_stop=lambda: _stop is not None and _stop.is_set())


def run_searches(
    searches: list[Search],
    folder: RunFolder,
    *,
    known: dict[str, RunResult] | None = None,
    workers: int = 2,
    progress: Progress = lambda result, reused: None,
) -> None:
    """Run the searches to their end; every finished run is in ``folder`` before the next one is started.

    Args:
        known: finished runs of an earlier attempt, by key: they are taken as they are.
        workers: processes; with 1 the runs take place in this process.
        progress: called with every result, and whether it was reused.

    Raises:
        SweepError: a run failed with an error of its own, or a worker died. Finished runs stay in the folder.
        KeyboardInterrupt: passed on after the runs in progress were stopped. Finished runs stay in the folder.
    """
    feed = _Feed(searches, folder, known or {}, progress)
    if workers == 1:
        with _one_thread():
            while (spec := feed.next()) is not None:
                feed.done(spec, _checked(spec, lambda spec=spec: train(spec)))  # type: ignore[misc]
    else:
        _sweep_in_processes(feed, workers)


class _Feed:
    """The runs still to do, across all searches, and where their results go."""

    def __init__(
        self, searches: list[Search], folder: RunFolder, known: dict[str, RunResult], progress: Progress
    ) -> None:
        self.folder, self.known, self.progress = folder, known, progress
        self.queue: deque[tuple[Search, RunSpec]] = deque()
        self.owner: dict[str, Search] = {}
        for search in searches:
            self._advance(search)

    def _advance(self, search: Search) -> None:
        """Queue what the search can run now; what an earlier attempt already ran is recorded on the spot."""
        while fresh := search.next():
            for spec in fresh:
                if spec.key in self.known:
                    search.record(self.known[spec.key])
                    self.progress(self.known[spec.key], True)
                else:
                    self.owner[spec.key] = search
                    self.queue.append((search, spec))

    def next(self) -> RunSpec | None:
        return self.queue.popleft()[1] if self.queue else None

    def done(self, spec: RunSpec, result: RunResult) -> None:
        self.folder.add(result)
        search = self.owner[spec.key]
        search.record(result)
        self.progress(result, False)
        self._advance(search)


def _sweep_in_processes(feed: _Feed, workers: int) -> None:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(stop,))
    running: dict[Future[RunResult], RunSpec] = {}
    try:
        while True:
            while len(running) < 2 * workers and (spec := feed.next()) is not None:
                running[pool.submit(_run, spec)] = spec
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                spec = running.pop(future)
                feed.done(spec, _checked(spec, future.result))
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        for future in running:  # finished while another failed or the user interrupted: keep these too
            if not future.cancelled() and future.exception() is None:
                feed.folder.add(future.result())


def _checked(spec: RunSpec, get: Callable[[], RunResult]) -> RunResult:
    """The result, or a SweepError that names the run."""
    try:
        return get()
    except Interrupted as error:
        raise KeyboardInterrupt from error
    except Exception as error:
        raise SweepError(f"the run {spec.key} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _one_thread() -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
