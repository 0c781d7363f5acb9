"""Adam with two deep memories: the momentum and the second moment both learn (O8, [S] 5.4)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box, bias_corrected, sum_box
from nestlearn.memory.nesting import Consult, Consulted, Scene
from nestlearn.memory.rules import Rule
from nestlearn.optim.adam import adam_rule, check_betas
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.rows import RowMemory, as_rows, from_rows, unit

__all__ = ["DeepAdam"]

FLOOR = 0.1
"""V's answer never falls below this share of the box v, which keeps it positive."""

CEILING = 10.0
"""Relative errors u^2 / v above this are shown to V as this: squares have heavy tails."""


class DeepAdam(Optimizer):
    """Adam whose momentum M and second moment V are MLP memories, side by side on one level (O8, [S] 5.4).

        W <- (1 - lr weight_decay) W - lr M(u) / (sqrt(V(u)) + eps)
        M(u) = m + sqrt(v) * MLP_M(u),   V(u) = v * max(1 + MLP_V(u), 0.1)

    m and v are Adam's boxes, the skip paths on which the MLPs (zero at the start) put what the boxes cannot know:
    after seeing u_{t-1}, what will u_t be? Both are written by l2 regression on such pairs: MLP_M towards u_t - m,
    MLP_V towards u_t^2 / v - 1. Keys are rows of the gradient.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate.
        betas: retention of the boxes m and v.
        eps: added to the denominator.
        inner_lr: learning rate of both MLPs.
        retention: share of the MLPs' weights kept by a write.
        hidden: hidden units of each MLP.
        levels: as in ``DeepMomentum`` (O6).
        memory: False silences both MLPs: Adam.
        seed: of the MLPs' first weights.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        inner_lr: float = 0.1,
        retention: float = 0.999,
        hidden: int = 64,
        levels: int = 1,
        memory: bool = True,
        seed: int = 0,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "betas": betas,
            "eps": eps,
            "inner_lr": inner_lr,
            "retention": retention,
            "hidden": hidden,
            "levels": levels,
            "memory": memory,
            "seed": seed,
        }
        super().__init__(params, lr, settings, **common)

    def check_group(self, group: dict[str, Any]) -> None:
        check_betas(group["betas"])

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return adam_rule(tuple(group["betas"]), group["eps"])

    def matrix_rule(self, group: dict[str, Any]) -> Rule | None:
        if not group["memory"]:
            return None
        eps = group["eps"]

        def combine(scene: Scene) -> Tensor:
            answers, shape = scene.answers, scene.gradient.shape
            # Counted in sqrt(v), a correction of an entry that has never had a gradient is zero.
            momentum = from_rows(answers["momentum"], shape) * answers["v"].sqrt() + answers["m"]
            share = from_rows(answers["second_moment"], shape).add_(1).clamp_min_(FLOOR)
            return momentum / ((answers["v"] * share).sqrt() + eps)

        update_is = f"(m + sqrt(v) momentum) / (sqrt(v max(1 + second_moment, {FLOOR:g})) + {eps:g})"
        return Consult(memories=lambda shape: _memories(shape, group), combine=combine, update_is=update_is)


def _memories(shape: torch.Size, group: dict[str, Any]) -> tuple[Consulted, ...]:
    first, second = group["betas"]
    deep = RowMemory(
        hidden=group["hidden"], inner_lr=group["inner_lr"], retention=group["retention"], levels=group["levels"]
    )
    # Rows of d entries of mean square one have length sqrt(d): memories deal in rows of unit length.
    length = min(shape[-2:]) ** 0.5

    def key(scene: Scene) -> Tensor:
        return unit(as_rows(scene.answers["previous"]))

    def query(scene: Scene) -> Tensor:
        return unit(as_rows(scene.gradient))

    def deviation(scene: Scene) -> Tensor:
        return as_rows((scene.gradient - scene.answers["m"]) / _positive(scene.answers["v"]).sqrt()).div(length)

    def relative_square(scene: Scene) -> Tensor:
        ratio = scene.gradient.square() / _positive(scene.answers["v"])
        return as_rows(ratio.clamp_max(CEILING).sub_(1)).div(length)

    def restore(answer: Tensor, scene: Scene) -> Tensor:
        return answer * length

    def learned(name: str, value: Callable[[Scene], Tensor], value_is: str) -> Consulted:
        words = {"key_is": "rows of previous", "value_is": value_is, "query_is": "rows of u"}
        memory = deep.consulted(name, shape, key=key, value=value, query=query, **words)
        return replace(memory, readout=restore, readout_is="sqrt(d) M")

    return (
        average_box("m", first, readout=bias_corrected(first), readout_is=f"M / (1 - {first:g}^t)"),
        average_box(
            "v",
            second,
            value=lambda scene: scene.gradient.square(),
            readout=bias_corrected(second),
            value_is="u^2",
            readout_is=f"M / (1 - {second:g}^t)",
        ),
        sum_box("previous", 0.0, fresh=False),
        learned("momentum", deviation, "rows of (u - m) / sqrt(d v)"),
        learned("second_moment", relative_square, "rows of (u^2 / v - 1) / sqrt(d)"),
    )


def _positive(moment: Tensor) -> Tensor:
    """A second moment to divide by: where it is zero, so is what is divided."""
    return torch.where(moment > 0, moment, torch.ones_like(moment))
