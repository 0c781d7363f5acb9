"""Targets by the names that users type."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from nestlearn.errors import choice
from nestlearn.targets.elementary import Identity, Ones
from nestlearn.targets.forecast import NextGradient
from nestlearn.targets.hessian import GaussNewton, HessianDiagonal
from nestlearn.targets.kronecker import Kronecker
from nestlearn.targets.orthogonal import OrthogonalMomentum
from nestlearn.targets.random_features import RandomFeatures
from nestlearn.targets.second_moment import AverageGradient, SecondMoment
from nestlearn.targets.target import Target

__all__ = ["TARGETS", "make_target"]

TARGETS: Mapping[str, type[Target]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            AverageGradient,
            GaussNewton,
            HessianDiagonal,
            Identity,
            Kronecker,
            NextGradient,
            Ones,
            OrthogonalMomentum,
            RandomFeatures,
            SecondMoment,
        )
    }
)
"""Every target, by name."""


def make_target(name: str | Target, period: int = 1) -> Target:
    """The target called ``name`` with its default settings, or the given one, computed every ``period`` writes.

    Raises:
        ValueError: an unknown name, with the nearest known one.
    """
    if isinstance(name, Target):
        return replace(name, period=period) if period != 1 else name
    choice("target", name, TARGETS)
    return TARGETS[name](period=period)
