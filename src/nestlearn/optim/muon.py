"""Momentum read through an orthogonalisation: Muon, with one or two speeds of memory (O10, O14, O18)."""

from typing import Unpack

from torch import Tensor

from nestlearn.errors import choice
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.rules import (
    Link,
    adam,
    average,
    chain,
    muon,
    orthogonal,
    parallel,
    preconditioner,
    scale,
    second_moment,
    sum_of_squares,
)
from nestlearn.rules import sum as summed

__all__ = ["M3", "MatrixOptimizer", "Muon"]


class MatrixOptimizer(Optimizer):
    """Base of rules that need whole matrices: everything else gets Adam, at ``elementwise_lr`` if given."""

    def element_rule(self, group: Group) -> Link:
        return adam()

    def check_group(self, group: Group) -> None:
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

    def check_group(self, group: Group) -> None:
        super().check_group(group)
        choice("readout", group["readout"], ("newton_schulz", "memory"))

    def matrix_rule(self, group: Group) -> Link:
        retention, nesterov, steps, scale = (group[name] for name in ("retention", "nesterov", "steps", "scale"))
        if group["readout"] == "memory":
            return chain(average(retention, nesterov, name="momentum"), preconditioner(scale))
        return muon(retention, nesterov=nesterov, steps=steps, scale=scale)


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

    def matrix_rule(self, group: Group) -> Link:
        weight, second = group["slow_weight"], group["second_retention"]
        read = orthogonal(group["steps"], "none")
        pace = {"period": group["slow_period"], "readout": read, "name": "slow"}
        if group["literal"]:
            fast: Link = chain(summed(1.0, weight=group["retention"], name="fast"), read)
            slow: Link = summed(1.0, weight=group["slow_retention"], **pace)
            squares = sum_of_squares(0.999 if second is None else second, name="second_moment")
            return chain(_beside(fast, slow, weight), squares)
        fast = chain(average(group["retention"], name="fast"), read)
        slow = average(group["slow_retention"], **pace)
        update = chain(_beside(fast, slow, weight), scale(group["scale"], 1 + weight))
        # Only the relative size of entries is V's business: the update keeps its length.
        return update if second is None else chain(update, second_moment(second, length_kept=True))


def _beside(fast: Link, slow: Link, weight: float) -> Link:
    return parallel(fast, slow, weights=(1.0, weight)) if weight else fast
