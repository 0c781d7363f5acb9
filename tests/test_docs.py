"""The documentation says what the code does: names, defaults, costs, examples and files are checked against it.

The equations, the generated pages, the pages with programs of their own, links and commands are checked in tests/docs.
"""

import inspect
import re
from functools import cache

import pytest
import torch
from page_code import run_page
from pages import PAGES, ROOT, SOURCE, blocks, ids, page_name, resolve, rows, section, text
from torch.utils.flop_counter import FlopCounterMode

import nestlearn as nl
from nestlearn.optim.settings import COMMON

OPTIMIZERS = sorted(set(nl.optim.__all__) - {"Optimizer", "tables"})


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_dotted_names_exist(page):
    for name in re.findall(r"`(n(?:l|estlearn)(?:\.\w+)+)(?:\([^`]*\))?`", page.read_text(encoding="utf-8")):
        assert resolve(name) is not None, name


# --------------------------------------------------------------------------------------------------------- optimizers


def test_the_readme_table_has_every_optimizer_once():
    named = [row[0].strip("`") for row in rows(section(text("README.md"), "The optimizers"))[1:]]
    assert sorted(named) == OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_readme_quotes_the_equations_of_the_docstring(name):
    (row,) = [row for row in rows(section(text("README.md"), "The optimizers")) if row[0] == f"`{name}`"]
    first = ids((inspect.getdoc(getattr(nl.optim, name)) or "").split("\n\n")[0])
    assert first and first <= ids(row[1]), (name, first)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_readme_counts_the_memories_and_levels_that_describe_finds(name):
    (row,) = [row for row in rows(section(text("README.md"), "The optimizers")) if row[0] == f"`{name}`"]
    kind, layer = getattr(nl.optim, name), torch.nn.Linear(4, 3, bias=False)
    model = inspect.signature(kind).parameters.get("model")
    needed = {"model": layer} if model is not None and model.default is inspect.Parameter.empty else {}
    system = nl.describe(kind(layer.parameters(), **needed))
    assert f"{len(system.memories)} / {len(system.levels)}" in row


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_argument_of_an_optimizer_is_documented_with_its_default(name):
    kind = getattr(nl.optim, name)
    wanted = {}
    for argument, parameter in inspect.signature(kind).parameters.items():
        if argument != "params" and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            wanted[argument] = "required" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
    table = rows(section(text("docs/optimizers.md"), name))[1:]
    assert {row[0].strip("`"): row[1].strip("`") for row in table} == wanted


def test_the_keywords_that_all_share_are_documented_with_their_defaults():
    table = rows(section(text("docs/optimizers.md"), "What all of them share"))[1:]
    given = {row[0].strip("`"): row[1].strip("`") for row in table}
    # Three are no settings of a group.
    expected = {"elementwise": "None", "unreadable": "'raise'", "compile": "False"}
    expected |= {name: repr(value) for name, value in COMMON.items()}
    assert given == expected


def test_every_target_is_documented():
    table = rows(section(text("docs/optimizers.md"), "Targets"))[1:]
    assert {row[0].strip("`"): row[1].strip("`") for row in table} == {
        name: kind.__name__ for name, kind in nl.targets.TARGETS.items()
    }


OUT, IN, HIDDEN = 48, 192, 16
SHORT, LONG = min(OUT, IN), max(OUT, IN)
BOTH = (IN**2 + OUT**2) / (IN * OUT)

