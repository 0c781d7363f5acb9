"""A matrix of a pretrained model that a text writes: its weight is where the memory starts (C5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from nestlearn.memory.rules import Context, Rule, apply_update
from nestlearn.memory.state import State, flatten, mapped
from nestlearn.rules.kernels import Kernel, Rates, fits

__all__ = ["Writer", "WrittenMatrix", "directions"]


class Pass(Protocol):
    """What the matrices are told about the pass that the model is in."""

    @property
    def learns(self) -> bool:
        """Whether slopes will be asked for."""


class Writer(NamedTuple):
    """What makes updates of slopes.

    Args:
        rule: does.
        kernel: writes as the rule says, in one pass over everything; None where torch has none.
        sees: whether the rule may look at what it writes.
    """

    rule: Rule
    kernel: Kernel | None
    sees: bool


@dataclass(eq=False)
class WrittenMatrix:
    """y = (W + D B) x for a linear layer with the weight W [out, in], whose own forward pass stays what it is.

    D [batch, out, rank] is what a text has written, for each text of a batch its own; B [rank, in] has the directions
    that it is written in, orthonormal and fixed, and is left out where D has the full width. D starts at zero, so that
    W is where the memory starts, and W itself is never changed.

    Args:
        linear: the layer; what D answers is added to its answer by a hook.
        period: tokens from one write to the next.
        writer, lr, retention: D <- retention D - lr update, the update being the writer's for the slopes of the period.
        basis: B, or None.
        current: the pass that the model is in.
        keep: given what D answers [batch, time, out], in the place of the sum, where that is to find its way to
            the end of the model alone (objective "direct").
    """

    linear: nn.Linear
    period: int
    writer: Writer
    lr: float
    retention: float
    basis: Tensor | None
    current: Pass
    keep: Callable[[Tensor], None] | None = None

    def __post_init__(self) -> None:
        self.state: State | None = None
        self.handle = self.linear.register_forward_hook(self._add)

    @property
    def shape(self) -> tuple[int, int]:
        """Of D without its batch."""
        return self.linear.out_features, self.linear.in_features if self.basis is None else len(self.basis)

    def fresh(self, batch: int) -> State:
        """The state of so many texts that have not begun."""
        nothing = self._nothing(batch, self.linear.weight.device)
        return self._begun(nothing, self.parameters(nothing))

    def form(self, batch: int) -> State:
        """The shapes and types of `fresh`, for which nothing is allocated."""
        nothing = self._nothing(batch, torch.device("meta"))
        return self._begun(nothing, {"weight": nothing})

    def leaf(self) -> Tensor:
        """D as what slopes are taken for."""
        model = cast(State, self.state)["model"]
        if not model["weight"].requires_grad:
            model["weight"] = model["weight"].detach().requires_grad_()
        return cast(Tensor, model["weight"])

    def add_slope(self, slope: Tensor) -> None:
        """Add slopes to those that wait for the next write."""
        state = cast(State, self.state)
        waiting = state["pending"]["weight"]  # `_zeros` after a write
        state["pending"] = {"weight": slope if waiting.stride(0) == 0 else waiting + slope}

    def write(self, time: int) -> None:
        """One write, if this many tokens make one due."""
        if time % self.period == 0:
            self.state = self.written(cast(State, self.state), time)

    def written(self, state: State, time: int) -> State:
        """What a state is after its write at this many tokens; a kernel writes into its tensors."""
        held = state["model"]["weight"].detach()
        rule, kernel, sees = self.writer
        writes = time // self.period - 1
        if kernel is not None and self.retention == 1 and fits(kernel, held):
            memories = flatten(state["rule"].get("weight", {}))
            kernel.write(
                [held],
                [state["pending"]["weight"].contiguous()],
                [[memories[name]] for name in kernel.memories],
                [writes],
                Rates(self.lr, 0.0, maximize=False),
            )
            return {"model": {"weight": held}, "rule": state["rule"], "pending": {"weight": _zeros(held)}}
        seen = self.parameters(held) if sees else None
        context = Context(parameters=seen, time=writes, lr=self.lr, retention=self.retention)
        updates, after_rule = rule.update(state["rule"], state["pending"], context)
        lr = 1.0 if rule.includes_lr else self.lr
        after = apply_update(held, updates["weight"], lr, self.retention)
        return {"model": {"weight": after}, "rule": after_rule, "pending": {"weight": _zeros(after)}}

    def held(self) -> State:
        """The state as tensors that nothing later changes."""
        return mapped(lambda tensor: tensor.detach().clone(), cast(State, self.state))

    def parameters(self, held: Tensor) -> dict[str, Tensor]:
        """What a rule sees as W: the matrix as it answers, in the directions that are written."""
        weight = self.linear.weight.detach().to(held.dtype)
        start = weight if self.basis is None else weight @ self.basis.to(weight).mT
        return {"weight": start + held}

    def _nothing(self, batch: int, device: torch.device) -> Tensor:
        # As everywhere, memories have at least float32: a write is far smaller than what it is added to.
        dtype = torch.promote_types(self.linear.weight.dtype, torch.float32)
        return torch.zeros(batch, *self.shape, dtype=dtype, device=device)

    def _begun(self, nothing: Tensor, parameters: dict[str, Tensor]) -> State:
        return {
            "model": {"weight": nothing},
            "rule": self.writer.rule.init(parameters),
            "pending": {"weight": _zeros(nothing)},
        }

    def _add(self, module: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor | None:
        if self.state is None:
            return None
        learns = self.current.learns
        if learns and self.keep is None:  # what lies below the first written matrix needs no graph
            torch.set_grad_enabled(True)
        held, x = self.leaf() if learns else self.state["model"]["weight"].detach(), given[0]
        shared = len(held) == 1 and not learns  # one text may be asked many questions at once
        if x.ndim != 3 or (len(x) != len(held) and not shared):
            raise ValueError(
                f"expected the {len(held)} texts that are being read, [{len(held)}, time, {x.shape[-1]}], got "
                f"{list(x.shape)}: model.continuum.reset() begins with others"
            )
        if self.basis is not None:
            self.basis = self.basis.to(x.device)  # the model may have moved
            x = x @ self.basis.to(x.dtype).mT
        if self.keep is None or not learns:
            return torch.baddbmm(answer, x, held.to(x.dtype).mT.expand(len(x), -1, -1))
        with torch.enable_grad():
            own = x @ held.to(x.dtype).mT
        self.keep(own)
        return answer + own.detach()


def _zeros(like: Tensor) -> Tensor:
    """As many as of another tensor, in the place of one: slopes come after most writes."""
    return like.new_zeros(()).expand_as(like)


def directions(rank: int, linear: nn.Linear, seed: int) -> Tensor:
    """Orthonormal rows [rank, in] that the seed alone decides."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(linear.in_features, rank, dtype=torch.float64, generator=generator)
    rows: Tensor = torch.linalg.qr(drawn).Q.mT.to(linear.weight).contiguous()
    return rows
