"""One mutant against the tests that run it, in a forked process that has torch and pytest loaded already."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.mutants.cover import Cover
from benchmarks.mutants.places import Mutant, Source

__all__ = ["Bench", "Verdict", "copy_checkout"]

FIRST_SECONDS, FIRST_FILES = 10.0, 5  # of tests, which most mutants do not outlive; loading files takes time as well
PATIENCE = 5.0  # times the seconds that the tests need on a quiet machine, and a minute to load them


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: `outcome` is killed, survived, or unreached where no test runs it.

    `by` is the test that noticed, "time" for a mutant that never ends, or "loading" for one that fails before a test.
    `ran` of `known` tests were run; a survivor has been through all of them, or through the seconds of the budget.
    """

    mutant: Mutant
    outcome: str
    by: str = ""
    ran: int = 0
    known: int = 0


def copy_checkout(root: Path, target: Path) -> Path:
    """What the tests need of a checkout."""
    skip = shutil.ignore_patterns(".git", ".venv", ".mutants", "__pycache__", ".*_cache", ".hypothesis", "runs")
    shutil.copytree(root, target, ignore=skip)
    return target


@dataclass
class Bench:
    """A copy of the checkout in which one mutant at a time is written, tried and taken back."""

    checkout: Path
    cover: Cover
    budget: float
    flaky: set[str] = field(default_factory=set)
    trusted: set[str] = field(default_factory=set)

    def check(self) -> None:
        """Raise RuntimeError unless tests pass here without any mutant: else everything would be killed."""
        tests = sorted(self.cover.seconds, key=lambda test: self.cover.seconds[test])[:5]
        found = self._run(tests)
        if found["by"] or found["ran"] != len(tests):
            raise RuntimeError(f"the unchanged source fails in {self.checkout}: {found}")

    def try_out(self, mutant: Mutant) -> Verdict:
        """Run its tests, a few quick ones first; a test that fails without the mutant as well does not count."""
        while True:
            tests = [test for test in self.cover.tests(mutant) if test not in self.flaky]
            if not tests:
                return Verdict(mutant, "unreached")
            files = list(dict.fromkeys(_file(test) for test in tests))[:FIRST_FILES]
            first = [test for test in tests if _file(test) in files]
            first = first[: self._within(first, FIRST_SECONDS)]
            verdict = self._stage(mutant, first, len(tests))
            tried = set(first)
            rest = [test for test in tests if test not in tried]
            if verdict.outcome == "survived" and rest:
                verdict = self._stage(mutant, rest[: self._within(rest, self.budget)], len(tests), len(first))
            if verdict.outcome != "killed" or self._fails_alone(verdict.by):
                return verdict

    def _stage(self, mutant: Mutant, tests: list[str], known: int, before: int = 0) -> Verdict:
        path = self.checkout / mutant.file
        original = path.read_text(encoding="utf-8")
        path.write_text(Source(mutant.file, original).mutated(mutant), encoding="utf-8")
        try:
            found = self._run(tests)
        finally:
            path.write_text(original, encoding="utf-8")
        outcome = "killed" if found["by"] else "survived"
        return Verdict(mutant, outcome, found["by"], before + found["ran"], known)

    def _fails_alone(self, test: str) -> bool:
        """Whether the kill is the mutant's doing: the test passes when the mutant is not there."""
        if test in ("time", "loading") or test in self.trusted:
            return True
        good = not self._run([test])["by"]
        (self.trusted if good else self.flaky).add(test)
        return good

    def _within(self, tests: list[str], seconds: float) -> int:
        """How many of `tests` fit, one at least."""
        for count, test in enumerate(tests):
            seconds -= self.cover.seconds[test]
            if seconds < 0:
                return max(count, 1)
        return len(tests)

    def _run(self, tests: list[str]) -> dict[str, Any]:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_child, args=(theirs, self.checkout, tests))
        process.start()
        theirs.close()
        limit = 60 + PATIENCE * sum(self.cover.seconds[test] for test in tests)
        found: dict[str, Any] = {"by": "time", "ran": 0}
        if ours.poll(limit):
            try:
                found = ours.recv()
            except EOFError:
                found = {"by": "loading", "ran": 0}  # the process itself died
        _end(process)
        return found


def _child(pipe: Connection, checkout: Path, tests: list[str]) -> None:
    """Run the tests and tell the first that fails; everything they print is thrown away."""
    os.setsid()  # what the tests start ends with them
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.chdir(checkout)
    os.environ["PYTHONPATH"] = str(checkout / "src")
    # The files of the checkout are newer than their caches while they hold a mutant, and must not get new ones.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]
    sys.path[:] = [str(checkout / "src"), str(checkout), *sys.path]
    import pytest

    watch = _Watch(tests)
    files = list(dict.fromkeys(_file(test) for test in tests))
    unneeded = [option for name in ("cacheprovider", "xdist", "cov") for option in ("-p", f"no:{name}")]
    arguments = ["-x", "-q", *unneeded, f"--rootdir={checkout}", *files]
    code = int(pytest.main(arguments, plugins=[watch]))
    pipe.send({"by": "" if code == 0 else watch.failed or "loading", "ran": watch.ran})
    pipe.close()
    os._exit(0)


def _file(test: str) -> str:
    return test.partition("::")[0]


class _Watch:
    """Chooses the tests and their order, and remembers the first that fails."""

    def __init__(self, tests: Iterable[str]) -> None:
        self.place = {test: index for index, test in enumerate(tests)}
        self.failed = ""
        self.ran = 0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.place]

    def pytest_collection_finish(self, session: Any) -> None:
        """Last, as the suite has an order of its own."""
        session.items.sort(key=lambda item: self.place[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.ran += report.when == "call"
        if report.failed and not self.failed:
            self.failed = report.nodeid


def _end(process: Any) -> None:
    """End the process and what it started."""
    for _ in range(50):
        if not process.is_alive():
            break
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
