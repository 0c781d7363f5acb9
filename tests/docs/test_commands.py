"""Commands that the pages show can be typed.

Every line of a block of bash is read by the program that it starts: by its parser, and for the verbs that have settings
by what makes settings of the options. In the prose, where commands are cut short, verbs and options are known ones.
"""

import argparse
import gzip
import re
import runpy
import shlex
import sys
import tomllib
from itertools import groupby
from pathlib import Path

import click
import pytest
import torch
import typer
from pages import PAGES, ROOT, blocks, page_name
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch.distributed.run import get_args_parser
from typer.testing import CliRunner

from nestlearn.cli import compare_job, ending, inspect_job, train_job
from nestlearn.cli.main import build_app, build_entry
from nestlearn.comparison import preset, resolve
from nestlearn.precision import products
from nestlearn.training import TrainSettings, merge, read_settings, resolve_training
from nestlearn.training.train_settings import find_settings

COMMAND = re.compile(r"(?:^|`)nestlearn ((?:[^`\n\\]|\\\n)+)", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
OTHERS = (
    ("tensorboard", "--logdir"),
    ("python3", "-m"),
    ("python", "-m"),
    ("python", "-c"),
    ("source", ".venv/bin/activate"),
)
HANDED_ON = {"dev/gpu": ("python", "-m", "benchmarks.gpu"), "dev/demo": ("nestlearn", "compare")}
VERBS: dict[str, click.Command] = typer.main.get_command(build_app()).commands


# ------------------------------------------------------------------------------------------------------------ in prose


def options() -> dict[str, set[str]]:
    """Verb -> its options, with those that every command has."""
    found = {
        name: [flag for each in verb.params for flag in [*each.opts, *each.secondary_opts]]
        for name, verb in VERBS.items()
    }
    return {name: {"--help", *flags} for name, flags in found.items()}


def commands(page: str) -> list[tuple[str, set[str]]]:
    """(verb, options) of every command in the text of a page; comments do not count."""
    found = []
    for line in COMMAND.findall(page):
        typed = re.sub(r"\s#.*", "", line)
        found.append((typed.split()[0], set(OPTION.findall(typed))))
    return found


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_on_a_page_exist_with_their_options(page):
    known = options()
    wrong = []
    for verb, named in commands(page.read_text(encoding="utf-8")):
        if verb not in known and re.fullmatch(r"[a-z]+", verb):
            wrong.append(verb)
        wrong += sorted(named - known.get(verb, named))
    assert wrong == []


def test_the_options_that_the_page_of_compare_explains_are_its_own():
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    explained = {flag for row in re.findall(r"^\| (`--.*?) \|", page, re.MULTILINE) for flag in OPTION.findall(row)}
    assert explained
    assert explained - options()["compare"] == set()


def test_a_command_is_read_with_its_options():
    page = "```bash\nnestlearn compare --tasks digits \\\n  --seeds 0..4  # --no\n```\nor `nestlearn report X --out`"
    assert commands(page) == [("compare", {"--tasks", "--seeds"}), ("report", {"--out"})]


# ----------------------------------------------------------------------------------------------------------- in blocks


def lines(page: str) -> list[list[str]]:
    """The words of every line in the blocks of bash of a page, and of the other programs in its prose."""
    text = "".join(blocks(page, "bash")).replace("\\\n", " ")
    prose = re.findall(r"`((?:python -m (?:benchmarks|experiments)|python examples/|bash dev/)[^`\n]*)`", page)
    typed = [
        groupby(shlex.split(line, comments=True), ("&&", "|").__contains__) for line in [*text.splitlines(), *prose]
    ]
    return [list(words) for line in typed for between, words in line if not between]


SHOWN = sorted({tuple(words) for page in PAGES for words in lines(page.read_text(encoding="utf-8"))})


class Read(Exception):
    """A parser has read its command, and the program goes no further."""


def run_module(name: str) -> None:
    """As ``python -m`` does it, also where another test has imported what is run: runpy warns of that."""
    known = sys.modules.pop(f"{name}.__main__", None)
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:
        if known is not None:
            sys.modules[f"{name}.__main__"] = known


def check(words: tuple[str, ...]) -> None:
    """What is wrong with a command, as an exception."""
    program, *given = words[: words.index("<") if "<" in words else None]
    if program == "nestlearn":
        context = VERBS[given[0]].make_context(given[0], given[1:])
        if given[0] in ("compare", "inspect", "train"):
            with pytest.raises(typer.Exit):
                context.command.invoke(context)
    elif program == "torchrun":
        chosen = get_args_parser().parse_args(given)
        assert chosen.module and chosen.training_script == "nestlearn"
        check(("nestlearn", *chosen.training_script_args))
    elif given[:1] == ["-m"] and given[1] != "venv":
        run(lambda: run_module(given[1]), given[2:])
    elif program == "python" and given[0].startswith("examples/"):
        run(lambda: runpy.run_path(str(ROOT / given[0]), run_name="__main__"), given[1:])
    elif program == "bash":
        assert (ROOT / given[0]).is_file()
        if given[1:] and given[0] in HANDED_ON:
            check((*HANDED_ON[given[0]], *given[1:]))
    elif program == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        named = [re.search(r"^(?:nestlearn|\.)\[(.*)\]$", word) for word in given]
        assert {extra for found in named if found for extra in found[1].split(",")} <= set(known)
    else:
        assert words[:2] in OTHERS


def run(program, given: list[str]) -> None:
    """Start a program of argparse's, up to where it has read its command."""
    parse = argparse.ArgumentParser.parse_args

    def read(self, *arguments):
        parse(self, *arguments)
        raise Read

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Read):
        patched.setattr(sys, "argv", ["program", *given])
        patched.setattr(argparse.ArgumentParser, "parse_args", read)
        program()


