"""One function in one process of its own, so that whatever it does to itself, a crash included, is only its result.

The process is forked from a server that has imported torch and holds no threads, so it costs milliseconds.
"""

import multiprocessing
import signal
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Outcome", "isolated"]


@dataclass(frozen=True)
class Outcome:
    """What the function returned, or why it did not."""

    value: Any = None
    problem: str | None = None


def isolated(function: Callable[..., Any], *arguments: Any, seconds: int = 120) -> Outcome:
    """Call a module-level function in a fresh process with one thread.

    An exception, a crash or running past ``seconds`` comes back as ``Outcome.problem``, in one line.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.peers.preload"])
    with ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(seconds,)) as pool:
        future = pool.submit(function, *arguments)
        error = future.exception()
    if error is None:
        return Outcome(value=future.result())
    if isinstance(error, BrokenProcessPool):
        return Outcome(problem=f"the process crashed or took over {seconds} s")
    return Outcome(problem=_one_line(error))


def _start(seconds: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of other libraries, about what is measured here anyway
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which may have been ignored at the start
    signal.alarm(seconds)  # ends the process, whatever it is doing


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    named = text if isinstance(error, AssertionError) and text else f"{type(error).__name__}: {text}"
    return named if len(named) <= 160 else named[:157] + "..."
