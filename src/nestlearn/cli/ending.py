"""How a command ends before its work is done: a signal, an output that nobody reads, an error.

Whatever it is, what was begun comes to a good end, and standard error has it in one line, with the command that goes
on. SIGINT (Ctrl-C), SIGTERM (a scheduler) and SIGHUP (the terminal was closed) ask the same, and so does an output that
cannot be written: a pipe whose reader has gone, a terminal that is no more, a disk that is full.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from rich.console import Console

from nestlearn.cli.width import columns, message
from nestlearn.errors import NestlearnError
from nestlearn.foreign import printable, reason
from nestlearn.imported import own_frames

__all__ = ["Output", "begun", "command", "error_lines", "interrupts", "one_line", "say", "terminal"]

MOST = 2000  # characters of a message
ENDS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Output:
    """The standard output, which may go away: then ``failure`` says why, and what is written is lost in silence."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.failure = ""
        self._closed = False  # by a reader who has seen enough

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write, or lose, a text."""
        return self._try(self._file.write, text) or 0

    def flush(self) -> None:
        """Hand to the system what was written."""
        self._try(self._file.flush)

    def check(self, more: str = "") -> None:
        """Raise OSError, with ``more`` behind it, if what was written is lost, unless whoever read it has gone."""
        if self.failure and not self._closed:
            raise OSError(f"{self.failure}{more}")

    def _try(self, act: Callable[..., Any], *given: Any) -> Any:
        if self.failure:
            return None
        try:
            return act(*given)
        except OSError as error:
            self._closed = isinstance(error, BrokenPipeError)
            said = f"the standard output: {reason(error)}"
            self.failure = "nobody reads the standard output" if self._closed else said
            _let_go(self._file)
            return None


def _let_go(file: TextIO) -> None:
    """What is still in the buffer goes nowhere, so that the end of the process does not stumble over it."""
    try:
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, file.fileno())
        os.close(handle)
    except (OSError, ValueError):  # a stand-in without a file behind it
        pass


def terminal(quiet: bool) -> tuple[Console, Output]:
    """A console on the standard output, and that output, which says whether it is still there."""
    output = Output(sys.stdout)
    return Console(quiet=quiet, file=output), output  # type: ignore[arg-type]


def say(text: str) -> None:
    """A line on standard error, whatever it holds; if that is gone too, nothing. A terminal has it in whole words."""
    line = one_line(text)
    try:
        sys.stderr.write(f"{message(line, columns()) if sys.stderr.isatty() else line}\n")
        sys.stderr.flush()
    except OSError:
        pass


def begun(verb: str) -> None:
    """Say on a terminal, at once, that a verb is at work: what it imports takes seconds, what it reads may take more.

    Elsewhere nobody waits, and an error is to be the only line.
    """
    if os.environ.get("RANK", "0") == "0" and sys.stderr.isatty():
        say(f"nestlearn {verb}: getting ready")


def one_line(text: str) -> str:
    """A text as one line, with control characters, which a terminal would obey, written out."""
    return printable(" ".join(text.split("\n")) if "\n" in text else text, MOST)


def error_lines(error: BaseException) -> list[str]:
    """What went wrong: the message, the frames of the user's own files, and what is to be done."""
    text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
    own = own_frames(error)
    if own and not isinstance(error, NestlearnError):
        text = f"{type(error).__name__}: {text}"
    return [text, *own, *getattr(error, "__notes__", ())]


@contextmanager
def interrupts(last: bool = False) -> Iterator[Callable[[], bool]]:
    """Yield whether one of the three signals has come; the step in progress is finished first. A second one acts at
    once.

    With ``last`` it does not, nor does any until the process ends, which it does soon: torchrun passes on what the
    terminal has sent to all already, ends all ranks as soon as one has failed, before they have said why, and kills
    by itself who takes too long.

    One that is ignored already stays so: what a script starts in the background is not meant by the Ctrl-C that ends
    the script, and what ``nohup`` starts is to outlive its terminal.
    """
    came: list[int] = []
    before = _before()

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for one, handler in () if last else before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in () if last else before.items():
            signal.signal(number, handler)


@contextmanager
def command() -> Iterator[None]:
    """A block in which SIGTERM and SIGHUP do what Ctrl-C does, unless they are ignored: raise KeyboardInterrupt."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: handler for number, handler in _before().items() if handler == signal.SIG_DFL}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _before() -> dict[int, Any]:
    """The handlers of the signals that are not ignored; none outside of the main thread, which has no say there."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in ENDS}
    return {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
