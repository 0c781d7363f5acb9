"""The three ideas of [S] 5 as rules, each on and off: what P is, what the objective is, what the memory is made of.

| | dot product | l2 |
| --- | --- | --- |
| box | M <- retention M + P (O2, O3) | the same, after M has forgotten along the key u (O4) |
| MLP | M learns to answer u in the direction of P (O5) | M learns to answer u with P itself |

P is the gradient, or the gradient between the inverse fourth roots of its Kronecker factors (O9). An MLP begins as the
average of gradients, which it then corrects. All are read through Newton-Schulz, as Muon is, so that a step has one
length whatever the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nestlearn.optim import Optimizer
from nestlearn.rules import Link, average, chain, deep, delta, orthogonal, precondition, sum
from nestlearn.targets import Identity, Kronecker

__all__ = [
    "CELLS",
    "FACTORS",
    "rule",
    *(f"{m}_{o}_{p}" for m in ("box", "mlp") for o in ("dot", "l2") for p in ("u", "p")),
]

FACTORS = ("P", "objective", "MLP")
CELLS = {
    f"{'mlp' if mlp else 'box'}_{'l2' if l2 else 'dot'}_{'p' if p else 'u'}": (p, l2, mlp)
    for mlp in (False, True)
    for l2 in (False, True)
    for p in (False, True)
}
"""By name whether P is the preconditioned gradient, the objective l2 and the memory an MLP."""

DAMPING = 1e-2  # of the roots, as in the experiment on the period of targets


def rule(p: bool, l2: bool, mlp: bool, retention: float, inner_lr: float) -> Link:
    """The rule of a cell.

    Args:
        p, l2, mlp: as in ``CELLS``.
        retention: of the box, beside the MLP too.
        inner_lr: of the MLP, or what a box forgets along the key; a box with the dot product has none.
    """
    target = Kronecker(damping=DAMPING) if p else Identity()
    if mlp:
        # The dot product has no minimum: what the memory keeps bounds it.
        bound = {} if l2 else {"objective": "dot_product", "retention": 0.95}
        memory: Link = deep(inner_lr=inner_lr, target=target, beside=average(retention), **bound)  # type: ignore[arg-type]
        return chain(memory, orthogonal())
    box = delta(retention, inner_lr=inner_lr) if l2 else sum(retention)
    return chain(*([precondition(target)] if p else []), box, orthogonal())


def _plain(p: bool) -> Callable[..., Optimizer]:
    def make(
        named: Iterable[Any], lr: float = 0.052, *, retention: float = 0.8, weight_decay: float = 0.0
    ) -> Optimizer:
        return Optimizer(named, lr, matrix=rule(p, False, False, retention, 0.0), weight_decay=weight_decay)

    make.__doc__ = f"A box of {'preconditioned gradients' if p else 'gradients'}: the dot product."
    return make


def _learned(p: bool, l2: bool, mlp: bool, default: float) -> Callable[..., Optimizer]:
    def make(
        named: Iterable[Any],
        lr: float = 0.052,
        *,
        retention: float = 0.8,
        inner_lr: float = default,
        weight_decay: float = 0.0,
    ) -> Optimizer:
        return Optimizer(named, lr, matrix=rule(p, l2, mlp, retention, inner_lr), weight_decay=weight_decay)

    what = "preconditioned gradients" if p else "gradients"
    make.__doc__ = f"{'An MLP' if mlp else 'A box'} on {what}: {'l2' if l2 else 'the dot product'}."
    return make


box_dot_u, box_dot_p = _plain(False), _plain(True)
box_l2_u, box_l2_p = _learned(False, True, False, 0.5), _learned(True, True, False, 0.5)
mlp_dot_u, mlp_dot_p = _learned(False, False, True, 0.1), _learned(True, False, True, 0.1)
mlp_l2_u, mlp_l2_p = _learned(False, True, True, 0.1), _learned(True, True, True, 0.1)
