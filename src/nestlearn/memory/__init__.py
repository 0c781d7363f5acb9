"""The core: everything that learns is an associative memory (M1-M5)."""

from typing import TYPE_CHECKING

from nestlearn.lazy import late

if TYPE_CHECKING:
    from nestlearn.memory.associative import AssociativeMemory
    from nestlearn.memory.boxes import average_box, bias_corrected, sum_box
    from nestlearn.memory.inner_momentum import InnerMomentum
    from nestlearn.memory.levels import frequency, levels
    from nestlearn.memory.models import MLP, Constant, Matrix, Model
    from nestlearn.memory.nesting import Consult, Consulted, Said, Scene
    from nestlearn.memory.objectives import (
        L2,
        DotProduct,
        Hypergradient,
        Objective,
        Oja,
        Orthogonality,
        Quadratic,
        dot_product,
        hypergradient,
        l2,
        oja,
        orthogonality,
        quadratic,
    )
    from nestlearn.memory.rules import Context, DeltaGradientDescent, GradientDescent, LeastSquares, Rule

__all__ = [
    "L2",
    "MLP",
    "AssociativeMemory",
    "Constant",
    "Consult",
    "Consulted",
    "Context",
    "DeltaGradientDescent",
    "DotProduct",
    "GradientDescent",
    "Hypergradient",
    "InnerMomentum",
    "LeastSquares",
    "Matrix",
    "Model",
    "Objective",
    "Oja",
    "Orthogonality",
    "Quadratic",
    "Rule",
    "Said",
    "Scene",
    "average_box",
    "bias_corrected",
    "dot_product",
    "frequency",
    "hypergradient",
    "l2",
    "levels",
    "oja",
    "orthogonality",
    "quadratic",
    "sum_box",
]

late(
    __name__,
    associative="AssociativeMemory",
    boxes="average_box bias_corrected sum_box",
    inner_momentum="InnerMomentum",
    levels="frequency levels",
    models="MLP Constant Matrix Model",
    nesting="Consult Consulted Said Scene",
    objectives="L2 DotProduct Hypergradient Objective Oja Orthogonality Quadratic "
    "dot_product hypergradient l2 oja orthogonality quadratic",
    rules="Context DeltaGradientDescent GradientDescent LeastSquares Rule",
)