def settle(given, config, assignments, *_, **__) -> int:
    file = read_settings(find_settings(config)) if config else {}
    resolve_training(TrainSettings(), file, given, *assignments)
    return 0


def settle_comparison(given, base, config, assignments, *_) -> int:
    file = read_settings(config) if config else {}
    resolve(merge(preset(base or "demo"), file, *assignments), **given)
    return 0


MODULES = {
    "mine": "from torch.optim import SGD as MyOptimizer\ndef make(parameters, lr=0.1): raise NotImplementedError",
    "my_task": "def spirals(width=32): raise NotImplementedError",
}


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Verbs that make their settings and no more, among the files and modules that a reader is said to have."""
    monkeypatch.setattr(ending, "begun", lambda verb: None)
    monkeypatch.setattr(train_job, "train_job", settle)
    monkeypatch.setattr(inspect_job, "inspect_job", lambda given, model, *rest, **more: settle(given, *rest))
    monkeypatch.setattr(compare_job, "compare_job", settle_comparison)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in MODULES.items():
        Path(f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("a.txt", "letters.txt", "moby-dick.txt", "letters/first.txt.gz", "b/first.txt.gz", "novels/one.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(gzip.compress(TEXT) if name.endswith("gz") else TEXT)
    Path("mine.yaml").write_text("steps: 200\n")
    Tokenizer(BPE({letter: at for at, letter in enumerate(sorted(set(TEXT.decode())))}, [])).save("tokenizer.json")


TEXT = b"It was a bright cold day. " * 400


@pytest.mark.parametrize("words", SHOWN, ids=lambda words: shlex.join(words)[:60])
def test_a_line_that_a_page_shows_is_accepted(words, reader):
    check(words)


@pytest.mark.parametrize(
    "line",
    [
        "nestlearn train --task digitz",
        "nestlearn train --task digits --set optimizer.hidde=3",
        "nestlearn compare --optimizers 'mine=chain(average(0.5), no_such_link())'",
        "nestlearn list optimizerz",
        "nestlearn generate --prompt Dear",
        "torchrun --nproc-per-node 2 -m nestlern train",
        "python -m experiments.optimizers.ravine --size huge",
        "python -m benchmarks.no_such_folder",
        "python examples/own_text.py --stepz 3",
        "bash dev/no_such_script",
        "pip install 'nestlearn[clii]'",
        "nestlern train",
    ],
)
def test_a_line_with_a_mistake_is_refused(line, reader):
    with pytest.raises((Exception, SystemExit)):
        check(tuple(shlex.split(line)))


SESSION = re.compile(r"^```(?:text)?\n\$ nestlearn ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSIONS = [found for page in PAGES for found in SESSION.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("line", "said"), SESSIONS, ids=lambda text: text[:40])
def test_what_a_page_shows_of_an_answer_is_in_it(line, said):
    with products(torch.bfloat16):  # pages are written where they are native
        done = CliRunner().invoke(build_entry(), shlex.split(line))
    assert done.exit_code == 0 and set(said.splitlines()) <= set(done.output.splitlines())
