"""Self-modifying Titans: the memories that make keys, values and rates are written in context themselves (S3, S4).

    k_t = M_k(x_t)   v_t = M_v(x_t)   eta_t = M_eta(x_t)   alpha_t = M_alpha(x_t)   q_t = x_t W_q   y_t = M_mem(q_t)
    v^_b = M_b(v_t)                              every memory b in {k, v, eta, alpha, mem} makes its own value
    W_b <- W_b (alpha_t I - eta_t k_t k_t^T) - eta_t grad L(M_b; k_t, v^_b)                      [NL] 83-88

All reads of token t come before its write. Inside a chunk everything that a memory generates, and every gradient, is
taken at the state of the chunk's start, while forgetting acts on the running state (S6); chunks of one token are the
lines above to the letter.

What print leaves open, and what stands here:

- Heads: each head has memories from d = dim / heads numbers to as many. M_k and M_v see x_t through a linear map and a
  causal convolution into the head's own coordinates, as W_q does (S9), scaled to unit length; so are k, v and q. eta
  and alpha, one number for each token and head, are read at what M_k sees.
- M_b(z) = B_b z + W_b(z), see `nestlearn.layers.banks`: without B_b memories die out, and without a bound on v^ they
  grow. What is forgotten is W_b, so a memory forgets back to B_b.
- eta and alpha are squashed between bounds, see `nestlearn.layers.rates`.
- Single numbers need no hidden layer: with MLP memories eta and alpha are rows of matrices still.
"""

from collections.abc import Sequence as Names
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn.layers.banks import MAIN, Bank, MatrixBank, MLPBank, Tokens
from nestlearn.layers.compiled import body
from nestlearn.layers.facts import by_tokens, listed, momentum_box
from nestlearn.layers.projections import CausalConvolution, Readout, retention_bias, unit
from nestlearn.layers.rates import bounded_eta, check_max_eta, erasures
from nestlearn.layers.sequence import SequenceLayer, check_heads, full
from nestlearn.memory.described import Described, Facts
from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.objectives import Objective, dot_product, l2
from nestlearn.memory.rules import DeltaGradientDescent, GradientDescent, Rule
from nestlearn.memory.state import State, count_entries, mapped, state_bytes
from nestlearn.ops.exporting import count_of
from nestlearn.ops.scan import runs
from nestlearn.precision import no_autocast

__all__ = ["SelfModifyingTitans"]

_OBJECTIVES: dict[str, Objective] = {"dot_product": dot_product, "l2": l2}
_NAMES = ("k", "v", "eta", "alpha")


