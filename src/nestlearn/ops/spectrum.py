"""What the singular values of a matrix say, in three numbers.

With s_1 >= s_2 >= ... the singular values, ||A||_F^2 = sum_i s_i^2 and p_i = s_i^2 / ||A||_F^2:

    top = s_1,    stable rank = ||A||_F^2 / s_1^2 = 1 / p_1,    effective rank = exp(-sum_i p_i log p_i)

The second ranges from 1 to the smaller side n of the matrix and counts directions as large as the largest; the third,
exp of the entropy of the shares p (Alter et al., 2000; log n times the "SVD entropy" of Liu et al., *Muon is Scalable
for LLM Training*), counts all. All three need p alone, the eigenvalues of a Gram matrix n x n: whatever is lost of a
singular value by squaring it is far below what it counts here.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Spectrum", "spectrum"]


class Spectrum(NamedTuple):
    """Of each of B matrices, [B] each.

    Attributes:
        top: the largest singular value, in the unit of the matrix; not a number if an entry is none or is infinite.
        stable: the stable rank, in directions. Not a number where the matrix is zero, or ``top`` is none.
        effective: the effective rank, likewise.
    """

    top: Tensor
    stable: Tensor
    effective: Tensor


def spectrum(matrices: Tensor) -> Spectrum:
    """The three numbers of every matrix.

    Args:
        matrices: [B, n, m], float32 or float64; neither side is 0.

    Example:
        >>> found = spectrum(torch.diag(torch.tensor([2.0, 2.0, 1.0])).unsqueeze(0))
        >>> [round(number.item(), 3) for number in found]
        [2.0, 2.25, 2.625]
    """
    length = torch.linalg.vector_norm(matrices, dim=(-2, -1))
    known = length.isfinite() & (length > 0)
    unit = matrices / torch.where(known, length, 1.0)[:, None, None]
    unit = torch.where(known[:, None, None], unit, 0.0)  # what is not finite has no eigenvalues, and LAPACK says so
    with torch.autocast(matrices.device.type, enabled=False):
        gram = unit @ unit.mT if unit.shape[-2] <= unit.shape[-1] else unit.mT @ unit
        shares = torch.linalg.eigvalsh(gram).clamp(min=0)
    undefined = torch.where(known, 0.0, torch.nan)
    entropy = torch.special.entr(shares).sum(-1)
    return Spectrum(
        top=torch.where(length.isfinite(), length * shares[:, -1].sqrt(), torch.nan),
        stable=1 / shares[:, -1] + undefined,
        effective=entropy.exp() + undefined,
    )
