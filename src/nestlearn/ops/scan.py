"""Rules as sequence memories: the core's memory run token by token, the oracle of every fast form (S2, S4, S6).

    for every token t:   state <- write(state, key_t, value_t; eta_t, alpha_t),   y_t = read(state, query_t)

Nothing here is fast. `nestlearn.ops.matrix_memory` and `nestlearn.ops.mlp_memory` give the same outputs, final state
and gradients and are tested against this file alone.

**Chunks (S6).** With ``chunk=C`` the objective's gradient (and the layer inputs along which delta gradient descent
forgets) are taken at the parameters of the chunk's start, while what is written and forgotten acts on the running
state. ``chunk=1`` is the plain recurrence (S4). A memory whose gradient does not depend on its parameters, a `Matrix`
with the dot product, is the same for every chunk.

**Window.** With ``window=c`` every write sees the last c tokens, whose gradients are summed (the Omega rule of S2).

**State.** What `AssociativeMemory.init` gives, ``{"model": ..., "rule": ...}``, and what a later call needs to go on
at any token:

=============  =====================================================  ==========================
``time``       how many tokens were written, int64 on the CPU
``frozen``     the parameters at the start of the running chunk       only if chunk > 1
``window``     ``key`` and ``value`` [*B, window - 1, d]              only if window > 1
=============  =====================================================  ==========================

As an argument, ``{"model": parameters}`` is enough, and parameters may lack leading dimensions: a learned start
[heads, out, in] is expanded to every sequence. Sequences never share a memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Literal

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.models import Matrix, Parameters
from nestlearn.memory.objectives import DotProduct
from nestlearn.memory.rules import Rule
from nestlearn.memory.state import State
from nestlearn.memory.times import Scalar

__all__ = ["Read", "Sequence", "finish", "inner_rule", "prepare", "runs", "scan"]

Read = Literal["after", "before"]
"""Whether y_t is read after the write of token t, or before it as S4 prints."""


@dataclass(frozen=True)
class Sequence:
    """The arguments of a scan after `prepare`: checked, expanded, in the precision of the computation.

    ``key`` [*B, T, in], ``value`` [*B, T, out], ``query`` [*B, T, in]; ``eta``, ``alpha`` and, for a rule with
    inner momentum, ``momentum`` [*B, T]. ``chunk`` is 1 where chunks make no difference.
    """

    key: Tensor
    value: Tensor
    query: Tensor
    eta: Tensor
    alpha: Tensor
    momentum: Tensor | None
    chunk: int
    window: int
    position: int
    """How many tokens of the running chunk were written by earlier calls."""

    @property
    def length(self) -> int:
        return self.key.shape[-2]

    def windows(self, state: State) -> tuple[Tensor, Tensor]:
        """Keys and values with the tokens of earlier calls in front: [*B, window - 1 + T, d]."""
        if self.window == 1:
            return self.key, self.value
        past = state["window"]
        return torch.cat([past["key"], self.key], -2), torch.cat([past["value"], self.value], -2)


def scan(
    memory: AssociativeMemory,
    key: Tensor,
    value: Tensor,
    query: Tensor,
    eta: Scalar,
    alpha: Scalar = 1.0,
    state: State | None = None,
    *,
    chunk: int = 1,
    window: int = 1,
    momentum: Scalar | None = None,
    read: Read = "after",
) -> tuple[Tensor, State]:
    """Write a memory with every token in turn and ask it at every token.

    Args:
        memory: period 1; its rule's own lr and retention are overridden by ``eta`` and ``alpha``.
        key: [*B, T, in], any leading dimensions (batch, heads, ...), one memory for each.
        value: [*B, T, out].
        query: [*B, T, in].
        eta, alpha: learning rate and retention of each token, [*B, T] or numbers.
        state: from an earlier call or a start of one's own, see above; None starts from ``memory.init``, which for an
            `MLP` draws from torch's global generator.
        chunk: length of the chunks at whose start gradients are taken.
        window: how many tokens, the newest included, each write sees.
        momentum: theta of each token for `InnerMomentum`, [*B, T] or a number; None takes the rule's.
        read: "after" the write of the same token or "before" it.

    Returns:
        y [*B, T, out] in the dtype of ``value`` and the state, which has at least float32.

    Raises:
        ValueError: for shapes that do not fit and settings that make no sense, with what was expected.
    """
    tokens, state = prepare(memory, key, value, query, eta, alpha, state, chunk, window, momentum, read)
    keys, values = tokens.windows(state)
    answers = []
    frozen = state.get("frozen")
    core = {"model": state["model"], "rule": state["rule"]}
    for t in range(tokens.length):
        if tokens.chunk > 1 and (tokens.position + t) % tokens.chunk == 0:
            frozen = core["model"]
        if read == "before":
            answers.append(memory.read(core, tokens.query[..., t, :]))
        core, _ = memory.write(
            core,
            keys[..., t : t + tokens.window, :],
            values[..., t : t + tokens.window, :],
            lr=tokens.eta[..., t],
            retention=tokens.alpha[..., t],
            observations=None if tokens.momentum is None else {"momentum": tokens.momentum[..., t]},
            at=frozen,
            surprise=False,
        )
        if read == "after":
            answers.append(memory.read(core, tokens.query[..., t, :]))
    y = torch.stack(answers, -2) if answers else torch.zeros_like(tokens.value)
    return y.to(value.dtype), finish(tokens, state, core, frozen)


def prepare(
    memory: AssociativeMemory,
    key: Tensor,
    value: Tensor,
    query: Tensor,
    eta: Scalar,
    alpha: Scalar,
    state: State | None,
    chunk: int,
    window: int,
    momentum: Scalar | None,
    read: Read,
) -> tuple[Sequence, State]:
    """Check the arguments of `scan` and complete the state; what every form of a scan starts with."""
    _check(memory, key, value, query, chunk, window, momentum, read)
    batch, dtype = key.shape[:-2], torch.promote_types(key.dtype, torch.float32)
    rule = memory.rule
    if momentum is None and isinstance(rule, InnerMomentum):
        momentum = rule.momentum

    def per_token(name: str, number: Scalar) -> Tensor:
        number = torch.as_tensor(number, dtype=dtype, device=key.device)
        try:
            return number.expand(key.shape[:-1])
        except RuntimeError:
            raise ValueError(
                f"{name}: expected a number or a tensor {tuple(key.shape[:-1])}, one for each token, "
                f"got {tuple(number.shape)}"
            ) from None

    if isinstance(memory.model, Matrix) and isinstance(memory.objective, DotProduct):
        chunk = 1
    # A fresh start needs no look at a tensor, so that it can be traced.
    position = int(state["time"]) % chunk if chunk > 1 and state is not None and "time" in state else 0
    state = _complete(memory, state, batch, dtype, key.device, chunk, window, key.shape[-1], value.shape[-1])
    tokens = Sequence(
        key.to(dtype),
        value.to(dtype),
        query.to(dtype),
        per_token("eta", eta),
        per_token("alpha", alpha),
        None if momentum is None else per_token("momentum", momentum),
        chunk,
        window,
        position,
    )
    return tokens, state


def finish(tokens: Sequence, state: State, core: State, frozen: Parameters | None) -> State:
    """The state after ``tokens``: the core's, the parameters of the running chunk's start, and the tokens to keep."""
    written: State = {"model": core["model"], "rule": core["rule"], "time": state["time"] + tokens.length}
    if tokens.chunk > 1:
        whole = (tokens.position + tokens.length) % tokens.chunk == 0 or frozen is None
        written["frozen"] = core["model"] if whole else frozen
    if tokens.window > 1:
        keys, values = tokens.windows(state)
        written["window"] = {"key": keys[..., tokens.length :, :], "value": values[..., tokens.length :, :]}
    return written


def runs(length: int, time: int, *sizes: int) -> list[int]:
    """Cut ``length`` tokens, ``time`` tokens having gone before, wherever a chunk of any of these ``sizes`` ends.

    The one place where a length shapes a loop. Under a compiler it may be a symbol, which is only compared with where
    chunks end: a graph serves all lengths of as many chunks.
    """
    if torch.compiler.is_exporting() and isinstance(length, torch.SymInt):
        raise ValueError(
            f"torch.export: chunks of {sorted(set(sizes))} tokens are a loop, which a program has in one length alone, "
            "but the time dimension was marked as dynamic. Leave it out of dynamic_shapes (the batch may stay) "
            "and export once for each length, or fill up with tokens at the end, which no earlier answer sees"
        )
    ends = set()
    for size in sizes:
        end = size - index(time % size)
        while end < length:
            ends.add(end)
            end += size
    cuts = [0, *sorted(ends), length]
    return [after - before for before, after in pairwise(cuts)]


def inner_rule(memory: AssociativeMemory) -> Rule:
    """The memory's rule, or the one behind its momentum."""
    return memory.rule.rule if isinstance(memory.rule, InnerMomentum) else memory.rule


