"""MLP memories in parallel within chunks: the dual form (S5, S6, [TTT]).

M(x) = x + W_outer s(W_inner x) / sqrt(hidden). Inside a chunk all gradients are taken at the chunk's start, so both
layers know at once what every token writes, and each is a matrix memory on the kernel of `nestlearn.ops.matrix_memory`:

==========  ==============================  ==================================================
layer       key                             what a token writes
==========  ==============================  ==================================================
W_inner     k                               -eta (W_outer^T error) s'(W_inner k) / sqrt(hidden)
W_outer     s(W_inner k) / sqrt(hidden)     -eta error,   error = M(k) - v (l2) or -v (dot product)
==========  ==============================  ==================================================

Delta gradient descent is taken layer by layer, each matrix forgetting along its own key; [NL] 89 leaves open what its
factor acts on. The answer to q_t is read in two steps: what W_inner of token t makes of q_t, then what W_outer of token
t makes of that; neither matrix is ever formed inside a chunk. Chunks follow one another; with ``chunk=1`` this is the
plain recurrence, one token at a time. [TTT] is arXiv 2407.04620.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import MLP, Parameters
from nestlearn.memory.objectives import L2, DotProduct
from nestlearn.memory.rules import DeltaGradientDescent, GradientDescent
from nestlearn.memory.state import State
from nestlearn.memory.times import Scalar
from nestlearn.ops.blocks import TokenRows, delta_block, momentum_block, per_row, windows
from nestlearn.ops.scan import Read, finish, inner_rule, prepare, runs
from nestlearn.precision import no_autocast

__all__ = ["has_mlp_form", "mlp_group_step", "mlp_scan", "mlp_step"]


def has_mlp_form(memory: AssociativeMemory) -> bool:
    """Whether `mlp_scan` knows this memory: an `MLP` in full precision, either descent, dot product or l2."""
    model = memory.model
    known = type(inner_rule(memory)) in (GradientDescent, DeltaGradientDescent)
    return type(model) is MLP and not model.fast and known and type(memory.objective) in (DotProduct, L2)


def mlp_scan(
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
    """`nestlearn.ops.scan` for an `MLP` memory, a chunk at a time; same arguments, outputs, state and gradients.

    Raises:
        ValueError: for a memory without such a form (see `has_mlp_form`), or arguments that do not fit.
    """
    if not has_mlp_form(memory):
        raise ValueError(
            "mlp_scan: expected an MLP (fast=False) with gradient descent or delta gradient descent under dot_product "
            f"or l2, got {memory}; nestlearn.ops.scan runs any memory"
        )
    tokens, state = prepare(memory, key, value, query, eta, alpha, state, chunk, window, momentum, read)
    if tokens.length == 0:
        return torch.zeros_like(value), finish(tokens, state, state, state.get("frozen"))
    core: State = {"model": state["model"], "rule": state["rule"]}
    frozen, past = state.get("frozen"), state.get("window")
    answers = []
    into = tokens.position
    # One split a tensor: its slope is one concatenation, where a slice for each chunk would fill T numbers each.
    sizes = runs(tokens.length, into, tokens.chunk)
    vectors = [x.split(sizes, -2) for x in (tokens.key, tokens.value, tokens.query)]
    numbers = [x.split(sizes, -1) for x in (tokens.eta, tokens.alpha, tokens.momentum) if x is not None]
    for keys, values, queries, *rates in zip(*vectors, *numbers, strict=True):
        if past is not None:
            keys, values = torch.cat([past["key"], keys], -2), torch.cat([past["value"], values], -2)
            past = {"key": keys[..., 1 - window :, :], "value": values[..., 1 - window :, :]}
        frozen = core["model"] if into == 0 else frozen
        theta = rates[2] if len(rates) > 2 else None
        y, core = mlp_step(
            memory, core, keys, values, queries, *rates[:2], frozen=frozen, momentum=theta, read=read, window=window
        )
        answers.append(y)
        into = 0
    y = torch.cat(answers, -2)  # type: ignore[arg-type]
    return y.to(value.dtype), finish(tokens, state, core, frozen)


def mlp_step(
    memory: AssociativeMemory,
    state: State,
    key: Tensor,
    value: Tensor,
    query: Tensor | None,
    eta: Tensor,
    alpha: Tensor,
    *,
    frozen: Parameters | None = None,
    momentum: Tensor | None = None,
    read: Read = "after",
    window: int = 1,
) -> tuple[Tensor | None, State]:
    """Some tokens of one chunk, all gradients taken at ``frozen`` (S5, S6): for layers that make keys from the state.

    Nothing is checked or converted.

    Args:
        memory: a memory for which `has_mlp_form` holds.
        state: ``{"model": ..., "rule": ...}`` before the first of the tokens.
        key: [*B, C, in], C at least 1; [*B, window - 1 + C, in] with a window.
        value: the same, out.
        query: [*B, C, in], or None to write only.
        eta, alpha: [*B, C].
        frozen: parameters at the chunk's start, if these tokens do not start it.
        momentum: theta [*B, C], for `InnerMomentum`.
        read: "after" or "before" the write of each token.
        window: how many tokens each write sees.

    Returns:
        y [*B, C, out] (None without queries) and the state after the last token.
    """
    model = memory.model
    assert isinstance(model, MLP), "this form is of MLPs"
    with no_autocast(key):
        at = state["model"] if frozen is None else frozen
        answer, trace = model.trace(at, key)
        errors = model.errors(at, memory.objective.error(answer, value), trace)
        inputs = {"inner": key, "outer": trace[2]}
        asked, written = query, {}
        for name in ("inner", "outer"):
            block = _rows(memory, inputs[name], errors[name], asked, eta, alpha, momentum, window)
            asked, after = _run(block, [w.mT for w in _weights(state, name, momentum)], read)
            written[name] = [w.mT for w in after]
            if name == "inner" and asked is not None and query is not None:
                asked = model.hidden_units(model.with_features(asked, query))
        if model.residual and asked is not None and query is not None:
            asked = asked + query
    return asked, _stored(written)


def mlp_group_step(
    memory: AssociativeMemory,
    state: State,
    key: Tensor,
    value: Tensor,
    query: Tensor | None,
    eta: Tensor,
    alpha: Tensor,
    *,
    seen: Parameters,
    momentum: Tensor | None = None,
    read: Read = "after",
) -> tuple[Tensor | None, State]:
    """`mlp_step` for M memories that share keys, eta and alpha, and of which only the first is asked (S10).

    Their first layers lie side by side in one matrix, with one triangular solve for all.

    Args:
        memory: as in `mlp_step`, with features [..., M, hidden, in] or none.
        state: as in `mlp_step`; parameters are [*B, M, ...].
        key: [*B, C, in].
        value: [*B, M, C, out].
        query: [*B, C, in], or None.
        eta, alpha, momentum: [*B, C].
        seen: parameters at the chunk's start, with the features added to W_inner.
        read: "after" or "before" the write of each token.

    Returns:
        y [*B, C, out] of the first memory (None without queries), and the state after the last token.
    """
    model = memory.model
    assert isinstance(model, MLP), "this form is of MLPs"
    bare = replace(model, features=None)
    with no_autocast(key):
        answer, trace = bare.trace(seen, key.unsqueeze(-3))
        errors = model.errors(seen, memory.objective.error(answer, value), trace)
        hidden = trace[2]
        beside = errors["inner"].movedim(-3, -2).flatten(-2)
        block = replace(_rows(memory, key, beside, query, eta, alpha, momentum, 1), answers=slice(0, model.hidden))
        asked, after = _run(block, [w.flatten(-3, -2).mT for w in _weights(state, "inner", momentum)], read)
        inner = [w.mT.unflatten(-2, (-1, model.hidden)) for w in after]
        if asked is not None and query is not None:
            features = None if model.features is None else model.features[..., 0, :, :]
            asked = model.hidden_units(replace(model, features=features).with_features(asked, query))
        # The first is asked, all others are written by a block without queries.
        weights = zip(*(_apart(w.mT) for w in _weights(state, "outer", momentum)), strict=True)
        answers: list[Tensor | None] = []
        outer: list[list[Tensor]] = []
        for keys, error, own in zip(_apart(hidden), _apart(errors["outer"]), weights, strict=True):
            ask = None if answers or asked is None else asked.unsqueeze(-3)
            rates = [x if x is None else x.unsqueeze(-2).expand(keys.shape[:-1]) for x in (eta, alpha, momentum)]
            y, after = _run(_rows(memory, keys, error, ask, *rates, 1), own, read)  # type: ignore[call-arg, arg-type]
            answers.append(y)
            outer.append(after)
        y = None if answers[0] is None else answers[0].squeeze(-3)
        y = y + query if model.residual and y is not None and query is not None else y
    return y, _stored({"inner": inner, "outer": [torch.cat(each, -3).mT for each in zip(*outer, strict=True)]})


def _apart(memories: Tensor) -> tuple[Tensor, ...]:
    """The first memory of [*B, M, ., .], and the others if there are any."""
    count = memories.shape[-3]
    return memories.split([1, count - 1], -3) if count > 1 else (memories,)


def _weights(state: State, name: str, momentum: Tensor | None) -> list[Tensor]:
    """A layer's matrix and, with momentum, the kernel's box: the core's sums gradients, which point uphill."""
    weight = state["model"][name]
    return [weight] if momentum is None else [weight, -state["rule"][name]["model"]["value"]]


