"""Hands rows to processes, one at a time, and goes on whatever becomes of them. No torch here."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from typing import Any

from benchmarks.gpu.rows import MARK, Row

__all__ = ["Conductor"]

STARTING = 90.0
"""Seconds that a process has to load torch and to find its device; a cold disk takes most of it."""

LEAST = 4.0
"""With fewer seconds left no row is begun."""

TRIES = 2
"""So many processes that do not start one after the other are enough for all rows of that process."""


class Conductor:
    """Runs rows within a budget.

    Args:
        device: of the processes.
        seconds: the whole budget, from now on.
        command: what starts a process, without the device.
        clock: seconds that only go on.
    """

    def __init__(
        self,
        device: str,
        seconds: float,
        command: Iterable[str] = (sys.executable, "-m", "benchmarks.gpu.child"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device, self.command, self.clock = device, list(command), clock
        self.deadline = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - self.clock()

    def run(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """The outcome of each row, in their order, as they finish."""
        for _, group in groupby(rows, key=self._process):
            yield from self._together(list(group))

    def _together(self, rows: list[Row]) -> Iterator[dict[str, Any]]:
        """Rows of one process, which is started anew where one of them has ended it."""
        child: _Child | None = None
        failures = 0
        try:
            for row in rows:
                if self.left < LEAST:
                    yield _outcome(row, "left out", "no time")
                    continue
                if child is None and failures < TRIES:
                    child, problem = self._started(row)
                    failures = 0 if child else failures + 1
                if child is None:
                    yield _outcome(row, "failed", problem)
                    continue
                found, child = self._asked(child, row)
                yield found
        finally:
            if child is not None:
                child.end()

    def _started(self, row: Row) -> tuple[_Child | None, str]:
        """A process that is ready, or why there is none."""
        child = _Child([*self.command, "--device", self.device], self._environment(row))
        answer = child.answer(min(STARTING, max(self.left, LEAST)))
        if answer is not None and answer.get("status") == "ready":
            return child, ""
        words = child.end(kill=True)
        return None, (answer or {}).get("note") or f"the process did not start: {words}"

    def _asked(self, child: _Child, row: Row) -> tuple[dict[str, Any], _Child | None]:
        """What the process says of the row, and the process if it is still good for another."""
        limit = min(row.limit, max(self.left - 1, 1.0))
        start = self.clock()
        child.ask({"name": row.name, "limit": limit})
        answer = child.answer(limit)
        if answer is not None:
            over = answer.pop("over", False)
            if over:
                child.end(kill=True)
            return {**_outcome(row, "failed", ""), **answer}, None if over else child
        seconds = round(self.clock() - start, 2)
        crashed = child.ended
        words = child.end(kill=True)
        if crashed:
            return {**_outcome(row, "failed", f"the process crashed: {words}"), "seconds": seconds}, None
        why = "stopped at its limit" if limit == row.limit else "stopped: no time"
        return {**_outcome(row, "stopped", f"{why} of {limit:.0f} s"), "seconds": seconds}, None

    def _process(self, row: Row) -> Any:
        """What rows of one process have in common: on a CPU, which no row spoils, variables alone."""
        return dict(row.environment) if self.device == "cpu" else row.process

    def _environment(self, row: Row) -> dict[str, str]:
        off = row.compiled and self.device != "cpu"
        return {**os.environ, **({} if off else row.environment)}


def _outcome(row: Row, status: str, note: str) -> dict[str, Any]:
    return {"name": row.name, "process": row.process, "status": status, "note": note, "seconds": 0.0}


class _Child:
    """A running process: lines of JSON in, lines of JSON out."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
            process_group=0,  # what it starts itself, such as compilers, is killed with it
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it is over; a process whose output has ended is given a moment."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        return self._process.returncode is not None

    def ask(self, message: dict[str, Any]) -> None:
        """Send a row; a process that is gone shows in its answer."""
        with suppress(OSError):
            print(json.dumps(message), file=self._process.stdin, flush=True)

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """The next message, or None when there is none in that time or the process has ended."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return None
            if line is None:
                return None
            if line.startswith(MARK):
                return json.loads(line[len(MARK) :])

    def end(self, kill: bool = False) -> str:
        """Let it end by itself, or kill it, and with it what it has started; returns its last words."""
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        if not kill:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # not even a killed process ends while a driver holds it
            self._process.wait(5.0)
        with self._errors:
            return self._last_words()

    def _last_words(self) -> str:
        """How it ended and the end of what it wrote to its error stream, in one line."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        code = self._process.returncode
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        return f"{name}; {' | '.join(lines[-3:])}"[:400]

    def _read(self) -> None:
        with self._process.stdout as lines:  # type: ignore[union-attr]
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)
