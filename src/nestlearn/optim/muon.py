"""Momentum read through an orthogonalisation: Muon, with one or two speeds of memory (O10, O14, O18)."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from nestlearn.errors import choice
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.boxes import average_box, bias_corrected, sum_box
from nestlearn.memory.models import Matrix, Parameters
from nestlearn.memory.nesting import Consult, Consulted, Scene
from nestlearn.memory.objectives import orthogonality
from nestlearn.memory.rules import Context, Rule, State, always
from nestlearn.ops.matrix import newton_schulz
from nestlearn.ops.preconditioner import initial_preconditioner, preconditioner_step
from nestlearn.optim.adam import adam_rule
from nestlearn.optim.optimizer import Common, Optimizer, Params

__all__ = ["M3", "Muon", "update_scale"]


def update_scale(shape: torch.Size, scale: str) -> float:
    """How long an orthogonal update of a [..., out, in] matrix is made.

    "rms": 0.2 sqrt(max(out, in)), entries of root mean square 0.2 as Adam's are, so that a learning rate for AdamW fits
    (Moonshot, arXiv 2502.16982). "spectral": sqrt(max(1, out / in)), as Muon was published (Jordan et al. 2024).
    """
    out, into = shape[-2:]
    return 0.2 * max(out, into) ** 0.5 if scale == "rms" else max(1.0, out / into) ** 0.5


_SCALES = {"rms": "0.2 sqrt(max(out, in))", "spectral": "sqrt(max(1, out / in))"}
"""``update_scale`` in words."""


class MatrixOptimizer(Optimizer):
    """Base of rules that need whole matrices: everything else gets Adam, at ``elementwise_lr`` if given (O7)."""

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return adam_rule((0.9, 0.999), 1e-8)

    def check_group(self, group: dict[str, Any]) -> None:
        choice("scale", group["scale"], ("rms", "spectral"))


class Muon(MatrixOptimizer):
    """M <- average of u; W <- W - lr scale NS(M): a linear memory with a non-linear read-out (O10, [NL] 52).

    Equal to ``torch.optim.Muon`` on matrices. Newton-Schulz runs in bfloat16 where the device multiplies it natively,
    else in float32, and in float64 for float64.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate.
        retention: alpha, the share of the momentum that is kept. Tune it: on small models 0.7 beats the usual 0.95.
        nesterov: read between the momentum and the gradient.
        steps: Newton-Schulz iterations.
        scale: "rms" or "spectral", see ``update_scale``.
        readout: "newton_schulz", or "memory": a preconditioner memory R with the orthogonality objective, kept between
            steps and written by one iteration a step (O18).
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        retention: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        scale: str = "rms",
        readout: str = "newton_schulz",
        **common: Unpack[Common],
    ) -> None:
        settings = {"retention": retention, "nesterov": nesterov, "steps": steps, "scale": scale, "readout": readout}
        super().__init__(params, lr, settings, **common)

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        choice("readout", group["readout"], ("newton_schulz", "memory"))

    def matrix_rule(self, group: dict[str, Any]) -> Rule:
        retention, nesterov, steps, scale = (group[name] for name in ("retention", "nesterov", "steps", "scale"))
        momentum = average_box("momentum", retention)

        def ahead(scene: Scene) -> Tensor:
            answer = scene.answers["momentum"]
            return torch.lerp(scene.gradient, answer, retention) if nesterov else answer

        ahead_is = f"{1 - retention:g} u + {retention:g} momentum" if nesterov else "momentum"
        if group["readout"] == "memory":
            return Consult(
                memories=lambda shape: (momentum, _preconditioner(shape, ahead, ahead_is)),
                combine=lambda scene: update_scale(scene.gradient.shape, scale) * scene.answers["preconditioner"],
                update_is=f"{_SCALES[scale]} preconditioner",
            )
        return Consult(
            memories=lambda shape: (momentum,),
            combine=lambda scene: newton_schulz(ahead(scene), steps).mul_(update_scale(scene.gradient.shape, scale)),
            update_is=f"{_SCALES[scale]} NS({ahead_is})",
        )


