"""A process that steps optimizers with the ``nestlearn`` of one tree, asked by ``against``.

Which tree that is, ``PYTHONPATH`` decides before anything is imported. Requests come by standard input, answers go by
standard output, one pickle each; whatever else is printed goes to the errors.
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nestlearn
from benchmarks.optim.cases import CASES, composed
from benchmarks.optim.timing import seconds, settle_allocator
from benchmarks.optim.workloads import WORKLOADS, state_bytes, weights

__all__ = ["Worker", "serve"]


class Worker:
    """One optimizer at a time."""

    unit: Any = None
    optimizer: Any = None

    def source(self) -> str:
        """The folder that ``nestlearn`` was imported from."""
        return str(Path(nestlearn.__file__).resolve().parent.parent)

    def start(self, case: int, workload: str, from_its_rule: bool) -> None:
        """Take up a case, by its place in the list, as its class or from the rule that it prints."""
        self.unit = self.optimizer = None  # nothing of the one before is left
        chosen = CASES[case]
        self.unit, self.optimizer = chosen.start(WORKLOADS[workload], composed(chosen) if from_its_rule else None)

    def run(self, runs: int) -> float:
        """Seconds of CPU that so many steps took."""
        return seconds(self.unit, "cpu", runs)

    def weights(self) -> list[Tensor]:
        """As they are now."""
        return weights(self.optimizer)

    def state_bytes(self) -> int:
        """Of the optimizer."""
        return state_bytes(self.optimizer)


def serve() -> None:
    """Answer until there is nobody to ask."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(1)
    settle_allocator()
    worker = Worker()
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        found: Any = getattr(worker, name)(*arguments)
        pickle.dump(found, answers)
        answers.flush()


if __name__ == "__main__":
    serve()
