"""The source tree keeps the rules of tests/architecture.py, and each rule notices a tree that breaks it."""

from functools import cache, partial
from pathlib import Path

import pytest
from architecture import (
    RULES,
    check_any,
    check_circles,
    check_exports,
    check_imports,
    check_init_files,
    check_optional_packages,
    check_private_names,
    check_size,
    read_package,
)

import nestlearn

ROOT = Path(nestlearn.__file__).parent

# A small tree in which everything is as it should be; the tests below each break one thing in it.
SOUND = {
    "__init__.py": '"""Root."""\nfrom nestlearn.optim import Adam\n__all__ = ["Adam"]\n',
    "version.py": '__all__ = ["__version__"]\n__version__ = "1"\n',
    "memory/__init__.py": '"""Memory."""\nfrom nestlearn.memory.models import Box\n__all__ = ["Box", "models"]\n',
    "memory/models.py": 'import torch\nfrom nestlearn import version\n__all__ = ["Box"]\nclass Box(version.A): ...\n',
    "ops/__init__.py": '"""Ops."""\n__all__ = []\n',
    "ops/matrix.py": 'from nestlearn.memory import Box\n__all__ = ["root"]\ndef root():\n    return Box\n',
    "optim/__init__.py": '"""Optim."""\nfrom .named import Adam\n__all__ = ["Adam"]\n',
    "optim/named.py": 'from ..memory.models import Box\n__all__ = ["Adam"]\nclass Adam(Box):\n    """Adam."""\n',
    "layers/__init__.py": '"""Layers."""\n__all__ = []\n',
    "layers/memory.py": 'from nestlearn.ops.matrix import root\n__all__ = ["a"]\na = b = root\n',
    "training/__init__.py": '"""Training."""\n__all__ = []\n',
    "training/loop.py": 'import numpy\nfrom nestlearn.optim import Adam\n__all__ = ["run"]\nrun = (numpy, Adam)\n',
    "cli/__init__.py": '"""Command line."""\n__all__: list[str] = []\n',
    "cli/main.py": "import typer\nfrom nestlearn import report\nfrom nestlearn.version import __version__\n__all__=[]",
}

FORBIDDEN_IMPORTS = [
    ("memory/models.py", "from nestlearn.ops.matrix import root"),
    ("memory/models.py", "from nestlearn.ops import matrix"),
    ("memory/models.py", "import nestlearn.optim.named"),
    ("memory/models.py", "from nestlearn import optim"),
    ("memory/models.py", "from .. import optim"),
    ("memory/__init__.py", "from ..optim import Adam"),
    ("memory/models.py", "def late():\n    from nestlearn.ops.matrix import root"),
    ("memory/models.py", "if False:\n    from nestlearn.ops.matrix import root"),
    ("ops/matrix.py", "from nestlearn.targets import second_moment"),
    ("layers/memory.py", "from nestlearn.optim.named import Adam"),
    ("layers/memory.py", "from nestlearn.targets import second_moment"),
    ("optim/named.py", "from nestlearn.layers.memory import a"),
    ("optim/named.py", "from nestlearn.models import hope"),
    ("optim/named.py", "from nestlearn import Adam"),
    ("optim/named.py", "import nestlearn"),
    ("training/loop.py", "from nestlearn.comparison import compare"),
    ("descriptions/describe.py", "from nestlearn.training import loop"),
    ("contenders/own.py", "from nestlearn.tasks import Task"),
    ("training/loop.py", "from nestlearn.report import pictures"),
    ("__init__.py", "from nestlearn.training import loop"),
    ("version.py", "from nestlearn.memory import Box"),
    ("elsewhere/new.py", "import torch"),
]


def build(folder: Path, changed: dict[str, str]) -> list:
    for name, text in {**SOUND, **changed}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read_package(folder)


own_modules = cache(partial(read_package, ROOT))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps(rule):
    modules = own_modules()
    assert any(module.name == "version" for module in modules), f"nothing was read from {ROOT}"
    assert rule(modules) == []


