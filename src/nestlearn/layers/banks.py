"""Memories that lie side by side because they share keys, eta and alpha, written together (S4-S7, S10).

Memory b answers M_b(z) = B_b z + W_b(z): W_b is the associative memory of the core that every token writes, B_b what no
token forgets. Each makes the values that it is written with itself, v^_b = M_b(v). Were there no B_b, a memory that has
forgotten its start would generate zeros and never learn again; were all B_b the same, so would all W_b be in time.
[NL] 89 prints B_b = I for an MLP.

A generated value x is shortened to x / sqrt(1 + ||x||^2). A memory that is written with what it answers is a feedback
loop whose gain nothing else bounds: keys that vary around a value that does not make it grow from token to token. Those
of keys, values and queries are shortened further by a learned gain in (0, 1) that starts at 1/8, so that a fresh layer
is nearly one with fixed projections.

A `MatrixBank` keeps all rows in one tall matrix, with one triangular solve a chunk for all of them; an `MLPBank` has a
leading dimension that counts memories. The main memory, if it is in a bank, comes first.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from nestlearn.layers.facts import listed, named
from nestlearn.layers.projections import shortened
from nestlearn.layers.sequence import full
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.described import Piece
from nestlearn.memory.models import MLP, Matrix, Parameters
from nestlearn.memory.objectives import DotProduct, Objective
from nestlearn.memory.rules import Rule
from nestlearn.memory.state import State
from nestlearn.ops.matrix_memory import matrix_step
from nestlearn.ops.mlp_memory import mlp_group_step

__all__ = ["MAIN", "Bank", "MLPBank", "MatrixBank", "Tokens"]

MAIN = "mem"
"""The memory that answers for the layer, and the only one that is asked its queries."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of one chunk: key, value v, query [B, H, C, d]; eta, alpha, momentum [B, H, C].

    ``share`` [B, H, C, 1] multiplies what is written, None for 1.
    """

    key: Tensor
    value: Tensor
    query: Tensor
    eta: Tensor
    alpha: Tensor
    momentum: Tensor | None = None
    share: Tensor | None = None


class Bank(nn.Module, ABC):
    """Named memories of every head, with their learned starts W_b,0 and their bases B_b.

    Args:
        sizes: how many numbers each memory answers, by name; those as wide as the key first, then single numbers.
        dim: width of a key, d.
        heads: H.
        rule, objective: of the core, the same for all.
        generate: whether memories make their own values; otherwise every one is written with v itself.
    """

    memory: AssociativeMemory
    """All of them as one memory of the core."""

    def __init__(self, sizes: dict[str, int], dim: int, heads: int, rule: Rule, objective: Objective, generate: bool):
        super().__init__()
        self.sizes, self.dim, self.heads, self.generate = sizes, dim, heads, generate
        self.objective = objective
        self.start = nn.ModuleDict()
        own = [name for name, size in sizes.items() if size > 1 and name != MAIN]
        self.gain = nn.ParameterDict({name: torch.full((heads, 1), -math.log(7)) for name in own})
        self.base = nn.ParameterDict(
            {name: nn.Parameter(_base(name, size, dim, heads)) for name, size in sizes.items()}
        )

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state of the core's memory with the learned starts, for every sequence."""

    @abstractmethod
    def refreshed(self, held: Parameters, running: Parameters, main: bool) -> Parameters:
        """``held`` with the parameters of the main memory, or of all the others, taken from ``running``."""

    @abstractmethod
    def lasting(self) -> Parameters:
        """B and the gains of all memories, in full precision, made ready once for a whole call."""

    @abstractmethod
    def opened(self, held: Parameters, lasting: Parameters) -> Parameters:
        """The parameters at the chunk's start made ready to be read at, once for the chunk."""

    @abstractmethod
    def answer(self, opened: Parameters, name: str, query: Tensor) -> Tensor:
        """M_b(z) [B, H, C, size] of one memory to [B, H, C, d]."""

    def gains(self) -> list[Tensor]:
        """Of each memory's own values, [H, 1]."""
        one = full(next(iter(self.base.values()))).new_ones(self.heads, 1)
        return [full(self.gain[name]).sigmoid() if name in self.gain else one for name in self.sizes]

    @abstractmethod
    def write(self, state: State, held: Parameters, opened: Parameters, tokens: Tokens) -> tuple[Tensor | None, State]:
        """What W of the main memory answers before the write of each token (None without one), and the state after."""

    @abstractmethod
    def alone(self, name: str) -> AssociativeMemory:
        """One of the memories, as it would be on its own."""

    @abstractmethod
    def share(self, name: str) -> Callable[[int], int]:
        """The share that one memory has in what is counted of all of them."""

    def pieces(self, path: str) -> tuple[Piece, ...]:
        """What the parameters are for, as pieces of the layer in which the bank has this path."""
        start = Piece(f"{path}.start", f"start of {', '.join(self.sizes)}", named(self.start))
        base = listed(f"{path}.base", "base of {}", self.base, self.sizes)
        return (start, *base, *listed(f"{path}.gain", "gain of {}", self.gain, self.sizes))


