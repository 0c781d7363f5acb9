"""docs/equations.md and the docstrings hold together, both ways: what the page says is in the code, and the reverse."""

import importlib
import inspect
import pkgutil
import re
from types import ModuleType

import pytest
from pages import ROOT, code_line, docstrings, equation_headings, ids, resolve, unbuilt

import nestlearn as nl
from nestlearn.errors import MissingPackageError

IMPLEMENTED = {
    *(f"M{n}" for n in range(1, 6)),
    *(f"O{n}" for n in range(1, 25)),
    *(f"S{n}" for n in range(1, 11)),
    *(f"C{n}" for n in range(1, 7)),
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("memory", "ops", "targets", "rules", "optim", "layers", "models")


def named_code(equation: str) -> list[str]:
    """The dotted names after ``Code:`` in the section of an equation."""
    return re.findall(r"`(nestlearn(?:\.\w+)+)", code_line(equation))


def documentation(dotted: str) -> str:
    """The docstrings of an object and of its module; of a folder, those of all its modules and of what they export."""
    found = resolve(dotted)
    if isinstance(found, ModuleType):
        inside = [value for name, value in exported() if name.startswith(f"{dotted}.")]
        return "\n".join(inspect.getdoc(each) or "" for each in (found, *inside))
    kind = found if inspect.isclass(found) or inspect.isfunction(found) else type(found)
    return f"{inspect.getdoc(kind) or ''}\n{inspect.getdoc(inspect.getmodule(kind)) or ''}"


def exported() -> list[tuple[str, object]]:
    """(dotted name, object) of every class and function that a module of the core or of the optimizers exports."""
    found = []
    for folder in FOLDERS:
        for entry in pkgutil.iter_modules(resolve(f"nestlearn.{folder}").__path__):
            try:
                module = importlib.import_module(f"nestlearn.{folder}.{entry.name}")
            except MissingPackageError:  # what is a part of transformers, where that is not installed
                continue
            values = [(f"{module.__name__}.{name}", getattr(module, name)) for name in module.__all__]
            found += [(name, value) for name, value in values if inspect.isclass(value) or inspect.isfunction(value)]
    return found


def claimed(docstring: str) -> set[str]:
    """The ids in brackets in the first paragraph: the equations that an object is there for."""
    return set().union(*(ids(part) for part in re.findall(r"\(([^()]*)\)", docstring.split("\n\n")[0])))


def test_every_implemented_equation_has_a_section_and_no_other_claims_one():
    assert set(equation_headings()) >= IMPLEMENTED
    assert not set(equation_headings()) & unbuilt()


@pytest.mark.slow
def test_every_equation_is_quoted_by_a_docstring():
    # An __init__.py is an overview and implements nothing.
    quoted = set().union(*(ids(prose) for file, prose in docstrings() if not file.endswith("__init__.py")))
    assert sorted(set(equation_headings()) - quoted) == []


@pytest.mark.slow
def test_docstrings_quote_only_equations_that_the_page_knows():
    known = set(equation_headings()) | unbuilt()
    strangers = {(file, name) for file, docstring in docstrings() for name in ids(docstring) - known}
    assert strangers == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_quote_only_equations_that_exist(page):
    assert ids(page.read_text(encoding="utf-8")) <= set(equation_headings()) | unbuilt()


@pytest.mark.parametrize("equation", equation_headings())
def test_the_code_that_a_section_names_quotes_its_equation(equation):
    names = named_code(equation)
    assert names
    silent = [name for name in names if equation not in ids(documentation(name))]
    assert silent == [], f"neither these nor their modules quote {equation}"


def test_code_that_claims_an_equation_is_named_in_its_section():
    missing = []
    for dotted, value in exported():
        for equation in claimed(inspect.getdoc(value) or "") - unbuilt():
            named = [resolve(name) for name in named_code(equation)]
            covered = any(
                each is value
                or type(each) is value
                or (isinstance(each, ModuleType) and dotted.startswith(f"{each.__name__}."))
                for each in named
            )
            if not covered:
                missing.append((equation, dotted))
    assert missing == []


def test_claims_are_read_from_the_first_paragraph_only():
    assert claimed("A rule (O12, S4).\n\nSee (O1).") == {"O12", "S4"}
    assert claimed("M3 without brackets") == set()
    assert "O14" in claimed(inspect.getdoc(nl.optim.M3) or "")
