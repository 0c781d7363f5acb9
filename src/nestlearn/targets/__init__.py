"""Targets P: what an optimizer's memory is asked to answer ([S] 5)."""

from nestlearn.targets.elementary import Identity, Ones
from nestlearn.targets.forecast import NextGradient
from nestlearn.targets.hessian import GaussNewton, HessianDiagonal
from nestlearn.targets.kronecker import Kronecker
from nestlearn.targets.orthogonal import OrthogonalMomentum
from nestlearn.targets.random_features import RandomFeatures, random_features
from nestlearn.targets.registry import TARGETS, make_target
from nestlearn.targets.second_moment import AverageGradient, SecondMoment
from nestlearn.targets.target import Target

__all__ = [
    "TARGETS",
    "AverageGradient",
    "GaussNewton",
    "HessianDiagonal",
    "Identity",
    "Kronecker",
    "NextGradient",
    "Ones",
    "OrthogonalMomentum",
    "RandomFeatures",
    "SecondMoment",
    "Target",
    "make_target",
    "random_features",
]