class MatrixBank(Bank):
    """W_b a matrix; all of them are one matrix of the core, row below row (S10)."""

    def __init__(self, sizes: dict[str, int], dim: int, heads: int, rule: Rule, objective: Objective, generate: bool):
        super().__init__(sizes, dim, heads, rule, objective, generate)
        self.model = Matrix(dim, sum(sizes.values()))
        self.memory = AssociativeMemory(self.model, objective, rule)
        for name, size in sizes.items():
            self.start[name] = nn.ParameterDict({"weight": torch.zeros(heads, size, dim)})
        self.rows = _slices(sizes)
        self.wide = sum(size for size in sizes.values() if size > 1)

    def initial_state(self, batch_size: int) -> State:
        weight = torch.cat([full(self.start[name]["weight"]) for name in self.sizes], -2)  # type: ignore[index]
        model = {"weight": weight.expand(batch_size, *weight.shape)}
        return {"model": model, "rule": self.memory.rule.init(model)}

    def refreshed(self, held: Parameters, running: Parameters, main: bool) -> Parameters:
        first, others = (running, held) if main else (held, running)
        rows = self.sizes.get(MAIN, 0)
        return {"weight": torch.cat([first["weight"][..., :rows, :], others["weight"][..., rows:, :]], -2)}

    def lasting(self) -> Parameters:
        gains = [gain.expand(-1, size) for gain, size in zip(self.gains(), self.sizes.values(), strict=True)]
        base = torch.cat([full(self.base[name]) for name in self.sizes], -2)
        return {"base": base, "gain": torch.cat(gains, -1).unsqueeze(-2)}

    def opened(self, held: Parameters, lasting: Parameters) -> Parameters:
        whole = held["weight"] + lasting["base"]
        # One split: the slope of every slice would be as large as the whole.
        parts = whole.split(list(self.sizes.values()), -2)
        return {**lasting, "whole": whole, **dict(zip(self.sizes, parts, strict=True))}

    def answer(self, opened: Parameters, name: str, query: Tensor) -> Tensor:
        return query @ opened[name].mT

    def write(self, state: State, held: Parameters, opened: Parameters, tokens: Tokens) -> tuple[Tensor | None, State]:
        values = self._values(opened, tokens)
        reads = MAIN in self.rows
        return matrix_step(
            self.memory,
            state,
            tokens.key,
            values,
            tokens.query if reads else None,
            tokens.eta,
            tokens.alpha,
            frozen=held,
            momentum=tokens.momentum,
            read="before",
            answers=self.rows.get(MAIN, slice(0)),
        )

    def alone(self, name: str) -> AssociativeMemory:
        return replace(self.memory, model=replace(self.model, out_dim=self.sizes[name]))

    def share(self, name: str) -> Callable[[int], int]:
        return lambda count: count * self.sizes[name] // sum(self.sizes.values())

    def _values(self, opened: Parameters, tokens: Tokens) -> Tensor:
        """What the rows of W are written with [B, H, C, rows]."""
        if self.generate:
            own = tokens.value @ opened["whole"].mT
            wide, single = own.split([self.wide, own.shape[-1] - self.wide], -1)
            wide = shortened(wide.unflatten(-1, (-1, self.dim))).flatten(-2)
            values = torch.cat([wide, shortened(single.unsqueeze(-1)).squeeze(-1)], -1) * opened["gain"]
        else:
            values = tokens.value  # the main memory alone
        values = values if tokens.share is None else values * tokens.share
        return values if isinstance(self.objective, DotProduct) else values - tokens.key @ opened["base"].mT