def test_the_tests_have_a_folder_for_every_folder_of_the_package():
    """And for other folders of the checkout; two more hold what is nobody's own. docs/development.md says so."""
    tests = {path.name for path in Path(__file__).parent.iterdir() if list(path.glob("test_*.py"))}
    package = {module.folder for module in own_modules()} - {""}
    assert tests == {*package, "benchmarks", "docs", "experiments", "contract", "hosts"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sound_tree_passes(rule, tmp_path):
    assert rule(build(tmp_path, {})) == []


@pytest.mark.parametrize(("file", "line"), FORBIDDEN_IMPORTS)
def test_forbidden_import_is_noticed(file, line, tmp_path):
    complaints = check_imports(build(tmp_path, {file: SOUND.get(file, "") + line + "\n"}))
    assert len(complaints) == 1
    assert file.removesuffix(".py").removesuffix("__init__").strip("/").replace("/", ".") in complaints[0]


BACK = "from nestlearn.memory.objectives import L2\n"


@pytest.mark.parametrize(
    "line",
    [
        BACK,
        f"def late():\n    {BACK}",
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {BACK}",
        "import nestlearn.memory.objectives\n",
        "from ..memory import objectives\n",
        "from nestlearn.memory import Box\n",  # the __init__.py takes it from here
        "from nestlearn.memory.between import L2\n",  # through a third
    ],
)
def test_a_circle_of_knowledge_is_noticed(line, tmp_path):
    others = {
        "memory/objectives.py": 'from nestlearn.memory.models import Box\n__all__ = ["L2"]\nL2 = Box\n',
        "memory/between.py": f'{BACK}__all__ = ["L2"]\n',
    }
    assert check_circles(build(tmp_path / "sound", others)) == []
    (complaint,) = check_circles(
        build(tmp_path / "broken", {**others, "memory/models.py": SOUND["memory/models.py"] + line})
    )
    assert complaint.startswith("a circle: ") and "memory.models" in complaint


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("import numpy", 1),
        ("from scipy.linalg import sqrtm", 1),
        ("try:\n    import numpy\nexcept ImportError:\n    numpy = None", 1),
        ("class A:\n    import numpy", 1),
        ("def late():\n    import numpy", 0),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy", 0),
        ("import math, torch.nn.functional", 0),
    ],
)
def test_optional_package_is_noticed(line, count, tmp_path):
    text = SOUND["ops/matrix.py"] + line + "\n"
    assert len(check_optional_packages(build(tmp_path, {"ops/matrix.py": text}))) == count


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("from nestlearn.memory.models import _helper", 1),
        ("from nestlearn.memory._hidden import helper", 1),
        ("from ..memory.models import _helper", 1),
        ("from nestlearn.version import __version__", 0),
        ("from torch._dynamo import allow_in_graph", 0),
    ],
)
def test_private_name_is_noticed(line, count, tmp_path):
    text = SOUND["optim/named.py"] + line + "\n"
    assert len(check_private_names(build(tmp_path, {"optim/named.py": text}))) == count


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("ops/matrix.py", "def root(): ...", "no literal __all__"),
        ("ops/matrix.py", "import math\n__all__ = sorted(vars(math))", "no literal __all__"),
        ("ops/matrix.py", '__all__ = ["root"]', "'root', which does not exist"),
        ("ops/matrix.py", '__all__ = ["inner"]\ndef root():\n    inner = 1', "'inner', which does not exist"),
        ("ops/matrix.py", '__all__ = ["root", "root"]\nroot = 1', "repeats a name"),
        ("memory/__init__.py", '"""Memory."""\n__all__ = ["nowhere"]', "'nowhere', which does not exist"),
    ],
)
def test_wrong_exports_are_noticed(file, text, complaint, tmp_path):
    complaints = check_exports(build(tmp_path, {file: text}))
    assert len(complaints) == 1
    assert complaint in complaints[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("from .named import Adam\n__all__ = ['Adam']", "no docstring"),
        ('"""Optim."""\ndef helper(): ...\n__all__ = []', "line 2: holds code"),
        ('"""Optim."""\n__all__ = []\nDEFAULT = 1', "line 3: holds code"),
        ('"""Optim."""\n__all__ = []\n__all__.append("Adam")', "line 3: holds code"),
        ('"""Optim."""\ntry:\n    import x\nexcept ImportError:\n    x = None\n__all__ = []', "line 2: holds code"),
    ],
)
def test_code_in_init_is_noticed(text, complaint, tmp_path):
    complaints = check_init_files(build(tmp_path, {"optim/__init__.py": text}))
    assert len(complaints) == 1
    assert complaint in complaints[0]