# Optimizer, settings, then what the page says of state bytes and FLOP an entry, and the same as numbers.
COSTS = [
    ("GradientDescent", {}, "State 0 bytes, 0 FLOP", 0, 0),
    ("Momentum", {}, "4 bytes", 4, 0),
    ("Momentum", {"feature_map": "random_features"}, "8 in FLOP", 4, 8 * IN),
    ("PreconditionedMomentum", {"target": "identity"}, "4 bytes and the target's", 4, 0),
    ("DeltaMomentum", {}, "4 bytes, 4 out FLOP", 4, 4 * OUT),
    ("DeepMomentum", {"readout": "identity"}, "8 + 8 h / n bytes", 8 + 8 * HIDDEN / LONG, 14 * HIDDEN),
    ("DeepMomentum", {"readout": "identity"}, "14 h FLOP", 8 + 8 * HIDDEN / LONG, 14 * HIDDEN),
    ("DeepMomentum", {"readout": "identity", "memory": "matrix"}, "6 d", 8 + 4 * SHORT / LONG, 6 * SHORT),
    ("DeepMomentum", {"readout": "identity", "levels": 2}, "28 h^2 / n", None, 14 * HIDDEN + 28 * HIDDEN**2 / LONG),
    ("Adam", {}, "8 bytes", 8, 0),
    ("DeepAdam", {}, "12 + 16 h / n bytes", 12 + 16 * HIDDEN / LONG, 28 * HIDDEN),
    ("DeepAdam", {}, "28 h FLOP", 12 + 16 * HIDDEN / LONG, 28 * HIDDEN),
    ("Muon", {}, "4 bytes, NS", 4, None),
    ("Muon", {"readout": "memory"}, "4 + 4 d / n bytes", 4 + 4 * SHORT / LONG, None),
    ("M3", {}, "16 bytes", 16, None),
    ("Nested", {}, "4 bytes and 8 (in^2 + out^2) / (in out)", 4 + 8 * BOTH, None),
    ("SOAP", {}, "8 bytes and 8 (in^2 + out^2) / (in out)", 8 + 8 * BOTH, None),
    ("SOAP", {"memory": False}, "Adam", 8, 0),
    ("SOAPMuon", {}, "8 bytes and 8 (in^2 + out^2) / (in out)", 8 + 8 * BOTH, None),
    ("SecantMomentum", {"keys": "displacement"}, "8 bytes", 8, None),
    ("SecantMomentum", {}, "4 (in^2 + out^2) / (in out) more", 8 + 4 * BOTH, None),
    ("LayerMomentum", {}, "4 bytes and 8 (in^2 + out^2) / (in out)", 4 + 8 * BOTH, None),
    ("LayerMomentum", {"sides": "input"}, "8 in / out", 4 + 8 * IN / OUT, None),
    ("DeltaGradientDescent", {}, "0 bytes, 2 in FLOP", 0, 2 * IN),
]


@pytest.mark.parametrize(("name", "settings", "said", "size", "flop"), COSTS)
def test_costs_are_what_the_page_says(name, settings, said, size, flop):
    assert said in " ".join(section(text("docs/optimizers.md"), name).split())
    kind, layer = getattr(nl.optim, name), torch.nn.Linear(IN, OUT, bias=False)
    arguments = inspect.signature(kind).parameters
    if "hidden" in arguments:
        settings = settings | {"hidden": HIDDEN}
    if "model" in arguments and arguments["model"].default is inspect.Parameter.empty:
        settings = settings | {"model": layer}
    optimizer = kind(layer.parameters(), **settings)
    layer(torch.randn(5, IN)).square().sum().backward()
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    if size is not None:  # numbers that a matrix has once do not count
        tensors = [tensor for tensor in optimizer.state[layer.weight].values() if tensor.numel() > 1]
        assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) / (IN * OUT) == pytest.approx(size)
    if flop is not None:
        assert counter.get_total_flops() / (IN * OUT) == pytest.approx(flop)


# ------------------------------------------------------------------------------------------------- examples and files


# README.md and the tour are run by tests/docs/test_readme.py and test_tour.py, which compare what they print, the pages
# of hosts, huggingface, logging and stacking by tests/hosts, tests/integrations and tests/models, as they need other
# packages.
OWN_TEST = {"README.md", "tour.md", "hosts.md", "huggingface.md", "logging.md", "stacking.md"}
EXAMPLES = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8") and page.name not in OWN_TEST]


@pytest.mark.parametrize("page", EXAMPLES, ids=page_name)
@pytest.mark.slow
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(encoding="utf-8"), page.name)


@cache
def known_tests() -> set[str]:
    """The names of all test functions."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_files_and_tests_that_a_page_names_exist(page):
    prose = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:\.ci|benchmarks|dev|docs|src|tests)/[\w./-]*)`", prose)
    named += re.findall(r"\bbash (\S+/[\w-]+)", prose)
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += sorted(set(re.findall(r"`(test(?:_[a-z0-9]+){4,})", prose)) - known_tests())
    assert missing == []


def test_the_project_tree_names_every_source_folder_and_only_existing_ones():
    (tree,) = blocks(section(text("README.md"), "The tree"), "")
    named, parents = set(), []
    for line in tree.splitlines():
        indent, entry = re.match(r"( *)(\S+)/ ", line).groups()
        parents = [*parents[: len(indent) // 2], entry]
        named.add("/".join(parents))
    assert [name for name in sorted(named) if not (ROOT / name).is_dir()] == []
    folders = {f"src/nestlearn/{path.parent.name}" for path in SOURCE.glob("*/__init__.py")}
    assert folders <= named
