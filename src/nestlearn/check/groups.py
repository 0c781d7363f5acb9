"""Checks of parameter groups, settings, schedulers and what is refused."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor

from nestlearn.check.compare import same, same_trees
from nestlearn.check.outcome import claim
from nestlearn.check.subject import Subject
from nestlearn.check.training import Run, agree
from nestlearn.errors import NotApplicable

__all__ = ["CHECKS"]


def base_class(subject: Subject) -> None:
    """It is a torch.optim.Optimizer, as schedulers, GradScaler and trainers demand."""
    made = Run(subject).optimizer
    claim(isinstance(made, torch.optim.Optimizer), f"{type(made).__name__} is no torch.optim.Optimizer")


def prints(subject: Subject) -> None:
    """repr() works before and after a step."""
    run = Run(subject)
    repr(run.optimizer)
    claim(bool(repr(run.steps([0]).optimizer)), "repr is empty")


def quiet(subject: Subject) -> None:
    """Making it and stepping warn of nothing."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Run(subject).steps(range(3))
    claim(not said, f"it warns: {said[0].message if said else ''}")


def named_parameters(subject: Subject) -> None:
    """named_parameters() is taken as parameters() is, and checkpoints go between the two."""
    module = subject.network()
    named = Run(subject, module, module.named_parameters()).steps()
    plain = Run(subject).steps()
    agree(subject, named.weights(), plain.weights(), "weights with and without names")
    states = [copy.deepcopy(run.optimizer.state_dict()) for run in (plain, named)]
    for run, state in zip((named, plain), states, strict=True):
        run.optimizer.load_state_dict(state)
    agree(subject, named.steps().weights(), plain.steps().weights(), "weights after an exchange of checkpoints")


def group_rate(subject: Subject) -> None:
    """A group has its own lr: at 0 it stays, while the other moves."""
    module = subject.network()
    first, *others = module.parameters()
    before = [each.detach().clone() for each in (first, *others)]
    Run(subject, module, [{"params": [first], "lr": 0.0}, {"params": others}]).steps()
    claim(torch.equal(before[0], first), "the group with lr=0 moved")
    claim(not any(map(torch.equal, before[1:], others)), "the other group did not move")


def added_group(subject: Subject) -> None:
    """add_param_group in the middle of training: the new parameters move, and what was remembered stays."""
    module = subject.network()
    first, *others = module.parameters()
    run = Run(subject, module, [first]).steps(range(2))
    before, state = run.weights(), copy.deepcopy(run.optimizer.state_dict()["state"])
    run.optimizer.add_param_group({"params": others})
    apart = same_trees(state, run.optimizer.state_dict()["state"])
    claim(not apart, f"adding a group changes the state: {apart}")
    run.steps(range(2, 4))
    claim(not any(map(torch.equal, before, run.weights())), "a parameter did not move")
    missing = set(run.optimizer.param_groups[0]) - set(run.optimizer.param_groups[1])
    claim(not missing, f"the new group lacks the settings {sorted(missing)}")


def group_decay(subject: Subject) -> None:
    """weight_decay of a group that is added later acts on it, and on nothing else."""
    if not subject.takes("weight_decay"):
        raise NotApplicable("it has no setting weight_decay")
    ends: list[tuple[list[Tensor], list[Tensor]]] = []
    for decay in (0.0, 0.5):
        module = subject.network()
        first, *others = module.parameters()
        run = Run(subject, module, [first], weight_decay=0.0)
        run.optimizer.add_param_group({"params": others, "weight_decay": decay})
        early = run.steps([0]).weights()
        ends.append((early, run.steps([1, 2]).weights()))
    (early, _), (early_decayed, _) = ends
    agree(subject, early[:1], early_decayed[:1], "weights of the group without decay")
    claim(not any(map(torch.equal, ends[0][1][1:], ends[1][1][1:])), "the decay of the added group does nothing")


