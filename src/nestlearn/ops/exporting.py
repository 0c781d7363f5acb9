"""What `torch.export` may leave open: how many chunks there are, and how many tokens a state has seen.

A program has the loops of one call. A length that it leaves open may therefore vary as long as the number of chunks
does not, or where torch's own loop takes the place of Python's; what else would be fixed without a word is an error
that says what to do.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Loop", "chunk_ends", "count_of", "exported", "require_open", "unrolled"]

Step = Callable[..., Tensor]

Loop = Callable[..., tuple[Tensor, Tensor]]
"""(step, state, *parts [G, N, ...]) -> the state before each of the N steps [G, N, ...], and after the last."""


def chunk_ends(length: int, first: int, size: int) -> list[int] | None:
    """Where chunks end before ``length``: ``first`` and every ``size`` tokens after it.

    None if a program is exported for lengths between which the number of these ends differs. For other compilers each
    comparison is a condition of the graph.
    """
    ends, end = [], first
    while before := _before(end, length):
        ends.append(end)
        end += size
    return None if before is None else ends


def require_open(length: int, size: int) -> None:
    """Whether torch's loop can take the place of Python's, for lengths between which the number of blocks differs.

    Raises:
        ValueError: what torch would complain of in symbols: lengths of less than one block, or its own conditions of
            a program, of which it cannot prove that they always hold.
    """
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    deferred = True
    if not torch.compiler.is_dynamo_compiling():  # strict=True, where a length has no node to look at
        shapes = getattr(getattr(length, "node", None), "shape_env", None)
        deferred = getattr(shapes, "prefer_deferred_runtime_asserts_over_guards", True)
    if not deferred or not statically_known_true(length >= size):
        raise ValueError(
            f"torch.export: the time dimension was marked as dynamic over several numbers of blocks of {size} tokens. "
            f"Give it as Dim('time', min={size}) or more, and export with "
            "prefer_deferred_runtime_asserts_over_guards=True; or leave it out of dynamic_shapes (the batch may stay) "
            f"and export once for each length; or narrow it to one block, as Dim('time', min=3, max={size}) is"
        )


def count_of(time: Tensor) -> int:
    """The number of tokens that a state has seen, for a loop that depends on it.

    Raises:
        NotImplementedError: while a program is exported, to which a state is an input like any other.
    """
    if torch.compiler.is_exporting():
        raise NotImplementedError(
            "torch.export: where chunks end depends on how many tokens the state has seen, and a program has one loop "
            "for all states. Export the layer without a state, or go on from states with the layer itself or with "
            "torch.compile; docs/sequence.md, 'Compiled and exported', says which programs take a state."
        )
    return int(time)


def unrolled(step: Step, state: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
    """Python's loop."""
    starts = []
    for part in zip(*(x.unbind(1) for x in parts), strict=True):
        starts.append(state)
        state = step(state, *part)
    return torch.stack(starts, 1), state


def exported(step: Step, state: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
    """torch's, for as many steps as there are when the program runs."""
    from torch._higher_order_ops import scan  # torch has no public name for it yet

    def turn(state: Tensor, part: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return step(state, *part), state.clone()

    after, starts = scan(turn, state, tuple(x.movedim(1, 0) for x in parts))
    return starts.movedim(0, 1), after


def _before(end: int, length: int) -> bool | None:
    if not torch.compiler.is_exporting():
        return end < length
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to import

    if statically_known_true(end < length):
        return True
    return False if statically_known_true(end >= length) else None
