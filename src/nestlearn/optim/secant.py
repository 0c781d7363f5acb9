"""The secant memory: curvature learned from how gradients change as the weights move (O19)."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.boxes import average_box
from nestlearn.memory.models import Matrix
from nestlearn.memory.nesting import Consult, Consulted, Scene, the_gradient
from nestlearn.memory.objectives import l2
from nestlearn.memory.rules import LeastSquares, Rule
from nestlearn.ops.matrix import newton_schulz
from nestlearn.optim.adam import adam_rule
from nestlearn.optim.layered import LayeredOptimizer, layer_box
from nestlearn.optim.muon import update_scale
from nestlearn.optim.optimizer import Common, Params

__all__ = ["SecantMomentum"]

KEYS = {
    "displacement": ("D",),
    "kronecker": ("BDA",),
    "all": ("D", "DA", "BD", "BDA"),
}
"""Which transforms of the displacement D are keys; A and B are covariances of layer inputs and of error signals."""

_KEY_WORDS = {"D": "D", "DA": "D inputs", "BD": "errors D", "BDA": "errors D inputs"}


class SecantMomentum(LayeredOptimizer):
    """Carry the average of old gradients to where the weights are now (O19).

    The momentum m averages gradients that were taken at other weights; w averages those weights. How the gradient
    changes along D = W - w is what the Hessian would tell, and a linear memory learns it online, with no Hessian
    product:

        key: D, seen through A and B   value: u - m      written by discounted least squares
        W <- W - lr scale NS(m + rho M(D))

    With B and A the covariances of error signals and inputs, B D A is the Kronecker-factored (Gauss-Newton) product of
    the curvature with D (Martens and Grosse 2015); the memory learns its size, and that of the other keys.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate, in units that suit AdamW.
        model: the module whose layers are watched for A and B; None takes u^T u and u u^T instead, almost as good.
        retention: share of the momentum (and of w) that is kept.
        rho: how much of the learned change is applied; 0 is Muon. None: 1, and 0.5 with model=.
        keys: "kronecker" (B D A), "all" (D, D A, B D, B D A) or "displacement" (D alone, which over-corrects the flat
            directions that Newton-Schulz then makes as long as the steep ones). None: "kronecker", "all" with model=.
        nesterov: read between m + rho M(D) and the gradient.
        memory_retention: share of the least-squares statistics that is kept.
        covariance_retention: share of A and B that is kept.
        ridge: relative ridge of the least squares.
        refresh: A and B are renewed every so many writes.
        steps: Newton-Schulz iterations.
        memory: False is the control: the same read-out of m, nothing learned.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    reads_weights = True
    rows = 128

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        model: nn.Module | None = None,
        retention: float = 0.8,
        rho: float | None = None,
        keys: str | None = None,
        nesterov: bool = False,
        memory_retention: float = 0.99,
        covariance_retention: float = 0.95,
        ridge: float = 1e-2,
        refresh: int = 1,
        steps: int = 5,
        memory: bool = True,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "retention": retention,
            "rho": rho,
            "keys": keys,
            "nesterov": nesterov,
            "memory_retention": memory_retention,
            "covariance_retention": covariance_retention,
            "ridge": ridge,
            "refresh": refresh,
            "steps": steps,
            "memory": memory,
        }
        self.smallest_side = 2 if model is None else 1
        super().__init__(params, lr, settings, model, **common)

    def check_group(self, group: dict[str, Any]) -> None:
        choice("keys", self._resolved(group)["keys"], KEYS)

    def records(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("inputs", "errors")

    def renews(self, group: dict[str, Any]) -> int:
        return group["refresh"]

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return adam_rule((0.9, 0.999), 1e-8)

    def _resolved(self, group: dict[str, Any]) -> dict[str, Any]:
        """The settings with what None stands for; A and B of layers deserve more keys, and less trust in each."""
        rho, keys = (1.0, "kronecker") if self._model is None else (0.5, "all")
        asked = {"rho": group["rho"], "keys": group["keys"]}
        return group | {"rho": rho, "keys": keys} | {name: value for name, value in asked.items() if value is not None}

    def matrix_rule(self, group: dict[str, Any]) -> Rule:
        group = self._resolved(group)
        retention, rho, nesterov = group["retention"], group["rho"], group["nesterov"]
        watched = self._model is not None

        def memories(shape: torch.Size) -> tuple[Consulted, ...]:
            past = (_past("momentum", retention),)
            if not group["memory"]:
                return past
            boxes = _covariances(shape, group, watched) if group["keys"] != "displacement" else ()
            weights = _past("weights", retention, lambda scene: scene.parameter, "W")
            return (*past, weights, *boxes, _secant(group))

        def combine(scene: Scene) -> Tensor:
            answer = torch.lerp(scene.gradient, scene.answers["momentum"], _share_of_past(scene, retention))
            if group["memory"]:
                answer = answer + rho * scene.answers["secant"]
            if nesterov:
                answer = torch.lerp(scene.gradient, answer, retention)
            return newton_schulz(answer, group["steps"]).mul_(update_scale(answer.shape, "rms"))

        update_is = f"m' + {rho:g} secant" if group["memory"] else "m'"
        update_is = f"{1 - retention:g} u + {retention:g} ({update_is})" if nesterov else update_is
        update_is = f"0.2 sqrt(max(out, in)) NS({update_is}); m' = momentum with u"
        return Consult(memories=memories, combine=combine, update_is=update_is)


def _past(name: str, retention: float, value: Any = the_gradient, value_is: str = "u") -> Consulted:
    """An average as it was before this write: what the present gradient and weights are compared with."""

    def readout(answer: Tensor, scene: Scene) -> Tensor:
        return answer / scene.number(lambda time: 1 - retention**time if time else 1.0)

    readout_is = f"M / (1 - {retention:g}^(t - 1))"
    return average_box(name, retention, value, readout=readout, fresh=False, value_is=value_is, readout_is=readout_is)


def _share_of_past(scene: Scene, retention: float) -> Any:
    """What weight the past average has in the bias-corrected average that includes the present."""
    if retention >= 1:
        return 1.0
    return scene.number(lambda time: retention * (1 - retention**time) / (1 - retention ** (time + 1)))


def _covariances(shape: torch.Size, group: dict[str, Any], watched: bool) -> tuple[Consulted, ...]:
    if watched:
        return (layer_box("inputs", shape[-1], group), layer_box("errors", shape[-2], group))
    own = {"inputs": lambda scene: scene.gradient, "errors": lambda scene: scene.gradient.mT}
    return tuple(
        layer_box(name, size, group, rows=own[name]) for name, size in (("inputs", shape[-1]), ("errors", shape[-2]))
    )


def _secant(group: dict[str, Any]) -> Consulted:
    """The linear memory: every entry of a matrix is a pair, its keys the entry of each transform of D."""
    names, retention = KEYS[group["keys"]], group["retention"]
    rule = LeastSquares(discount=group["memory_retention"], ridge=group["ridge"])

    def keys(scene: Scene) -> Tensor:
        return scene.once("keys", lambda scene: _transforms(scene, names))  # wanted as key and as query

    def per_gradient(tensor: Tensor, scene: Scene) -> Tensor:
        # Relative errors count: late, small gradients weigh as much as the first ones. The floor keeps squares finite.
        sizes = torch.linalg.matrix_norm(torch.stack([scene.gradient, scene.answers["momentum"]]))
        return tensor / sizes.amax(0).clamp_min(1e-12)[..., None, None]

    def change(scene: Scene) -> Tensor:
        return per_gradient((scene.gradient - scene.answers["momentum"]).flatten(-2).unsqueeze(-1), scene)

    return Consulted(
        "secant",
        AssociativeMemory(Matrix(len(names), 1), l2, rule),
        key=lambda scene: per_gradient(keys(scene), scene),
        value=change,
        # The average that now includes the present lies closer to the present weights by the share of the past.
        query=lambda scene: _share_of_past(scene, retention) * keys(scene),
        readout=lambda answer, scene: answer.view(scene.gradient.shape),
        track=True,
        key_is=f"{', '.join(_KEY_WORDS[name] for name in names)}; D = W - weights",
        value_is="u - momentum, entry by entry",
        query_is="the same keys, shortened",
        readout_is="M as a matrix",
    )


def _transforms(scene: Scene, names: tuple[str, ...]) -> Tensor:
    """D and its products with A and B, each as long as D: [*B, out * in, number of keys]."""
    # At the first write there is nothing to compare with yet.
    started = scene.number(lambda time: float(time > 0))
    moved: Tensor = started * (scene.parameter - scene.answers["weights"])  # type: ignore[operator]
    length = torch.linalg.matrix_norm(moved, keepdim=True)
    found = []
    for name in names:
        key = moved @ scene.answers["inputs"] if "A" in name else moved
        key = scene.answers["errors"] @ key if "B" in name else key
        found.append((key * (length / torch.linalg.matrix_norm(key, keepdim=True).clamp_min(1e-30))).flatten(-2))
    return torch.stack(found, -2).mT