LATE = """\
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nestlearn.optim.named import Adam
__all__ = ["Adam"]
"""


def test_few_folders_may_find_their_names_late(tmp_path):
    modules = build(tmp_path / "root", {"__init__.py": f'"""Root."""\n{LATE}'})
    assert check_exports(modules) == check_init_files(modules) == []
    said = LATE.replace("optim.named", "training.named") + 'late(__name__, named="Adam")\n'
    modules = build(tmp_path / "training", {"training/__init__.py": f'"""Training."""\n{said}'})
    assert check_exports(modules) == check_init_files(modules) == []
    for wrong in ('named=""', 'named="Adam Muon"', 'other="Adam"'):
        text = LATE.replace("optim.named", "memory.named") + f"late(__name__, {wrong})\n"
        modules = build(tmp_path / f"wrong{len(wrong)}", {"memory/__init__.py": f'"""Memory."""\n{text}'})
        assert check_init_files(modules) == [
            "memory (__init__.py): late finds other names, or elsewhere, than type checkers are told"
        ]
    modules = build(tmp_path / "folder", {"optim/__init__.py": f'"""Optim."""\n{LATE}'})
    assert check_exports(modules) == ["optim (__init__.py): __all__ names 'Adam', which does not exist"]
    assert check_init_files(modules) == ["optim (__init__.py), line 3: holds code"]


def test_folder_without_init_is_noticed(tmp_path):
    text = SOUND["memory/models.py"]
    assert check_init_files(build(tmp_path, {"memory/more/models.py": text})) == ["memory.more: has no __init__.py"]


def test_long_file_is_noticed(tmp_path):
    assert check_size(build(tmp_path, {"ops/matrix.py": "x = 1\n" * 400})) == []
    assert check_size(build(tmp_path, {"ops/matrix.py": "x = 1\n" * 401})) == ["ops.matrix: 401 lines, at most 400"]


@pytest.mark.parametrize("name", ["named.py", "__init__.py"])
def test_deep_folder_is_noticed(name, tmp_path):
    assert check_size(build(tmp_path, {f"optim/rules/{name}": ""})) == []
    complaints = check_size(build(tmp_path, {f"optim/rules/more/{name}": ""}))
    assert len(complaints) == 1
    assert "3 folders deep, at most 2" in complaints[0]


VAGUE = [
    "def late(value: Any): ...",
    "def late(*values: Any, **more: int): ...",
    "async def late() -> dict[str, Any]: ...",
    "value: list[typing.Any] = []",
    "class Late:\n    value: 'Callable[..., Any]'",
    "def late():\n    found: Any = 1",
    "Group = dict[str, Any]",
]
PLAIN = "def plain(" + ", ".join(f"x{number}: int" for number in range(40)) + "): ...\n"


@pytest.mark.parametrize("line", VAGUE)
@pytest.mark.parametrize("file", ["optim/named.py", "rules/link.py"])
def test_too_many_anys_are_noticed(file, line, tmp_path):
    text = SOUND["optim/named.py"] + PLAIN
    assert check_any(build(tmp_path, {file: text + line + "\n"})) == []
    (complaint,) = check_any(build(tmp_path, {file: text + line + "\nOther = list[Any]\n"}))
    assert complaint.startswith("2 of 4") and "at most 3%: " + file.removesuffix(".py").replace("/", ".") in complaint


def test_any_is_counted_in_the_folders_of_rules_and_optimizers_alone(tmp_path):
    assert check_any(build(tmp_path, {"ops/matrix.py": SOUND["ops/matrix.py"] + "value: Any = 1\n"})) == []
