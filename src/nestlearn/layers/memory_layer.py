"""The rules of sequence memories as layers: linear, gated, delta, gated delta, Oja, Omega, DGD (S2, S5-S9).

Every token is projected to a key, a value and a query; the memory of each head is written with the pair and asked the
query. The rules are data, a row of `RULES` each: which rule of the core descends which objective, with or without
retention, and over how many tokens. `nestlearn.ops.parallel_scan` runs them, and ``layer.memory`` is the very
`AssociativeMemory` that `nestlearn.ops.scan` runs token by token on ``layer.associations(x)``.

===========  ============================  =========  ===========================================================
rule         descent, objective            retention  for a matrix
===========  ============================  =========  ===========================================================
linear       gradient, dot product         no         linear attention, M + e v k^T
gated        gradient, dot product         yes        a M + e v k^T
delta        gradient, l2                  no         DeltaNet, M - e (M k - v) k^T
gated_delta  gradient, l2                  yes        gated DeltaNet, a M - e (M k - v) k^T
oja          gradient, Oja                 yes        a M + e v (k - M^T v)^T; values have unit length too
omega        gradient, l2                  yes        gated_delta over the last ``window`` tokens at every write
dgd          delta gradient, l2            yes        M (a I - e k k^T) - e (M k - v) k^T
===========  ============================  =========  ===========================================================
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn.layers.facts import by_tokens, momentum_box, named
from nestlearn.layers.projections import CausalConvolution, Readout, retention_bias, unit
from nestlearn.layers.rates import averaged, bounded_eta, check_max_eta, erasures
from nestlearn.layers.sequence import SequenceLayer, check_heads, full, split_heads
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.described import Facts, Piece
from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.models import MLP, Matrix, Model
from nestlearn.memory.objectives import Objective, Oja, dot_product, l2, oja
from nestlearn.memory.rules import DeltaGradientDescent, GradientDescent, Rule
from nestlearn.memory.state import State, state_bytes
from nestlearn.memory.words import model_words
from nestlearn.ops import has_parallel_form, parallel_scan
from nestlearn.ops.fused import is_fused
from nestlearn.precision import no_autocast

__all__ = ["RULES", "MemoryLayer", "MemoryRule"]


@dataclass(frozen=True)
class MemoryRule:
    """How the memory of a layer is written: a rule and an objective of the core, and whether a token can forget."""

    rule: Rule
    objective: Objective
    retention: bool = True
    window: int = 1


RULES = {
    "linear": MemoryRule(GradientDescent(), dot_product, retention=False),
    "gated": MemoryRule(GradientDescent(), dot_product),
    "delta": MemoryRule(GradientDescent(), l2, retention=False),
    "gated_delta": MemoryRule(GradientDescent(), l2),
    "oja": MemoryRule(GradientDescent(), oja),
    "omega": MemoryRule(GradientDescent(), l2, window=4),
    "dgd": MemoryRule(DeltaGradientDescent(), l2),
}
"""The rules by name."""


class MemoryLayer(SequenceLayer):
    """A memory for each head, written and read at every token (S2, S9).

    Args:
        dim: width of the tokens.
        heads: must divide dim; each has a memory from dim / heads numbers to as many.
        rule: a name in `RULES`.
        memory: "matrix", or "mlp" for M(k) = k + W_outer tanh((A + W_inner) k) / sqrt(hidden) (S5), whose features A
            are learned and not forgotten: without them a memory that forgets dies.
        chunk: tokens whose gradients are taken at one state of an MLP (S6). A matrix has no need to wait: its exact
            recurrence runs in parallel, so that ``chunk`` changes nothing.
        hidden: units of an MLP, by default twice the width of a head.
        window: tokens that each write sees, the newest included; None takes the rule's.
        inner_momentum: whether gradients pass through a momentum box, theta being a number of each token ([T]).
        max_eta: bound of eta, by default the largest without negative factors, see `nestlearn.layers.rates`; at 0
            nothing is ever written or forgotten.
        convolution: width of the causal convolutions of queries, keys and values.
        output_gate: multiply the answers by a gate from the layer's input before the last map.

    State: ``{"convolution": [batch, convolution - 1, 3 dim], "memory": that of nestlearn.ops.scan}``.

    Raises:
        ValueError: for names and sizes that do not exist or do not fit.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        rule: str = "gated_delta",
        memory: str = "matrix",
        chunk: int = 64,
        hidden: int | None = None,
        window: int | None = None,
        inner_momentum: bool = False,
        max_eta: float | None = None,
        convolution: int = 4,
        output_gate: bool = False,
    ) -> None:
        super().__init__(dim)
        width, recipe = check_heads(dim, heads), _recipe(rule)
        if chunk < 1:
            raise ValueError(f"chunk: expected at least 1 token, got {chunk}")
        self.heads, self.retention = heads, recipe.retention
        self.chunk = 1 if memory == "matrix" else chunk
        self.periods = (self.chunk,)
        self.window = recipe.window if window is None else window
        if self.window < 1:
            raise ValueError(f"window: expected at least 1 token, got {window}")
        model = _model(memory, width, hidden or 2 * width)
        self._memory = AssociativeMemory(
            model, recipe.objective, InnerMomentum(rule=recipe.rule) if inner_momentum else recipe.rule
        )
        if not has_parallel_form(self._memory):
            raise ValueError(f"rule: {rule!r} is made for a matrix, pass memory='matrix' instead of {memory!r}")
        self.strength = erasures(self._memory, self.chunk, self.window)
        self.max_eta = check_max_eta(max_eta, self.strength)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.convolution = CausalConvolution(3 * dim, convolution)
        self.rates = nn.Linear(dim, (1 + self.retention + inner_momentum) * heads)
        with torch.no_grad():
            self.rates.bias.zero_()
            if self.retention:
                self.rates.bias[heads : 2 * heads] = retention_bias(heads)
        self.features = nn.Parameter(model.init((heads,))["inner"]) if isinstance(model, MLP) else None
        self.start = nn.ParameterDict({name: torch.zeros_like(t) for name, t in model.init((heads,)).items()})
        self.readout = Readout(dim, heads, gate=output_gate)

    @property
    def memory(self) -> AssociativeMemory:
        """The memory of every head, with an MLP's learned features."""
        model = self._memory.model
        if self.features is None or not isinstance(model, MLP):
            return self._memory
        return replace(self._memory, model=replace(model, features=full(self.features)))

    def initial_state(self, batch_size: int) -> State:
        model = {name: full(t).expand(batch_size, *t.shape) for name, t in self.start.items()}
        memory: State = {
            "model": model,
            "rule": self.memory.rule.init(model),
            "time": torch.zeros((), dtype=torch.int64),
        }
        if self.chunk > 1:
            memory["frozen"] = model
        if self.window > 1:
            like = next(iter(model.values()))
            empty = like.new_zeros(batch_size, self.heads, self.window - 1, self.dim // self.heads)
            memory["window"] = {"key": empty, "value": empty}
        return {"convolution": self.convolution.initial_state(batch_size), "memory": memory}

    def associations(self, x: Tensor, past: Tensor | None = None) -> tuple[dict[str, Any], Tensor]:
        """What the memory is written with and asked: the tensors of `nestlearn.ops.scan`.

        Args:
            x: [batch, time, dim].
            past: the convolution's state; None for the start of a sequence.

        Returns:
            key, value, query [batch, heads, time, d], eta, alpha (1.0 without retention) and, with inner momentum,
            momentum [batch, heads, time], all in full precision; and the convolution's state.
        """
        projected = full(self.qkv(x))
        mixed, past = self.convolution(projected, self.convolution.initial_state(x.shape[0]) if past is None else past)
        query, key, value = (split_heads(part, self.heads) for part in mixed.chunk(3, -1))
        logits = list(full(self.rates(x)).mT.chunk(self.rates.out_features // self.heads, 1))
        eta, alpha = logits.pop(0), logits.pop(0).sigmoid() if self.retention else 1.0
        alpha = alpha if self.max_eta else 1.0
        found: dict[str, Any] = {
            "key": unit(key),
            "value": unit(value) if isinstance(self.memory.objective, Oja) else value,
            "query": unit(query),
            "eta": bounded_eta(eta, alpha, self.max_eta, self.strength),
            "alpha": alpha,
        }
        if logits:
            theta = found["momentum"] = logits.pop().sigmoid()
            found["eta"], found["value"] = averaged(self.memory, found["eta"], found["value"], theta)
        return found, past

    def advance(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        if state is None:
            start = self.initial_state(x.shape[0])
            # A scan completes what begins; a count of tokens would be looked at, which cannot be compiled.
            state = {**start, "memory": {"model": start["memory"]["model"]}}
        found, past = self.associations(x, state["convolution"])
        autocast = not x.is_meta and torch.is_autocast_enabled(x.device.type)
        half = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
        if is_fused(x.new_empty(0, dtype=half)):
            found |= {name: found[name].to(half) for name in ("key", "value", "query")}
        with no_autocast(x):
            answers, memory = parallel_scan(
                self.memory, **found, state=state["memory"], chunk=self.chunk, window=self.window
            )
        return self.readout(full(answers), x), {"convolution": past, "memory": memory}

    def facts(self, state: State) -> Facts:
        memory, held = self.memory, state["memory"]
        words = model_words(memory.model)
        pieces = [Piece("start", f"start of {words}", named(self.start))]
        if self.features is not None:
            pieces.append(Piece("features", f"features of {words}", {"features": self.features}))
        if not self.max_eta:
            return Facts(pieces=tuple(pieces), frozen="max_eta is 0")
        own = by_tokens(
            "memory",
            memory,
            held["model"],
            chunk=self.chunk,
            key="k" if self.window == 1 else f"k of {self.window} tokens",
            value="v" if self.window == 1 else f"v of {self.window} tokens",
            lr=f"eta < {self.max_eta:g}",
            retention="alpha" if self.retention else "1",
            query="q",
            count=self.heads,
            bytes=state_bytes({name: part for name, part in held.items() if name not in ("rule", "time")}),
        )
        return Facts((own, *momentum_box(own, memory, held["rule"])), {own.name: "start"}, tuple(pieces))


def _model(name: str, width: int, hidden: int) -> Model:
    if name == "matrix":
        return Matrix(width, width)
    if name == "mlp":
        return MLP(width, hidden, width, activation="tanh")
    raise ValueError(f"memory: expected 'matrix' or 'mlp', got {name!r}")


def _recipe(rule: str) -> MemoryRule:
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {sorted(RULES)}, got {rule!r}")
    return RULES[rule]