class M3(MatrixOptimizer):
    """Multi-scale momentum Muon: two momenta that are written at different frequencies (O14, [NL] Alg. 1).

        M1 <- average of u, every step;  M2 <- average of u, every ``slow_period`` steps, with the gradients since
        W  <- W - lr scale (NS(M1) + slow_weight NS(M2)) / (1 + slow_weight)

    Between its writes the slow memory and its orthogonalisation stay as they are, so it costs one more Newton-Schulz in
    ``slow_period`` steps.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate.
        retention: of the fast memory M1.
        slow_retention: of the slow memory M2, per write of it.
        slow_period: f, steps between two writes of M2.
        slow_weight: a, the share of M2 in the update; 0 leaves the fast path alone (Muon without Nesterov).
        second_retention: of a second moment V by which the update is divided; None (default) leaves V out, since
            dividing an orthogonal matrix by it made every model we measured worse.
        steps, scale: as in ``Muon``.
        literal: Algorithm 1 as printed. M1, M2 and V only accumulate (retention is the weight of a new gradient), and
            the update is (NS(M1) + a NS(M2)) / sqrt(V + eps), without any scale. Training fails; it is here to be
            compared with.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        retention: float = 0.8,
        slow_retention: float = 0.5,
        slow_period: int = 10,
        slow_weight: float = 0.3,
        second_retention: float | None = None,
        steps: int = 5,
        scale: str = "rms",
        literal: bool = False,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "retention": retention,
            "slow_retention": slow_retention,
            "slow_period": slow_period,
            "slow_weight": slow_weight,
            "second_retention": second_retention,
            "steps": steps,
            "scale": scale,
            "literal": literal,
        }
        super().__init__(params, lr, settings, **common)

    def matrix_rule(self, group: dict[str, Any]) -> Rule:
        weight, steps, second = group["slow_weight"], group["steps"], group["second_retention"]
        memories = _literal_memories(group) if group["literal"] else _averaging_memories(group)

        def combine(scene: Scene) -> Tensor:
            update = newton_schulz(scene.answers["fast"], steps)
            if weight:
                update = update + weight * scene.answers["slow"]
            if group["literal"]:
                return update / (scene.answers["second_moment"] + 1e-8).sqrt()
            update *= update_scale(update.shape, group["scale"]) / (1 + weight)
            if second is None:
                return update
            # Only the relative size of entries is V's business: the update keeps its length.
            divided = update / (scene.answers["second_moment"].sqrt() + 1e-8)
            length = torch.linalg.matrix_norm(update, keepdim=True)
            return divided * (length / torch.linalg.matrix_norm(divided, keepdim=True).clamp_min(1e-30))

        return Consult(memories=lambda shape: memories, combine=combine, update_is=_m3_words(group))


def _m3_words(group: dict[str, Any]) -> str:
    weight = group["slow_weight"]
    both = f"NS(fast) + {weight:g} slow" if weight else "NS(fast)"
    if group["literal"]:
        return f"({both}) / sqrt(second_moment)"
    words = f"{_SCALES[group['scale']]} ({both}) / {1 + weight:g}" if weight else f"{_SCALES[group['scale']]} {both}"
    return words if group["second_retention"] is None else f"{words}; divided by sqrt(second_moment), length kept"


def _averaging_memories(group: dict[str, Any]) -> tuple[Consulted, ...]:
    memories = [average_box("fast", group["retention"])]
    if group["slow_weight"]:
        memories.append(
            average_box(
                "slow",
                group["slow_retention"],
                period=group["slow_period"],
                readout=lambda answer, scene: newton_schulz(answer, group["steps"]),
                keep_answer=torch.zeros_like,
                readout_is="NS(M)",
            )
        )
    if group["second_retention"] is not None:
        memories.append(
            average_box(
                "second_moment",
                group["second_retention"],
                value=lambda scene: scene.gradient.square(),
                readout=bias_corrected(group["second_retention"]),
                value_is="u^2",
                readout_is=f"M / (1 - {group['second_retention']:g}^t)",
            )
        )
    return tuple(memories)


def _literal_memories(group: dict[str, Any]) -> tuple[Consulted, ...]:
    second = 0.999 if group["second_retention"] is None else group["second_retention"]
    share, slow_share = group["retention"], group["slow_retention"]
    memories = [sum_box("fast", 1.0, value=lambda scene: share * scene.gradient, value_is=f"{share:g} u")]
    if group["slow_weight"]:
        memories.append(
            sum_box(
                "slow",
                1.0,
                value=lambda scene: slow_share * scene.gradient,
                period=group["slow_period"],
                readout=lambda answer, scene: newton_schulz(answer, group["steps"]),
                keep_answer=torch.zeros_like,
                value_is=f"{slow_share:g} u",
                readout_is="NS(M)",
            )
        )
    squares = sum_box(
        "second_moment", 1.0, value=lambda scene: second * scene.gradient.square(), value_is=f"{second:g} u^2"
    )
    return (*memories, squares)


@dataclass(frozen=True)
class _PreconditionerStep(Rule):
    """R <- R (15/8 I - 10/8 A + 3/8 A^2) with A = R S R^T, turned towards symmetry: O18's write."""

    reads_gradients: ClassVar[bool] = False

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return always

    update_is: ClassVar[str] = "M - (15/8 I - 10/8 A + 3/8 A^2) M, A = M S M^T"

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        memory, key = context.parameters["weight"], context.key  # type: ignore[index]
        identity = torch.eye(key.shape[-1], dtype=key.dtype, device=key.device)  # type: ignore[union-attr]
        gram = key.mT @ key + context.value * identity  # type: ignore[union-attr, operator]
        unseen = (memory == 0).all(-1).all(-1)[..., None, None]
        started = torch.where(unseen, initial_preconditioner(gram), memory)
        return {"weight": memory - preconditioner_step(started, gram)}, state


def _preconditioner(shape: torch.Size, ahead: Any, ahead_is: str) -> Consulted:
    """The memory of O18 behind a rule: keys are the momentum's rows, the answer is the same rows whitened."""
    tall = shape[-2] >= shape[-1]
    side = min(shape[-2:])

    def rows(scene: Scene) -> Tensor:
        matrix = ahead(scene)
        norm = torch.linalg.matrix_norm(matrix, keepdim=True)
        matrix = matrix / torch.where(norm > 0, norm, torch.ones_like(norm))
        return matrix if tall else matrix.mT

    return Consulted(
        "preconditioner",
        AssociativeMemory(Matrix(side, side), orthogonality, _PreconditionerStep()),
        key=rows,
        # The ridge, relative to the mean eigenvalue 1 / side of the Gram matrix of normalised rows.
        value=lambda scene: torch.full((), 1e-3 / side, dtype=scene.gradient.dtype, device=scene.gradient.device),
        readout=lambda answer, scene: answer if tall else answer.mT,
        key_is=f"rows of {ahead_is}, to length one",
        value_is="orthonormal columns of the answer",
    )
