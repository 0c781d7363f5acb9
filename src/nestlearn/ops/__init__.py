"""Pure functions on tensors: batches of matrices for targets and optimizers, scans over tokens for layers."""

from nestlearn.ops.eigenbasis import eigenvectors, turned
from nestlearn.ops.parallel import chunk_step, has_parallel_form, parallel_scan
from nestlearn.ops.preconditioner import initial_preconditioner, preconditioner_step
from nestlearn.ops.products import gram, product
from nestlearn.ops.scan import scan
from nestlearn.ops.whitening import (
    FOUR_STEP_COEFFICIENTS,
    MUON_COEFFICIENTS,
    cholesky_whitener,
    inverse_root,
    newton_schulz,
    orthogonality_error,
    symmetric_power,
)

__all__ = [
    "FOUR_STEP_COEFFICIENTS",
    "MUON_COEFFICIENTS",
    "cholesky_whitener",
    "chunk_step",
    "eigenvectors",
    "gram",
    "has_parallel_form",
    "initial_preconditioner",
    "inverse_root",
    "newton_schulz",
    "orthogonality_error",
    "parallel_scan",
    "preconditioner_step",
    "product",
    "scan",
    "symmetric_power",
    "turned",
]
