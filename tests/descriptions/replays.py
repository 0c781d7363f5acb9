"""Our optimizers and the learners that their descriptions make, step by step with the same gradients."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.descriptions import NestedSystem, rebuild

__all__ = ["STEPS", "Make", "of_a_rule", "one_weight", "replayed", "through_json"]

STEPS = 20

Make = Callable[[nn.Module], nl.optim.Optimizer]
"""The optimizer of a module that has one parameter, ``weight``."""


def through_json(system: NestedSystem) -> NestedSystem:
    return NestedSystem.from_dict(json.loads(system.to_json()))


def one_weight(shape: tuple[int, ...]) -> nn.Module:
    """A layer whose weight has a shape, or a parameter that belongs to no layer."""
    torch.manual_seed(0)
    if len(shape) == 2:
        return nn.Linear(shape[1], shape[0], bias=False, dtype=torch.float64)
    module = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    return module


def of_a_rule(rule: nl.rules.Link, **settings: object) -> Make:
    """The optimizer of one rule for matrices, which watches the layer where the rule does."""
    watches = {name for link in rule.everything() for name in link.reads} & {"inputs", "errors"}

    def make(module: nn.Module) -> nl.optim.Optimizer:
        model = {"model": module} if watches else {}
        return nl.optim.Optimizer(module.parameters(), 0.05, matrix=rule, **model, **settings)  # type: ignore[arg-type]

    return make


def replayed(
    make: Make, shape: tuple[int, ...], change: Callable[[NestedSystem], NestedSystem] = through_json
) -> list[tuple[Tensor, Tensor]]:
    """The weights of an optimizer and those of its description, after each of some steps.

    The learner knows nothing but the description, read from JSON, the first weights, the seed of random ones, and at
    each step the gradient and what the optimizer has measured.
    """
    module = one_weight(shape)
    weight: Tensor = module.weight  # type: ignore[assignment]
    optimizer = make(module)
    learner = rebuild(change(nl.describe(optimizer)))
    seed = optimizer.param_groups[0].get("seed", 0)
    state = learner.init(weight, torch.Generator().manual_seed(seed))
    seen: dict[str, Tensor] = {}
    measure = optimizer.observe

    def observe(loss: object) -> dict[str, dict[Tensor, Tensor]]:
        found = measure(loss)
        seen.clear()
        seen.update({name: each[weight].clone() for name, each in found.items() if weight in each})
        return found

    optimizer.observe = observe  # type: ignore[method-assign]
    weights = []
    for time in range(STEPS):
        gradient = step(optimizer, module, weight, torch.Generator().manual_seed(time))
        state = learner.write(state, gradient, seen=seen)
        weights.append((weight.detach().clone(), state["weights"]["model"]["value"]))
    return weights


def step(optimizer: nl.optim.Optimizer, module: nn.Module, weight: Tensor, generator: torch.Generator) -> Tensor:
    """One step on a noisy loss that is no quadratic; returns its gradient."""

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def closure() -> Tensor:
        optimizer.zero_grad()
        if isinstance(module, nn.Linear):
            answer = module(noise(6, module.in_features))
            loss = (answer.tanh() + 0.1 * answer - noise(6, module.out_features)).square().mean()
        else:
            loss = 0.1 * (weight - noise(*weight.shape)).square().sum()
        loss.backward(retain_graph=True)
        return loss

    optimizer.step(closure)
    assert weight.grad is not None
    return weight.grad.clone()
