"""The secant memory: curvature learned from how gradients change as the weights move (O19)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.boxes import average_box
from nestlearn.memory.models import Matrix
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.objectives import l2
from nestlearn.memory.rules import LeastSquares
from nestlearn.rules.covariances import Covariances
from nestlearn.rules.link import Link, Linked, once, whole
from nestlearn.rules.settings import among, count, positive, share
from nestlearn.rules.words import in_words, mixed, multiple

__all__ = ["KEYS", "secant"]

KEYS = {
    "displacement": ("D",),
    "kronecker": ("BDA",),
    "all": ("D", "DA", "BD", "BDA"),
}
"""Which transforms of the displacement D are keys; A and B are covariances of layer inputs and of error signals."""


@dataclass(frozen=True, repr=False)
class secant(Link):
    """Answers m + rho M(D): the average of old gradients, carried to where the weights are now (O19).

    The momentum m averages a, which was measured at other weights; w averages those weights. How a changes along
    D = W - w is what the Hessian would tell, and a linear memory learns it online by discounted least squares:

        key: D, seen through A and B   value: a - m

    Args:
        retention: of the averages m and w.
        rho: how much of the learned change is applied.
        keys: "kronecker" (B D A), "all" (D, D A, B D, B D A) or "displacement" (D alone).
        nesterov: answer between m + rho M(D) and a.
        memory_retention: share of the least-squares statistics that is kept.
        covariance_retention: share of A and B that is kept.
        ridge: relative ridge of the least squares.
        period: A and B are shown a covariance every so many writes.
        of: whose covariances A and B are: "gradient", or "layers" (which needs model=).
        learns: False remembers no weights and learns nothing: the answer is m.
    """

    on_matrices = True
    layer_rows = 128

    retention: float = share(0.8)
    rho: float = positive(1.0)
    keys: str = among("kronecker", KEYS)
    nesterov: bool = False
    memory_retention: float = share(0.99)
    covariance_retention: float = share(0.95)
    ridge: float = positive(1e-2)
    period: int = count(1)
    of: str = among("gradient", ("gradient", "layers"))
    learns: bool = True

    @property
    def smallest_side(self) -> int | None:
        return 1 if self.of == "layers" else None

    @property
    def reads(self) -> Mapping[str, int]:
        if not self.learns:
            return {}
        layers = self.of == "layers" and self.keys != "displacement"
        return {"weights": 1, **(dict.fromkeys(("inputs", "errors"), self.period) if layers else {})}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, kept, rho = once(whole(a)), self.retention, self.rho
        momentum, learned = self.memory("momentum"), self.memory("secant")
        memories: tuple[Consulted, ...] = (_past(momentum, kept, a),)
        if self.learns:
            memories += (_past(self.memory("weights"), kept, Said("W", lambda scene: scene.weights)),)
            if self.keys != "displacement":
                names = {side: self.memory(side) for side in ("inputs", "errors")}
                seen = Covariances(names, self.of == "layers", self.covariance_retention, self.period)
                memories += seen.boxes(shape, u)
            memories += (self._memory(a),)

        def answer(scene: Scene) -> Tensor:
            found = torch.lerp(a(scene), scene.answers[momentum], _share_of_past(scene, kept))
            if self.learns:
                found = found + rho * scene.answers[learned]
            return torch.lerp(a(scene), found, kept) if self.nesterov else found

        words = f"mix({a.words}, {momentum}, {_share_is(kept)})"
        words = f"{words} + {multiple(rho, learned)}" if self.learns else words
        words = mixed(a.words, words, kept) if self.nesterov else words
        return Linked(Said(words, answer), memories)

    def _memory(self, a: Said) -> Consulted:
        """The linear memory: every entry of a matrix is a pair, its keys the entry of each transform of D."""
        names, kept, momentum = KEYS[self.keys], self.retention, self.memory("momentum")
        rule = LeastSquares(discount=self.memory_retention, ridge=self.ridge)
        displacement, keys_are, size = self.memory("D"), self.memory("keys"), self.memory("size")
        # Wanted as key and as query.
        keys = once(Said(keys_are, lambda scene: self._transforms(scene, names)))
        where = {
            displacement: f"W - {self.memory('weights')}",
            keys_are: f"entries({', '.join(self._transform_is(name, displacement) for name in names)}) * (t > 1)",
            size: f"max(norm({a.words}), norm({momentum}), 1e-12)",
        }

        def per_gradient(tensor: Tensor, scene: Scene) -> Tensor:
            # Relative errors count: late, small gradients weigh as much as the first; a floor keeps squares finite.
            sizes: Tensor = torch.linalg.matrix_norm(torch.stack([a(scene), scene.answers[momentum]]))
            return tensor / sizes.amax(0).clamp_min(1e-12)[..., None, None]

        def change(scene: Scene) -> Tensor:
            return per_gradient((a(scene) - scene.answers[momentum]).flatten(-2).unsqueeze(-1), scene)

        return Consulted(
            self.memory("secant"),
            AssociativeMemory(Matrix(len(names), 1), l2, rule),
            key=Said(f"{keys_are} / {size}", lambda scene: per_gradient(keys(scene), scene), where),
            value=Said(f"entries({a.words} - {momentum}) / {size}", change, where),
            # The average that now includes the present lies closer to the present weights by the share of the past.
            query=Said(
                f"{_share_is(kept)} * {keys_are}", lambda scene: _share_of_past(scene, kept) * keys(scene), where
            ),
            readout=Said("as_matrix(M, u)", lambda answer, scene: answer.view(a(scene).shape)),
            track=True,
        )

    def _transform_is(self, name: str, displacement: str) -> str:
        """One of the transforms below as an expression."""
        if name == "D":
            return displacement
        left = f"{self.memory('errors')} @ " if "B" in name else ""
        right = f" @ {self.memory('inputs')}" if "A" in name else ""
        return f"as_long_as({left}{displacement}{right}, {displacement})"

    def _transforms(self, scene: Scene, names: tuple[str, ...]) -> Tensor:
        """D and its products with A and B, each as long as D: [*B, out * in, number of keys]."""
        # At the first write there is nothing to compare with yet.
        started = scene.number(lambda time: float(time > 0))
        moved: Tensor = started * (scene.weights - scene.answers[self.memory("weights")])
        length = torch.linalg.matrix_norm(moved, keepdim=True)
        found = []
        for name in names:
            key = moved @ scene.answers[self.memory("inputs")] if "A" in name else moved
            key = scene.answers[self.memory("errors")] @ key if "B" in name else key
            found.append((key * (length / torch.linalg.matrix_norm(key, keepdim=True).clamp_min(1e-30))).flatten(-2))
        return torch.stack(found, -2).mT


def _past(name: str, kept: float, value: Said) -> Consulted:
    """An average as it was before this write: what the present gradient and weights are compared with."""

    def readout(answer: Tensor, scene: Scene) -> Tensor:
        return answer / scene.number(lambda time: 1 - kept**time if time else 1.0)

    return average_box(
        name, kept, value, readout=Said(f"M / or_one(1 - {in_words(kept)}^(t - 1))", readout), fresh=False
    )


def _share_of_past(scene: Scene, kept: float) -> Tensor | float:
    """What weight the past average has in the bias-corrected average that includes the present."""
    if kept >= 1:
        return 1.0
    return scene.number(lambda time: kept * (1 - kept**time) / (1 - kept ** (time + 1)))


def _share_is(kept: float) -> str:
    """The same as an expression."""
    number = in_words(kept)
    return "1" if kept >= 1 else f"{number} * (1 - {number}^(t - 1)) / (1 - {number}^t)"
