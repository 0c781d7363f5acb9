"""Forks that the page asks for: `nestlearn train --fork` in a process of its own, one at a time.

The process is like one that was started in a terminal: it goes on when the server ends, and `kill PID` stops it with a
checkpoint. What is asked is numbers and names, so that no words of a run folder become a path or a module on the way.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from nestlearn.explore.runs import Run
from nestlearn.foreign import printable, shown

__all__ = ["Forks"]

MOST_SETTINGS = 40
PART = re.compile(r"[\w.]{1,200}(,[\w.]{1,200}){0,20}")
SETTING = re.compile(r"(optimizer|task)(\.[A-Za-z]\w{0,80}){1,8}|steps|schedule|warmup|rows|points|record")
WORD = re.compile(r"[\w+-]{1,80}")
NAMES = ("task.name", "optimizer.name", "optimizer.rule")
EXPECTED = 'expected {"step": 300, "without": "momentum", "settings": {"optimizer.lr": 0.01}}, the last two if you like'


class Forks:
    """The fork that was started last.

    Attributes:
        folder: where it is written.
    """

    folder: Path = Path()

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def start(self, run: Run, asked: Any) -> None:
        """Start a fork of a run, beside its folder.

        Raises:
            ValueError: the run has no such checkpoint, or something else was asked than what can be.
            RuntimeError: the last one trains still.
        """
        command = _command(run, asked)
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError(
                f"one fork at a time: {self.folder} trains still; wait, or stop it with kill {self._process.pid}"
            )
        self.close()
        self.folder = _beside(run.folder.resolve())
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # read when the process has ended
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nestlearn", *command, "--out", str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,
        )

    def close(self) -> None:
        """Hear no more of the last one, which goes on."""
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # or Popen complains of what is meant: the process is its own now
        if self._said is not None:
            self._said.close()
        self._said = None

    def refused(self) -> str:
        """Why the process has ended without a run; empty while it has not."""
        if self._process is None or self._said is None or self._process.poll() in (None, 0):
            return ""
        self._said.seek(0)
        lines = self._said.read(1 << 16).decode("utf-8", "replace").splitlines()
        said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
        return printable(said, 1000) or f"the fork ended with status {self._process.returncode}"


def _command(run: Run, asked: Any) -> list[str]:
    """The arguments of `nestlearn`, but for the folder that is made."""
    if not isinstance(asked, dict) or not set(asked) <= {"step", "without", "settings"}:
        raise ValueError(f"{EXPECTED}, got {shown(asked)}")
    step, part, settings = asked.get("step"), asked.get("without") or "", asked.get("settings") or {}
    known = run.checkpoints()
    if type(step) is not int or step not in known:
        raise ValueError(
            f"step: expected that of a checkpoint, one of {', '.join(map(str, known)) or 'none'}, got {shown(step)}"
        )
    if not isinstance(part, str) or (part and not PART.fullmatch(part)):
        raise ValueError(f"without: expected the name of a part of the rule, as momentum, got {shown(part)}")
    if not isinstance(settings, dict) or len(settings) > MOST_SETTINGS:
        raise ValueError(f"{EXPECTED}, got settings {shown(settings)}")
    command = ["train", "--fork", f"{run.folder.resolve()}@{step}", "--seeds", str(run.seed), "--quiet"]
    for name, value in settings.items():
        command += ["--set", f"{name}={_value(name, value)}"]
    return command + (["--without", part] if part else [])


def _value(name: str, value: Any) -> str:
    if not SETTING.fullmatch(name) or name in NAMES:
        raise ValueError(f"settings: expected those of the optimizer, as optimizer.lr, or steps, got {shown(name)}")
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float) or (isinstance(value, str) and WORD.fullmatch(value)):
        return str(value)
    raise ValueError(f"settings: expected a number or a word for {name}, got {shown(value)}")


def _beside(folder: Path) -> Path:
    """A folder that is not there yet, beside the one that is forked."""
    name = re.sub(r"-fork\d+$", "", folder.name)
    numbers = iter(range(1, 1 << 31))
    return next(path for number in numbers if not (path := folder.with_name(f"{name}-fork{number}")).exists())
