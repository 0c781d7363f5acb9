"""The package as a user installs it: what it needs, what it ships, how long its import takes."""

import importlib
import importlib.metadata
import importlib.resources
import os
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nestlearn as nl
from nestlearn import lazy

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = [
    line
    for line in (ROOT / "dev" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]

# Every package that an installation may lack: all of the extras, what they bring, and what a host framework brings.
# jinja2 is absent because torch itself requires it.
OPTIONAL = [
    *("click", "hypothesis", "matplotlib", "numpy", "pytest", "rich", "typer", "yaml"),
    *("accelerate", "lightning", "pandas", "pydantic", "safetensors", "scipy", "sklearn", "tqdm", "transformers"),
]

BLOCK = f"""
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def run_python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=environment)


def project_name(requirement: str) -> str:
    """'PyYAML>=6.0' -> 'pyyaml', the form in which package names compare equal."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, f"no package name in {requirement!r}"
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_version_is_the_installed_one():
    assert nl.__version__ == importlib.metadata.version("nestlearn")


def test_py_typed_is_shipped():
    assert importlib.resources.files("nestlearn").joinpath("py.typed").is_file()


def test_torch_is_the_only_dependency():
    assert [project_name(requirement) for requirement in PYPROJECT["project"]["dependencies"]] == ["torch"]


def test_constraints_are_exact():
    loose = [line for line in CONSTRAINTS if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line)]
    assert loose == []


def test_every_dependency_is_constrained():
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    wanted = [*PYPROJECT["build-system"]["requires"], *PYPROJECT["project"]["dependencies"]]
    wanted += [requirement for extra in extras for requirement in extra]
    pinned = {project_name(line) for line in CONSTRAINTS}
    assert {project_name(requirement) for requirement in wanted} - pinned == set()


def test_exports_exist():
    assert len(set(nl.__all__)) == len(nl.__all__)
    assert [name for name in nl.__all__ if not hasattr(nl, name)] == []


EVERYTHING = "import nestlearn; [getattr(nestlearn, name) for name in nestlearn.__all__]"


@pytest.mark.slow
def test_import_needs_torch_alone():
    done = run_python(BLOCK + EVERYTHING)
    assert done.returncode == 0, done.stderr


def test_the_root_alone_needs_not_even_torch():
    done = run_python("""
import sys, nestlearn
nestlearn.__version__, nestlearn.NestlearnError, nestlearn.errors, dir(nestlearn)
assert "torch" not in sys.modules
""")
    assert done.returncode == 0, done.stderr


def test_names_of_the_root_are_those_that_lazy_finds():
    assert set(nl.__all__) == {*lazy.FOLDERS, *lazy.HOMES, "__version__"}
    assert set(nl.__all__) <= set(dir(nl))
    with pytest.raises(AttributeError, match="module 'nestlearn' has no attribute 'nothing'"):
        _ = nl.nothing


@pytest.mark.parametrize("folder", ["descriptions", "memory", "tasks", "training"])
def test_names_that_are_found_late_are_those_that_the_folder_promises(folder):
    module = importlib.import_module(f"nestlearn.{folder}")
    assert set(module.__all__) <= set(dir(module))
    files = [getattr(module, name) for name in module.__all__ if isinstance(getattr(module, name), type(module))]
    assert files == []  # `memory.levels` is what memory/levels.py holds
    assert pickle.loads(pickle.dumps(module)) is module
    with pytest.raises(AttributeError, match=f"module 'nestlearn.{folder}' has no attribute 'nothing'"):
        _ = module.nothing


def test_a_file_that_is_loaded_does_not_take_the_name_of_what_it_holds():
    done = run_python("""
import nestlearn.memory.levels, nestlearn.memory
from nestlearn.memory import levels
assert callable(levels) and callable(nestlearn.memory.levels) and "torch" not in __import__("sys").modules
""")
    assert done.returncode == 0, done.stderr


def test_no_folder_has_the_name_of_something_else_in_the_root():
    """Importing it would put it in the other's place."""
    folders = {path.parent.name for path in Path(nl.__file__).parent.glob("*/__init__.py")}
    assert folders & set(lazy.HOMES) == set()
    assert set(lazy.FOLDERS) - {"errors"} <= folders


@pytest.mark.parametrize("package", ["numpy", "typer", "matplotlib"])
def test_the_block_blocks(package):
    done = run_python(BLOCK + f"import {package}")
    assert done.returncode == 1
    assert f"No module named '{package}'" in done.stderr


@pytest.mark.slow
def test_import_adds_little_to_torch(tmp_path):
    # A collection of all that torch has made may fall into anybody's import, and is nobody's cost.
    begin = "import gc, time, torch; gc.disable(); start = time.process_time()"
    program = f"{begin}; {EVERYTHING}; print(time.process_time() - start)"
    times: list[float] = []
    # The first run writes byte code, wherever that is switched off, and any run may be disturbed: the best of a few is
    # the import's own cost. The clock is the processor's, so that other processes do not count.
    cached = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    while len(times) < 5 and (not times or min(times) > 0.2):
        done = run_python(program, **cached)
        assert done.returncode == 0, done.stderr
        times.append(float(done.stdout))
    assert min(times) <= 0.2, f"expected at most 0.2 s on top of `import torch`, measured {times}"
