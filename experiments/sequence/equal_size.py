"""Models of one size: how many parameters one has, and how wide its feed-forward layers must be for a given number."""

from __future__ import annotations

from typing import Any

import torch

from nestlearn.models import MODELS

__all__ = ["count", "units"]


def count(network: str, vocabulary: int, dim: int, depth: int, heads: int, **options: Any) -> int:
    """The parameters of one of `nestlearn.models.MODELS`; nothing is allocated."""
    with torch.device("meta"):
        model = MODELS[network](vocabulary, dim, depth, heads, **options)
    return sum(parameter.numel() for parameter in model.parameters())


def units(target: int, network: str, vocabulary: int, dim: int, depth: int, heads: int, **options: Any) -> int:
    """The ``hidden`` that brings a model nearest to ``target`` parameters; their number depends on it linearly."""
    few, more = (count(network, vocabulary, dim, depth, heads, hidden=hidden, **options) for hidden in (dim, dim + 1))
    return dim + round((target - few) / (more - few))