def _complete(
    memory: AssociativeMemory,
    state: State | None,
    batch: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
    chunk: int,
    window: int,
    in_dim: int,
    out_dim: int,
) -> State:
    """The state with every entry that a scan needs, expanded to the batch."""
    fresh = memory.init(tuple(batch), dtype=dtype, device=device) if state is None else state
    own = {name: tensor.shape for name, tensor in memory.model.init(device="meta").items()}
    given = fresh.get("model")
    if not isinstance(given, Mapping) or given.keys() != own.keys():
        came = sorted(given) if isinstance(given, Mapping) else f"a state with {sorted(fresh)}"
        raise ValueError(f"state: expected parameters {sorted(own)} under 'model', got {came}")

    def expanded(tensor: Tensor, name: str) -> Tensor:
        try:
            if tensor.shape[-len(own[name]) :] == own[name]:
                return tensor.to(dtype).expand(*batch, *own[name])
        except RuntimeError:
            pass
        raise ValueError(
            f"state: {name!r} has shape {tuple(tensor.shape)}, which does not expand to one memory {tuple(own[name])} "
            f"for each of {tuple(batch)} sequences"
        )

    model = {name: expanded(tensor, name) for name, tensor in given.items()}
    whole: State = {
        "model": model,
        "rule": fresh.get("rule") or memory.rule.init(model),
        "time": fresh.get("time", torch.zeros((), dtype=torch.int64)),
    }
    if chunk > 1:
        whole["frozen"] = fresh.get("frozen", model)
    if window > 1:
        zeros = {
            name: torch.zeros(*batch, window - 1, d, dtype=dtype, device=device)
            for name, d in (("key", in_dim), ("value", out_dim))
        }
        whole["window"] = fresh.get("window", zeros)
        if (came := whole["window"]["key"].shape) != zeros["key"].shape:
            raise ValueError(f"state: expected a window of keys {tuple(zeros['key'].shape)}, got {tuple(came)}")
    return whole