def _run(block: TokenRows, start: Sequence[Tensor], read: Read) -> tuple[Tensor | None, list[Tensor]]:
    """y, and what `_weights` gave after the block."""
    if len(start) == 1:
        y, after = delta_block(block, start[0], read)
        return y, [after]
    y, after, box = momentum_block(block, start[0], start[1], read)
    return y, [after, box]


def _stored(weights: dict[str, list[Tensor]]) -> State:
    """The core's state from what `_weights` gave of every layer."""
    boxes = {name: {"model": {"value": -w[1]}, "rule": {}} for name, w in weights.items() if len(w) > 1}
    return {"model": {name: w[0] for name, w in weights.items()}, "rule": boxes}


def _rows(
    memory: AssociativeMemory,
    key: Tensor,
    error: Tensor,
    query: Tensor | None,
    eta: Tensor,
    alpha: Tensor,
    momentum: Tensor | None,
    window: int,
) -> TokenRows:
    """What the tokens write into one layer, as rows of the kernel."""
    rule = inner_rule(memory)
    key, error = windows(key, window), windows(error, window)
    if getattr(rule, "implicit", False):
        eta = eta / (1 + eta * key.unflatten(-2, (-1, window)).square().sum((-2, -1)))
    write = -per_row(eta, window).unsqueeze(-1) * error
    forget = int(isinstance(rule, DeltaGradientDescent))
    return TokenRows(key, write, query, eta, alpha, momentum, window, forget)
