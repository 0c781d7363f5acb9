"""Tasks that take turns and have nothing in common: what does a momentum lose when the task changes? ([NL] 4.3)

Task k has inputs in a subspace of its own, orthogonal to all others, so its gradients of the first matrix are
orthogonal to those of the other tasks: after a few steps on task k + 1 a momentum holds next to nothing of task k, and
what is learned about k + 1 in the shared second matrix may undo what was learned about k. A slow memory (O14), or one
that is addressed by its key (O4, O5), could keep what comes back.

    x = B_k z,  B_k = sqrt(1 - overlap) Q_k + sqrt(overlap) Q,  z standard normal;     y = teacher_k(z)

with Q, Q_1, Q_2, ... orthonormal columns of one rotation: the inputs of two tasks have the cosine ``overlap``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.layers.sequence import full
from nestlearn.tasks.about import AboutOrthogonalTasks
from nestlearn.tasks.task import Task, cpu_generator, seeded, size

__all__ = ["OrthogonalTasks"]

OUTPUTS, TEACHER = 8, 16  # answers of a teacher, and its hidden units
PROBLEM = {"teachers": 1, "validation": 2, "test": 3}  # seeds of what is the same in every run


class _Problem(NamedTuple):
    """What makes the tasks, float64: bases [tasks, dim, subspace], teachers' matrices [tasks, subspace, TEACHER] and
    [tasks, TEACHER, OUTPUTS], and the mean and spread [tasks, 1, OUTPUTS] that their answers are freed of.
    """

    bases: Tensor
    first: Tensor
    second: Tensor
    mean: Tensor
    spread: Tensor

    def pairs(self, codes: Tensor, task: int) -> tuple[Tensor, Tensor]:
        """Codes z [n, subspace] -> inputs [n, dim] and targets [n, OUTPUTS] of a task."""
        answers = torch.tanh(codes @ self.first[task]) @ self.second[task]
        return codes @ self.bases[task].T, (answers - self.mean[task]) / self.spread[task]


@lru_cache(maxsize=4)
def _problem(tasks: int, subspace: int, overlap: float) -> _Problem:
    generator, dim = cpu_generator(PROBLEM["teachers"]), (tasks + 1) * subspace

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rotation = torch.linalg.qr(normal(dim, dim))[0]
    common, *own = rotation.split(subspace, dim=1)
    bases = (1 - overlap) ** 0.5 * torch.stack(own) + overlap**0.5 * common
    first, second = normal(tasks, subspace, TEACHER) / subspace**0.5, normal(tasks, TEACHER, OUTPUTS)
    answers = torch.tanh(normal(tasks, 4096, subspace) @ first) @ second
    return _Problem(bases, first, second, answers.mean(1, keepdim=True), answers.std(1, keepdim=True))


@dataclass(frozen=True, kw_only=True)
class OrthogonalTasks(AboutOrthogonalTasks, Task):
    """``tasks`` regressions on orthogonal inputs share an MLP and take turns of ``phase`` steps. Figures: ``loss`` (the
    mean over all tasks) and ``forgetting``.

    The loss of a task is the mean squared error; 1 is to know nothing of its answers but their mean. ``forgetting`` is
    how far the other tasks are behind the best one: their mean loss minus the lowest loss. Right after a phase that is
    how much worse they are than the task just trained; 0 means that all are known equally well. The tasks themselves
    are the same for every seed, as data would be; the seed decides weights and samples. Both splits are samples of all
    tasks that are never trained on.
    """

    width: ClassVar[str | None] = "hidden"

    tasks: int = size(4, least=2)
    subspace: int = 16
    overlap: float = size(0.0, most=1.0)
    phase: int = 25
    hidden: int = 64
    batch: int = 64
    validation_samples: int = 256
    test_samples: int = 1024

    def _problem(self) -> _Problem:
        return _problem(self.tasks, self.subspace, self.overlap)

    def _pairs(self, generator: torch.Generator, count: int, task: int) -> tuple[Tensor, Tensor]:
        codes = torch.randn(count, self.subspace, generator=generator, dtype=torch.float64)
        inputs, targets = self._problem().pairs(codes, task)
        return inputs.to(self.device, self.dtype), targets.to(self.device, self.dtype)

    def build(self, seed: int) -> nn.Module:
        inputs = (self.tasks + 1) * self.subspace

        def network() -> nn.Module:
            first, second = nn.Linear(inputs, self.hidden, bias=False), nn.Linear(self.hidden, OUTPUTS, bias=False)
            return nn.Sequential(first, nn.ReLU(), second)

        return seeded(seed, network).to(device=self.device, dtype=self.dtype)

    def batches(self, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        generator = cpu_generator(seed)
        for step in itertools.count():
            pairs = self._pairs(generator, self.batch, step // self.phase % self.tasks)
            if step >= start:
                yield pairs

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(full(model(batch[0])), full(batch[1]))

    @torch.no_grad()
    def losses(self, model: nn.Module, split: str) -> list[float]:
        """The loss of each task on a held-out split."""
        count = {"validation": self.validation_samples, "test": self.test_samples}[split]
        generator = cpu_generator(PROBLEM[split])
        return [self.loss(model, self._pairs(generator, count, task)).item() for task in range(self.tasks)]

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        losses = sorted(self.losses(model, split))
        behind = sum(losses[1:]) / (len(losses) - 1) - losses[0]
        return {"loss": sum(losses) / len(losses), "forgetting": behind}
