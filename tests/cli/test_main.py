"""The entry: which verbs there are, and that looking at them costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from nestlearn import __version__
from nestlearn.cli.main import VERBS, build_app


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


CALL = "import sys; from nestlearn.cli.main import main; sys.argv = ['nestlearn', *{arguments!r}]\ntry: main()\n"
LOADED = "except SystemExit as end: print(end.code, sorted({'torch', 'scipy'} & set(sys.modules)))"


@pytest.mark.slow
def test_help_of_every_verb_comes_without_loading_torch() -> None:
    for arguments in (["--help"], *([verb, "--help"] for verb in VERBS)):
        done = run(CALL.format(arguments=arguments) + LOADED)
        assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_the_version_comes_without_loading_torch() -> None:
    assert run(CALL.format(arguments=["--version"]) + LOADED).stdout == f"nestlearn {__version__}\n0 []\n"


def test_help_names_every_verb_with_its_first_line() -> None:
    done = run(CALL.format(arguments=["--help"]) + LOADED)
    words = " ".join(done.stdout.replace("│", " ").replace("|", " ").split())  # a frame of ASCII in an ASCII locale
    for verb, summary in VERBS.items():
        assert f"{verb} {summary}" in words


def test_verbs_are_those_of_the_full_application_with_the_first_line_of_their_help() -> None:
    commands = typer.main.get_command(build_app()).commands
    assert list(commands) == list(VERBS)
    for verb, summary in VERBS.items():
        assert " ".join(commands[verb].help.split("\n\n")[0].split()) == summary


@pytest.mark.slow
def test_an_unknown_verb_and_an_unknown_option_say_what_was_meant() -> None:
    done = run(CALL.format(arguments=["trian"]) + LOADED)
    assert "Did you mean 'train'?" in done.stderr and done.stdout.startswith("2 ")
    done = run(CALL.format(arguments=["train", "--optimzer", "Muon"]) + LOADED)
    assert "--optimizer" in done.stderr and done.stdout.startswith("2 ")


def test_defaults_in_help_texts_are_shown() -> None:
    done = run(CALL.format(arguments=["train", "--help"]) + LOADED)
    assert "[default: 400]" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["train", "--help"], ["list", "tasks"]])
def test_an_output_that_takes_nothing_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "nestlearn", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr == "error: [Errno 28] No space left on device\n"
