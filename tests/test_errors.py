"""Our exceptions are one tree, drawn where it is defined; the command line says each of them in one line."""

import builtins
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import nestlearn as nl
from nestlearn import errors
from nestlearn.cli import main

DRAWN = re.findall(r"^ *\+-- (\w+)(?: +([A-Z]\w+Error))? {2,}\S", errors.__doc__ or "", re.MULTILINE)
OURS = [getattr(errors, name) for name, _ in DRAWN]


def defined_here() -> set[type[BaseException]]:
    """Every exception class that some module of the package defines."""
    found = set()
    for entry in pkgutil.walk_packages(nl.__path__, "nestlearn."):
        try:
            module = importlib.import_module(entry.name)
        except nl.errors.MissingPackageError:  # what is a part of transformers, where that is not installed
            continue
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, BaseException) and kind.__module__.startswith("nestlearn"):
                found.add(kind)
    return found


def test_every_exception_of_the_package_is_in_the_tree_that_errors_draws():
    assert defined_here() == {nl.NestlearnError, *OURS}
    assert {kind.__module__ for kind in OURS} == {"nestlearn.errors"}


@pytest.mark.parametrize(("name", "builtin"), DRAWN)
def test_each_is_ours_and_the_builtin_beside_it(name, builtin):
    assert getattr(errors, name).__bases__ == (nl.NestlearnError, *([getattr(builtins, builtin)] if builtin else []))


def test_names_from_before_there_was_a_tree_are_the_same_classes():
    from nestlearn.comparison import SweepError
    from nestlearn.models import StateFileError
    from nestlearn.tasks import DataFileError
    from nestlearn.training import RunFolderError
    from nestlearn.training.checkpoint import CheckpointError
    from nestlearn.training.loop import Interrupted

    for kind in (StateFileError, DataFileError, RunFolderError, SweepError, CheckpointError, Interrupted):
        assert kind is getattr(nl.errors, kind.__name__)


# ----------------------------------------------------------------------------------------------------------- settings


def test_what_settings_are_refused_with_keeps_its_words_and_its_cause():
    @errors.as_settings_error()
    def refuse(error: Exception) -> None:
        raise error

    cause = ValueError("hidden: expected at least 1, got 0")
    for _ in range(2):
        with pytest.raises(nl.errors.SettingsError, match="hidden: expected at least 1, got 0") as refusal:
            refuse(cause)
        assert refusal.value.__cause__ is cause
    for other in (TypeError("a mistake"), errors.StateFileError("ours already")):
        with pytest.raises(type(other)) as same:
            refuse(other)
        assert same.value is other
    with pytest.raises(errors.SettingsError, match="no such argument"), errors.as_settings_error(TypeError):
        raise TypeError("no such argument")


# ------------------------------------------------------------------------------------------------------- command line


def report_that_raises(error: BaseException, monkeypatch: pytest.MonkeyPatch, app: str) -> Result:
    def verb() -> None:
        """Make report.html of a run folder again."""
        raise error

    monkeypatch.setattr(main, "_load", lambda name: verb)
    return CliRunner().invoke(getattr(main, app)(), ["report"])


@pytest.mark.parametrize("app", ["build_app", "build_entry"])
@pytest.mark.parametrize("kind", [nl.NestlearnError, *OURS, FileNotFoundError])
def test_a_verb_that_raises_one_ends_in_one_line(kind, app, monkeypatch):
    done = report_that_raises(kind("expected this, got that"), monkeypatch, app)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", "error: expected this, got that\n")


@pytest.mark.parametrize("error", [ValueError("a mistake"), BrokenPipeError("nobody reads")])
def test_a_mistake_in_the_program_keeps_its_traceback(error, monkeypatch):
    done = report_that_raises(error, monkeypatch, "build_entry")
    assert done.exception is error and "error:" not in done.output


def test_nobody_but_the_entry_says_error():
    files = Path(main.__file__).parent.glob("*.py")
    assert [file.name for file in files if "error: {" in file.read_text(encoding="utf-8")] == ["main.py"]
