"""docs/tasks.md and docs/data.md say what the tasks are: fields, defaults, files, and the example as a file."""

from dataclasses import MISSING, fields

import pytest
from pages import blocks, rows, section, text

from nestlearn.tasks import TASKS, OwnTask, Task, make_task, sources
from nestlearn.tasks.data_file import FILES
from nestlearn.tasks.found_files import FoundFile

PAGE = text("docs/tasks.md")


def declared(kind: type[Task]) -> dict[str, str]:
    """The fields that a task adds to what it inherits, with their defaults."""
    own = kind.__annotations__
    return {known.name: repr(known.default) for known in fields(kind) if known.name in own and known.default != MISSING}


@pytest.mark.parametrize("kind", [*TASKS.values(), OwnTask], ids=lambda kind: kind.name)
def test_every_field_is_documented_with_its_default(kind):
    table = rows(section(PAGE, "your own" if kind is OwnTask else kind.name))
    assert {row[0].strip("`"): row[1].strip("`") for row in table[1:]} == declared(kind)


def test_the_overview_has_every_task_in_order():
    overview = rows(PAGE.split("\n## ")[0])[1:]
    names = [row[0].split("]")[0].strip("[") for row in overview]
    assert sorted(names) == sorted([*TASKS, "your own"])
    assert [title for title in names if f"\n## {title}\n" not in PAGE] == []


def test_every_data_file_is_on_the_page_with_its_size_and_hash(tmp_path):
    known = {row[0].strip("`"): (row[1].replace(",", ""), row[2].strip("`")) for row in rows(text("docs/data.md"))}
    for file in sources(TASKS):
        size, sha256 = known[file.name]
        assert sha256 == file.sha256
        if not isinstance(file, FoundFile):
            assert int(size) == (FILES / file.name).stat().st_size


def test_the_example_works_as_a_file_in_the_current_folder(tmp_path, monkeypatch):
    example = next(block for block in blocks(PAGE, "python") if "def spirals" in block)
    (tmp_path / "spirals_example.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    task = make_task("spirals_example:spirals", {"width": 8, "held_out": 2}, "cpu", "float32")
    assert 0.9 < task.evaluate(task.build(0), "validation")["loss"] < 1.3
