"""Momentum whitened by the covariances of what a layer sees (O15, [NL] 37)."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Consult, Consulted, Scene
from nestlearn.memory.rules import Rule, solve_ridge
from nestlearn.ops.matrix import cholesky_whitener, newton_schulz
from nestlearn.optim.adam import adam_rule
from nestlearn.optim.layered import LayeredOptimizer, layer_box, require_model
from nestlearn.optim.muon import update_scale
from nestlearn.optim.optimizer import Common, Params

__all__ = ["LayerMomentum"]


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
        require_model(model, type(self).__name__)
        settings = {
            "retention": retention,
            "covariance_retention": covariance_retention,
            "damping": damping,
            "sides": sides,
            "readout": readout,
            "refresh": refresh,
            "memory": memory,
        }
        super().__init__(params, lr, settings, model, **common)

    def check_group(self, group: dict[str, Any]) -> None:
        choice("sides", group["sides"], ("input", "both"))
        choice("readout", group["readout"], ("identity", "newton_schulz"))
        if group["readout"] == "identity" and group["sides"] == "both":
            raise ValueError("readout='identity' is the regression on inputs alone: pass sides='input' with it")

    def records(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("inputs", "errors") if group["sides"] == "both" else ("inputs",)

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

        return Consult(memories=memories, combine=combine, update_is=_words(group))


def _words(group: dict[str, Any]) -> str:
    """The update in words: "inputs" and "errors" are the whiteners that these memories answer with."""
    if group["readout"] == "identity":
        return f"momentum (inputs + {group['damping']:g} I)^-1" if group["memory"] else "momentum"
    if not group["memory"]:
        return "0.2 sqrt(max(out, in)) NS(momentum)"
    if group["sides"] == "input":
        return "0.2 sqrt(max(out, in)) NS(momentum inputs^T) inputs; length kept"
    return "0.2 sqrt(max(out, in)) errors^T NS(errors momentum inputs^T) inputs; length kept"
