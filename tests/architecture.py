"""The rules that the source tree keeps, as functions from parsed modules to complaints.

An empty list means the rule holds. tests/test_architecture.py applies them to the package, and to small broken trees
to show that each rule can fail.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

__all__ = [
    "MAX_ANY",
    "MAY_IMPORT",
    "NEEDS_EXTRAS",
    "RULES",
    "Module",
    "check_any",
    "check_circles",
    "check_exports",
    "check_imports",
    "check_init_files",
    "check_optional_packages",
    "check_private_names",
    "check_size",
    "reachable",
    "read_package",
]

PACKAGE = "nestlearn"
MAX_LINES = 400
MAX_DEPTH = 2

# Folder -> the folders it may import from besides itself, the lowest first. What those may import is allowed too: see
# `reachable`. The rule is said here alone: `bash dev/docs` makes the table of docs/development.md from it.
MAY_IMPORT = {
    "memory": set(),
    "ops": {"memory"},
    "targets": {"ops"},
    "layers": {"ops"},
    "rules": {"targets"},
    "optim": {"rules"},
    "models": {"layers", "rules"},
    "tasks": {"models"},
    "descriptions": {"optim", "models"},
    "integrations": {"descriptions"},
    "contenders": {"optim"},
    "training": {"contenders", "tasks", "integrations"},
    "comparison": {"training"},
    "report": {"training"},
    "check": set(),
    "play": set(),
    "explore": set(),
    "cli": {"comparison", "report", "check", "play", "explore"},
}

# The folders that find their names late, "" being the root: see nestlearn/lazy.py. In all others to import is to have.
LATE = {"", "descriptions", "memory", "tasks", "training"}

# Of the annotations in these folders, together, at most this share may say Any.
MAX_ANY = 0.03
SAY_WHAT_THINGS_ARE = {"optim", "rules"}

# The folders whose modules may import optional packages when they are loaded.
NEEDS_EXTRAS = {"training", "comparison", "report", "explore", "cli"}


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name without the package ("optim.named", "" for the root), and its syntax tree."""

    name: str
    is_package: bool
    lines: int
    tree: ast.Module

    @property
    def folder(self) -> str:
        """The first folder, "" for files that lie directly in the package."""
        return self.name.split(".")[0] if "." in self.name or self.is_package else ""

    @property
    def where(self) -> str:
        return f"{self.name or 'the root'}{' (__init__.py)' if self.is_package else ''}"


@dataclass(frozen=True)
class Import:
    """One imported module by its absolute dotted name, and the names taken from it."""

    target: str
    names: tuple[str, ...]
    line: int


def read_package(root: Path) -> list[Module]:
    """Parse every Python file below `root`, the folder of the package."""
    modules = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        text = path.read_text(encoding="utf-8")
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, is_package, len(text.splitlines()), ast.parse(text, str(path))))
    return modules


