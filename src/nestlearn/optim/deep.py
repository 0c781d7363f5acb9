"""Momentum as an MLP that is trained online (O5, O6, [S] 5.3)."""

from typing import Unpack

from torch import Tensor

from nestlearn.errors import choice
from nestlearn.memory import Model
from nestlearn.optim.optimizer import Common, Params
from nestlearn.optim.settings import Group
from nestlearn.optim.targeted import TargetedOptimizer
from nestlearn.rules import (
    Link,
    adam,
    average,
    chain,
    deep,
    gradient,
    keep_length,
    newton,
    orthogonal,
    scale,
    unit_rows,
)
from nestlearn.targets import Target

__all__ = ["DeepMomentum", "written_by"]

OBJECTIVES = ("dot_product", "hypergradient", "l2", "quadratic")


class DeepMomentum(TargetedOptimizer):
    """Momentum as a memory with weights: an MLP from rows of the gradient to rows of a target P (O5, [S] 5.3, [NL] 50).

        theta <- retention theta - inner_lr grad_theta L(M(u), P)        the memory, written first
        W     <- W - lr readout(M(u)),   M(u) = skip + W_outer s(W_inner u) / sqrt(hidden)

    W_outer starts at zero, so the memory begins as its skip path: the normalised gradient, or with ``skip_retention``
    its running average, a linear momentum that the MLP then corrects. Keys and values are rows along the longer side
    of the matrix, scaled together to unit length. Signs: P and M point uphill and the step subtracts ([S] has both
    reversed).

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate, in units that suit AdamW (with objective "quadratic": the share of a Newton step).
        inner_lr: zeta, learning rate of the memory; up to about 4 is stable for "l2".
        retention: alpha, the share of the memory's weights kept by a write. "dot_product" and "hypergradient" are
            bounded by it alone, so it must be below one with them.
        hidden: hidden units of the MLP.
        objective: "l2"; "dot_product"; "hypergradient", where the answer to the last gradient is judged by this one
            and the target is not used (O17); "quadratic", where it is judged by the quadratic model of the loss, with
            one Hessian product a step, which needs ``step(closure)`` with a graph-keeping closure (O16).
        target: P, one of ``nl.targets.TARGETS`` or an instance.
        target_period: P is computed, and the memory written, every so many writes; in between it is only asked.
        levels: 1 writes the MLP by gradient descent; 2 by another MLP memory for each of its two matrices, and so on
            without limit (O6).
        skip_retention: retention of the linear momentum on the skip path; 0 leaves the plain gradient.
        readout: "newton_schulz", or "identity" for the memory's answer itself.
        memory: "mlp" (or True), "matrix" for a linear memory, or False for the control: the same read-out of the skip
            path alone, which is the plain gradient when ``skip_retention`` is 0.
        seed: of the MLP's first weights.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        inner_lr: float = 0.1,
        retention: float = 0.999,
        hidden: int = 64,
        objective: str = "l2",
        target: str | Target = "second_moment",
        target_period: int = 1,
        levels: int = 1,
        skip_retention: float = 0.8,
        readout: str = "newton_schulz",
        memory: bool | str = True,
        seed: int = 0,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "inner_lr": inner_lr,
            "retention": retention,
            "hidden": hidden,
            "objective": objective,
            "target": target,
            "target_period": target_period,
            "levels": levels,
            "skip_retention": skip_retention,
            "readout": readout,
            "memory": memory,
            "seed": seed,
        }
        super().__init__(params, lr, settings, **common)

    def check_group(self, group: Group) -> None:
        super().check_group(group)
        choice("objective", group["objective"], OBJECTIVES)
        choice("readout", group["readout"], ("identity", "newton_schulz"))
        if isinstance(group["memory"], Model):
            raise ValueError(
                "memory is 'mlp', 'matrix', True or False; one of your own goes into a rule, "
                "nl.optim.Optimizer(params, matrix=chain(deep(model=..., beside=average(0.8)), orthogonal()))"
            )
        if not isinstance(group["memory"], bool):
            choice("memory", group["memory"], ("mlp", "matrix"))
        if group["objective"] == "quadratic" and group["period"] > 1:
            raise ValueError(
                "objective 'quadratic' measures curvature at the answer to each gradient, and with a period above 1 "
                "the memory is asked about their sum: use period=1"
            )
        if group["objective"] in ("dot_product", "hypergradient") and group["retention"] >= 1:
            raise ValueError(f"objective {group['objective']!r} has no minimum: retention must be below 1, got 1")

    def element_rule(self, group: Group) -> Link:
        return adam()

    def matrix_rule(self, group: Group) -> Link:
        readout = orthogonal() if group["readout"] == "newton_schulz" else scale("rows")
        quadratic, kept = group["objective"] == "quadratic", group["skip_retention"]
        late = group["objective"] == "hypergradient" or self.target(group).delayed
        if not group["memory"]:
            skip = average(kept, name="skip") if kept and not quadratic else gradient()
            return chain(skip, unit_rows(), readout)
        memory = {
            "hidden": group["hidden"],
            "inner_lr": group["inner_lr"],
            "retention": group["retention"],
            "model": "mlp" if group["memory"] is True else group["memory"],
            "written_by": written_by(group, group["levels"]),
            "period": group["target_period"],
            "name": "momentum",
        }
        if quadratic:
            return chain(newton(**memory), *((readout,) if group["readout"] == "newton_schulz" else ()))
        beside = average(kept, name="past_skip" if late else "skip") if kept else None
        return chain(
            deep(objective=group["objective"], target=self.target(group), beside=beside, **memory),
            readout,
        )


def written_by(group: Group, levels: int) -> Link | None:
    """What writes a memory of so many levels: another memory on the rows of its gradients, or gradient descent."""
    if levels == 1:
        return None
    inner = deep(
        hidden=group["hidden"],
        inner_lr=group["inner_lr"],
        retention=group["retention"],
        model="mlp" if group.get("memory", True) is True else group["memory"],
        written_by=written_by(group, levels - 1),
        name="momentum",
    )
    return chain(inner, keep_length())
