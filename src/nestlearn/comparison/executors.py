"""Who carries runs out: this process, worker processes of this machine, or the workers of a Dask cluster.

A ``Pool`` is a ``concurrent.futures.Executor`` with two more things to know: how many runs to keep in flight, and how
to have everything end. Every worker has one thread, which makes the times of contenders comparable and the results
independent of how many workers there are.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

from nestlearn.errors import SettingsError

__all__ = ["Pool", "open_pool", "stopping"]

AHEAD = 2  # runs in flight for each worker, so that none waits for the main process
PATIENCE = 30  # seconds in which a cluster has to answer


@dataclass(frozen=True)
class Pool:
    """Workers that are ready.

    Attributes:
        executor: takes the runs.
        slots: how many runs to have in flight now.
        stop: asks all that was submitted to end: what has not begun is cancelled, and what is under way is stopped as
            far as the workers can be reached. After it every future is done or will never be.
    """

    executor: Executor
    slots: Callable[[], int]
    stop: Callable[[Iterable[Future[Any]]], None]


@contextmanager
def open_pool(kind: str, workers: int, cluster: str | None = None) -> Iterator[Pool]:
    """Workers for the time of a ``with`` block.

    Args:
        kind: "serial" (this process), "processes" or "dask"; a single worker process is this process too.
        workers: how many, where this machine starts them.
        cluster: the address of a Dask scheduler such as ``tcp://host:8786``; None starts a cluster on this machine.

    Raises:
        SettingsError: the cluster does not answer, or is not fit.
    """
    if kind == "dask":
        with _dask(workers, cluster) as pool:
            yield pool
    elif kind == "serial" or workers == 1:
        yield Pool(_Serial(), lambda: 1, lambda futures: None)
    else:
        context = multiprocessing.get_context("spawn")
        event = context.Event()
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(event,))

        def stop(futures: Iterable[Future[Any]]) -> None:
            event.set()
            executor.shutdown(wait=True, cancel_futures=True)

        try:
            yield Pool(executor, lambda: AHEAD * workers, stop)
        finally:
            stop(())


class _Serial(Executor):
    """Does what it is given at once. An interrupt goes straight to the caller."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor hands every error to whoever asks for the result
            future.set_exception(error)
        return future


_stop: Event | None = None  # in a worker process: set by the main process when all should end


def stopping() -> bool:
    """In a worker process: whether the main process wants all runs to end."""
    return _stop is not None and _stop.is_set()


def _start_worker(stop: Event) -> None:
    """Prepare a worker process: interrupts are left to the main process, and there is no life after its death."""
    global _stop
    _stop = stop
    for name in ("SIGINT", "SIGHUP"):  # a terminal sends them to all processes of a command
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _nanny() -> type:
    """Dask's keeper of a worker process, which begins one start after the other.

    Its own does not wait: a worker that dies before its first word was read is started anew at once, the word is then
    taken for one of the new process, and who closes the cluster before that one exists gets an AssertionError.
    """
    from distributed import Nanny

    class _OneStartAtATime(Nanny):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._starting = asyncio.Lock()

        async def instantiate(self) -> Any:
            async with self._starting:
                return await super().instantiate()

    return _OneStartAtATime


@contextmanager
def _dask(workers: int, address: str | None) -> Iterator[Pool]:
    """The workers of a Dask cluster: of the one at ``address``, or of one on this machine's loopback interface."""
    from distributed import Client, LocalCluster  # an extra; ``resolve`` has seen that it is there

    local = None
    try:
        if address is None:
            local = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                worker_class=_nanny(),
                host="127.0.0.1",
                scheduler_port=0,
                # No dashboard, and any port for what else it serves: its own choice may be taken on this machine.
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.ERROR,
            )
        client = Client(local or address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot reach a Dask scheduler at {address}: {error}") from error
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        busy = [name for name, threads in client.nthreads().items() if threads != 1]
        if busy:
            raise SettingsError(
                f"expected Dask workers with one thread each, found more at {', '.join(busy)}: "
                "start them with --nthreads 1 (and --nworkers for several)"
            )

        def stop(futures: Iterable[Future[Any]]) -> None:
            for future in futures:
                future.cancel()

        yield Pool(client.get_executor(pure=False), lambda: AHEAD * max(1, len(client.nthreads())), stop)
    except TimeoutError as error:
        raise SettingsError(f"the Dask scheduler at {address} has no workers: start some with `dask worker`") from error
    finally:
        client.close()
        if local is not None:
            local.close()
