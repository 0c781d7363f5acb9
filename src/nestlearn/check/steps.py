"""Checks of a step: what it reads, what it writes, and what it leaves alone."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from nestlearn.check.compare import same
from nestlearn.check.outcome import claim
from nestlearn.check.problem import network
from nestlearn.check.subject import Subject
from nestlearn.check.training import Run, agree
from nestlearn.errors import NotApplicable

__all__ = ["CHECKS"]


def whole_model(subject: Subject) -> None:
    """All of model.parameters() is taken, matrices and vectors, and all of them move."""
    run = Run(subject, network(subject.dtype))
    before = run.weights()
    run.steps()
    still = [list(old.shape) for old, new in zip(before, run.weights(), strict=True) if torch.equal(old, new)]
    claim(not still, f"parameters of the shapes {still} did not move in four steps")


def learns(subject: Subject) -> None:
    """Thirty steps on one batch make its loss smaller, with default settings."""
    run = Run(subject)
    first = float(run.loss(0).detach())
    run.steps([0] * 30)
    last = float(run.loss(0).detach())
    claim(last < first, f"the loss went from {first:.4f} to {last:.4f}")


def deterministic(subject: Subject) -> None:
    """From one seed, two trainings end in the same bits."""
    claim(same(Run(subject).steps().weights(), Run(subject).steps().weights()), "two equal trainings differ")


def order(subject: Subject) -> None:
    """The order in which parameters are given changes nothing."""
    module = subject.network()
    reverse = Run(subject, module, list(module.parameters())[::-1]).steps()
    agree(subject, reverse.weights(), Run(subject).steps().weights(), "weights of the two orders")


def closure(subject: Subject) -> None:
    """step(closure) returns the closure's loss and writes what step() writes."""
    run = Run(subject)
    expected = float(run.loss(0).detach())
    values: list[float] = []

    def evaluate() -> Tensor:
        run.optimizer.zero_grad()
        loss = run.loss(0)
        loss.backward(retain_graph=subject.graph)
        values.append(float(loss.detach()))
        return loss

    torch.default_generator.manual_seed(0)
    returned: Any = run.optimizer.step(evaluate)  # type: ignore[arg-type]  # the same
    claim(bool(values), "the closure was not called")
    claim(returned is not None, "step(closure) returned None")
    value = float(torch.as_tensor(returned).detach())
    claim(abs(value - expected) < 1e-6, f"step(closure) returned {value}, the loss is {expected}")
    if not subject.closure:
        agree(subject, run.weights(), Run(subject).steps([0]).weights(), "weights with and without a closure")


def no_gradients(subject: Subject) -> None:
    """A step without any gradient changes nothing."""
    if subject.closure:
        raise NotApplicable("its steps compute the gradients")
    run = Run(subject)
    before = run.weights()
    run.optimizer.step()
    claim(same(before, run.weights()), "weights without a gradient moved")


def missing_gradient(subject: Subject) -> None:
    """A parameter whose gradient is None stays where it is; the others move."""
    run = Run(subject).steps([0])
    first, *others = run.parameters()
    before = [first.detach().clone(), *(each.detach().clone() for each in others)]
    run.step(1, edit=lambda: setattr(first, "grad", None))
    claim(torch.equal(before[0], first), "a parameter without a gradient moved")
    moved = [not torch.equal(old, new) for old, new in zip(before[1:], others, strict=True)]
    claim(all(moved), "a parameter with a gradient did not move")


def frozen(subject: Subject) -> None:
    """A parameter that requires no gradient may be among those given, and stays where it is."""
    module = subject.network()
    first = next(module.parameters()).requires_grad_(False)
    before = first.clone()
    Run(subject, module).steps()
    claim(torch.equal(before, first), "a frozen parameter moved")


def gradients_kept(subject: Subject) -> None:
    """A step leaves p.grad as it was, with weight decay too."""
    more: dict[str, Any] = {"weight_decay": 0.1} if subject.takes("weight_decay") else {}
    run = Run(subject, **more)
    for index in range(3):
        kept: list[Tensor] = []
        run.step(index, edit=lambda kept=kept: kept.extend(_gradients(run)))  # type: ignore[misc]
        claim(same(kept[-len(run.parameters()) :], _gradients(run)), f"the gradients are others after step {index + 1}")


