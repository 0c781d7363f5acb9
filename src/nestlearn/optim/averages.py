"""Averaged weights in the place of the weights: ``optimizer.eval()`` before a model is looked at, ``train()`` after.

The convention is that of schedule-free optimizers (arXiv 2405.15682), which Accelerate and the Trainer of transformers
follow. What training goes on with waits in the state, so a checkpoint that is saved meanwhile holds it.
"""

from collections.abc import Callable, Iterator
from itertools import repeat
from operator import contains

import torch
from torch import Tensor

from nestlearn.optim.adapter import Adapter
from nestlearn.optim.lanes import as_real
from nestlearn.optim.settings import Group
from nestlearn.optim.sharded import local
from nestlearn.optim.stacks import Held

__all__ = ["Averaging", "refuse_averages"]

TRAINED = "trained_weights"
"""Under this name the state of a parameter has what training goes on with, while the model holds the average."""


class Averaging:
    """What an optimizer does with the averages that its rules keep (``averaged_weights``)."""

    @property
    def eval(self: Adapter) -> Callable[[], None]:
        """``optimizer.eval()`` puts the averaged weights into the model; a second call changes nothing.

        Parameters that were never written stay as they are. Until ``train()`` a step is an error. A checkpoint that is
        saved meanwhile holds both, and goes on with ``train()`` too.

        Raises:
            AttributeError: nothing averages weights, so that ``hasattr(optimizer, "eval")`` tells who has them.
        """
        _check(self, "eval")
        return lambda: _swap_in(self)

    @property
    def train(self: Adapter) -> Callable[[], None]:
        """``optimizer.train()`` puts the weights back that training goes on with; without ``eval()`` nothing changes.

        Raises:
            AttributeError: nothing averages weights.
        """
        _check(self, "train")
        return lambda: _swap_out(self)


def refuse_averages(optimizer: Adapter) -> None:
    """Raise RuntimeError while the model holds averaged weights, from which no step may be taken."""
    if any(map(contains, optimizer.state.values(), repeat(TRAINED))):  # no Python is run for each of them
        raise RuntimeError(
            f"{type(optimizer).__name__}: the model holds averaged weights; call optimizer.train() before the forward "
            "pass of a step, as optimizer.eval() has put them there"
        )


def _check(optimizer: Adapter, name: str) -> None:
    for group in optimizer.param_groups:
        rules = optimizer.rules(group)
        if rules.average(flat=True) or rules.average(flat=False):
            return
    raise AttributeError(
        f"{type(optimizer).__name__} has no {name}(), as it keeps no averaged weights: make it with "
        "averaged_weights=0.99, or with nl.rules.averaged_weights() as the last link of a rule"
    )


def _averages(optimizer: Adapter) -> Iterator[tuple[Tensor, Held, Tensor]]:
    """(parameter, its state, its averaged weights as a matrix or as it is) of all that have been written."""
    for group in optimizer.param_groups:
        rules = optimizer.rules(group)
        for parameter in group["params"]:
            entry = optimizer.entry_of(parameter, rules)
            name = rules.average(flat=entry.flat)
            state = optimizer.state.get(parameter, {})
            if name is not None and f"{name}.model.value" in state and _writes(optimizer, parameter, group):
                average = state[f"{name}.model.value"]
                average = average if entry.flat else entry.cut.together(average)
                yield parameter, state, average.reshape(as_real(parameter.detach()).shape)


def _writes(optimizer: Adapter, parameter: Tensor, group: Group) -> int:
    return optimizer.taken(parameter) // int(group["period"])


@torch.no_grad()
def _swap_in(optimizer: Adapter) -> None:
    new = [(parameter, state, average) for parameter, state, average in _averages(optimizer) if TRAINED not in state]
    parts = optimizer.spread([(parameter, average) for parameter, _, average in new])
    for (parameter, state, _), part in zip(new, parts, strict=True):
        state[TRAINED] = parameter.detach().clone()
        real = local(as_real(parameter.detach()))
        real.copy_(part.reshape(real.shape))


@torch.no_grad()
def _swap_out(optimizer: Adapter) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if TRAINED in state:
                parameter.copy_(state.pop(TRAINED))