def _check(
    memory: AssociativeMemory,
    key: Tensor,
    value: Tensor,
    query: Tensor,
    chunk: int,
    window: int,
    momentum: Scalar | None,
    read: Read,
) -> None:
    in_dim, out_dim = getattr(memory.model, "in_dim", None), getattr(memory.model, "out_dim", None)
    for name, tensor, width in (("key", key, in_dim), ("value", value, out_dim), ("query", query, in_dim)):
        if tensor.ndim < 2 or tensor.shape[:-1] != key.shape[:-1] or tensor.shape[-1] != width:
            raise ValueError(
                f"{name}: expected [*B, T, {width}] with the same leading dimensions as key {tuple(key.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
    for name, number in (("chunk", chunk), ("window", window)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1 token, got {number}")
    if window > 1 and (memory.objective.mean or getattr(memory.rule, "mean", False)):
        raise ValueError("window: the start of a sequence has fewer tokens to take a mean over; pass mean=False")
    if memory.period != 1:
        raise ValueError(f"memory: expected period 1, got {memory.period}; pass chunk={memory.period} to the scan")
    if momentum is not None and not isinstance(memory.rule, InnerMomentum):
        raise ValueError(f"momentum: the rule {type(memory.rule).__name__} has none; wrap it in InnerMomentum")
    if read not in ("after", "before"):
        raise ValueError(f"read: expected 'after' or 'before', got {read!r}")
