"""What a check of an optimizer found: a score, and a table with what fails first."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nestlearn.check.catalogue import CHECKS
from nestlearn.check.outcome import FAILED, NOT_APPLICABLE, PASSED, Outcome

__all__ = ["Report"]

ORDER = (FAILED, PASSED, NOT_APPLICABLE)
WIDTH = 200
"""Characters of a message in a table; JSON has all of it."""


@dataclass(frozen=True)
class Report:
    """The outcomes of all checks of one optimizer. ``str()`` is a table.

    Args:
        optimizer: ``module:Name``, or what Python calls it.
        settings: with which it was made.
        outcomes: in the order in which they ran.
        options: further options of the command, as "--graph".
        versions: of what took part.
    """

    optimizer: str
    settings: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]
    options: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def of(self, status: str) -> list[Outcome]:
        """The outcomes of one status."""
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @property
    def passed(self) -> int:
        """How many checks passed."""
        return len(self.of(PASSED))

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return len(self.of(FAILED))

    @property
    def score(self) -> float | None:
        """The share of checks that passed, of those that apply; None if none does."""
        counted = self.passed + self.failed
        return self.passed / counted if counted else None

    def reproduce(self, check: str) -> str:
        """The command that runs one check again and shows its traceback; a line of Python where no command finds the
        optimizer.
        """
        if not re.fullmatch(r"[\w.]+:[\w.]+", self.optimizer):
            return f"check({self.optimizer}, {dict(self.settings)!r}, only=[{check!r}])"
        settings = [
            f"--set {shlex.quote(f'{key}={json.dumps(value, default=str)}')}" for key, value in self.settings.items()
        ]
        words = ["nestlearn check", self.optimizer, *settings, *self.options, "--only", check]
        return " ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        return {
            "optimizer": self.optimizer,
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "score": self.score,
            "passed": self.passed,
            "failed": self.failed,
            "checks": [
                {
                    "name": each.name,
                    "asserts": CHECKS[each.name].sentence,
                    "where": CHECKS[each.name].where,
                    "status": each.status,
                    "message": each.message,
                    "trace": each.trace,
                    "reproduce": self.reproduce(each.name),
                }
                for each in self._sorted()
            ],
        }

    def markdown(self) -> str:
        """A page: the score, and a table of all checks, those that failed first, each with the command for it."""
        lines = [f"# {self.optimizer}", "", f"{self._summary()} {self._with()}", ""]
        lines += ["| check | | what happened |", "| --- | --- | --- |"]
        for each in self._sorted():
            words = _short(each.message).replace("|", r"\|") or CHECKS[each.name].sentence.replace("|", r"\|")
            again = f"<br>`{self.reproduce(each.name)}`" if each.status == FAILED else ""
            lines.append(f"| {each.name} | {each.status} | {words}{again} |")
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        wide = max((len(each.name) for each in self.outcomes), default=0)
        lines = [self._summary()]
        for each in self._sorted():
            mark = {FAILED: "fail", PASSED: "pass", NOT_APPLICABLE: "n/a"}[each.status]
            lines.append(f"{mark:<5} {each.name:<{wide}}  {_short(each.message)}".rstrip())
            if each.status == FAILED:
                lines.append(f"{'':<5} {'':<{wide}}  {CHECKS[each.name].sentence}")
                lines.append(f"{'':<5} {'':<{wide}}  {self.reproduce(each.name)}")
        return "\n".join(lines)

    def _sorted(self) -> list[Outcome]:
        return sorted(self.outcomes, key=lambda each: ORDER.index(each.status))

    def _summary(self) -> str:
        score = "no check applies" if self.score is None else f"{_percent(self.score)}, {self.passed} of "
        counted = "" if self.score is None else f"{self.passed + self.failed} checks passed"
        return f"{self.optimizer}: {score}{counted}; {len(self.of(NOT_APPLICABLE))} do not apply."

    def _with(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return " ".join(part for part in (f"Settings: {settings}." * bool(settings), f"With {versions}.") if part)


def _percent(score: float) -> str:
    """Rounded down, so that 100% means all."""
    return f"{int(100 * score)}%"


def _short(message: str) -> str:
    return message if len(message) <= WIDTH else message[: WIDTH - 3] + "..."
