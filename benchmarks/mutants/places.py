"""Where a fault can be made: every mutant of a file, and a sample that edits elsewhere leave alone."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import parso
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator

__all__ = ["FOLDERS", "Mutant", "Source", "sample"]

FOLDERS = ("optim", "rules", "memory", "ops", "layers")
PACKAGE = Path("src/nestlearn")

# Of the dozen replacements that cosmic-ray knows for an operator, the one that is hardest to notice.
SWAPS = (
    *(
        f"BinaryOperator_{swap}"
        for swap in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv")
    ),
    *(f"BinaryOperator_{swap}" for swap in ("Pow_Mul", "BitAnd_BitOr", "BitOr_BitAnd")),
    *(f"ComparisonOperator_{swap}" for swap in ("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")),
    *(f"ComparisonOperator_{swap}" for swap in ("Is_IsNot", "IsNot_Is")),
    *(f"UnaryOperator_{swap}" for swap in ("Delete_USub", "Delete_Invert", "Delete_Not")),
)
KINDS = (
    *(f"core/Replace{swap}" for swap in SWAPS),
    *(f"core/Replace{swap}" for swap in ("TrueWithFalse", "FalseWithTrue", "AndWithOr", "OrWithAnd")),
    *(f"core/{kind}" for kind in ("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "AddNot")),
    *(f"core/{kind}" for kind in ("NumberReplacer", "ZeroIterationForLoop", "ExceptionReplacer")),
)


class DeleteStatement(Operator):
    """Replaces by `pass` what is done for its effect alone: a call, a write into an object, a raise."""

    def mutation_positions(self, node):
        """The statement of a line, unless it makes a plain name, which a NameError would give away."""
        if node.type != "simple_stmt":
            return
        statement = node.children[0]
        target = statement.children[0] if statement.type == "expr_stmt" else None
        into_object = target is not None and target.type in ("atom_expr", "power")
        in_place = (
            target is not None and statement.children[1].type == "operator" and statement.children[1].value != "="
        )
        called = statement.type in ("atom_expr", "power") and statement.get_last_leaf().value == ")"
        if into_object or in_place or called or statement.type == "raise_stmt":
            yield (statement.start_pos, statement.end_pos)

    def mutate(self, node, index):
        """Keep the indentation, which parso holds as the prefix of the first leaf."""
        nothing = parso.parse("pass").children[0]
        nothing.prefix = node.get_first_leaf().prefix
        node.children[0] = nothing
        return node

    @classmethod
    def examples(cls):
        """What cosmic-ray's own operators give too; the tests run these."""
        return (
            Example("def f():\n    g(1)\n", "def f():\n    pass\n"),
            Example("x.y = 1\n", "pass\n"),
            Example("x += 1\n", "pass\n"),
            Example("raise ValueError\n", "pass\n"),
        )


OPERATORS: dict[str, Operator] = {kind.removeprefix("core/"): get_operator(kind)() for kind in KINDS}
OPERATORS["DeleteStatement"] = DeleteStatement()


@dataclass(frozen=True)
class Mutant:
    """One fault: the `occurrence`-th place of `file` where the operator `kind` applies.

    `before` and `after` are the first line that it changes. `identity` has no line number: it stays while code
    elsewhere in the file moves.
    """

    file: str
    function: str
    kind: str
    line: int
    before: str
    after: str
    occurrence: int

    @property
    def identity(self) -> str:
        return f"{self.file}:{self.function}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Place:
    """Where a mutant may be made; `rank` decides about the sample."""

    rank: str
    source: Source
    kind: str
    line: int
    occurrence: int


