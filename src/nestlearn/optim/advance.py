"""One step over all groups: counts, periods, and the lanes that write."""

from itertools import repeat
from operator import attrgetter, contains, is_not

import torch
from torch import Tensor

from nestlearn.memory.times import refuse_capture
from nestlearn.optim import states
from nestlearn.optim.adapter import Adapter, Observations
from nestlearn.optim.counts import Counts
from nestlearn.optim.due import Due, agreed
from nestlearn.optim.lanes import as_real
from nestlearn.optim.plan import Plan
from nestlearn.optim.settings import Group
from nestlearn.optim.stacks import Held

__all__ = ["advance"]

_GRADIENT = attrgetter("grad")

_NEW: Held = {}
"""The state of a parameter that has none."""


def advance(optimizer: Adapter, plan: Plan, observations: Observations) -> None:
    """Count a step of every parameter that has a gradient, and write those whose period is over.

    Args:
        optimizer: whose parameters they are.
        plan: sorts them into lanes.
        observations: what rules look at besides gradients.
    """
    due = _stepped(optimizer, plan.counts)
    if not due.parameters:
        return
    gradients = list(map(_GRADIENT, due.parameters))
    if any(map(torch.is_complex, gradients)):
        gradients = list(map(as_real, gradients))
    waited: list[Tensor] = []
    if any(each.period > 1 for each in due.terms):
        due, gradients, waited = _collected(due, gradients)
    else:
        due.times = [step - 1 for step in due.times]
        if any(map(contains, due.held, repeat("pending"))):
            gradients = list(map(states.with_waiting, due.held, gradients))
    for lane, order in plan.lanes(optimizer, due) if due.parameters else ():
        parameters = lane.parameters
        seen = {
            name: torch.stack([values[parameter] for parameter in parameters])
            for name, values in observations.items()
            if parameters[0] in values
        }
        rates = due.terms[lane.which].rates(optimizer, own=lane.own_lr)
        lane.write([gradients[place] for place in order], seen, [due.times[place] for place in order], rates)
    if waited:
        torch._foreach_zero_(waited)


def _stepped(optimizer: Adapter, counts: Counts) -> Due:
    """The parameters that have a gradient, with their steps counted; ``times`` are these counts."""
    terms, of_group = agreed(optimizer)
    due = Due([], [], [], [], terms, of_group, [])
    for group, number in zip(optimizer.param_groups, of_group, strict=True):
        if not _stepped_as_before(optimizer, group, due):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    due.held.append(states.initialised(optimizer, parameter, group))
                    due.parameters.append(parameter)
                elif "step" not in optimizer.state.get(parameter, ()):
                    continue
                due.members.append(id(parameter))
        due.which += [number] * (len(due.parameters) - len(due.which))
    if due.held:
        due.times = counts.advance(due.held, optimizer.state.values())
    return due


def _stepped_as_before(optimizer: Adapter, group: Group, due: Due) -> bool:
    """Add a group to what is due, where all of its parameters have a gradient and have had one before.

    That is the rule, and there are many parameters: no Python is run for each of them.
    """
    parameters = group["params"]
    if group["period"] > 1 or not all(map(is_not, map(_GRADIENT, parameters), repeat(None))):
        return False
    held = [optimizer.state.get(parameter, _NEW) for parameter in parameters]
    if not all(map(contains, held, repeat("step"))):
        return False
    due.held += held
    due.parameters += parameters
    due.members += map(id, parameters)
    return True


def _collected(due: Due, gradients: list[Tensor]) -> tuple[Due, list[Tensor], list[Tensor]]:
    """What is written now, with which gradients, and those of the gradients that are sums over a period."""
    periods = [each.period for each in due.terms]
    places, sums, waited = [], [], []
    for place, (state, gradient) in enumerate(zip(due.held, gradients, strict=True)):
        period, step = periods[due.which[place]], due.times[place]
        if period > 1:
            refuse_capture(step)
            state["pending"].add_(gradient)
        if step % period:
            continue
        places.append(place)
        due.times[place] = step // period - 1
        if period > 1:
            waited.append(state["pending"])
        sums.append(state["pending"] if period > 1 else states.with_waiting(state, gradient))
    return due.some(places), sums, waited
