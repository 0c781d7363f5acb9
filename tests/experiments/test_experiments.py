"""Every experiment gives what its expected.json says: the quick size is run, the full size is read from its record."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest
from needed import needs

from experiments.harness import SIZES, complaints, expected, markdown

HOME = Path(__file__).parents[2] / "experiments"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
NAMES = sorted(path.parent.relative_to(HOME).as_posix() for path in HOME.glob("*/*/expected.json"))


def test_every_folder_is_an_experiment_with_all_its_files() -> None:
    folders = sorted(path.parent.relative_to(HOME).as_posix() for path in HOME.glob("*/*/__init__.py"))
    assert folders == NAMES and len(NAMES) >= 6
    for name in NAMES:
        files = {path.name for path in (HOME / name).iterdir()}
        assert {"README.md", "__main__.py", "expected.json", "results"} <= files, name
        for size in SIZES:
            assert expected(HOME / name, size), f"{name} expects nothing of its {size} size"


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_full_size_is_as_expected(name: str) -> None:
    record = json.loads((HOME / name / "results" / "full.json").read_text(encoding="utf-8"))
    assert complaints(record["figures"], expected(HOME / name, "full")) == []
    assert record["environment"]["torch"] and (HOME / name / "results" / "full.md").stat().st_size > 200


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_shows_the_command(name: str) -> None:
    page = (HOME / name / "README.md").read_text(encoding="utf-8")
    assert f"python -m experiments.{name.replace('/', '.')} " in page


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_shows_the_recorded_table(name: str) -> None:
    page = (HOME / name / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*", (HOME / name / "results" / "full.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows and all(row in page for row in rows), f"{name}: README.md is not of the recorded run"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_quick_size_is_as_expected(name: str, tmp_path: Path) -> None:
    if name == "optimizers/m3_vit" and not FASHION_MNIST.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist; a test downloads nothing")
    if name == "sequence/stacking":
        needs("transformers")
    run = import_module(f"experiments.{name.replace('/', '.')}").run
    outcome = run("quick", tmp_path / "run", 1)
    assert complaints(outcome.figures, expected(HOME / name, "quick")) == []
    assert all("|" in table for table in outcome.tables)


def test_complaints_compare_with_numbers_and_with_other_figures() -> None:
    figures = {"a": 1.0, "b": 2.0}
    held = [{"says": "x", "figure": "a", "at_most": "b"}, {"says": "y", "figure": "b", "at_least": 2, "at_most": 2}]
    assert complaints(figures, held) == []
    (wrong,) = complaints(figures, [{"says": "the claim", "figure": "b", "at_most": "a"}])
    assert "the claim" in wrong and "2" in wrong and "at most 1" in wrong
    with pytest.raises(KeyError):
        complaints(figures, [{"says": "z", "figure": "c", "at_most": 1}])


def test_markdown_tables_have_a_line_a_row() -> None:
    assert markdown(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