class SelfModifyingTitans(SequenceLayer):
    """Memories for keys, values, rates and content, all written by every token (S4).

    Args:
        dim: width of the tokens.
        heads: must divide dim.
        memory: "matrix" or "mlp" (S5).
        chunk: tokens that the main memory takes at one state (S6).
        projection_chunk: the same for the other memories; None for ``chunk``.
        hidden: units of an MLP, by default as many as a head is wide.
        objective: "dot_product" or "l2" (S7).
        dgd: delta gradient descent, which forgets along the key; otherwise gradient descent.
        retention: whether tokens forget (weight decay); otherwise alpha is 1 and has no memory.
        inner_momentum: whether gradients pass through an averaging momentum box ([T]).
        self_modifying: which of k, v, eta and alpha are memories that are written; the others are fixed maps. With
            none of them, and no query memory, values are v_t itself: the main memory is then a `MemoryLayer`'s.
        modify_query: whether the query is read from a memory of its own too.
        max_eta: bound of eta, by default the largest without negative factors; 0 writes and forgets nothing, and
            (with the defaults) 2 lets a write flip what it meets.
        convolution: width of the causal convolutions of queries, keys and values.

    State: ``{"convolution": [batch, convolution - 1, 3 dim], "banks": {name: state of the core}, "held": {name:
    parameters at the start of the running chunks}, "time": tokens so far}``.

    Raises:
        ValueError: for names and sizes that do not exist or do not fit.
    """

    compiled_chunks: dict[str, Any] | None = None
    """Options of `torch.compile` for chunks, see `nestlearn.layers.compile_chunks`; None runs them as they are."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        memory: str = "matrix",
        chunk: int = 64,
        projection_chunk: int | None = None,
        hidden: int | None = None,
        objective: str = "dot_product",
        dgd: bool = True,
        retention: bool = True,
        inner_momentum: bool = False,
        self_modifying: Names[str] = _NAMES,
        modify_query: bool = False,
        max_eta: float | None = None,
        convolution: int = 4,
    ) -> None:
        super().__init__(dim)
        width = check_heads(dim, heads)
        if width < 2:
            raise ValueError(f"heads: expected at least 2 numbers in each, got {dim} / {heads} = {width}")
        self.heads, self.chunk = heads, chunk
        self.projection_chunk = chunk if projection_chunk is None else projection_chunk
        self.periods = (self.chunk, self.projection_chunk)
        self.retention, self.regresses = retention, objective == "l2"
        _check(memory, self.chunk, self.projection_chunk, objective, self_modifying)
        # Without retention there is no alpha to be read from anywhere.
        self.self_modifying = tuple(
            name for name in _NAMES if name in self_modifying and (retention or name != "alpha")
        )
        rule: Rule = DeltaGradientDescent() if dgd else GradientDescent()
        rule = InnerMomentum(rule=rule) if inner_momentum else rule
        wide = [MAIN, *(name for name in ("k", "v") if name in self.self_modifying), *(["q"] if modify_query else [])]
        single = [name for name in ("eta", "alpha") if name in self.self_modifying]
        self.banks = _banks(memory, wide, single, width, heads, hidden or width, rule, _OBJECTIVES[objective])
        self.home = {name: bank for bank, each in self._banks() for name in each.sizes}
        strongest = max(self.chunk, self.projection_chunk)
        self.strength = max(erasures(bank.memory, strongest) for _, bank in self._banks())
        self.max_eta = check_max_eta(max_eta, self.strength)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.convolution = CausalConvolution(3 * dim, convolution)
        self.bias = nn.ParameterDict({"eta": torch.zeros(heads)})
        if retention:
            self.bias["alpha"] = nn.Parameter(retention_bias(heads))
        fixed = [name for name in self.bias if name not in self.self_modifying]
        self.fixed = nn.ParameterDict({name: torch.zeros(heads, 1, width) for name in fixed})
        self.momentum = nn.Linear(dim, heads) if inner_momentum else None
        self.readout = Readout(dim, heads)

    def initial_state(self, batch_size: int) -> State:
        banks = {name: bank.initial_state(batch_size) for name, bank in self._banks()}
        state: State = {
            "convolution": self.convolution.initial_state(batch_size),
            "banks": banks,
            "time": torch.zeros((), dtype=torch.int64),
        }
        if max(self.chunk, self.projection_chunk) > 1:
            state["held"] = {name: bank["model"] for name, bank in banks.items()}
        return state

    def advance(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        time = 0 if state is None else count_of(state["time"])
        state = self.initial_state(x.shape[0]) if state is None else state
        mixed, past = self.convolution(full(self.qkv(x)), state["convolution"])
        theta = None if self.momentum is None else full(self.momentum(x)).sigmoid().mT
        with no_autocast(x):
            seen = mixed.unflatten(-1, (3, self.heads, -1))
            answers, banks, held = self._write(seen, theta, state, time)
        written = {**state, "convolution": past, "banks": banks, "time": state["time"] + x.shape[1]}
        return self.readout(answers, x), written | ({"held": held} if "held" in state else {})

    def _write(
        self, seen: Tensor, theta: Tensor | None, state: State, time: int
    ) -> tuple[Tensor, State, dict[str, Any]]:
        """Chunk by chunk: generate, write, answer. ``seen`` [B, T, 3, H, d] is x_t as W_q, M_k and M_v see it."""
        banks, held = dict(state["banks"]), dict(state.get("held", {}))
        sizes = runs(seen.shape[1], time, self.chunk, self.projection_chunk)
        lasting = {name: bank.lasting() for name, bank in self._banks()}
        answers, queries = [], []
        chunk = body(_chunk, self.compiled_chunks)
        thetas = [None] * len(sizes) if theta is None else theta.split(sizes, -1)
        for part, momentum in zip(seen.split(sizes, 1), thetas, strict=True):
            main, others = time % self.chunk == 0, time % self.projection_chunk == 0
            if chunk is not _chunk:  # a graph is made for a layout, the first chunk has one of its own
                banks = mapped(Tensor.contiguous, banks)
            for name, bank in self._banks():
                if main or others:
                    running = banks[name]["model"]
                    held[name] = running if main and others else bank.refreshed(held[name], running, main)
            y, query, banks = chunk(self, part, momentum, lasting, held, banks)
            answers.append(y)
            queries.append(query)
            time += query.shape[-2]
        base = full(self._bank(self.home[MAIN]).base[MAIN])
        return torch.cat(answers, -2) + torch.cat(queries, -2) @ base.mT, banks, held

    def _generate(self, opened: dict[str, Any], seen: Tensor, momentum: Tensor | None) -> Tokens:
        """q, k, v, eta and alpha of the tokens of one chunk, from what is held there."""
        query, key, value = seen.unbind(0)

        def ask(name: str, at: Tensor) -> Tensor:
            home = self.home[name]
            return self._bank(home).answer(opened[home], name, at)

        def rate(name: str) -> Tensor:
            told = ask(name, key) if name in self.home else key @ full(self.fixed[name]).mT
            # Keys of unit length spread over d numbers: without the factor rates would hardly move.
            length: float = key.shape[-1] ** 0.5
            return told.squeeze(-1) * length + full(self.bias[name]).unsqueeze(-1)

        forgets = self.retention and self.max_eta > 0
        alpha = rate("alpha").sigmoid() if forgets else torch.ones_like(key[..., 0])
        eta = bounded_eta(rate("eta"), alpha, self.max_eta, self.strength)
        tokens = Tokens(
            key=unit(ask("k", key)) if "k" in self.home else key,
            value=unit(ask("v", value)) if "v" in self.home else value,
            query=unit(ask("q", query)) if "q" in self.home else query,
            eta=eta,
            alpha=alpha,
        )
        if momentum is None:
            return tokens
        if self.regresses:
            return replace(tokens, eta=eta * (1 - momentum), momentum=momentum)
        return replace(tokens, momentum=momentum, share=(1 - momentum).unsqueeze(-1))

    def _banks(self) -> list[tuple[str, Bank]]:
        return [(name, self._bank(name)) for name in self.banks]

    def _bank(self, name: str) -> Bank:
        bank = self.banks[name]
        assert isinstance(bank, Bank), "nothing else is in there"
        return bank

    def facts(self, state: State) -> Facts:
        pieces = tuple(piece for name, bank in self._banks() for piece in bank.pieces(f"banks.{name}"))
        pieces += listed("bias", "bias of {}", self.bias, self.bias)
        pieces += listed("fixed", "fixed map to {}", self.fixed, self.fixed)
        if not self.max_eta:
            return Facts(pieces=pieces, frozen="max_eta is 0")
        found: list[Described] = []
        for place, bank in self._banks():
            held = [state["banks"][place]["model"], state.get("held", {}).get(place, {})]
            for name in bank.sizes:
                own, share = self._described(name, bank, held), bank.share(name)
                found += [own, *momentum_box(own, bank.memory, state["banks"][place]["rule"], share)]
        starts = {name: f"banks.{place}.start" for place, bank in self._banks() for name in bank.sizes}
        return Facts(tuple(found), starts, pieces)

    def _described(self, name: str, bank: Bank, held: list[State]) -> Described:
        """One memory, given the parameters of its bank now and at the chunk's start."""
        main, share = name == MAIN, bank.share(name)
        return by_tokens(
            name,
            bank.alone(name),
            {},
            chunk=self.chunk if main else self.projection_chunk,
            key="k",
            value="M(v)" if bank.generate else "v",
            lr=f"eta < {self.max_eta:g}",
            retention="alpha" if self.retention else "1",
            query="q" if main else "x",
            readout="" if main else name,
            fresh=False,
            consulted_by="" if main else MAIN,
            read_by=() if main or name == "q" else tuple(self.home),
            count=self.heads,
            parameters=share(count_entries(held[0])),
            bytes=share(state_bytes(held)),
        )


