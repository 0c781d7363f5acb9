"""What optimizers share that look at what layers see: recording it, and boxes of covariances (O12, O15, O19)."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Consulted, Scene
from nestlearn.optim.checks import describe, one_process
from nestlearn.optim.lanes import matrix_shape, memory_dtype
from nestlearn.optim.layer_inputs import LayerRecorder
from nestlearn.optim.optimizer import Common, Optimizer, Params

__all__ = ["LayeredOptimizer", "layer_box", "require_model"]


class LayeredOptimizer(Optimizer):
    """Base of optimizers that record inputs ("inputs", A) and error signals ("errors", B) of layers of ``model``."""

    rows: int | None = None
    """At most so many rows of a batch enter A and B; None takes all."""

    smallest_side = 1

    def __init__(
        self,
        params: Params,
        lr: float | Tensor,
        settings: dict[str, Any],
        model: nn.Module | None,
        **common: Unpack[Common],
    ) -> None:
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(
                f"{type(self).__name__}: model= takes the torch.nn.Module to watch, got {type(model).__name__}"
            )
        self._model = model
        self._recorder: LayerRecorder | None = None
        self._groups_of: dict[int, dict[str, Any] | None] = {}
        self._grouped: list[tuple[int, int]] = []
        super().__init__(params, lr, settings, **common)
        self._watch()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if self._recorder is not None:
            try:
                self._watch()
            except ValueError:
                del self.param_groups[-1]
                self._choice.forget(len(self.param_groups))
                raise

    def renews(self, group: dict[str, Any]) -> int:
        """Every how many writes the covariances of a group are measured."""
        return 1

    def records(self, group: dict[str, Any]) -> tuple[str, ...]:
        """What is recorded of the layers of a group: "inputs", and "errors" where its rule looks at them."""
        return ("inputs",)

    def observe(self, loss: Any) -> dict[str, dict[Tensor, Tensor]]:
        if self._recorder is None:
            return {}
        if any(self._observes(group) for group in self.param_groups):
            one_process(
                self,
                "layers",
                "Train in one process, or take SecantMomentum without model=, or Muon: they read gradients alone.",
            )
        found: dict[str, dict[Tensor, Tensor]] = {"inputs": {}, "errors": {}}
        for parameter, group, sums in self._recorded():
            *totals, rows = self._collected(parameter, group, sums)
            for name, total in zip(self.records(group), totals, strict=False):
                found[name][parameter] = (total / max(int(rows), 1)).to(memory_dtype(parameter))
        return found

    def fresh_state(
        self, parameter: Tensor, group: dict[str, Any], device: torch.device | str | None = None
    ) -> dict[str, Tensor]:
        state = super().fresh_state(parameter, group, device)
        if self._recorder is not None and group["period"] > 1 and not self.entry(parameter, group).flat:
            inputs, errors, _ = _nothing(parameter, device)
            state["pending_inputs"], state["pending_rows"] = inputs, torch.zeros((), dtype=torch.float32)
            if "errors" in self.records(group):
                state["pending_errors"] = errors
        return state

    def _recorded(self) -> list[tuple[Tensor, dict[str, Any], Any]]:
        """(weight, its group, its sums) of every matrix that has a gradient."""
        idle = all(float(group["lr"]) == 0 for group in self.param_groups)
        recorded = []
        known = self._recorder.recorded()  # type: ignore[union-attr]
        for group, parameter in self._matrices():
            if parameter.grad is None:
                continue
            sums = known.get(parameter)
            if sums is None and not idle and self._measures(parameter, group):
                raise RuntimeError(
                    f"{describe(self, parameter)}: its layer's inputs were not recorded since the last step. Run "
                    "the forward and backward passes through the model that was given as model=."
                )
            recorded.append((parameter, group, sums or _nothing(parameter)))
        return recorded

    def _collected(self, parameter: Tensor, group: dict[str, Any], sums: Any) -> Any:
        """The sums since the last write of a weight: earlier ones of its period wait in its state, as gradients do."""
        if group["period"] == 1:
            return sums
        state = self.initialised(parameter, group)
        names = ("pending_inputs", "pending_errors", "pending_rows")
        totals = []
        for name, value in zip(names, sums, strict=True):
            totals.append(value if name not in state else state[name] + value)
        last = (int(state["step"]) + 1) % group["period"] == 0
        for name, total in zip(names, totals, strict=True):
            if name in state:
                state[name].copy_(torch.zeros_like(state[name]) if last else total)
        return tuple(totals)

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        if self._recorder is not None:
            self._recorder.drop()
        self._groups_of = {}
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._groups_of = {}
        if self._recorder is not None:
            self._recorder.drop()

    def _wants(self, weight: Tensor) -> tuple[str, ...]:
        """What the coming step looks at of what the layer of this weight sees."""
        grouped = [(id(group), len(group["params"])) for group in self.param_groups]
        if grouped != self._grouped:
            self._groups_of, self._grouped = {}, grouped
        if id(weight) not in self._groups_of:
            self._groups_of.update({id(parameter): group for group, parameter in self._matrices()})
            self._groups_of.setdefault(id(weight), None)  # somebody else's: not looked for again in this step
        group = self._groups_of[id(weight)]
        return self.records(group) if group is not None and self._measures(weight, group) else ()

    def _measures(self, parameter: Tensor, group: dict[str, Any]) -> bool:
        """Whether the coming write of a parameter looks at its layer; gradients that wait for it count as well."""
        return (self.taken(parameter) // group["period"]) % self.renews(group) == 0

    def _matrices(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """(group, parameter) of all that the optimizer's own rule writes."""
        for group in self.param_groups:
            rules = self.rules(group)
            for parameter in group["params"]:
                if not self.entry_of(parameter, rules).flat:
                    yield group, parameter

    def _observes(self, group: dict[str, Any]) -> bool:
        """Whether a rule of this group looks at what layers see; the control without a memory does not."""
        return bool(group.get("memory", True))

    def _watch(self) -> None:
        """Put hooks on the layers of the model, if there are none yet, and look for every matrix among them."""
        if self._model is None:
            return
        self._groups_of, self._grouped = {}, []
        if self._recorder is None:
            # The model holds the hooks: they must not keep the optimizer.
            wants = weakref.WeakMethod(self._wants)
            self._recorder = LayerRecorder(
                self._model, rows=self.rows, wanted=lambda weight: () if (ask := wants()) is None else ask(weight)
            )
            weakref.finalize(self, self._recorder.remove)
        watched = self._recorder.watched()
        for _, parameter in self._matrices():
            if parameter not in watched:
                raise ValueError(
                    f"{type(self).__name__}: {describe(self, parameter)} is no weight of an nn.Linear or nn.Conv2d of "
                    "model=, so its inputs cannot be read. Name it in elementwise= (embeddings, say), or pass the "
                    "model that owns it."
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "smallest_side": self.smallest_side, "_model": self._model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_model" in state:  # a copy or an unpickled optimizer, not a loaded state
            self._recorder = None
            self._watch()


_WATCHED = {"inputs": "the layer's inputs", "errors": "the layer's error signals"}
_UNWATCHED = {"inputs": "rows of u", "errors": "columns of u"}
"""What a covariance is of, in words, with a model and without one."""


def layer_box(
    name: str, size: int, group: dict[str, Any], readout: Any = None, rows: Callable[[Scene], Tensor] | None = None
) -> Consulted:
    """A box of shape [size, size] that averages covariances, each scaled to mean diagonal one.

    The covariance is the one observed under ``name``, or that of ``rows`` of the scene.
    """

    def value(scene: Scene) -> Tensor:
        covariance = scene.observations[name] if rows is None else rows(scene).mT @ rows(scene)
        mean = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        return covariance / torch.where(mean > 0, mean, torch.ones_like(mean))

    def identity(gradient: Tensor) -> Tensor:
        eye = torch.eye(size, dtype=gradient.dtype, device=gradient.device)
        return eye.expand(*gradient.shape[:-2], size, size).clone()

    return average_box(
        name,
        group["covariance_retention"],
        value,
        shape=(size, size),
        readout=readout,
        every=group["refresh"],
        keep_answer=identity if readout is not None else None,
        value_is=f"covariance of {_WATCHED[name] if rows is None else _UNWATCHED[name]}",
        readout_is="" if readout is None else "Z with Z M Z^T = I",
    )


def _nothing(parameter: Tensor, device: torch.device | str | None = None) -> tuple[Tensor, Tensor, int]:
    out, into = matrix_shape(parameter)
    place, dtype = device or parameter.device, memory_dtype(parameter)
    return torch.zeros(into, into, dtype=dtype, device=place), torch.zeros(out, out, dtype=dtype, device=place), 0


def require_model(model: Any, who: str) -> None:
    """Raise TypeError if ``model`` is missing."""
    if model is None:
        raise TypeError(f"{who} reads the inputs of layers: pass model=, the module whose parameters it trains")
