"""Rules that have a name of their own, put together from links."""

from __future__ import annotations

from nestlearn.rules.boxes import average, second_moment
from nestlearn.rules.combine import chain
from nestlearn.rules.orthogonal import orthogonal

__all__ = ["adam", "muon"]


def adam(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> chain:
    """An average of gradients over the root of an average of their squares, both corrected for their start (O7).

    Args:
        betas: retention of the momentum and of the second moment.
        eps: added to the denominator.

    Example:
        >>> adam()
        chain(average(corrected=True, name='momentum'), second_moment())
    """
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas are two retentions, got {betas!r}")
    first, second = betas
    return chain(average(first, corrected=True, name="momentum"), second_moment(second, eps))


def muon(retention: float = 0.95, *, nesterov: bool = True, steps: int = 5, scale: str = "rms") -> chain:
    """The orthogonal matrix next to an average of gradients (O10).

    Args:
        retention: the share of the average that is kept.
        nesterov: read between the average and the gradient.
        steps, scale: as in ``orthogonal``.
    """
    return chain(average(retention, nesterov=nesterov, name="momentum"), orthogonal(steps, scale))
