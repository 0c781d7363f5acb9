"""Mutation testing: what counts as another program, which sample, which tests, and verdicts of a tiny checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cosmic_ray.mutating import mutate_code

from benchmarks.mutants.places import OPERATORS, Mutant, Source, sample
from benchmarks.mutants.report import read_reasons, record, table, unexplained
from benchmarks.mutants.trial import Verdict

ROOT = Path(__file__).resolve().parents[2]

CODE = '''"""A file. 1 + 1"""
from __future__ import annotations
__all__ = ["half"]
def half(x: int | None, *, by: int = 2) -> int | None:
    """x / 2."""
    if x is None:
        raise TypeError("nothing")
    return x // by
'''


def mutants(code: str) -> list[Mutant]:
    source = Source("src/nestlearn/optim/file.py", code)
    found = [source.mutant(place.kind, place.line, place.occurrence) for place in source.places()]
    return [each for each in found if each is not None]


def test_annotations_docstrings_and_exports_are_no_places():
    found = mutants(CODE)
    assert {each.line for each in found} == {4, 6, 7, 8}
    assert all("int = " in each.before for each in found if each.line == 4)


@pytest.mark.parametrize("kind", OPERATORS)
def test_operators_do_what_their_examples_say(kind):
    operator = OPERATORS[kind]
    for example in operator.examples():
        if not example.operator_args:
            after = mutate_code(example.pre_mutation_code, operator, example.occurrence)
            assert (after or example.pre_mutation_code) == example.post_mutation_code


def test_a_mutant_is_the_text_with_one_line_changed():
    source = Source("f.py", CODE)
    for mutant in mutants(CODE):
        before, after = CODE.splitlines(), source.mutated(mutant).splitlines()
        assert [old for old, new in zip(before, after, strict=True) if old != new] == [before[mutant.line - 1]]


def test_the_sample_is_that_of_everybody_and_edits_elsewhere_leave_it(tmp_path):
    folder = tmp_path / "src/nestlearn/optim"
    folder.mkdir(parents=True)
    (folder / "file.py").write_text(CODE)
    chosen = sample(tmp_path, 3, ["optim"])
    assert len(chosen) == len({each.line for each in chosen}) == 3
    (folder / "file.py").write_text(CODE + "def more():\n    return 2 + 3\n")
    assert {each.identity for each in sample(tmp_path, 4, ["optim"])} >= {each.identity for each in chosen[:2]}


def test_every_reason_is_for_a_line_that_is_still_there():
    for mutant, reason in read_reasons().items():
        file, _, rest = mutant.partition(":")
        before = rest.partition(": ")[2].partition(" -> ")[0]
        lines = [line.strip() for line in (ROOT / file).read_text().splitlines()]
        assert before in lines, mutant
        assert len(reason) > 20


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with one function, a test that holds half of it in place, and one that is never right."""
    folder = tmp_path / "src/nestlearn/optim"
    folder.mkdir(parents=True)
    (tmp_path / "src/nestlearn/__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "file.py").write_text(CODE)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["tests"]\n')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_file.py").write_text(
        "from nestlearn.optim.file import half\n"
        "def test_half():\n    assert half(6) == 3\n"
        "def test_wrong():\n    assert half(6) == 4\n"
    )
    return tmp_path


@pytest.mark.slow
def test_verdicts_of_a_tiny_project(checkout: Path):
    program = """
import json, sys
from pathlib import Path
from benchmarks.mutants import cover as covers
from benchmarks.mutants.places import Source
from benchmarks.mutants.trial import Bench
root = Path(sys.argv[1])
covers.KEPT = root / "kept"
covers.FOLDERS = ("optim",)
found = covers.cover(root, 1, renew=True)
source = Source("src/nestlearn/optim/file.py", (root / "src/nestlearn/optim/file.py").read_text())
mutants = filter(None, (source.mutant(p.kind, p.line, p.occurrence) for p in source.places()))
bench = Bench(root, found, 10.0)
for verdict in map(bench.try_out, mutants):
    print(json.dumps([verdict.mutant.kind, verdict.mutant.line, verdict.outcome, verdict.by]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, checkout], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    outcomes = {(kind, line): (outcome, by) for kind, line, outcome, by in found}
    assert outcomes["ReplaceBinaryOperator_FloorDiv_Mul", 8] == ("killed", "tests/test_file.py::test_half")
    assert outcomes["ReplaceComparisonOperator_Is_IsNot", 6][0] == "killed"
    assert outcomes["DeleteStatement", 7] == ("survived", "")  # no test runs it: those of the file were tried
    assert (checkout / "src/nestlearn/optim/file.py").read_text() == CODE


def test_the_table_counts_what_lives_without_a_reason():
    living, dead = (Mutant(f"src/nestlearn/ops/{name}.py", "f", "AddNot", 1, "a", "b", 0) for name in "xy")
    verdicts = [Verdict(living, "survived", "", 3, 3), Verdict(dead, "killed", "t", 1, 3)]
    assert unexplained(verdicts, {}) == verdicts[:1]
    assert unexplained(verdicts, {living.identity: "no change"}) == []
    assert "50.0%" in table(verdicts, {})
    assert record(verdicts, 7, 1.0)["killed"] == 1