@dataclass(frozen=True)
class Source:
    """One file of the package, `name` relative to the checkout."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def functions(self) -> list[tuple[str, ast.FunctionDef]]:
        """Every function with its dotted name, outer ones first."""
        return list(_functions(self.tree, ()))

    def function_at(self, line: int) -> tuple[str, ast.FunctionDef | None]:
        """The innermost function around a line, decorators included."""
        found: tuple[str, ast.FunctionDef | None] = ("the module", None)
        for name, node in self.functions:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= line <= (node.end_lineno or first):
                found = (name, node)
        return found

    def mutated(self, mutant: Mutant) -> str:
        """The text with the fault in it."""
        text = mutate_code(self.text, OPERATORS[mutant.kind], mutant.occurrence)
        if text is None:
            raise ValueError(f"{mutant.identity}: {mutant.kind} has no occurrence {mutant.occurrence} in {self.name}")
        return text

    def places(self) -> Iterator[Place]:
        """Every place where an operator applies, in the order of `OPERATORS`."""
        nodes = list(ast_nodes(parso.parse(self.text)))
        lines = self.text.splitlines()
        seen: dict[tuple[str, ...], int] = {}
        for kind, operator in OPERATORS.items():
            positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
            for occurrence, (line, column) in enumerate(positions):
                code = lines[line - 1]
                indentation = len(code) - len(code.lstrip())
                key = (self.function_at(line)[0], kind, code.strip(), str(column - indentation))
                number = seen[key] = seen.get(key, -1) + 1
                rank = hashlib.sha256("\0".join((self.name, *key, str(number))).encode()).hexdigest()
                yield Place(rank, self, kind, line, occurrence)

    def mutant(self, kind: str, line: int, occurrence: int) -> Mutant | None:
        """One mutant, or None where it is no other code: in an annotation, a docstring, what does not compile."""
        text = mutate_code(self.text, OPERATORS[kind], occurrence)
        if text is None or _meaning(text) in (self._meaning, None):
            return None
        before, after = _changed(self.text, text)
        return Mutant(self.name, self.function_at(line)[0], kind, line, before, after, occurrence)

    @cached_property
    def _meaning(self) -> str | None:
        return _meaning(self.text)


def sample(root: Path, count: int, folders: Iterable[str] = FOLDERS) -> list[Mutant]:
    """`count` mutants, as many of each folder, at most one of each line of a file.

    Which ones is decided by a hash of what they change: the choice is the same on every machine, and a change of one
    function leaves the mutants of the others in the sample.
    """
    folders = tuple(folders)
    chosen: list[Mutant] = []
    for index, folder in enumerate(folders):
        wanted = count * (index + 1) // len(folders) - count * index // len(folders)
        paths = sorted((root / PACKAGE / folder).glob("*.py"))
        sources = [Source(str(path.relative_to(root)), path.read_text(encoding="utf-8")) for path in paths]
        taken: dict[tuple[str, int], Mutant] = {}
        names: set[str] = set()
        for place in sorted((place for source in sources for place in source.places()), key=lambda place: place.rank):
            if len(taken) == wanted:
                break
            spot = (place.source.name, place.line)
            mutant = None if spot in taken else place.source.mutant(place.kind, place.line, place.occurrence)
            if mutant and mutant.identity not in names:
                taken[spot] = mutant
                names.add(mutant.identity)
        chosen += taken.values()
    return chosen


def _functions(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        inner = (*names, child.name) if isinstance(child, ast.FunctionDef | ast.ClassDef) else names
        if isinstance(child, ast.FunctionDef):
            yield ".".join(inner), child
        yield from _functions(child, inner)


class _Bare(ast.NodeTransformer):
    """Takes away what never runs or only says."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        """How arguments may be passed is no arithmetic, though cosmic-ray takes the * between them for a product."""
        node.args = node.posonlyargs + node.args + node.kwonlyargs
        node.defaults = node.defaults + [default or ast.Constant(None) for default in node.kw_defaults]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def _meaning(text: str) -> str | None:
    """The code without annotations and docstrings, None for what does not compile."""
    try:
        return ast.dump(_Bare().visit(ast.parse(text)))
    except SyntaxError:
        return None


def _changed(before: str, after: str) -> tuple[str, str]:
    """The first line that differs, in both texts."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    old, new = next((old, new) for old, new in pairs if old != new)
    return old.strip(), new.strip()
