"""A course of runs: stages of specs, each of which depends on the results of the ones before.

A course is a small state machine: it hands out specs, is told results, and knows when it is done. Who runs the specs,
on how many workers and in which order is not its concern, and does not change what it asks for next. Told the results
of an earlier attempt, it goes on where that one stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from nestlearn.training import RunResult, RunSpec

__all__ = ["Course"]


class Course(ABC):
    """Subclasses say what the stages are.

    Attributes:
        results: the results known, by key.
    """

    def __init__(self, results: Mapping[str, RunResult]) -> None:
        self.results = dict(results)
        self._issued: set[str] = set()
        self._stage: list[RunSpec] = []
        self._left = self._stages()
        self._done = False

    @abstractmethod
    def _stages(self) -> Iterator[list[RunSpec]]:
        """The specs of each stage; asked for the next one only when all results of the one before are known."""

    @abstractmethod
    def _estimate(self) -> int:
        """How many runs the course will probably hand out."""

    @property
    def planned(self) -> int:
        """How many runs the course hands out, as far as is known now."""
        return len(self._issued) if self._done else max(self._estimate(), len(self._issued))

    def next(self) -> list[RunSpec]:
        """The specs that can be run now and have not been handed out before."""
        while not self._done and all(spec.key in self.results for spec in self._stage):
            try:
                self._stage = next(self._left)
            except StopIteration:
                self._done, self._stage = True, []
        known = self.results.keys() | self._issued
        fresh = {spec.key: spec for spec in self._stage if spec.key not in known}
        self._issued.update(fresh)
        return list(fresh.values())

    def record(self, result: RunResult) -> None:
        """Take note of the result of a spec that was handed out."""
        self.results[result.key] = result
