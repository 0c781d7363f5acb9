"""The sequence layers that every contract runs over, in the settings in which they differ."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nestlearn.layers import Attention, ContinuumMemory, MemoryLayer, SelfModifyingTitans, SequenceLayer
from nestlearn.layers.memory_layer import RULES

__all__ = ["EVERY", "LAYERS", "MEMORIES", "MIXERS", "SWITCHES", "every_switch", "make"]


def made_by(kind: type[SequenceLayer], **settings: object) -> Callable[..., SequenceLayer]:
    return lambda dim, **options: kind(dim, heads=2, **settings, **options)


def continuum(variant: str) -> Callable[..., SequenceLayer]:
    """With the options of the other layers, as far as there is something like them."""

    def make(dim: int, chunk: int = 64, max_eta: float | None = None, convolution: int = 0) -> SequenceLayer:
        return ContinuumMemory(dim, periods=(chunk, 2 * chunk), variant=variant, inner_lr=max_eta)

    return make


MEMORIES: dict[str, Callable[..., SequenceLayer]] = {
    "memory": made_by(MemoryLayer),
    "memory, oja, momentum": made_by(MemoryLayer, rule="oja", inner_momentum=True),
    "memory, omega, gate": made_by(MemoryLayer, rule="omega", output_gate=True),
    "memory, mlp": made_by(MemoryLayer, rule="dgd", memory="mlp"),
    "titans": made_by(SelfModifyingTitans),
    "titans, query, momentum": made_by(SelfModifyingTitans, modify_query=True, inner_momentum=True),
    "titans, l2": made_by(SelfModifyingTitans, objective="l2"),
    "titans, mlp": made_by(SelfModifyingTitans, memory="mlp"),
}
SWITCHES: dict[str, Callable[..., SequenceLayer]] = {
    **{f"memory, {rule}": made_by(MemoryLayer, rule=rule) for rule in RULES if rule != "gated_delta"},
    "memory, mlp, momentum": made_by(MemoryLayer, rule="omega", memory="mlp", inner_momentum=True),
    "titans, slow projections": made_by(SelfModifyingTitans, projection_chunk=3),
    "titans, no retention": made_by(SelfModifyingTitans, retention=False),
    "titans, gradient descent": made_by(SelfModifyingTitans, dgd=False),
    "titans, fixed": made_by(SelfModifyingTitans, self_modifying=()),
    "titans, fixed keys and values": made_by(SelfModifyingTitans, self_modifying=("eta", "alpha")),
    "titans, mlp, l2, query, momentum": made_by(
        SelfModifyingTitans, memory="mlp", objective="l2", modify_query=True, inner_momentum=True
    ),
}
MIXERS = {**MEMORIES, "attention": lambda dim, **options: Attention(dim, heads=2)}
LAYERS = {**MIXERS, **{f"continuum, {variant}": continuum(variant) for variant in ("sequential", "nested", "headwise")}}
EVERY = {**LAYERS, **SWITCHES}

QUICK = ("memory", "memory, mlp", "titans", "titans, mlp", "attention", "continuum, sequential")

every_switch = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EVERY]
)
"""Decorates a test of every layer; what only sets other switches of them is slow."""


def make(name: str, dim: int = 8, dtype: torch.dtype = torch.float64, **options: object) -> SequenceLayer:
    return EVERY[name](dim, **options).to(dtype)