def decay_shrinks(subject: Subject) -> None:
    """weight_decay makes weights smaller than they are without it."""
    if not subject.takes("weight_decay"):
        raise NotApplicable("it has no setting weight_decay")
    sizes = []
    for decay in (0.0, 0.5):
        run = Run(subject, weight_decay=decay).steps([0] * 10)
        sizes.append(float(sum(weight.square().sum() for weight in run.weights())))
    claim(sizes[1] < sizes[0], f"the squared norm is {sizes[0]:.6f} without, {sizes[1]:.6f} with it")


def schedule(subject: Subject) -> None:
    """A scheduler's rate is the one that steps take: as if it were set by hand, and other than a constant one."""
    factors = (1.0, 1.0, 0.125, 0.125)
    run, by_hand = Run(subject), Run(subject)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: factors[min(step, 3)])
    rates = [float(group["lr"]) for group in by_hand.optimizer.param_groups]
    for index, factor in enumerate(factors):
        run.step(index)
        scheduler.step()
        for group, rate in zip(by_hand.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        by_hand.step(index)
    agree(subject, run.weights(), by_hand.weights(), "weights with a scheduler and by hand")
    claim(not same(run.weights(), Run(subject).steps().weights()), "weights are those of a constant rate")


def tensor_rate(subject: Subject) -> None:
    """lr may be a tensor, which stays one, and means what the number means."""
    if not subject.takes("lr"):
        raise NotApplicable("it has no setting lr")
    rate = float(Run(subject).optimizer.param_groups[0]["lr"])
    tensor = Run(subject, lr=torch.tensor(rate, dtype=torch.float64)).steps()
    agree(subject, tensor.weights(), Run(subject, lr=rate).steps().weights(), "weights with a tensor and a number")
    kept = tensor.optimizer.param_groups[0]["lr"]
    claim(isinstance(kept, Tensor), f"the lr of the group has become {type(kept).__name__}")


def negative_rate(subject: Subject) -> None:
    """lr=-1 is refused."""
    if not subject.takes("lr"):
        raise NotApplicable("it has no setting lr")
    _refused(lambda: subject.build(subject.network(), lr=-1.0), "lr=-1")


def empty_list(subject: Subject) -> None:
    """An empty list of parameters is refused."""
    _refused(lambda: subject.build(subject.network(), []), "an empty list")


def twice(subject: Subject) -> None:
    """A parameter in two groups is refused."""
    module = subject.network()
    weight: Any = module[0].weight
    groups = [{"params": [weight]}, {"params": [weight]}]
    _refused(lambda: subject.build(module, groups), "a parameter in two groups")


def other_state(subject: Subject) -> None:
    """The state of an optimizer with other groups is refused."""
    module = subject.network()
    first = next(module.parameters())
    state = Run(subject).steps([0]).optimizer.state_dict()
    _refused(lambda: subject.build(module, [first]).load_state_dict(state), "a state with more parameters")


def _refused(function: Any, what: str) -> None:
    try:
        function()
    except Exception:  # noqa: BLE001 - libraries have errors of their own
        return
    raise AssertionError(f"{what} is taken")


def group_saved(subject: Subject) -> None:
    """A checkpoint brings the settings of groups back, lr among them."""
    run, other = Run(subject).steps([0]), Run(subject)
    groups = run.optimizer.param_groups
    if "lr" not in groups[0]:
        raise NotApplicable("its groups have no lr")
    groups[0]["lr"] = groups[0]["lr"] / 4
    other.optimizer.load_state_dict(run.optimizer.state_dict())
    found = other.optimizer.param_groups[0]["lr"]
    claim(found == groups[0]["lr"], f"lr {groups[0]['lr']} was saved, {found} was loaded")


CHECKS = (
    *(base_class, prints, quiet, named_parameters, group_rate, added_group, group_decay, decay_shrinks, schedule),
    *(tensor_rate, negative_rate, empty_list, twice, other_state, group_saved),
)
