"""Checks of the state: saved, loaded, copied and sent elsewhere, a training goes on to the same bits."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from nestlearn.check.compare import leaves, same, same_trees
from nestlearn.check.outcome import claim
from nestlearn.check.subject import Subject
from nestlearn.check.training import Run

__all__ = ["CHECKS"]


def _continues(one: Run, two: Run) -> None:
    """Both go on, and end in the same weights and states."""
    for run in (one, two):
        run.steps(range(4, 7))
    claim(same(one.weights(), two.weights()), "three steps later the weights are others")
    apart = same_trees(one.optimizer.state_dict()["state"], two.optimizer.state_dict()["state"])
    claim(not apart, f"three steps later, in the state, {apart}")


def _bytes(tree: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(tree, file)
    file.seek(0)
    return file


def round_trip(subject: Subject) -> None:
    """state_dict, loaded into a fresh optimizer, is there to the bit, and training goes on as if nothing had been."""
    run = Run(subject).steps()
    state = torch.load(_bytes(run.optimizer.state_dict()), weights_only=False)
    other = run.twin()
    other.optimizer.load_state_dict(state)
    apart = same_trees(run.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"])
    claim(not apart, f"after loading, {apart}")
    _continues(run, other)


def safe_load(subject: Subject) -> None:
    """torch.load(weights_only=True) reads a saved state_dict."""
    torch.load(_bytes(Run(subject).steps().optimizer.state_dict()), weights_only=True)


def untrained(subject: Subject) -> None:
    """A checkpoint from before the first step loads, and training goes as from a fresh optimizer."""
    run, other = Run(subject), Run(subject)
    other.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    _continues(run, other)


def rolled_back(subject: Subject) -> None:
    """A checkpoint loads any number of times into an optimizer that has gone on, and the same steps follow."""
    run = Run(subject).steps()
    saved = copy.deepcopy((run.module.state_dict(), run.optimizer.state_dict()))
    first = run.steps(range(4, 7)).weights()
    for _ in range(2):
        weights, state = copy.deepcopy(saved)
        run.module.load_state_dict(weights)
        run.optimizer.load_state_dict(state)
        claim(same(first, run.steps(range(4, 7)).weights()), "the same three steps end in other weights")


def deep_copied(subject: Subject) -> None:
    """copy.deepcopy of model and optimizer goes on as the original does."""
    run = Run(subject).steps()
    module, optimizer = copy.deepcopy((run.module, run.optimizer))
    _continues(run, Run(subject, module, optimizer=optimizer))


def pickled(subject: Subject) -> None:
    """Model and optimizer, pickled and read back, go on as the original does."""
    run = Run(subject).steps()
    module, optimizer = pickle.loads(pickle.dumps((run.module, run.optimizer)))
    _continues(run, Run(subject, module, optimizer=optimizer))


def half_round_trip(subject: Subject) -> None:
    """With bfloat16 parameters, loading keeps every bit and dtype of the state."""
    run = Run(subject, subject.network(torch.bfloat16)).steps()
    other = run.twin()
    other.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    apart = same_trees(run.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"])
    claim(not apart, f"after loading, {apart}")


def by_name(subject: Subject) -> None:
    """torch.distributed.checkpoint's state by parameter names, set on a fresh optimizer, goes on to the same bits."""
    run = Run(subject).steps()
    state = copy.deepcopy(get_optimizer_state_dict(run.module, run.optimizer))
    other = run.twin()
    set_optimizer_state_dict(other.module, other.optimizer, state)
    _continues(run, other)


def asked_early(subject: Subject) -> None:
    """Asking for the state by parameter names before the first step moves no weight."""
    run = Run(subject)
    before = run.weights()
    get_optimizer_state_dict(run.module, run.optimizer)
    claim(same(before, run.weights()), "weights moved, or became NaN")


def no_graph(subject: Subject) -> None:
    """Nothing in the state holds a graph of gradients."""
    state = Run(subject).steps().optimizer.state_dict()["state"]
    holding = [path for path, value in leaves(state) if isinstance(value, Tensor) and value.requires_grad]
    claim(not holding, f"these require gradients: {holding[:3]}")


CHECKS = (
    *(round_trip, safe_load, untrained, rolled_back, deep_copied, pickled, half_round_trip, by_name, asked_early),
    no_graph,
)
