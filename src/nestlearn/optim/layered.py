"""Optimizers that look at what layers see: whitened momentum and delta gradient descent (O12, O15)."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.memory.boxes import average_box
from nestlearn.memory.models import Parameters
from nestlearn.memory.nesting import Consult, Consulted, Scene
from nestlearn.memory.rules import Context, GradientDescent, Rule, State, solve_ridge
from nestlearn.ops.matrix import cholesky_whitener, newton_schulz
from nestlearn.optim.adam import adam_rule
from nestlearn.optim.checks import describe
from nestlearn.optim.lanes import matrix_shape, memory_dtype
from nestlearn.optim.layer_inputs import LayerRecorder
from nestlearn.optim.muon import update_scale
from nestlearn.optim.optimizer import Common, Optimizer, Params

__all__ = ["DeltaGradientDescent", "LayerMomentum", "LayeredOptimizer", "layer_box"]


class LayeredOptimizer(Optimizer):
    """Base of optimizers that record inputs ("inputs", A) and error signals ("errors", B) of layers of ``model``."""

    records_errors = False
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
        super().__init__(params, lr, settings, **common)
        self._watch()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if self._recorder is not None:
            try:
                self._watch()
            except ValueError:
                del self.param_groups[-1]
                raise

    def renews(self, group: dict[str, Any]) -> int:
        """Every how many writes the covariances of a group are measured."""
        return 1

    def observe(self, loss: Any) -> dict[str, dict[Tensor, Tensor]]:
        if self._recorder is None:
            return {}
        self._recorder.keep()
        found: dict[str, dict[Tensor, Tensor]] = {"inputs": {}, "errors": {}}
        idle = all(float(group["lr"]) == 0 for group in self.param_groups)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or self._entry(group, parameter).flat:
                    continue
                pair = self._recorder.take(parameter)
                if pair is None:
                    if not idle and self._measures(parameter, group):
                        raise RuntimeError(
                            f"{describe(self, parameter)}: its layer's inputs were not recorded since the last step. "
                            f"Run the forward "
                            "and backward passes through the model that was given as model=."
                        )
                    pair = _nothing(parameter)
                found["inputs"][parameter] = pair[0].to(memory_dtype(parameter))
                if pair[1] is not None:
                    found["errors"][parameter] = pair[1].to(memory_dtype(parameter))
        return found if self.records_errors else {"inputs": found["inputs"]}

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        if self._recorder is not None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None and int(self.state[parameter]["step"]) % group["period"] == 0:
                        self._recorder.forget(parameter)
        self._arm()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        if self._recorder is not None:
            self._recorder.drop()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._arm()

    def _arm(self) -> None:
        """Let the hooks record only if the coming step looks at what they record."""
        if self._recorder is not None:
            self._recorder.active = any(
                self._measures(parameter, group)
                for group in self.param_groups
                for parameter in group["params"]
                if not self._entry(group, parameter).flat
            )

    def _measures(self, parameter: Tensor, group: dict[str, Any]) -> bool:
        """Whether the coming write of a parameter looks at its layer; gradients that wait for it count as well."""
        steps = int(self.state[parameter]["step"]) if self.state[parameter] else 0
        return (steps // group["period"]) % self.renews(group) == 0

    def _watch(self) -> None:
        """Put hooks on the layers of every matrix that this optimizer's own rule writes."""
        if self._model is None:
            return
        wanted = [p for group in self.param_groups for p in group["params"] if not self._entry(group, p).flat]
        if self._recorder is not None:
            self._recorder.remove()
        self._recorder = LayerRecorder(self._model, wanted, errors=self.records_errors, rows=self.rows)
        weakref.finalize(self, self._recorder.remove)
        for parameter in wanted:
            if parameter not in self._recorder.weights:
                raise ValueError(
                    f"{type(self).__name__}: {describe(self, parameter)} is not the weight of an nn.Linear or nn.Conv2d"
                    f"of model=, so "
                    "its inputs cannot be read. Name it in elementwise= (embeddings, say), or pass the "
                    "model that owns it."
                )

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("records_errors", "smallest_side")}
        return {**super().__getstate__(), **own, "_model": self._model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_model" in state:  # a copy or an unpickled optimizer, not a loaded state
            self._recorder = None
            self._watch()


class LayerMomentum(LayeredOptimizer):
    """Momentum whitened by what the layer sees: keys are inputs x, values are error signals, objective l2 (O15, [NL]
    37).

    The least-squares optimum (sum delta x^T)(sum x x^T + damping)^-1 is the momentum times the inverse input
    covariance A. By default both sides are whitened and the result is orthogonalised,

        W <- W - lr scale Z_B^T NS(Z_B M Z_A^T) Z_A    with  Z_A A Z_A^T = I,  Z_B B Z_B^T = I,

    B being the covariance of the error signals: the steepest descent step in the norm that the layer's own data define.

    Args:
        params: parameters, named parameters or groups of them. Weights of nn.Linear and nn.Conv2d get this rule,
            vectors and what ``elementwise`` names get Adam.
        lr: learning rate, in units that suit AdamW.
        model: the module whose layers are watched; required.
        retention: share of the momentum that is kept.
        covariance_retention: share of A and B that is kept.
        damping: ridge of A and B, relative to their mean diagonal.
        sides: "input" (A alone) or "both".
        readout: "newton_schulz", or "identity" for the optimum M (A + damping)^-1 itself (with sides="input").
        refresh: A, B and their factors are renewed every so many writes.
        memory: False remembers no covariance: the same read-out of the momentum with A = B = I.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        model: nn.Module,
        retention: float = 0.8,
        covariance_retention: float = 0.95,
        damping: float = 0.1,
        sides: str = "both",
        readout: str = "newton_schulz",
        refresh: int = 5,
        memory: bool = True,
        **common: Unpack[Common],
    ) -> None:
        _require(model, type(self).__name__)
        settings = {
            "retention": retention,
            "covariance_retention": covariance_retention,
            "damping": damping,
            "sides": sides,
            "readout": readout,
            "refresh": refresh,
            "memory": memory,
        }
        self.records_errors = sides == "both"
        super().__init__(params, lr, settings, model, **common)

    def check_group(self, group: dict[str, Any]) -> None:
        choice("sides", group["sides"], ("input", "both"))
        choice("readout", group["readout"], ("identity", "newton_schulz"))
        if group["readout"] == "identity" and group["sides"] == "both":
            raise ValueError("readout='identity' is the regression on inputs alone: pass sides='input' with it")

    def renews(self, group: dict[str, Any]) -> int:
        return group["refresh"]

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return adam_rule((0.9, 0.999), 1e-8)

    def matrix_rule(self, group: dict[str, Any]) -> Rule:
        momentum = average_box("momentum", group["retention"])
        both, damping = group["sides"] == "both", group["damping"]

        def whitener(covariance: Tensor, scene: Scene) -> Tensor:
            return cholesky_whitener(covariance, damping)

        def memories(shape: torch.Size) -> tuple[Consulted, ...]:
            if not group["memory"]:
                return (momentum,)
            readout = whitener if group["readout"] == "newton_schulz" else None
            inputs = layer_box("inputs", shape[-1], group, readout)
            return (momentum, inputs, layer_box("errors", shape[-2], group, readout)) if both else (momentum, inputs)

        def combine(scene: Scene) -> Tensor:
            matrix = scene.answers["momentum"]
            inputs, errors = scene.answers.get("inputs"), scene.answers.get("errors")
            if group["readout"] == "identity":
                return matrix if inputs is None else solve_ridge(inputs, matrix, damping)
            matrix = matrix if inputs is None else matrix @ inputs.mT
            matrix = newton_schulz(matrix if errors is None else errors @ matrix)
            matrix = matrix if errors is None else errors.mT @ matrix
            matrix = matrix if inputs is None else matrix @ inputs
            # Whitening changes the length of the update; an orthogonal matrix has Frobenius norm sqrt(smaller side).
            length = min(matrix.shape[-2:]) ** 0.5
            matrix = matrix * (length / torch.linalg.matrix_norm(matrix, keepdim=True).clamp_min(1e-30))
            return matrix * update_scale(matrix.shape, "rms")

        return Consult(memories=memories, combine=combine)


class DeltaGradientDescent(LayeredOptimizer):
    """W <- W (I - lr' A) - lr' u with lr' = lr / (1 + lr tr A): the delta rule for the weights themselves (O12, [NL]
    54-57).

    One exact proximal step on 1/2 ||W x + delta||^2 for one input x; a batch replaces x x^T by its mean A. The layer
    forgets what it answers for this input before it learns, so it differs from gradient descent by W A. Biases and
    other vectors get plain gradient descent.

    Args:
        params: parameters, named parameters or groups of them; matrices must be weights of nn.Linear or nn.Conv2d, or
            be named in ``elementwise``.
        lr: learning rate.
        model: the module whose layers are watched; required, since the rule is not defined without layer inputs.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    reads_weights = True

    def __init__(
        self, params: Params, lr: float | Tensor = 0.05, *, model: nn.Module, **common: Unpack[Common]
    ) -> None:
        _require(model, type(self).__name__)
        super().__init__(params, lr, {}, model, **common)

    def matrix_rule(self, group: dict[str, Any]) -> Rule:
        return _LayerDelta()

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return GradientDescent()


@dataclass(frozen=True)
class _LayerDelta(Rule):
    """(u + W A) / (1 + lr tr A): core's implicit DeltaGradientDescent, from the covariance instead of the keys."""

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        covariance = context.observations["inputs"]
        energy = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        update = gradients["weight"] + context.parameters["weight"] @ covariance  # type: ignore[index]
        return {"weight": update / (1 + context.lr * energy)}, state


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
    )


def _nothing(parameter: Tensor) -> tuple[Tensor, Tensor]:
    out, into = matrix_shape(parameter)
    return parameter.new_zeros(into, into), parameter.new_zeros(out, out)


def _require(model: Any, who: str) -> None:
    if model is None:
        raise TypeError(f"{who} reads the inputs of layers: pass model=, the module whose parameters it trains")