def _gradients(run: Run) -> list[Tensor]:
    return [torch.zeros(0) if p.grad is None else p.grad.clone() for p in run.parameters()]


def zero_step(subject: Subject) -> None:
    """A first step with lr=0 and zero gradients moves nothing: so torch.distributed.checkpoint makes the state."""
    run = Run(subject)
    before = run.weights()
    for group in run.optimizer.param_groups:
        if "lr" in group:
            group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], Tensor) else 0.0
    run.step(0, edit=lambda: [p.grad.zero_() for p in run.parameters() if p.grad is not None])
    claim(same(before, run.weights()), "weights moved, or became NaN")


def maximize(subject: Subject) -> None:
    """maximize=True climbs as the default descends."""
    if not subject.takes("maximize"):
        raise NotApplicable("it has no setting maximize")
    up = Run(subject, maximize=True)
    loss = up.loss
    up.loss = lambda index: -loss(index)  # type: ignore[method-assign]
    agree(subject, up.steps().weights(), Run(subject).steps().weights(), "weights up -loss and down the loss")


def hooks(subject: Subject) -> None:
    """Hooks before and after a step, its own and those of all optimizers, are called once a step."""
    run = Run(subject)
    calls: list[str] = []
    run.optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    run.optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    every = register_optimizer_step_post_hook(lambda optimizer, *_: calls.append("every"))
    try:
        run.steps(range(2))
    finally:
        every.remove()
    claim(calls == ["before", "after", "every"] * 2, f"of two steps the calls were {calls}")


def accumulated(subject: Subject) -> None:
    """Gradients of two halves of a batch, added up, are as good as those of the whole."""
    run = Run(subject)

    def halves() -> Tensor:
        losses = []
        for half in (0, 1):
            run.rows = lambda rows, half=half: rows.chunk(2)[half]  # type: ignore[misc]
            losses.append(run.loss(index) / 2)
            losses[-1].backward(retain_graph=subject.graph)
        return losses[0] + losses[1]

    for index in range(4):
        run.step(index, backward=halves)
    agree(subject, run.weights(), Run(subject).steps().weights(), "weights of halves and wholes")


def evaluation_between(subject: Subject) -> None:
    """Looking at a validation set between steps, without gradients, changes nothing."""
    run = Run(subject)
    for index in range(4):
        run.step(index)
        run.module.eval()
        with torch.no_grad():
            run.loss(50 + index)
        run.module.train()
    claim(same(run.weights(), Run(subject).steps().weights()), "weights are others than without")


def recomputed(subject: Subject) -> None:
    """Activation checkpointing, which calls layers twice, changes nothing."""
    from torch.utils.checkpoint import checkpoint

    module = subject.network()
    run = Run(subject, module, forward=lambda rows: checkpoint(module, rows, use_reentrant=False))
    agree(subject, run.steps().weights(), Run(subject).steps().weights(), "weights with and without it")


def compiled_model(subject: Subject) -> None:
    """A model under torch.compile trains as it does without."""
    module = subject.network()
    run = Run(subject, module, forward=torch.compile(module, backend="aot_eager"))
    agree(subject, run.steps().weights(), Run(subject).steps().weights(), "weights with and without compiling")


def foreach(subject: Subject) -> None:
    """foreach=True gives what foreach=False gives."""
    if not subject.takes("foreach"):
        raise NotApplicable("it has no setting foreach")
    one, two = (Run(subject, foreach=value).steps().weights() for value in (True, False))
    agree(subject, one, two, "weights with and without foreach")


def lets_go(subject: Subject) -> None:
    """A model and its optimizer are freed when nobody holds them any more."""
    run = Run(subject).steps(range(2))
    held: weakref.ref[nn.Module] = weakref.ref(run.module)
    del run
    gc.collect()
    claim(held() is None, "the model is still in memory")


CHECKS = (
    *(whole_model, learns, deterministic, order, closure, no_gradients, missing_gradient, frozen, gradients_kept),
    *(zero_step, maximize, hooks, accumulated, evaluation_between, recomputed, compiled_model, foreach, lets_go),
)
