"""The one idea: an associative memory is a model, an objective, a rule and a period (M1-M3, and O13 in general).

    memory = AssociativeMemory(Matrix(4, 4), l2, GradientDescent(lr=0.5))
    state = memory.init()
    state, surprise = memory.write(state, key, value)
    answer = memory.read(state, key)

is a fast-weight layer with the delta rule when keys are tokens, and a piece of an optimizer when keys are gradients.
State goes in and comes out; nothing is hidden in the object. All of it is differentiable, vmaps, and works on any
batch of memories of one shape.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nestlearn.memory.models import Constant, Model, Parameters
from nestlearn.memory.objectives import L2, Objective
from nestlearn.memory.rules import Context, GradientDescent, Rule, apply_update
from nestlearn.memory.state import State, mapped
from nestlearn.memory.times import Scalar, Time, happens_at

__all__ = ["AssociativeMemory"]


@dataclass(frozen=True)
class AssociativeMemory:
    """A map from keys to values that an objective scores and a rule writes, every ``period`` writes.

    Args:
        model: what holds the map.
        objective: what a good answer is; its value is the memory's surprise.
        rule: what changes the parameters; it may hold memories itself.
        period: C in M4. The gradients of ``period`` writes are summed and applied together at the last of them, all
            taken at the same parameters (C1, S6).

    State: ``{"model": parameters, "rule": the rule's state}`` and, for a period above one, ``"pending"``, the gradient
    sum.
    """

    model: Model
    objective: Objective
    rule: Rule
    period: int = 1

    def __post_init__(self) -> None:
        for name, kind in (("model", Model), ("objective", Objective), ("rule", Rule)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"AssociativeMemory: {name} must be a {kind.__name__}, got {type(getattr(self, name)).__name__}"
                )
        if self.period < 1:
            raise ValueError(f"AssociativeMemory: period must be at least 1, got {self.period}")

    def init(
        self,
        batch_shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """The state of ``batch_shape`` memories that know nothing yet."""
        parameters = self.model.init(tuple(batch_shape), dtype=dtype, device=device, generator=generator)
        state = {"model": parameters, "rule": self.rule.init(parameters, generator)}
        if self.period > 1:
            state["pending"] = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
        return state

    def read(self, state: State, query: Tensor) -> Tensor:
        """M(query): [*B, n, in] -> [*B, n, out], or one vector [*B, in] -> [*B, out]."""
        return self._unrow(state["model"], query, self.model.read(state["model"], self._rows(state["model"], query)))

    def surprise(self, state: State, key: Tensor, value: Tensor) -> Tensor:
        """The objective's value [*B] for this key and value, nothing written."""
        parameters = state["model"]
        return self.objective.surprise(
            self.model, parameters, self._rows(parameters, key), self._rows(parameters, value)
        )

    def write(
        self,
        state: State,
        key: Tensor,
        value: Tensor,
        *,
        time: Time | None = None,
        lr: Scalar | None = None,
        retention: Scalar | None = None,
        observations: dict[str, Tensor] | None = None,
        at: Parameters | None = None,
        surprise: bool = True,
        inplace: bool = False,
    ) -> tuple[State, Tensor | None]:
        """One write; returns the new state and the surprise [*B], the objective's value before the write.

        Args:
            state: from ``init`` or an earlier write.
            key: [*B, n, in] or [*B, in].
            value: [*B, n, out] or [*B, out]; for a ``Constant``, the shape of what it holds.
            time: how many writes came before; needed when ``period`` is above one. A tensor keeps the write free of
                data-dependent branches.
            lr, retention: override the rule's for this write; numbers or tensors [*B].
            observations: tensors that a nested rule may look at.
            at: parameters at which the gradient and the surprise are taken instead of the current ones, such as those
                at the start of a chunk (S6).
            inplace: the state given is not needed any more and may be overwritten; a box under regression does so.
            surprise: False skips the surprise (None is returned), where bandwidth is what a write costs.
        """
        parameters = state["model"]
        key, value = self._rows(parameters, key), self._rows(parameters, value)
        lr = self.rule.lr if lr is None else lr
        if not surprise and at is None and self._interpolates(lr, retention):
            # Error, gradient and update of a box under regression are one and the same: one pass instead of three.
            box = parameters["value"]
            return {**state, "model": {"value": box.lerp_(value, lr) if inplace else torch.lerp(box, value, lr)}}, None
        judged = parameters if at is None else at
        if self.rule.reads_gradients or self.period > 1:
            gradients, before = self.objective.assess(self.model, judged, key, value, surprise=surprise)
        else:
            gradients = {}
            before = self.objective.surprise(self.model, judged, key, value) if surprise else None
        retention = self.rule.retention if retention is None else retention
        context = Context(self.model, parameters, key, value, time, lr, retention, observations or {}, at=at)
        if self.period == 1:
            return self._apply(state, gradients, context, lr, retention), before
        return self._accumulate(state, gradients, context, lr, retention), before

    def _interpolates(self, lr: Scalar, retention: Scalar | None) -> bool:
        """Whether a write is M <- M - lr (M - v), nothing else."""
        plain = type(self.model) is Constant and type(self.objective) is L2 and type(self.rule) is GradientDescent
        keeps = retention is None and isinstance(self.rule.retention, float) and self.rule.retention == 1.0
        return plain and keeps and self.period == 1 and isinstance(lr, float)

    def _apply(self, state: State, gradients: Parameters, context: Context, lr: Scalar, retention: Scalar) -> State:
        # A rule without state may have been dropped by storage that keeps tensors only.
        updates, rule_state = self.rule.update(state.get("rule", {}), gradients, context)
        lr = 1.0 if self.rule.includes_lr else lr
        parameters = {
            name: apply_update(tensor, updates[name], lr, retention) for name, tensor in state["model"].items()
        }
        return {"model": parameters, "rule": rule_state}

    def _accumulate(
        self, state: State, gradients: Parameters, context: Context, lr: Scalar, retention: Scalar
    ) -> State:
        time = context.time
        if time is None:
            raise ValueError(f"a memory with period {self.period} needs to know the time: pass write(..., time=step)")
        pending = {name: total + gradients[name] for name, total in state["pending"].items()}
        due = happens_at(time, lambda time: (time + 1) % self.period == 0)
        if isinstance(due, bool) and not due:
            return {**state, "pending": pending}
        # A nested rule counts its own writes, not the keys that were collected for them.
        written = self._apply(state, pending, replace(context, time=time // self.period), lr, retention)
        written["pending"] = {name: torch.zeros_like(total) for name, total in pending.items()}
        if isinstance(due, bool):
            return written
        waited = {**state, "pending": pending}
        return mapped(lambda new, old: torch.where(due, new, old), written, waited)

    def _rows(self, parameters: Parameters, tensor: Tensor) -> Tensor:
        """A single key [*B, in] becomes one row [*B, 1, in]."""
        one = self.model.takes_rows and tensor is not None and tensor.ndim == self.model.batch_ndim(parameters) + 1
        return tensor.unsqueeze(-2) if one else tensor

    def _unrow(self, parameters: Parameters, query: Tensor, answer: Tensor) -> Tensor:
        one = self.model.takes_rows and query.ndim == self.model.batch_ndim(parameters) + 1
        return answer.squeeze(-2) if one else answer
