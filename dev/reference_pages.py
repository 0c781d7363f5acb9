"""The pages of reference/ on the site: every public name with its signature and docstring, a page a folder.

A docstring is Google's style with indented formulas and ``>>>`` examples. Read as Markdown it needs three things: its
sections become lists, its examples become blocks, and in its prose nothing but ``code`` and *stress* is markup.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["FOLDERS", "anchors", "markdown", "reference_page", "reference_pages"]

# In the order in which the import rule lets them see each other, the library before what the command line is made of.
FOLDERS = (
    "memory",
    "ops",
    "targets",
    "rules",
    "optim",
    "layers",
    "models",
    "descriptions",
    "errors",
    "tasks",
    "contenders",
    "training",
    "comparison",
    "report",
    "check",
    "play",
    "integrations.huggingface",
    "integrations.timm",
    "integrations.logging",
    "integrations.evaluation",
    "explore.notebook",
)

LISTS = ("Args", "Attributes", "Raises")
SECTION = re.compile(r"^(Args|Attributes|Example|Raises|Returns):$")
ENTRY = re.compile(r"^(\*{0,2}\w[^:`]*?): (.*)$")
CODE = re.compile(r"(``.+?``|`[^`\n]+`)", re.DOTALL)
WIDTH = 100


def reference_pages() -> dict[str, str]:
    """Path below the site -> Markdown: an index, the root package, and each folder."""
    modules = {name: importlib.import_module(f"nestlearn.{name}") for name in FOLDERS}
    lines = [f"| [`nestlearn.{name}`]({name}.md) | {_first(module)} |" for name, module in modules.items()]
    root = importlib.import_module("nestlearn")
    index = ["# The library, name by name", "", _first(root), ""]
    index += ["What each folder offers, from its docstrings. `nl` is `nestlearn`.", "", "| folder | |", "| --- | --- |"]
    index += ["| [`nestlearn`](nestlearn.md) | what is found without naming a folder |", *lines, ""]
    pages = {"reference/index.md": "\n".join(index), "reference/nestlearn.md": reference_page(root)}
    return pages | {f"reference/{name}.md": reference_page(module) for name, module in modules.items()}


def anchors() -> dict[str, str]:
    """Dotted name -> its place below the site, for every name that has one: folders, classes, methods, functions."""
    found = {}
    for module in [importlib.import_module("nestlearn"), *map(_folder, FOLDERS)]:
        page = "reference/" + (module.__name__.removeprefix("nestlearn.") or "nestlearn") + ".md"
        found[module.__name__] = page
        taken: set[str] = set()
        for name, value in _described(module):
            for dotted in [name, *(f"{name}.{method}" for method, _ in _methods(value))]:
                # As GitHub and the site make them from a heading: a second one of a name gets a number.
                slug = dotted.lower().replace(".", "")
                found[f"{module.__name__}.{dotted}"] = f"{page}#{slug}-1" if slug in taken else f"{page}#{slug}"
                taken.add(slug)
    return found


def reference_page(module: ModuleType) -> str:
    """One page: what the module is for, then its public names in the order of its ``__all__``."""
    lines = [f"# {module.__name__}", "", markdown(inspect.getdoc(module) or "")]
    values = [(name, value) for name, value in _public(module) if not _has_docstring(value)]
    for name, value in values:
        lines.append(f"- `{name}`: {_value(value)}")
    for name, value in _described(module):
        lines += ["", f"## {_escaped(name)}", "", *_entry(name, value)]
        for method, function in _methods(value):
            lines += ["", f"### {_escaped(name)}.{_escaped(method)}", "", *_entry(method, function)]
    return "\n".join(lines) + "\n"


def markdown(docstring: str) -> str:
    """A docstring, as ``inspect.getdoc`` gives it, in Markdown.

    Example:
        >>> print(markdown("Adds.\\n\\nArgs:\\n    a_b: one,\\n        or two."))
        Adds.
        <BLANKLINE>
        - **a\\_b**: one, or two.
    """
    lines, section = [], ""
    for block in _blocks(docstring.splitlines()):
        if found := SECTION.match(block[0]):
            section = found[1]
            lines += _section(section, _dedented(block[1:]))
        else:
            lines += _prose(block)
        lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


# ------------------------------------------------------------------------------------------------------------- parts


def _section(name: str, body: list[str]) -> list[str]:
    if name == "Example":
        return [line for block in _blocks(body) for line in [*_prose(block), ""]]
    if name not in LISTS:
        return [f"**{name}**", "", *_prose(body)]
    lines = [] if name == "Args" else [f"**{name}**", ""]
    for entry in _entries(body):
        found = ENTRY.match(entry[0])
        if found is None:  # a remark below the list
            lines += ["", *_prose(entry)]
            continue
        text = " ".join(line.strip() for line in [found[2], *entry[1:]])
        term = found[1] if name == "Raises" else _escaped(found[1])
        lines.append(f"- {f'`{term}`' if name == 'Raises' else f'**{term}**'}: {_escaped(text)}")
    return lines


def _prose(block: list[str]) -> list[str]:
    """Paragraphs and formulas; what starts with a prompt is a session, up to the next empty line."""
    if block and block[0].startswith(">>>"):
        return ["```pycon", *block, "```"]
    lines: list[str] = []
    for indented, part in _runs(block):
        lines += ["", *part, ""] if indented else _escaped("\n".join(part)).splitlines()
    return lines


def _runs(block: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """Lines that are indented by four or more and lines that are not, in turns; items of a list keep what is theirs."""
    current, part = False, []
    listed = any(re.match(r"(- |\d+\. )", line) for line in block)
    for line in block:
        indented = line.startswith("    ") and not listed
        if indented != current and part:
            yield current, part
            part = []
        current = indented
        part.append(line)
    if part:
        yield current, part


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """What empty lines separate; a section takes all the indented lines that follow."""
    block: list[str] = []
    for line in lines:
        inside = bool(block) and SECTION.match(block[0])
        if inside and (not line.strip() or line.startswith(" ")):
            block.append(line)
        elif inside or not line.strip() or (SECTION.match(line) and block):
            if block:
                yield block
            block = [line] if line.strip() else []
        else:
            block.append(line)
    if block:
        yield block


def _entries(body: list[str]) -> Iterator[list[str]]:
    entry: list[str] = []
    for line in filter(str.strip, body):
        if entry and not line.startswith(" "):
            yield entry
            entry = []
        entry.append(line)
    if entry:
        yield entry


def _dedented(lines: list[str]) -> list[str]:
    return inspect.cleandoc("\n".join(["", *lines])).splitlines()


def _escaped(text: str) -> str:
    """Prose in which nothing but code, stressed words and the hyphens of lists means anything to Markdown."""
    parts = CODE.split(text)
    for place in range(0, len(parts), 2):
        part = re.sub(r"([\\_<\[\]`~|#])", r"\\\1", parts[place])
        parts[place] = re.sub(r"(?<!\w)\*(?!\w+\*)|(?<!\*\w)(?<=\w)\*(?=\w)", r"\\*", part)
    return "".join(parts)


# ------------------------------------------------------------------------------------------------------------- names


def _entry(name: str, value: object) -> list[str]:
    shown = [] if isinstance(value, ModuleType) else ["```python", _signature(name, value), "```", ""]
    return [*shown, markdown(inspect.getdoc(value) or "").rstrip()]


def _signature(name: str, value: Any) -> str:
    """As it is written in the source; a class without a constructor of its own is its name."""
    if dataclasses.is_dataclass(value):
        words, back = _field_words(value), ""
    else:
        constructor = value.__init__ if inspect.isclass(value) else value
        try:
            words, back = _source_words(constructor)
        except (TypeError, OSError):  # one of Python's own
            return name
    arrow = f" -> {back}" if back and not inspect.isclass(value) else ""
    short = f"{name}({', '.join(words)}){arrow}"
    return short if len(short) <= WIDTH else "\n".join([f"{name}(", *(f"    {word}," for word in words), f"){arrow}"])


def _source_words(function: Any) -> tuple[list[str], str]:
    """Each argument, and the answer, of a function."""
    if not (getattr(function, "__module__", None) or "").startswith("nestlearn"):
        raise TypeError(f"expected a function of nestlearn, got {function!r}")
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    assert isinstance(node, ast.FunctionDef)
    given, words = node.args, []
    placed = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(placed) - len(given.defaults)) + given.defaults
    for argument, default in zip(placed, defaults, strict=True):
        words.append(_argument(argument, default))
    if given.posonlyargs:
        words.insert(len(given.posonlyargs), "/")
    if given.vararg or given.kwonlyargs:
        words.append(f"*{_argument(given.vararg, None)}" if given.vararg else "*")
    words += [_argument(*each) for each in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    words += [f"**{_argument(given.kwarg, None)}"] if given.kwarg else []
    words = words[1:] if words and words[0] in ("self", "cls") else words
    return words, ast.unparse(node.returns) if node.returns else ""


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    said = ast.unparse(argument)
    if default is None:
        return said
    return f"{said} = {ast.unparse(default)}" if argument.annotation else f"{said}={ast.unparse(default)}"


def _field_words(kind: Any) -> list[str]:
    """Each field of a dataclass that its constructor takes, with a default that is a plain value."""
    words, keyword = [], False
    for field in filter(lambda each: each.init, dataclasses.fields(kind)):
        if field.kw_only and not keyword:
            words.append("*")
        keyword = field.kw_only
        said = f"{field.name}: {field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)}"
        said = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", said)
        if field.default is not dataclasses.MISSING:
            said += f" = {field.default!r}" if " at 0x" not in repr(field.default) else " = ..."
        elif field.default_factory is not dataclasses.MISSING:
            said += " = ..."
        words.append(said)
    return words


def _described(module: ModuleType) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in _public(module) if _has_docstring(value)]


def _public(module: ModuleType) -> list[tuple[str, Any]]:
    """Public names and what they are; folders have pages of their own."""
    found = [(name, getattr(module, name)) for name in module.__all__]
    return [(name, value) for name, value in found if not isinstance(value, ModuleType)]


def _has_docstring(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__")


def _methods(kind: Any) -> list[tuple[str, Any]]:
    """What a class adds that is public and has a docstring of its own."""
    if not inspect.isclass(kind):
        return []
    own = [(name, getattr(kind, name)) for name in vars(kind) if not name.startswith("_")]
    return [(name, value) for name, value in own if inspect.isroutine(value) and vars(kind)[name].__doc__]


def _value(value: Any) -> str:
    if isinstance(value, str | tuple):
        return f"`{value!r}`"
    if hasattr(value, "items"):
        return ", ".join(f"`{key}`" for key in value)
    return f"`{inspect.formatannotation(value) if type(value).__module__ == 'types' else type(value).__name__}`"


def _first(module: ModuleType) -> str:
    return _escaped(" ".join((inspect.getdoc(module) or "").split("\n\n")[0].split()))


def _folder(name: str) -> ModuleType:
    return importlib.import_module(f"nestlearn.{name}")
