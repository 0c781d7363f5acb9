"""What a loop over chunks repeats, compiled once.

A compiler unrolls the loop of a layer and makes kernels for each chunk, which takes minutes. The body of the loop alone
is one graph, however many chunks, layers and blocks there are; between chunks Python runs as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from nestlearn.ops.tracing import by_hand

__all__ = ["body", "compile_chunks"]

Body = TypeVar("Body", bound=Callable[..., Any])

_COMPILED: dict[tuple[Any, str], Any] = {}


def compile_chunks(model: nn.Module, **options: Any) -> None:
    """Compile the chunks of every `SelfModifyingTitans` in a model; ``model.compile()`` compiles whole loops.

    In place, as ``nn.Module.compile`` is, and at the first call, which takes a fraction of what a whole loop takes.
    Chunks of another length, such as a ragged last one, are compiled when they come.
    Slopes of slopes, and ``retain_graph=True``, torch refuses of what its default compiler has made.

    Args:
        model: a layer, or what has such layers anywhere.
        options: of `torch.compile`, such as ``backend`` or ``dynamic``; none are the defaults.

    Raises:
        ValueError: the model has no layer whose chunks are compiled.

    Example:
        >>> import nestlearn as nl
        >>> nl.layers.compile_chunks(nl.models.hope(256, 32, 1, 2))
    """
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "compiled_chunks")]
    if not layers:
        raise ValueError(
            f"compile_chunks: expected a model with a SelfModifyingTitans, as hope and titans have, got "
            f"{type(model).__name__} without one; model.compile() compiles any"
        )
    for layer in layers:
        layer.compiled_chunks = options


def body(function: Body, options: dict[str, Any] | None) -> Body:
    """The function, compiled with these options of `torch.compile`; None, and all else that traces, leaves it."""
    if options is None or not by_hand():
        return function
    key = (function, repr(sorted(options.items())))
    if key not in _COMPILED:
        _COMPILED[key] = torch.compile(function, fullgraph=True, **options)
    compiled: Body = _COMPILED[key]
    return compiled
