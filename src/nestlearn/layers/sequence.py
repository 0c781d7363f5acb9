"""What every sequence layer is: tokens in, tokens out, and a state that carries what came before.

    y = layer(x)                                          x, y [batch, time, dim]
    y, state = layer(x, state=state, return_state=True)

A state is a nested dictionary of tensors and nothing else, float32 or better, whose first dimension counts the
sequences of the batch; only the number of tokens seen, where a layer keeps it, is one number for all as long as all
have seen as many (`nestlearn.layers.unequal` has the rest). One long call
and many short ones that hand on the state give the same answers, wherever the cut. Nothing is written into a layer
or into a state that was given, so states can be kept, compared, and gone back to. One that was kept in another
precision is taken in that of the layer; one of another batch, layer or device is an error that names the tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn.layers.unequal import checked_lengths, is_unequal, one_time, put_with_time, read_apart, seen, timed
from nestlearn.memory.described import Facts
from nestlearn.memory.state import State, mapped

__all__ = ["SequenceLayer", "check_heads", "full", "merge_heads", "split_heads"]


class SequenceLayer(nn.Module, ABC):
    """A layer over [batch, time, dim] with a state; a subclass says how to begin and how to go on."""

    grows = False
    """Whether the state keeps every token: dimensions that are 0 in the initial state may then have any length."""

    periods: tuple[int, ...] | None = None
    """After how many tokens from its start a sequence has something done, such as a chunk's end; () for nothing.

    A layer that says so reads sequences of unequal length; None, the default, refuses them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim: expected at least 1, got {dim}")
        self.dim = dim

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first token, differentiable in what of it is learned."""

    @abstractmethod
    def advance(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """y [batch, time, dim] and the state after the last token, for checked arguments and at least one token.

        None is the initial state, of which a layer then knows without a look that no token was seen.
        """

    def facts(self, state: State) -> Facts | None:
        """What the layer says of itself in a description (`nestlearn.describe`); None, the default, says nothing.

        It speaks for subclasses as long as they change none of its class's methods.

        Args:
            state: of one sequence before its first token, on the meta device.
        """
        return None

    def advance_unequal(self, x: Tensor, state: State, lengths: Sequence[int]) -> tuple[Tensor, State]:
        """`advance` where so many tokens of each sequence count, or where sequences have seen unequal numbers of them.

        Raises:
            NotImplementedError: the layer does not say what its periods are.
        """
        if self.periods is None:
            raise NotImplementedError(
                f"{type(self).__name__} reads sequences of one length alone: read those of another length apart, or "
                "say in its class after how many tokens it does something, periods = () if nothing depends on that"
            )
        return read_apart(self.advance, x, state, lengths, self.periods)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        return_state: bool = False,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> Any:
        """Answers to all tokens.

        Args:
            x: [batch, time, dim].
            state: from ``initial_state`` or an earlier call; None begins anew.
            return_state: whether to return the state after the last token too.
            lengths: how many tokens of each sequence count [batch], its first ones; None for all. The others are not
                looked at, write nothing, and are answered with zeros.

        Returns:
            y [batch, time, dim] in the dtype of ``x``, or (y, state).

        Raises:
            ValueError: for another width than dim, lengths that cannot be, or a state of another batch, layer or
                device.
            NotImplementedError: unequal lengths, for a layer that has no `periods`, or in a compiled graph.
        """
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"{type(self).__name__}: expected x [batch, time, {self.dim}], got {tuple(x.shape)}")
        counts = checked_lengths(lengths, *x.shape[:2])
        if state is not None:
            state = self.fitted(state, x.shape[0])
        if x.shape[1] == 0:
            y, after = x, self.initial_state(x.shape[0]) if state is None else state
        elif counts is not None or (state is not None and is_unequal(state)):
            begun = self.initial_state(x.shape[0]) if state is None else state
            y, after = self.advance_unequal(x, begun, counts or [x.shape[1]] * x.shape[0])
        else:
            y, after = self.advance(x, state)
        return (y, after) if return_state else y

    def fitted(self, state: State, batch_size: int) -> State:
        """The state with every number in the precision that the layer writes in.

        Raises:
            ValueError: it is not one of this layer, for so many sequences, on its device.
        """
        expected = self.initial_state(1)
        complaint = _mismatch(state, expected, batch_size, self.grows)
        if complaint:
            raise ValueError(
                f"{type(self).__name__}: the state does not fit: {complaint}. "
                f"Pass one from this layer, or from initial_state({batch_size})."
            )
        found = mapped(lambda like, held: held.to(like.dtype), expected, state)
        return timed(found, one_time(seen(found, batch_size))) if is_unequal(found) else found

    def replaced(self, state: State, part: State, index: Tensor, batch_size: int) -> State:
        """The state with the sequences ``index`` [n] those of ``part``, which may have seen other numbers of tokens."""
        return put_with_time(state, part, index, batch_size)


def _mismatch(state: Any, expected: Any, batch_size: int, grows: bool, name: str = "state") -> str:
    """What is wrong with the tensors of a nested state, "" for nothing; ``expected`` is of one sequence."""
    if isinstance(expected, Mapping):
        if not isinstance(state, Mapping) or state.keys() != expected.keys():
            came = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            return f"{name} should hold {sorted(expected)}, got {came}"
        found = (_mismatch(state[key], expected[key], batch_size, grows, f"{name}.{key}") for key in expected)
        return next(filter(None, found), "")
    if not isinstance(state, Tensor):
        return f"{name} should be a tensor, got {type(state).__name__}"
    return _misshapen(state, expected, batch_size, grows, name) or _misplaced(state, expected, name)


def _misshapen(state: Tensor, expected: Tensor, batch_size: int, grows: bool, name: str) -> str:
    if not expected.ndim:
        fits = list(state.shape) in ([], [batch_size])
        return "" if fits else f"{name} should be one number for all sequences or for each, got {list(state.shape)}"
    shape = [batch_size, *expected.shape[1:]]
    wanted = ["any" if grows and size == 0 else size for size in shape]
    if len(wanted) != state.ndim or any(one not in ("any", two) for one, two in zip(wanted, state.shape, strict=True)):
        return f"{name} should be of {batch_size} sequences, [{', '.join(map(str, wanted))}], got {list(state.shape)}"
    return ""


def _misplaced(state: Tensor, expected: Tensor, name: str) -> str:
    """Numbers of another kind, or of another device; where the time is kept does not matter."""
    real, whole = expected.is_floating_point(), not (state.is_floating_point() or state.is_complex())
    if state.dtype == torch.bool or (not state.is_floating_point() if real else not whole):
        return f"{name} should hold {'real' if real else 'whole'} numbers, as {expected.dtype}, got {state.dtype}"
    if expected.ndim and state.device != expected.device:
        return f"{name} should be on {expected.device}, as the layer is, got {state.device}"
    return ""


def check_heads(dim: int, heads: int) -> int:
    """The width of one head."""
    if heads < 1 or dim % heads:
        raise ValueError(f"heads: expected a divisor of dim = {dim}, got {heads}")
    return dim // heads


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, time, heads * d] -> [batch, heads, time, d]."""
    parts: Tensor = x.unflatten(-1, (heads, -1))
    return parts.transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[batch, heads, time, d] -> [batch, time, heads * d]."""
    return x.transpose(1, 2).flatten(-2)


def full(x: Tensor) -> Tensor:
    """In float32, or better where it is: in what memories are written, whatever the weights are kept in."""
    # A weight that FSDP2 keeps in shards is whole in its block's forward alone; a state is begun outside of it too.
    x = x if type(x) in (Tensor, nn.Parameter) else getattr(x, "full_tensor", lambda: x)()
    return x.to(torch.promote_types(x.dtype, torch.float32))
