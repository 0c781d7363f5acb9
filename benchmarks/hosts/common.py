"""What the hosts share: small models, their data, a step, and whether two runs ended in the same bits."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hosts.choices import Choice

__all__ = [
    "LR",
    "ROWS",
    "Bits",
    "Mode",
    "NotInstalled",
    "bits",
    "claim_same",
    "installed",
    "llama",
    "loss_of",
    "network",
    "pairs",
    "step",
    "texts",
    "train_plainly",
]

LR = 0.01
ROWS = 8
"""Rows of a batch."""


class NotInstalled(ModuleNotFoundError):
    """A host is not there."""


@dataclass(frozen=True)
class Mode:
    """One way to train in a host.

    Args:
        host: its name in the table.
        name: the way.
        packages: what has to be installed.
        run: trains, saves and resumes a choice below a folder; raises AssertionError where the bits differ.
        refuses: the part of a message with which the host's way of stepping refuses curvature; None if it does not.
        costly: whether one run takes more than some tenths of a second.
    """

    host: str
    name: str
    packages: tuple[str, ...]
    run: Callable[[Choice, Path], None]
    refuses: str | None = None
    costly: bool = False

    def __str__(self) -> str:
        return f"{self.host} {self.name}".strip()


def installed(package: str) -> Any:
    """A module of a host, which may not ask the network.

    Raises:
        NotInstalled: it is not there.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise NotInstalled(f"{error.name} is not installed") from error


# ----------------------------------------------------------------------------------------------------- models and data


def network(seed: int = 0) -> nn.Sequential:
    """A tanh network of two layers, the same one for the same seed."""
    return copy.deepcopy(_network(seed))


@cache
def _network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


MOST = 6
"""Batches that there are."""


@cache
def _pairs() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(MOST * ROWS, side, generator=generator) for side in (6, 4))
    return list(zip(inputs, targets, strict=True))


def pairs(batches: int = MOST) -> list[tuple[Tensor, Tensor]]:
    """Rows [6] and their targets [4], ``ROWS`` a batch."""
    return _pairs()[: batches * ROWS]


def loss_of(model: Callable[[Tensor], Tensor], index: int) -> Tensor:
    """The mean squared error on a batch of ``pairs``."""
    inputs, targets = zip(*pairs()[index * ROWS : (index + 1) * ROWS], strict=True)
    return (model(torch.stack(inputs)) - torch.stack(targets)).square().mean()


VOCABULARY = 16


def llama(seed: int = 0) -> nn.Module:
    """A causal language model of one layer with random weights, the same ones for the same seed."""
    return copy.deepcopy(_llama(seed))


@cache
def _llama(seed: int) -> nn.Module:
    transformers = installed("transformers")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(config)


@cache
def texts(rows: int) -> list[dict[str, Tensor]]:
    """Random texts of six tokens, in the form that Trainer and DataLoader take."""
    words = torch.randint(VOCABULARY, (rows, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": text, "labels": text} for text in words]


# --------------------------------------------------------------------------------------------------------------- steps


def step(
    choice: Choice,
    optimizer: Any,
    loss: Callable[[], Tensor],
    edit: Callable[[], Any] = lambda: None,
    backward: Callable[..., Any] = lambda value, **how: value.backward(**how),
    *,
    closure: bool = True,
) -> None:
    """One step, with a closure that keeps the graph where the choice needs one. Gradients are dropped afterwards: what
    other batches left before belongs to it.

    Args:
        edit: called when the gradients are there.
        backward: the host's way of it.
        closure: whether closures are passed on.
    """

    def evaluate() -> Tensor:
        value = loss()
        backward(value, **({"retain_graph": True} if choice.closure else {}))
        edit()
        return value

    if choice.closure and closure:
        optimizer.step(evaluate)
    else:
        evaluate()
        optimizer.step()
    optimizer.zero_grad()


def train_plainly(
    choice: Choice, optimizer: Any, model: nn.Module, indices: Iterable[int], clip: float, schedule: Any = None
) -> None:
    """A loop of one's own over batches of ``pairs``, with clipped gradients."""
    for index in indices:
        step(
            choice,
            optimizer,
            lambda index=index: loss_of(model, index),
            lambda: nn.utils.clip_grad_norm_(model.parameters(), clip),
        )
        if schedule is not None:
            schedule.step()


# ---------------------------------------------------------------------------------------------------------------- bits


@dataclass(frozen=True)
class Bits:
    """Copies of all parameters and state of an optimizer, by name, and the settings of its groups."""

    tensors: dict[str, Any]
    groups: list[dict[str, Any]]


def bits(optimizer: torch.optim.Optimizer) -> Bits:
    """What an optimizer holds now."""
    held = optimizer.state_dict()
    ordered = [each for group in optimizer.param_groups for each in group["params"]]
    found: dict[str, Any] = {f"parameter {index}": each for index, each in enumerate(ordered)}
    for index, state in held["state"].items():
        found |= dict(_leaves(state, f"state of {index}"))
    copies = {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in found.items()
    }
    return Bits(copies, copy.deepcopy(held["param_groups"]))


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}")
    else:
        yield prefix, tree


def claim_same(what: str, one: Bits, two: Bits, *, settings: bool = True) -> None:
    """Raise AssertionError unless two hold the same bits.

    Args:
        what: of the message, "the resumed run".
        settings: whether the settings of the groups, the rates among them, have to be the same too.
    """
    if one.tensors.keys() != two.tensors.keys():
        raise AssertionError(f"{what}: state of other names, {sorted(one.tensors.keys() ^ two.tensors.keys())[:4]}")
    far = [name for name, value in one.tensors.items() if not _equal(value, two.tensors[name])]
    if far:
        raise AssertionError(f"{what}: {len(far)} of {len(one.tensors)} tensors differ, {', '.join(far[:3])}")
    if settings and one.groups != two.groups:
        raise AssertionError(f"{what}: the groups have other settings")


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return bool(one == two)
