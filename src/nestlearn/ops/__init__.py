"""Pure functions on batches of matrices: the numerical floor of targets and optimizers."""

from nestlearn.ops.matrix import (
    FOUR_STEP_COEFFICIENTS,
    MUON_COEFFICIENTS,
    cholesky_whitener,
    inverse_root,
    newton_schulz,
    orthogonality_error,
)
from nestlearn.ops.preconditioner import initial_preconditioner, preconditioner_step

__all__ = [
    "FOUR_STEP_COEFFICIENTS",
    "MUON_COEFFICIENTS",
    "cholesky_whitener",
    "initial_preconditioner",
    "inverse_root",
    "newton_schulz",
    "orthogonality_error",
    "preconditioner_step",
]
