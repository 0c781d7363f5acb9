"""What lies below the first written block, asked once for all pieces of a call (C5).

Those blocks answer the same whatever is written above them. So a call that is read in pieces asks them for all its
tokens at once, as the frozen model would, and its pieces begin at the first block that is written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from nestlearn.models.stacking_calls import Call, detach_cache

__all__ = ["asked_once"]


@contextmanager
def asked_once(call: Call, trunk: nn.Module, blocks: Sequence[nn.Module], first: int) -> Iterator[None]:
    """Within the block, the pieces of a call begin at ``blocks[first]``.

    Args:
        call: of more than one piece.
        trunk: what calls the blocks, the model without its head.
        blocks: all of the model's.
        first: the first that is written, above at least one that is not, and to which none of these gives its keys.

    Raises:
        TypeError: a trunk that does not call each of its blocks once, with a tensor; a cache without layers.
    """
    given: list[Tensor] = []

    def take(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        if not isinstance(hidden_states, Tensor):
            raise TypeError(
                f"expected {type(trunk).__name__} to give its blocks tensors, got {type(hidden_states).__name__}"
            )
        given.append(hidden_states)
        return hidden_states

    with _instead(blocks[first:], [take, *[_pass] * (len(blocks) - first - 1)]):
        cache = call.whole(trunk)
    if len(given) != 1:
        raise TypeError(f"expected {type(trunk).__name__} to call each of its blocks once, got {len(given)} calls")
    detach_cache(cache)
    replicate = getattr(cache, "layer_class_to_replicate", None)
    while len(cache.layers) < len(blocks) and replicate is not None:
        cache.layers.append(replicate())
    # How far a text is, a model asks the first layer of its cache: pieces are as far as the written blocks are. What
    # these write into their layers is written into the cache itself.
    call.cache = copy.copy(cache)
    call.cache.layers = [cache.layers[max(number, first)] for number in range(len(cache.layers))]
    with _instead(blocks[:first], [*[_pass] * (first - 1), lambda *_, **__: given[0][..., call.part, :]]):
        yield
    call.cache = cache


def _pass(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


@contextmanager
def _instead(blocks: Sequence[nn.Module], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Within the block, others take the place of the blocks' forward passes."""
    before = [vars(block).get("forward") for block in blocks]
    for block, forward in zip(blocks, forwards, strict=True):
        block.forward = forward
    try:
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            del block.forward
            if own is not None:  # accelerate puts its own there
                block.forward = own
