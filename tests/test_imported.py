"""What users bring by name: found in the current folder, and a clear error where it is not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestlearn.imported import again, imported, only


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder, which is on no path of Python's."""
    (tmp_path / "brought_along.py").write_text("class Thing:\n    pass\n\ndef make():\n    return 3\n\nnumber = 3\n")
    (tmp_path / "brought_broken.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "brought_along"
    for name in ("brought_along", "brought_broken"):
        sys.modules.pop(name, None)


def test_functions_and_classes_are_found_in_the_current_folder_and_elsewhere(module: str) -> None:
    assert imported(f"{module}:make", "task")() == 3
    assert imported(f"{module}:Thing", "model").__name__ == "Thing"
    assert imported("collections:OrderedDict", "optimizer")() == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brought_alon:make", "cannot import the module of the task 'brought_alon:make': no module 'brought_alon' in"),
        ("brought_along.inner:make", "no module 'brought_along.inner'"),
        ("brought_broken:make", "of the task 'brought_broken:make': No module named 'no_such_package'"),
        ("brought_along:mak", r"no function 'mak' for the task in .*brought_along\.py\. Did you mean 'make'\?"),
        ("brought_along:number", "no function 'number'"),
    ],
)
def test_what_is_not_there_is_one_clear_line(module: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        imported(name, "task")
    assert "\n" not in str(caught.value)


def test_what_a_folder_names_is_imported_only_if_it_was_typed_too(tmp_path, monkeypatch):
    (tmp_path / "not_trusted.py").write_text("def make():\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    with (
        only([], ["Muon", "other:make", "not_trusted"], ["task=digits"]),
        pytest.raises(ValueError, match="add --import not_trusted"),
    ):
        imported("not_trusted:make", "task")
    assert "not_trusted" not in sys.modules
    for modules, typed in (
        (["not_trusted"], []),
        ([], ["name=not_trusted:make"]),
        ([], ["{'task': 'not_trusted:other'}"]),
    ):
        with only(modules, typed):
            assert imported("not_trusted:make", "task")() == 1
    assert imported("not_trusted:make", "task")() == 1


def test_going_on_names_each_module_of_a_folder_once_and_nothing_else():
    settings = "kind: compare\ntasks: [digits, mine:lines]\noptimizers: ['mine:make', other:rule]\ndevice: cuda:0\n"
    assert again(settings) == " --import mine --import other"
    assert again("cluster: tcp://host:8786\ntasks: [digits]\n") == ""