def imports_in(module: Module, nodes: Iterable[ast.AST]) -> Iterator[Import]:
    """The imports among `nodes`, relative ones made absolute."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            target = node.module or ""
            if node.level:
                here = [PACKAGE, *filter(None, module.name.split("."))]
                keep = len(here) - node.level + (1 if module.is_package else 0)
                target = ".".join([*here[:keep], *filter(None, [target])])
            yield Import(target, tuple(alias.name for alias in node.names), node.lineno)


def own_targets(found: Import, folders: set[str], lone_files: set[str]) -> Iterator[str]:
    """The folders of the package that an import reaches; "" stands for the root's own names. The files beside the
    folders are open to all and left out.
    """
    package, *below = found.target.split(".")
    if package == PACKAGE:
        # `from nestlearn import memory` reaches the folder; `from nestlearn import Adam`, `import nestlearn` the root.
        names = below[:1] or found.names or ("",)
        yield from (name if name in folders else "" for name in names if name not in lone_files)


@cache
def reachable(folder: str) -> frozenset[str]:
    """The folder itself and all that it may import, directly or through others."""
    return frozenset({folder}).union(*(reachable(below) for below in MAY_IMPORT[folder]))


def check_imports(modules: list[Module]) -> list[str]:
    """Folders import downwards only, also inside functions; nobody below the root imports the root itself."""
    folders = {module.folder for module in modules} - {""} | MAY_IMPORT.keys()
    lone_files = {module.name for module in modules if module.folder == "" and module.name}
    complaints = []
    for module in modules:
        if module.folder and module.folder not in MAY_IMPORT:
            complaints.append(f"{module.where}: folder {module.folder!r} has no place in the import rule, give it one")
            continue
        allowed = allowed_folders(module)
        for found in imports_in(module, ast.walk(module.tree)):
            for target in own_targets(found, folders, lone_files):
                if target not in allowed:
                    what = f"nestlearn.{target}" if target else "the root package, name the folder instead"
                    complaints.append(f"{module.where}, line {found.line}: must not import {what}")
    return complaints


def allowed_folders(module: Module) -> set[str]:
    """Which folders a module may import. The root's exports are light; its other files depend on nothing of ours, but
    that which Python runs.
    """
    if module.folder:
        return reachable(module.folder)
    if module.name == "__main__":
        return {"cli"}
    return MAY_IMPORT.keys() - NEEDS_EXTRAS if module.is_package else set()


def known_modules(module: Module, names: set[str]) -> Iterator[str]:
    """The modules of the package that a module knows: all it imports, also inside functions and for types alone.

    `from nestlearn.memory import models, Box` knows `memory.models`, and for `Box` the folder's `__init__.py`.
    """
    for found in imports_in(module, ast.walk(module.tree)):
        package, _, target = found.target.partition(".")
        if package == PACKAGE and target in names:
            taken = {f"{target}.{name}".lstrip(".") for name in found.names}
            yield from taken & names
            if not taken <= names or not taken:
                yield target


def check_circles(modules: list[Module]) -> list[str]:
    """No module knows, directly or through others, one that knows it; the first such circle is named."""
    names = {module.name for module in modules}
    knows = {module.name: set(known_modules(module, names)) - {module.name} for module in modules}
    try:
        TopologicalSorter(knows).prepare()
    except CycleError as error:
        return ["a circle: " + " <- ".join(name or "the root" for name in error.args[1])]
    return []


def check_optional_packages(modules: list[Module]) -> list[str]:
    """At load time only the standard library, torch and nestlearn itself, except in the folders that need extras."""
    known = sys.stdlib_module_names | {"torch", PACKAGE}
    complaints = []
    for module in modules:
        if module.folder in NEEDS_EXTRAS:
            continue
        for found in imports_in(module, load_time_nodes(module.tree)):
            if found.target.split(".")[0] not in known:
                complaints.append(f"{module.where}, line {found.line}: imports {found.target} when it is loaded")
    return complaints


def for_type_checkers(node: ast.AST) -> bool:
    """Whether a node is an `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def load_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run when the module is loaded: not the bodies of functions, nor what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if for_type_checkers(node):
            continue
        yield node
        yield from load_time_nodes(node)


def check_private_names(modules: list[Module]) -> list[str]:
    """A name or a module with a leading underscore is used nowhere but in its own file."""
    complaints = []
    for module in modules:
        for found in imports_in(module, ast.walk(module.tree)):
            if found.target.split(".")[0] != PACKAGE:
                continue
            for name in (*found.target.split("."), *found.names):
                if name.startswith("_") and not name.endswith("__"):
                    complaints.append(f"{module.where}, line {found.line}: {name} is private to another file")
    return complaints


def assigns_all(node: ast.stmt) -> bool:
    """Whether a statement is `__all__ = ...`, with or without a type (an empty list needs one)."""
    if isinstance(node, ast.AnnAssign):
        return node.value is not None and ast.unparse(node.target) == "__all__"
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]


def exported_names(tree: ast.Module) -> list[str] | None:
    """The literal list assigned to `__all__`; None without one."""
    for node in tree.body:
        if assigns_all(node):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                return None
            return list(value)
    return None


def defined_names(tree: ast.Module) -> set[str]:
    """The names a module binds when it is loaded."""
    names = set()
    for node in load_time_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return names | {node.name for node in tree.body if isinstance(node, definitions)}


def check_exports(modules: list[Module]) -> list[str]:
    """Every public module has a literal `__all__` of names that exist, each once."""
    inside = {module.name for module in modules}
    complaints = []
    for module in modules:
        last = module.name.split(".")[-1]
        if last.startswith("_"):
            continue
        exported = exported_names(module.tree)
        if exported is None:
            complaints.append(f"{module.where}: has no literal __all__")
            continue
        defined = defined_names(module.tree)
        if module.is_package:
            defined |= {name for name in exported if f"{module.name}.{name}".lstrip(".") in inside}
        if module.is_package and module.name in LATE:
            late = [node for node in module.tree.body if for_type_checkers(node)]
            defined |= {name for node in late for found in imports_in(module, ast.walk(node)) for name in found.names}
        missing = set(exported) - defined
        complaints += [f"{module.where}: __all__ names {name!r}, which does not exist" for name in sorted(missing)]
        if len(set(exported)) < len(exported):
            complaints.append(f"{module.where}: __all__ repeats a name")
    return complaints


def check_init_files(modules: list[Module]) -> list[str]:
    """Every folder of code has an `__init__.py`, which has a docstring, imports and `__all__`, and no code; those
    that find their names late may import for type checkers alone, and say in which file each name is.
    """
    packages = {module.name for module in modules if module.is_package}
    folders = {module.name.rpartition(".")[0] for module in modules if not module.is_package}
    complaints = [f"{folder or 'the root'}: has no __init__.py" for folder in sorted(folders - packages)]
    for module in modules:
        if not module.is_package:
            continue
        if not ast.get_docstring(module.tree):
            complaints.append(f"{module.where}: has no docstring")
        for node in module.tree.body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            late = module.name in LATE and (for_type_checkers(node) or ast.unparse(node).startswith("late(__name__, "))
            if not (is_text or late or assigns_all(node) or isinstance(node, ast.Import | ast.ImportFrom)):
                complaints.append(f"{module.where}, line {node.lineno}: holds code")
        if module.name in LATE - {""} and found_late(module) != told_type_checkers(module):
            complaints.append(f"{module.where}: late finds other names, or elsewhere, than type checkers are told")
    return complaints


def found_late(module: Module) -> set[tuple[str, str]]:
    """The names that `late` finds, each with its file."""
    lines = [node.value for node in module.tree.body if isinstance(node, ast.Expr)]
    files = [file for line in lines if isinstance(line, ast.Call) for file in line.keywords]
    return {(name, str(file.arg)) for file in files for name in ast.literal_eval(file.value).split()}


def told_type_checkers(module: Module) -> set[tuple[str, str]]:
    """The names that type checkers are told of, each with its file."""
    nodes = [inner for node in module.tree.body if for_type_checkers(node) for inner in ast.walk(node)]
    start = f"{PACKAGE}.{module.name}."
    return {(name, found.target.removeprefix(start)) for found in imports_in(module, nodes) for name in found.names}


def check_size(modules: list[Module]) -> list[str]:
    """Files stay readable in one go, and nothing hides in deep folders."""
    complaints = [
        f"{module.where}: {module.lines} lines, at most {MAX_LINES}" for module in modules if module.lines > MAX_LINES
    ]
    for module in modules:
        depth = len(module.name.split(".")) - (0 if module.is_package else 1)
        if depth > MAX_DEPTH:
            complaints.append(f"{module.where}: {depth} folders deep, at most {MAX_DEPTH}")
    return complaints


def annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """What arguments, returned values and attributes are said to be; and every alias that says Any, where it is made:
    whoever uses the alias then says what a thing is.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns
    yield from (node.value for node in tree.body if isinstance(node, ast.Assign) and says_any(node.value))


def says_any(annotation: ast.expr) -> bool:
    """Whether Any is in an annotation, or in one that is written as a string."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.search(r"\bAny\b", node.value):
                return True
        elif getattr(node, "id", None) == "Any" or getattr(node, "attr", None) == "Any":
            return True
    return False


def check_any(modules: list[Module]) -> list[str]:
    """Few annotations say Any where users meet them: what a thing may be is said, once, by a type with a name."""
    found = [
        (module, annotation)
        for module in modules
        if module.folder in SAY_WHAT_THINGS_ARE
        for annotation in annotations(module.tree)
    ]
    vague = [(module, annotation) for module, annotation in found if says_any(annotation)]
    if len(vague) <= MAX_ANY * len(found):
        return []
    places = ", ".join(f"{module.where} line {annotation.lineno}" for module, annotation in vague)
    return [f"{len(vague)} of {len(found)} annotations say Any, at most {MAX_ANY:.0%}: {places}"]


RULES = (
    check_imports,
    check_circles,
    check_optional_packages,
    check_private_names,
    check_exports,
    check_init_files,
    check_size,
    check_any,
)
