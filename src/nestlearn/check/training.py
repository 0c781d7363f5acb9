"""A training of the small problem, and whether two of them agree."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nestlearn.check.compare import apart
from nestlearn.check.outcome import claim
from nestlearn.check.problem import batch
from nestlearn.check.subject import Subject

__all__ = ["STEPS", "Run", "agree", "noise"]

STEPS = 4


class Run:
    """A training: a network, its optimizer, and steps.

    Args:
        subject: what is checked.
        module: by default a fresh ``network``.
        params: of the optimizer, by default all of the module.
        forward: what is called with the inputs, by default the module; a wrapper of it.
        optimizer: one that is there already.
        **more: settings on top of the subject's.
    """

    def __init__(
        self,
        subject: Subject,
        module: nn.Sequential | None = None,
        params: Iterable[Any] | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **more: Any,
    ) -> None:
        self.subject = subject
        self.module = subject.network() if module is None else module
        self.optimizer = subject.build(self.module, params, **more) if optimizer is None else optimizer
        self.forward = forward or self.module
        self.rows: Callable[[Tensor], Tensor] = lambda rows: rows

    def loss(self, index: int) -> Tensor:
        """The mean squared error of a batch, or of those of its rows that ``rows`` picks."""
        inputs, targets = (self.rows(each) for each in batch(index, self.module))
        return (self.forward(inputs) - targets).square().mean()

    def step(
        self,
        index: int,
        edit: Callable[[], Any] = lambda: None,
        backward: Callable[[], Tensor] | None = None,
    ) -> Any:
        """One step on a batch, with a closure where the optimizer needs one.

        Args:
            edit: called when the gradients are there.
            backward: computes the gradients instead, and returns the loss.
        """

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            if backward is not None:
                loss = backward()
            else:
                loss = self.loss(index)
                loss.backward(retain_graph=self.subject.graph)
            edit()
            return loss

        torch.default_generator.manual_seed(index)  # for whoever draws while it steps
        if self.subject.closure:
            return self.optimizer.step(closure)  # type: ignore[arg-type]  # torch says float, all return tensors
        closure()
        return self.optimizer.step()

    def steps(self, indices: Iterable[int] = range(STEPS)) -> Run:
        """Some steps; the run itself."""
        for index in indices:
            self.step(index)
        return self

    def parameters(self) -> list[nn.Parameter]:
        """All of the network's."""
        return list(self.module.parameters())

    def weights(self) -> list[Tensor]:
        """Copies of all parameters."""
        return [parameter.detach().clone() for parameter in self.module.parameters()]

    def twin(self) -> Run:
        """Another run whose network has the same weights, with a fresh optimizer."""
        return Run(self.subject, copy.deepcopy(self.module))


class _Numbers(TorchDispatchMode):
    """Notes the coarsest numbers that are made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.epsilon = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.is_floating_point():
                self.epsilon = max(self.epsilon, torch.finfo(each.dtype).eps)
        return result


@lru_cache(maxsize=8)
def noise(subject: Subject) -> float:
    """How far weights come apart by rounding alone: by the rounding of gradients in the coarsest numbers in which the
    optimizer computes. One that multiplies in bfloat16 makes much of it, others next to nothing.
    """
    numbers = _Numbers()
    try:
        with numbers:
            whole = Run(subject).steps().weights()
    except Exception:  # noqa: BLE001 - compiled functions do not like to be watched
        whole = Run(subject).steps().weights()
        numbers.epsilon = max(torch.finfo(subject.dtype).eps, torch.finfo(torch.float32).eps)
    found = 0.0
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        other = Run(subject)

        def edit(other: Run = other, generator: torch.Generator = generator) -> None:
            for parameter in other.parameters():
                if parameter.grad is not None:
                    signs = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype).sign()
                    parameter.grad.mul_(1 + numbers.epsilon * signs)

        for index in range(STEPS):
            other.step(index, edit=edit)
        found = max(found, apart(whole, other.weights()))
    return found


def agree(subject: Subject, one: Iterable[Tensor], two: Iterable[Tensor], what: str) -> None:
    """Fail unless two lists of weights are equal but for rounding.

    Args:
        what: of the message, "the two orders".
    """
    far, room = apart(one, two), max(1e-8 if subject.dtype == torch.float64 else 1e-6, 10 * noise(subject))
    claim(far <= room, f"{what} differ by {far:.1e}; rounding explains {room:.1e}")
