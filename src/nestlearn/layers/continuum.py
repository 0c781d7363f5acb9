"""Continuum memory: feed-forward blocks that go on learning while they read, each at its own pace (C1-C3).

    y_t = MLP_k(... MLP_1(x_t)),   MLP_l(x) = x + M_l(x / ||x||),   M(k) = W_outer s(W_inner k) / sqrt(hidden)

Block l is a memory with period C_l: for C_l tokens it answers from the same parameters, and after the last of them

    theta <- start + retention (theta - start) - c sum_t eta_t dL_t/dtheta          all gradients at that same theta

Periods are counted in tokens from the start of the sequence, every sequence of a batch has blocks of its own, and what
was collected since the last write is part of the state. ``inner_lr=0`` is the frozen network, an ordinary feed-forward
layer.

**Objectives (C3).** [NL] leaves open what a block is asked for.

``"local"``
    L_t = 1/2 ||M(k_{t-1}) - M_start(k_{t-1}) - V k_t||^2, k_t the unit input of this block at token t, V a learned
    matrix and M_start the block as it was learned outside: what is learned in context, beyond the start, is to say of a
    token what the block will see of the next one. Nothing but the input is needed. eta_t = inner_lr 2 sigmoid(w k_t +
    b) is learned. With s = sum eta_t ||h_t||^2, h the hidden units, a write of tokens that are alike takes away c s of
    what is missed: c = 1 up to s = 1/2, then c s = 1 - 1 / (4 s), which goes on without a kink. It cannot overshoot
    whatever the tokens of a period have in common, and rates have a slope however long that is.
``"next_token"``
    The task's own loss on the tokens just seen. Only the model around the layer knows its slopes: it runs the layer up
    to ``until_write`` and passes them to ``write`` (`nestlearn.models.LanguageModel` does). eta =
    inner_lr 2 sigmoid(b), c = 1.

**Variants (C2).**

``"sequential"``
    As above. All starts are parameters, learned by the outermost level alone.
``"nested"``
    Periods rise, each a multiple of the one before. When the next slower block is written, after P tokens, a block
    forgets what it learned since and goes back to its start; the start itself was learned in these P tokens:
    start <- start - C / P sum of its writes, which is a step along the first-order meta-gradient (and Reptile's).
    The slowest block is as in the sequential variant.
``"headwise"``
    y = x + sum_l w_l M_l(x / ||x||), the blocks side by side, w learned.

[NL] is arXiv 2512.24695, 70-74.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.layers.continuum_block import ContinuumBlock
from nestlearn.layers.sequence import SequenceLayer, full
from nestlearn.layers.unequal import apart, is_unequal, put, seen, timed
from nestlearn.memory.described import Described, Facts, Piece
from nestlearn.memory.models import Parameters
from nestlearn.memory.state import State, mapped, select_state
from nestlearn.ops.exporting import count_of

__all__ = ["OBJECTIVES", "VARIANTS", "ContinuumMemory"]

VARIANTS = ("sequential", "nested", "headwise")
OBJECTIVES = ("local", "next_token")
INNER_LR = {"local": 0.1, "next_token": 1.0}


class ContinuumMemory(SequenceLayer):
    """Blocks written in context, each with its own period (C1-C3): [batch, time, dim] -> the same.

    Args:
        dim: width.
        hidden: units of each block; None is ``dim``.
        periods: C of each block in tokens, in the order in which the input passes through them.
        variant: "sequential", "nested" or "headwise".
        objective: "local" or "next_token".
        inner_lr: of a token; 0 never writes. None is 0.1 for "local" and 1 for "next_token".
        retention: of what was learned in context, from one write to the next; 1 forgets nothing, 0 all.

    State, for a batch of B: ``time``, how many tokens were seen (int64; [B] if these numbers differ), and for each
    block ``model``, its parameters [B, ...]; ``pending``, what was collected since its last write; ``key`` [B, dim],
    its last input (objective "local"); ``start`` and ``span``, its start and the sum of its writes since it was
    restored (variant "nested", all blocks but the slowest).

    Raises:
        ValueError: settings that do not fit.
    """

    periods: tuple[int, ...]

    def __init__(
        self,
        dim: int,
        *,
        hidden: int | None = None,
        periods: tuple[int, ...] = (64, 256),
        variant: str = "sequential",
        objective: str = "local",
        inner_lr: float | None = None,
        retention: float = 1.0,
    ) -> None:
        super().__init__(dim)
        choice("variant", variant, VARIANTS)
        choice("objective", objective, OBJECTIVES)
        self.variant, self.objective = variant, objective
        self.inner_lr = INNER_LR[objective] if inner_lr is None else inner_lr
        self.retention = retention
        self.periods = tuple(periods)
        _check(self)
        hidden = dim if hidden is None else hidden
        parents = [*self.periods[1:], None] if variant == "nested" else [None] * len(self.periods)
        self.blocks = nn.ModuleList(
            ContinuumBlock(dim, hidden, period, parent, self.inner_lr, retention, objective == "local")
            for period, parent in zip(self.periods, parents, strict=True)
        )
        if variant == "headwise":
            equal = len(self.periods) ** -0.5
            self.weights = nn.Parameter(torch.full((len(self.periods),), equal))

    def initial_state(self, batch_size: int) -> State:
        blocks = {name: block.initial_state(batch_size) for name, block in self._blocks().items()}
        # On the CPU wherever the layer is, so that it can be read at once.
        return {"time": torch.zeros((), dtype=torch.int64, device="cpu"), "blocks": blocks}

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        return_state: bool = False,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> Any:
        """As every sequence layer; without ``return_state`` the last write, which nobody would see, is left out.

        Raises:
            ValueError: with the objective "next_token", for more tokens than there are up to the next write.
        """
        if return_state or x.ndim != 3 or x.shape[-1] != self.dim or not x.shape[1]:
            return super().forward(x, state, return_state, lengths)
        if state is not None:
            state = self.fitted(state, x.shape[0])
        if lengths is not None or (state is not None and is_unequal(state)):
            return super().forward(x, state, return_state, lengths)
        return self._run(x, state, keep=False)[0]

    def advance(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        return self._run(x, state, keep=True)

    def advance_unequal(self, x: Tensor, state: State, lengths: Sequence[int]) -> tuple[Tensor, State]:
        for time, count in zip(seen(state, x.shape[0]), lengths, strict=True):
            self._check_left(time, count)
        return super().advance_unequal(x, state, lengths)

    def _run(self, x: Tensor, state: State | None, keep: bool) -> tuple[Tensor, State]:
        time = 0 if state is None else count_of(state["time"])
        state = self.initial_state(x.shape[0]) if state is None else state
        self._check_left(time, x.shape[1])
        written, y = {}, full(x)
        first = y
        for name, block in self._blocks().items():
            given = first if self.variant == "headwise" else y
            answer, written[name] = block(given, state["blocks"][name], time, keep)
            y = y + (self.weights[int(name)].to(y.dtype) * answer if self.variant == "headwise" else answer)
        return y.to(x.dtype), {"time": state["time"] + x.shape[1], "blocks": written}

    def until_write(self, state: State) -> int | None:
        """How many more tokens the objective "next_token" allows before slopes are due; None if it never writes.

        Of sequences that have seen unequal numbers of tokens, until the first of them is due.
        """
        if not is_unequal(state):
            return self._left(count_of(state["time"]))
        return min((left for time in seen(state, 0) if (left := self._left(time)) is not None), default=None)

    def _left(self, time: int) -> int | None:
        waits = self.objective == "next_token" and self.inner_lr > 0
        return min(self.periods) - time % min(self.periods) if waits else None

    def _check_left(self, time: int, count: int) -> None:
        left = self._left(time)
        if left is not None and count > left:
            raise ValueError(
                f"expected at most {left} tokens up to the next write at token {time + left}, got {count}: with "
                "objective='next_token' call `write` with the slopes of the loss at every multiple of "
                f"{min(self.periods)} tokens, as nestlearn.models.LanguageModel does"
            )

    def fast_parameters(self, state: State) -> dict[str, Parameters]:
        """The parameters that answer at the moment, by block: what the slopes given to ``write`` are slopes for."""
        return {name: block["model"] for name, block in state["blocks"].items()}

    def write(self, state: State, slopes: dict[str, Parameters]) -> State:
        """Collect the slopes of the loss on the tokens since the last call, and write the blocks that are due.

        Args:
            state: after the last of these tokens.
            slopes: for every tensor of ``fast_parameters``, of losses summed over the tokens, each sequence its own.
        """
        if is_unequal(state):
            return self._write_apart(state, slopes)
        time, written = count_of(state["time"]), {}
        for name, block in self._blocks().items():
            written[name] = block.collect(state["blocks"][name], slopes[name], time)
        return {**state, "blocks": written}

    def _write_apart(self, state: State, slopes: dict[str, Parameters]) -> State:
        """`write`, with sequences together of which the same blocks are due."""
        times = seen(state, len(state["time"]))
        after = state
        for places in apart(range(len(times)), lambda place: tuple(times[place] % size == 0 for size in self.periods)):
            index = torch.tensor(places)
            own = timed(select_state(state, index), torch.tensor(times[places[0]]))
            due = mapped(lambda slope, index=index: slope[index.to(slope.device)], slopes)
            after = put(after, self.write(own, due), index)
        return after

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, periods={self.periods}, variant={self.variant!r}, objective={self.objective!r}, "
            f"inner_lr={self.inner_lr}, retention={self.retention}"
        )

    def facts(self, state: State) -> Facts:
        pieces: list[Piece] = []
        found: list[Described] = []
        starts: dict[str, str] = {}
        for number, block in self._blocks().items():
            path, readout = f"blocks.{number}", f"w_{number} M" if self.variant == "headwise" else ""
            own = block.pieces(path)
            pieces += own
            found += block.described(path, state["blocks"][number], readout)
            starts[found[-1].name] = own[0].name
        if self.variant == "headwise":
            pieces.append(Piece("weights", "weights of the sum of blocks", {"weights": self.weights}))
        if not self.inner_lr:
            return Facts(pieces=tuple(pieces), frozen="inner_lr is 0")
        return Facts(tuple(found), starts, tuple(pieces))

    def _blocks(self) -> dict[str, ContinuumBlock]:
        return {str(number): block for number, block in enumerate(self.blocks)}  # type: ignore[misc]


def _check(layer: ContinuumMemory) -> None:
    periods = layer.periods
    if not periods or any(not isinstance(period, int) or period < 1 for period in periods):
        raise ValueError(f"periods: expected whole numbers of tokens, at least 1, one for each block, got {periods}")
    if layer.variant == "nested" and any(slow <= fast or slow % fast for fast, slow in pairwise(periods)):
        raise ValueError(
            "periods: the nested variant restores a block when the next slower one is written, so each period must be "
            f"a multiple of the one before, and longer; got {periods}"
        )
    if layer.objective == "next_token" and any(period % min(periods) for period in periods):
        raise ValueError(
            "periods: with objective='next_token' slopes come in at the end of the shortest period: expected multiples "
            f"of it, got {periods}"
        )
    if layer.inner_lr < 0 or not 0 <= layer.retention <= 1:
        raise ValueError(
            f"expected inner_lr of at least 0 and retention from 0 to 1, got {layer.inner_lr} and {layer.retention}"
        )
