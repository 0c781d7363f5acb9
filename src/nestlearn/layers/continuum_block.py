"""A block of the continuum memory: the learned start, what it is asked for, and its writes (C1-C3).

The layer, `nestlearn.layers.continuum`, has the equations.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.layers.facts import by_tokens
from nestlearn.layers.sequence import full
from nestlearn.memory import MLP, AssociativeMemory, GradientDescent, l2
from nestlearn.memory.described import Described, Piece
from nestlearn.memory.models import Parameters
from nestlearn.memory.rules import apply_update, spread
from nestlearn.memory.state import State, state_bytes
from nestlearn.memory.words import model_words
from nestlearn.ops.local_period import local_period
from nestlearn.ops.scan import runs
from nestlearn.precision import no_autocast

__all__ = ["ContinuumBlock"]

SCALE = 0.5  # of the first read-out: its answers have entries of about this size
TARGET_SCALE = 0.05  # small, so that a fresh layer is nearly the frozen one


class ContinuumBlock(nn.Module):
    """One memory of a `ContinuumMemory`.

    Args:
        dim, hidden: of the MLP.
        period: C, in tokens.
        parent: that of the next slower block, if it writes the start of this one (nested), else None.
        inner_lr, retention: of the layer.
        local: whether the objective is "local".
    """

    def __init__(
        self, dim: int, hidden: int, period: int, parent: int | None, inner_lr: float, retention: float, local: bool
    ) -> None:
        super().__init__()
        self.memory = AssociativeMemory(MLP(dim, hidden, dim, residual=False), l2, GradientDescent())
        self.period, self.parent = period, parent
        self.inner_lr, self.retention, self.local = inner_lr, retention, local
        # Kept as ordinary layers are, with entries of about 1 / sqrt(fan in): an optimizer whose steps do not depend on
        # the size of a slope, such as Adam, would hardly move entries of the size that a memory's have.
        self.inner = nn.Parameter(torch.randn(hidden, dim) * dim**-0.5)
        self.outer = nn.Parameter(SCALE * torch.randn(dim, hidden) * hidden**-0.5)
        if self.inner_lr and self.local:
            self.target = nn.Parameter(TARGET_SCALE * torch.randn(dim, dim))
            self.rate_weight = nn.Parameter(torch.zeros(dim))
        if self.inner_lr:
            self.rate_bias = nn.Parameter(torch.zeros(1))
            self.register_load_state_dict_pre_hook(_with_a_dimension)  # type: ignore[no-untyped-call]

    def initial_state(self, batch: int) -> State:
        start = {name: t.expand(batch, *t.shape) for name, t in self.start().items()}
        state: State = {"model": start, "pending": self._nothing(start)}
        if self.local:
            state["key"] = start["inner"].new_zeros(batch, self.inner.shape[-1])
        if self.parent is not None:
            state |= {"start": start, "span": {name: torch.zeros_like(tensor) for name, tensor in start.items()}}
        return state

    def start(self) -> Parameters:
        """What the block knows before the first token, learned from outside."""
        hidden, dim = self.inner.shape
        return {"inner": full(self.inner) * dim**0.5, "outer": full(self.outer) * hidden**0.5}

    def _nothing(self, start: Parameters) -> Parameters:
        nothing = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
        if self.local:
            nothing["curvature"] = start["inner"].new_zeros(start["inner"].shape[0])
        return nothing

    def forward(self, x: Tensor, state: State, time: int, keep: bool) -> tuple[Tensor, State]:
        """M(x / ||x||) at every token, and the state after the last one; without ``keep`` it is not brought up to date.

        A slope at the zero vector is finite too, since the length is bounded from below.
        """
        with no_autocast(x):
            key = F.rms_norm(x, x.shape[-1:], eps=1e-6) * x.shape[-1] ** -0.5
            if not (self.local and self.inner_lr):
                answer = self.memory.model.read(state["model"], key)
                last = {"key": key[:, -1]} if self.local and key.shape[1] else {}
                return answer, {**state, **last}
            return self._learn(key, state, time, keep)

    def _learn(self, key: Tensor, state: State, time: int, keep: bool) -> tuple[Tensor, State]:
        """Period by period: answer all its tokens, then write."""
        model, length = self.memory.model, key.shape[1]
        if not length:
            return torch.zeros_like(key), state
        sizes = runs(length, time, self.period)
        if not keep:  # nobody sees what the last tokens would have written
            sizes.pop()
        learned = key[:, : sum(sizes)]
        eta = 2 * self.inner_lr * torch.sigmoid(learned @ self.rate_weight.to(key.dtype) + self.rate_bias.to(key.dtype))
        shown = torch.cat([state["key"].unsqueeze(1), key[:, :-1]], 1)[:, : sum(sizes)]
        value = model.read(self.start(), shown) + learned @ self.target.to(key.dtype).mT
        pending = state["pending"] if time % self.period else None
        answers: list[Tensor] = []
        for now, before, wanted, rate in zip(*(x.split(sizes, 1) for x in (learned, shown, value, eta)), strict=True):
            keys = torch.cat([before[:, :1], now], 1)
            inner, outer = state["model"]["inner"], state["model"]["outer"]
            answer, by_inner, by_outer, curvature = local_period(inner, outer, keys, wanted, rate, self._period)
            answers.append(answer)
            time += now.shape[1]
            slopes = {"inner": by_inner, "outer": by_outer, "curvature": curvature}
            state, pending = self._add(state, pending, slopes, time)
        if not keep:
            answers.append(model.read(state["model"], key[:, sum(sizes) :]))
        pending = self._nothing(state["model"]) if pending is None else pending
        return torch.cat(answers, 1), {**state, "pending": pending, "key": key[:, -1]}

    def _period(
        self, inner: Tensor, outer: Tensor, keys: Tensor, value: Tensor, eta: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `nestlearn.ops.local_period` gives, from the memory itself."""
        model, parameters = self.memory.model, {"inner": inner, "outer": outer}
        # All keys of a period but the first are shown and asked: one pass for both.
        answer, trace = model.trace(parameters, keys)
        trace = tuple(part[:, :-1] for part in trace)
        error = eta.unsqueeze(-1) * self.memory.objective.error(answer[:, :-1], value)
        slopes = model.pullback(parameters, keys[:, :-1], error, trace)
        curvature = (eta * trace[2].square().sum(-1)).sum(-1)
        return answer[:, 1:], slopes["inner"], slopes["outer"], curvature

    def collect(self, state: State, slopes: Parameters, time: int) -> State:
        """The next-token objective: eta times the slopes, written when they are due."""
        if not self.inner_lr:
            return state
        eta = 2 * self.inner_lr * torch.sigmoid(full(self.rate_bias).to(state["model"]["inner"].dtype))
        slopes = {name: eta * slope for name, slope in slopes.items()}
        state, pending = self._add(state, state["pending"], slopes, time)
        return {**state, "pending": self._nothing(state["model"]) if pending is None else pending}

    def _add(
        self, state: State, pending: Parameters | None, slopes: Parameters, time: int
    ) -> tuple[State, Parameters | None]:
        """The state and what is pending (None: nothing), with the slopes of the tokens up to ``time`` added."""
        if pending is not None:
            slopes = {name: total + slopes[name] for name, total in pending.items()}
        return (state, slopes) if time % self.period else (self._write(state, slopes, time), None)

    def _write(self, state: State, slopes: Parameters, time: int) -> State:
        """One write of the block; in the nested variant also of its start, when that is due."""
        before = state["model"]
        steps = {name: slopes[name] for name in before}
        if self.local:
            # c of C3, (1 - 1 / (4 m)) / m, in two operations: a step of at most 1/2 is whole, a longer one below 1.
            inverse = slopes["curvature"].clamp(min=0.5).reciprocal()
            shorter = torch.addcmul(inverse, inverse, inverse, value=-0.25)
            steps = {name: spread(shorter, step) * step for name, step in steps.items()}
        if self.parent is not None:
            span = {name: total + steps[name] for name, total in state["span"].items()}
            if time % self.parent == 0:
                share = self.period / self.parent
                start = {name: apply_update(state["start"][name], total, share, 1.0) for name, total in span.items()}
                nothing = {name: torch.zeros_like(total) for name, total in span.items()}
                return {**state, "model": start, "start": start, "span": nothing}
            state = {**state, "span": span}
        if self.retention == 1:
            return {
                **state,
                "model": {name: apply_update(before[name], step, 1.0, 1.0) for name, step in steps.items()},
            }
        start = self.start() if self.parent is None else state["start"]
        model = {
            name: start[name] + apply_update(before[name] - start[name], step, 1.0, self.retention)
            for name, step in steps.items()
        }
        return {**state, "model": model}

    def pieces(self, path: str) -> list[Piece]:
        """What the parameters are for, as pieces of a layer in which the block has this path; the start comes first."""
        parameters, found = dict(self.named_parameters()), []
        dim = self.inner.shape[-1]
        for part, words, names in (
            ("inner,outer", f"start of {model_words(self.memory.model)}", ("inner", "outer")),
            ("target", f"V, {dim} -> {dim}", ("target",)),
            ("rate_*", "eta", ("rate_weight", "rate_bias")),
        ):
            own = {name: parameters[name] for name in names if name in parameters}
            found += [Piece(f"{path}.{part}", words, own)] if own else []
        return found

    def described(self, path: str, state: State, readout: str) -> list[Described]:
        """The memory, and that of its start where it is written in context too (C2, nested)."""
        local = self.local
        own = by_tokens(
            path,
            self.memory,
            state["model"],
            period=self.period,
            objective=self.memory.objective.name if local else "the loss",
            key="k[t-1]" if local else "tokens",
            value="start(k[t-1]) + V k[t]" if local else "next tokens",
            lr=f"eta ({self.inner_lr:g} at first)",
            retention="1" if self.retention == 1 else f"{self.retention:g} of M - start",
            update="gradient (1 - 1 / (4 m)) / m, m = max(1/2, sum of eta |h|^2)" if local else "",
            query="k[t]",
            readout=readout,
            bytes=state_bytes({name: held for name, held in state.items() if name not in ("start", "span")}),
        )
        if self.parent is None:
            return [own]
        start = replace(
            own,
            name=f"{path}.start",
            period=self.parent,
            key="none",
            value=f"writes of {path}",
            objective="dot_product",
            lr=f"{self.period / self.parent:g}",
            retention="1",
            update="",
            query="",
            readout="its new start",
            read_by=(path,),
            bytes=state_bytes([state["start"], state["span"]]),
        )
        return [replace(own, starts_from=(start.name,)), start]


def _with_a_dimension(module: nn.Module, weights: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Weights of version 0.1, in which the bias was a number without dimensions; FSDP2 takes none of these."""
    name = f"{prefix}rate_bias"
    if name in weights and weights[name].ndim == 0:
        weights[name] = weights[name].reshape(1)
