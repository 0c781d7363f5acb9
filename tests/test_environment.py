"""dev/environment.sh installs when something changed, and only then; what it once added it keeps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
USUAL = "cli,cluster,explore,search,dev"

# The real function, with the parts that take minutes replaced by a word about them.
PROGRAM = """
set -euo pipefail
source "$1/dev/environment.sh"
install_packages() { echo "installed $1"; }
prepare_environment "${@:2}"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with an environment that has a Python but no packages yet."""
    for name in ("dev/environment.sh", "dev/constraints.txt", "pyproject.toml", "src/nestlearn/version.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return tmp_path


def prepare(checkout: Path, *extra: str) -> list[str]:
    """What was done to the environment."""
    command = ["bash", "-c", PROGRAM, "bash", str(checkout), *extra]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_an_environment_is_filled_once(checkout: Path) -> None:
    assert prepare(checkout) == [f"installed {USUAL}"]
    assert prepare(checkout) == prepare(checkout, "") == []


def test_an_extra_is_added_and_kept(checkout: Path) -> None:
    prepare(checkout)
    assert prepare(checkout, "hosts") == [f"installed {USUAL},hosts,log,eval,notebook"]
    assert prepare(checkout) == prepare(checkout, "hosts") == []


def test_a_changed_version_is_installed_with_the_extras_that_are_there(checkout: Path) -> None:
    prepare(checkout, "hosts")
    (checkout / "dev" / "constraints.txt").write_text("torch==0.0.1\n", encoding="utf-8")
    assert prepare(checkout) == [f"installed {USUAL},hosts,log,eval,notebook"]
    assert prepare(checkout) == []


def test_another_version_of_our_own_is_installed(checkout: Path) -> None:
    prepare(checkout)
    (checkout / "src" / "nestlearn" / "version.py").write_text('__version__ = "9"\n', encoding="utf-8")
    assert prepare(checkout) == [f"installed {USUAL}"]


def test_an_installation_that_fails_is_done_again(checkout: Path) -> None:
    broken = PROGRAM.replace('echo "installed $1"', "false")
    done = subprocess.run(["bash", "-c", broken, "bash", str(checkout), "hosts"], check=False)
    assert done.returncode != 0
    assert prepare(checkout, "hosts") == [f"installed {USUAL},hosts,log,eval,notebook"]
