"""Self-modifying Titans with nothing fast in it: every memory by itself, token by token (S4, S6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nestlearn.layers import SelfModifyingTitans
from nestlearn.layers.banks import MLPBank
from nestlearn.layers.projections import unit
from nestlearn.layers.rates import bounded_eta
from nestlearn.memory import AssociativeMemory, Matrix
from nestlearn.ops import scan

__all__ = ["slow"]


def slow(layer: SelfModifyingTitans, x: Tensor) -> Tensor:
    """The layer's answers [batch, time, dim] through `nestlearn.ops.scan`.

    For the default rule and objective, one chunk length, and everything self-modifying but the query.
    """
    mixed, _ = layer.convolution(layer.qkv(x), layer.convolution.initial_state(x.shape[0]))
    seen = unit(mixed.unflatten(-1, (3, layer.heads, -1))).permute(2, 0, 3, 1, 4)
    root = seen.shape[-1] ** 0.5
    memories, base, gain, weights = {}, {}, {}, {}
    for bank in layer.banks.values():
        for (name, size), shortening in zip(bank.sizes.items(), bank.gains(), strict=True):
            memories[name], base[name] = _alone(bank, name, size), bank.base[name]
            gain[name] = shortening.unsqueeze(-1)
            weights[name] = {part: start.expand(x.shape[0], *start.shape) for part, start in bank.start[name].items()}
    answers = []
    for query, key, value in (part.unbind(0) for part in seen.split(layer.chunk, -2)):
        start = dict(weights)

        def ask(name: str, at: Tensor, held: dict[str, Any] = start) -> Tensor:
            return memories[name].model.read(held[name], at) + at @ base[name].mT

        alpha = (ask("alpha", key)[..., 0] * root + layer.bias["alpha"].unsqueeze(-1)).sigmoid()
        eta = ask("eta", key)[..., 0] * root + layer.bias["eta"].unsqueeze(-1)
        eta = bounded_eta(eta, alpha, layer.max_eta, layer.strength)
        k, v = unit(ask("k", key)), unit(ask("v", value))
        for name, memory in memories.items():
            own = ask(name, v)
            own = own * (1 + own.square().sum(-1, keepdim=True)).rsqrt() * gain[name]
            y, state = scan(memory, k, own, query, eta, alpha, {"model": start[name]}, chunk=layer.chunk, read="before")
            weights[name] = state["model"]
            if name == "mem":
                answers.append(y + query @ base[name].mT)
    return layer.readout(torch.cat(answers, -2), x)


def _alone(bank: Any, name: str, size: int) -> AssociativeMemory:
    """One memory of a bank."""
    if isinstance(bank, MLPBank):
        return replace(bank.memory, model=replace(bank.model, features=bank.features[name]))
    return replace(bank.memory, model=Matrix(bank.dim, size))
