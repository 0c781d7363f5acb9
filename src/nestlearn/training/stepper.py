"""What happens in one training step: measure the gradient, wait for it to arrive if it is late, let the optimizers act.

**Late gradients.** With ``task.delay = d`` the gradient that is used at step t is the one measured at step t - d, at
the weights of that time; the first d steps change nothing, neither weights nor optimizer state. A parameter without a
gradient at step t - d has none at step t, and optimizers leave it alone. What an optimizer measures by itself
(curvature, the inputs of layers) is that of step t.

**Optimizers that ask for more.** One that needs the graph of the loss says so by ``needs_graph``. One whose ``step``
cannot do without a closure, as ``torch.optim.LBFGS``, measures gradients itself, as often as it likes.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn.tasks import Task
from nestlearn.training.clock import StepClock
from nestlearn.training.ranks import ALONE, Ranks

__all__ = ["Stepper"]


class Stepper:
    """Takes steps of ``optimizers`` on ``model``; each is timed with ``clock``.

    Args:
        network: what is called in the place of ``model``, if that lies on many ranks.
        ranks: of which each takes its share of a batch; losses are then those of this one, weighted.

    Attributes:
        delayed: the gradients on their way, oldest first: for each step one entry a parameter, None for no gradient.
        last_loss: the loss of a step that failed after it was measured; else empty.

    Raises:
        ValueError: an optimizer that measures gradients itself has company, or the task's gradients are late.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        clock: StepClock,
        network: nn.Module | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._task, self._optimizers, self._clock, self._ranks = task, optimizers, clock, ranks
        self._network = model if network is None else network
        self._parameters = list(model.parameters())
        self._with_graph = [bool(getattr(optimizer, "needs_graph", False)) for optimizer in optimizers]
        self._retain = any(self._with_graph)
        self.delayed: deque[list[Tensor | None]] = deque()
        self.last_loss: list[Tensor] = []
        self.take: Callable[[Any], Tensor] = self._take
        if any(_measures_itself(optimizer) for optimizer in optimizers):
            names = ", ".join(type(optimizer).__name__ for optimizer in optimizers)
            if len(optimizers) > 1:
                raise ValueError(f"an optimizer whose step needs a closure must act alone, got {names}")
            if task.delay:
                raise ValueError(f"{names} measures its gradients itself, so they cannot be {task.delay} steps late")
            self.take = self._take_by_closure

    def _measure(self, batch: Any) -> Tensor:
        for parameter in self._parameters:
            parameter.grad = None
        batch, weight = self._ranks.share(batch)
        loss = self._task.loss(self._network, batch)
        loss = loss if weight == 1 else weight * loss
        loss.backward(retain_graph=self._retain)
        return loss

    def _take(self, batch: Any) -> Tensor:
        """One step; returns its loss, detached and not yet waited for."""
        clock = self._clock
        start = clock.mark()
        loss = self._measure(batch)
        self.last_loss = [loss.detach()]
        before = clock.mark()
        if not self._task.delay or self._arrived():
            for optimizer, with_graph in zip(self._optimizers, self._with_graph, strict=True):
                if with_graph:
                    optimizer.step(lambda: loss)  # type: ignore[arg-type, return-value]
                else:
                    optimizer.step()
        clock.add(start, before, clock.mark())
        return self.last_loss.pop()

    def _arrived(self) -> bool:
        """Send this step's gradient on its way and put the one that arrives in its place; False if none does yet."""
        self.delayed.append([parameter.grad for parameter in self._parameters])
        if len(self.delayed) <= self._task.delay:
            for optimizer in self._optimizers:
                optimizer.zero_grad()  # also drops what an optimizer recorded during the passes
            return False
        for parameter, gradient in zip(self._parameters, self.delayed.popleft(), strict=True):
            parameter.grad = gradient
        return True

    def _take_by_closure(self, batch: Any) -> Tensor:
        """The same for an optimizer that measures gradients itself; its loss is the first that it measured."""
        (optimizer,) = self._optimizers
        start = self._clock.mark()
        self.last_loss = []
        loss = optimizer.step(partial(self._measure, batch))  # type: ignore[arg-type]  # torch's stub asks for floats
        self._clock.add(start, start, self._clock.mark())
        return torch.as_tensor(loss).detach()


def _measures_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step`` has an argument that it cannot do without."""
    arguments = inspect.signature(optimizer.step).parameters.values()
    return any(argument.name == "closure" and argument.default is inspect.Parameter.empty for argument in arguments)