def _chunk(
    layer: SelfModifyingTitans,
    seen: Tensor,
    momentum: Tensor | None,
    lasting: dict[str, Any],
    held: dict[str, Any],
    banks: State,
) -> tuple[Tensor, Tensor, State]:
    """Answers of the main memory and queries [B, H, C, d] of the tokens of one chunk, and the banks after them."""
    opened = {name: bank.opened(held[name], lasting[name]) for name, bank in layer._banks()}
    tokens = layer._generate(opened, unit(seen.permute(2, 0, 3, 1, 4).contiguous()), momentum)
    written = {name: bank.write(banks[name], held[name], opened[name], tokens) for name, bank in layer._banks()}
    (y,) = (answer for answer, _ in written.values() if answer is not None)
    return y, tokens.query, {name: after for name, (_, after) in written.items()}


def _banks(
    memory: str,
    wide: Names[str],
    single: Names[str],
    dim: int,
    heads: int,
    hidden: int,
    rule: Rule,
    objective: Objective,
) -> nn.ModuleDict:
    """Memories as wide as a head in one bank, and single numbers with them where all are matrices."""
    sizes, ones = dict.fromkeys(wide, dim), dict.fromkeys(single, 1)
    generate = len(wide) + len(single) > 1
    banks: dict[str, nn.Module] = {}
    if memory == "mlp":
        banks["mlp"] = MLPBank(sizes, dim, heads, rule, objective, generate, hidden)
        sizes = {}
    if sizes or ones:
        banks["matrix"] = MatrixBank(sizes | ones, dim, heads, rule, objective, generate)
    return nn.ModuleDict(banks)


def _check(memory: str, chunk: int, projection_chunk: int, objective: str, self_modifying: Names[str]) -> None:
    for name, size in (("chunk", chunk), ("projection_chunk", projection_chunk)):
        if size < 1:
            raise ValueError(f"{name}: expected at least 1 token, got {size}")
    if memory not in ("matrix", "mlp"):
        raise ValueError(f"memory: expected 'matrix' or 'mlp', got {memory!r}")
    if objective not in _OBJECTIVES:
        raise ValueError(f"objective: expected one of {sorted(_OBJECTIVES)}, got {objective!r}")
    if isinstance(self_modifying, str) or not set(self_modifying) <= set(_NAMES):
        raise ValueError(
            f"self_modifying: expected some of {_NAMES} in a tuple, got {self_modifying!r}; "
            "the query has a switch of its own, modify_query"
        )