class MLPBank(Bank):
    """W_b(z) = W_outer tanh((A_b + W_inner) z) / sqrt(hidden); parameters are [B, H, memories, ...] (S5).

    Like B_b the features A_b are learned and not forgotten. A memory whose W_inner fades has no hidden units left to
    learn with, and of S5's layers the first forgets along every key that comes. With tanh the second layer's keys stay
    within the unit ball, so that the bounds of eta hold there too; with silu both layers drive each other up.
    """

    def __init__(
        self,
        sizes: dict[str, int],
        dim: int,
        heads: int,
        rule: Rule,
        objective: Objective,
        generate: bool,
        hidden: int,
    ):
        super().__init__(sizes, dim, heads, rule, objective, generate)
        self.model = model = MLP(dim, hidden, dim, residual=False, activation="tanh")
        self.memory = AssociativeMemory(model, objective, rule)
        self.features = nn.ParameterDict()
        for name in sizes:
            self.features[name] = nn.Parameter(model.init((heads,))["inner"])
            start = {part: torch.zeros_like(t) for part, t in model.init((heads,)).items()}
            self.start[name] = nn.ParameterDict(start)
        self.place = {name: i for i, name in enumerate(sizes)}

    def initial_state(self, batch_size: int) -> State:
        model = {}
        for part in ("inner", "outer"):
            stacked = torch.stack([full(self.start[name][part]) for name in self.sizes], 1)  # type: ignore[index]
            model[part] = stacked.expand(batch_size, *stacked.shape)
        return {"model": model, "rule": self.memory.rule.init(model)}

    def refreshed(self, held: Parameters, running: Parameters, main: bool) -> Parameters:
        first, others = (running, held) if main else (held, running)
        count = int(MAIN in self.sizes)
        return {part: torch.cat([first[part][:, :, :count], others[part][:, :, count:]], 2) for part in held}

    def lasting(self) -> Parameters:
        learned = {"base": self.base, "features": self.features}
        stacked = {part: torch.stack([full(each[name]) for name in self.sizes], 1) for part, each in learned.items()}
        return {**stacked, "gain": torch.stack(self.gains(), 1).unsqueeze(-1)}

    def opened(self, held: Parameters, lasting: Parameters) -> Parameters:
        return {**lasting, "inner": held["inner"] + lasting["features"], "outer": held["outer"]}

    def answer(self, opened: Parameters, name: str, query: Tensor) -> Tensor:
        place = self.place[name]
        own = {part: opened[part][:, :, place] for part in ("inner", "outer")}
        return self.model.read(own, query) + query @ opened["base"][:, place].mT

    def write(self, state: State, held: Parameters, opened: Parameters, tokens: Tokens) -> tuple[Tensor | None, State]:
        values = tokens.value.unsqueeze(2)
        if self.generate:
            values = shortened(self.model.read(opened, values) + values @ opened["base"].mT) * opened["gain"]
        values = values if tokens.share is None else values * tokens.share.unsqueeze(2)
        if not isinstance(self.objective, DotProduct):
            values = values - tokens.key.unsqueeze(2) @ opened["base"].mT
        return mlp_group_step(
            replace(self.memory, model=replace(self.model, features=opened["features"])),
            state,
            tokens.key,
            values,
            tokens.query if MAIN in self.sizes else None,
            tokens.eta,
            tokens.alpha,
            seen=opened,
            momentum=tokens.momentum,
            read="before",
        )

    def alone(self, name: str) -> AssociativeMemory:
        return self.memory

    def share(self, name: str) -> Callable[[int], int]:
        return lambda count: count // len(self.sizes)

    def pieces(self, path: str) -> tuple[Piece, ...]:
        return (*super().pieces(path), *listed(f"{path}.features", "features of {}", self.features, self.sizes))


def _base(name: str, size: int, dim: int, heads: int) -> Tensor:
    """B_b [H, size, d]: nothing for single numbers, the identity for the main memory, else any rotation."""
    if size == 1:
        return torch.zeros(heads, 1, dim)
    if name == MAIN:
        return torch.eye(dim).repeat(heads, 1, 1)
    return torch.stack([nn.init.orthogonal_(torch.empty(size, dim)) for _ in range(heads)])


def _slices(sizes: dict[str, int]) -> dict[str, slice]:
    ends = accumulate(sizes.values())
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
