"""Which tests run which lines: one run of the suite under coverage.py, kept for the trials."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from coverage import CoverageData

from benchmarks.mutants.places import FOLDERS, PACKAGE, Mutant, Source

__all__ = ["Cover", "cover"]

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".mutants"
PAGES = ("tests/docs/", "tests/test_docs.py")

FEW = 5
"""A line that fewer tests run is tried by all tests of its file: what autograd calls, say, coverage.py does not see."""

MIRRORS = {"optim": ("optim", "contract")}
"""Folder of the source -> folders of tests that are for it, where it is not the one of its name."""


@dataclass(frozen=True)
class Cover:
    """What a run of the suite found: the seconds of each test that passed, and the lines that it ran."""

    seconds: dict[str, float]
    lines: CoverageData
    root: Path
    _by_file: dict[str, dict[int, list[str]]] = field(default_factory=dict)

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests that run what the mutant changes, in the order in which to try them.

        What runs when a module is loaded counts as run by every test of its function, or else of its file, as coverage
        sees only the first of them; and by those that read it, the tests of the file and of the pages. First comes the
        quickest case of each test function, those of the folder that mirrors the file before the others; then all
        other cases, in the same order.
        """
        source = Source(mutant.file, (self.root / mutant.file).read_text(encoding="utf-8"))
        found: set[str] = set()
        for line in _lines(source, mutant.line):
            found.update(self._runs(mutant.file).get(line, ()))
        if len(found) < FEW:
            found.update(test for tests in self._runs(mutant.file).values() for test in tests)
        folder = Path(mutant.file).parent.name
        if _loads(source, mutant.line):
            own = f"tests/{folder}/test_{Path(mutant.file).stem}.py"
            found.update(test for test in self.seconds if test.startswith((own, *PAGES)))
        found &= self.seconds.keys()
        mirror = tuple(f"tests/{name}/" for name in MIRRORS.get(folder, (folder,)))
        rounds: dict[str, int] = {}
        order = []
        for test in sorted(found, key=lambda test: (self.seconds[test], test)):
            function = test.partition("[")[0]
            turn = rounds[function] = rounds.get(function, -1) + 1
            order.append((turn > 0, not test.startswith(mirror), turn, self.seconds[test], test))
        return [test for *_, test in sorted(order)]

    def _runs(self, file: str) -> dict[int, list[str]]:
        if file not in self._by_file:
            path = next((path for path in self.lines.measured_files() if path.endswith(f"/{file}")), None)
            contexts = self.lines.contexts_by_lineno(path) if path else {}
            self._by_file[file] = {line: [_test(each) for each in tests] for line, tests in contexts.items()}
        return self._by_file[file]


class _Clock:
    """Adds up the phases of each test, and forgets those that did not pass."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.bad: set[str] = set()

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if not report.passed:
            self.bad.add(report.nodeid)


def cover(checkout: Path, workers: int, renew: bool) -> Cover:
    """The run of `checkout`'s suite that is kept below `KEPT`, made anew if asked for or absent."""
    times = KEPT / "seconds.json"
    if renew or not times.exists():
        KEPT.mkdir(exist_ok=True)
        times.unlink(missing_ok=True)  # what an earlier run has left is not taken for one that fails
        program = "import sys; from benchmarks.mutants import cover; sys.exit(cover.measure(*sys.argv[1:]))"
        path = os.pathsep.join(map(str, (checkout / "src", ROOT)))
        environment = {**os.environ, "COVERAGE_FILE": str(KEPT / "lines"), "PYTHONPATH": path}
        command = [sys.executable, "-c", program, str(times), str(workers)]
        code = subprocess.run(command, cwd=checkout, env=environment, check=False).returncode
        if not times.exists():
            raise RuntimeError(f"the suite did not run under coverage.py: exit status {code}")
    lines = CoverageData(str(KEPT / "lines"))
    lines.read()
    return Cover(json.loads(times.read_text(encoding="utf-8")), lines, checkout)


def measure(times: str, workers: str) -> int:
    """Run the suite of the working directory; in a process of its own, as it loads the package."""
    import pytest

    clock = _Clock()
    sources = [f"--cov={PACKAGE / folder}" for folder in FOLDERS]
    arguments = [*sources, "--cov-context=test", "--cov-report=", "-n", workers, "-q", "-p", "no:cacheprovider"]
    code = pytest.main(arguments, plugins=[clock])
    if not clock.seconds:
        return int(code) or 1
    passed = {test: seconds for test, seconds in clock.seconds.items() if test not in clock.bad}
    Path(times).write_text(json.dumps(passed), encoding="utf-8")
    return int(code)


def _test(context: str) -> str:
    """pytest-cov names a context after the test and its phase."""
    return context.rpartition("|")[0]


def _loads(source: Source, line: int) -> bool:
    """Whether a line runs when its module is loaded."""
    _, function = source.function_at(line)
    return function is None or line < function.body[0].lineno


def _lines(source: Source, line: int) -> Iterable[int]:
    """The lines whose run shows that `line` was run: its statement, its function, or the whole file."""
    _, function = source.function_at(line)
    if function is None:
        return range(1, len(source.text.splitlines()) + 1)
    if line < function.body[0].lineno:
        return range(function.body[0].lineno, (function.end_lineno or line) + 1)
    return _statement(function.body, line)


def _statement(body: list[ast.stmt], line: int) -> range:
    """The lines of the innermost statement; of one with a body, of its head."""
    for node in body:
        if not node.lineno <= line <= (node.end_lineno or node.lineno):
            continue
        blocks = [getattr(node, name, None) for name in ("body", "orelse", "finalbody")]
        blocks += [handler.body for handler in getattr(node, "handlers", ())]
        for block in filter(None, blocks):
            if block[0].lineno <= line <= (block[-1].end_lineno or line):
                return _statement(block, line)
        last = min([block[0].lineno - 1 for block in filter(None, blocks)], default=node.end_lineno or line)
        return range(node.lineno, max(last, node.lineno) + 1)
    return range(line, line + 1)
