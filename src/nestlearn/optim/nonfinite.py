"""NaN and infinite gradients: stopped before anything is written, or let in and said once.

Whatever enters an average stays in it: one such gradient is the end of a memory, and a scaler's skipped step is not.
"""

import math
import warnings
from operator import attrgetter

import torch
from torch import Tensor

from nestlearn.optim.adapter import Adapter
from nestlearn.optim.checks import describe
from nestlearn.optim.lanes import as_real

__all__ = ["LetIn", "check_gradients"]

_ON_CPU, _IS_SPARSE = attrgetter("is_cpu"), attrgetter("is_sparse")

TURNS = 16
"""Where gradients that are let in are many or large, each is looked at in one of so many steps."""

FEW = 1 << 16
"""Entries of gradients that are looked at in every step."""


def check_gradients(optimizer: Adapter, let_in: "LetIn") -> None:
    """Raise before anything is written if a gradient is sparse, or has no finite norm where the group says "raise".

    Args:
        optimizer: whose gradients are looked at.
        let_in: is shown the gradients of the groups that say "ignore".

    Raises:
        TypeError: a sparse gradient.
        FloatingPointError: NaN, infinity, or entries whose squares overflow, naming the parameter.
    """
    watched: list[Tensor] = []
    ignored: list[Tensor] = []
    for group in optimizer.param_groups:
        seen = watched if group["nonfinite"] == "raise" else ignored
        gradients = [gradient for parameter in group["params"] if (gradient := parameter.grad) is not None]
        if any(map(_IS_SPARSE, gradients)):
            sparse = next(
                parameter for parameter in group["params"] if parameter.grad is not None and parameter.grad.is_sparse
            )
            raise TypeError(
                f"{describe(optimizer, sparse)} has a sparse gradient, and memories are dense: "
                "use sparse=False in its embedding, or give it to torch.optim.SparseAdam"
            )
        seen += map(as_real, gradients) if any(map(Tensor.is_complex, gradients)) else gradients
    if watched and not _all_finite(watched):
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["nonfinite"] == "raise" else ():
                if parameter.grad is not None:
                    _refuse(optimizer, parameter, as_real(parameter.grad))
    if ignored:
        let_in.look(ignored)


class LetIn:
    """Warns once when non-finite gradients enter memories, in groups that say ``nonfinite="ignore"``.

    A few small gradients are looked at in every step; of more, a part of them at each step in turns, as weights that
    are not finite make such gradients from then on. An accelerator is not waited for: what it finds is read at a later
    step.
    """

    def __init__(self) -> None:
        self._said = False
        self._turn = 0
        self._elsewhere: dict[torch.device, _SoFar] = {}

    def look(self, gradients: list[Tensor]) -> None:
        """Look at the gradients of a step that is about to be taken."""
        if self._said or gradients[0].is_meta or (gradients[0].is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        if len(gradients) > TURNS or sum(gradient.numel() for gradient in gradients) > FEW:
            self._turn = (self._turn + 1) % TURNS
            gradients = gradients[self._turn :: TURNS]
        known = [self._known(flag) for flag in _finite_flags(gradients)]  # all of them, each has a memory
        if not all(known):
            self._said = True
            warnings.warn(
                "gradients that are not finite enter the memories of the optimizer, as nonfinite='ignore' allows; "
                "what is in a memory stays there: load a checkpoint from before, or clear optimizer.state",
                RuntimeWarning,
                stacklevel=2,
            )

    def _known(self, flag: Tensor | bool) -> bool:
        """What is known of a flag, or of those before it, without waiting."""
        if isinstance(flag, bool) or flag.device.type == "cpu":
            return bool(flag)
        if flag.device not in self._elsewhere:
            self._elsewhere[flag.device] = _SoFar(flag.device)
        return self._elsewhere[flag.device].add(flag)


class _SoFar:
    """Whether all flags on an accelerator have been true so far, as it was when it was last read."""

    def __init__(self, device: torch.device) -> None:
        self._all = torch.ones((), dtype=torch.bool, device=device)
        self._read = torch.ones((), dtype=torch.bool, pin_memory=True)
        self._copied = torch.Event(device)

    def add(self, flag: Tensor) -> bool:
        """Add a flag; return what was true when the last copy that has arrived was sent."""
        self._all.logical_and_(flag)
        if not self._copied.query():
            return True
        known = bool(self._read)
        self._read.copy_(self._all, non_blocking=True)
        self._copied.record()
        return known


def _refuse(optimizer: Adapter, parameter: Tensor, gradient: Tensor) -> None:
    if _all_finite([gradient]):
        return
    bad = int((~torch.isfinite(gradient)).sum())
    what = f"{bad} of {gradient.numel()} gradient entries are NaN or infinite"
    if not bad:
        peak = float(gradient.abs().max())
        what = f"the squared gradient overflows {gradient.dtype}, its largest entry is {peak:.3g}"
    raise FloatingPointError(
        f"{describe(optimizer, parameter)}: {what}. Nothing was written. Lower lr, clip gradients, use a "
        "GradScaler with float16, or pass nonfinite='ignore'."
    )


def _all_finite(gradients: list[Tensor]) -> bool:
    """Whether every gradient has a finite norm, so that second moments can hold its square."""
    return all(map(bool, _finite_flags(gradients)))


def _finite_flags(gradients: list[Tensor]) -> list[Tensor | bool]:
    """One flag a device and dtype: whether its gradients have norms that can be squared; a tensor on accelerators."""
    first = gradients[0]
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    if len({tensor.dtype for tensor in gradients}) == 1 and all(map(_ON_CPU, gradients)):  # the usual case, quickly
        alike[first.device, first.dtype] = gradients
    else:
        for tensor in gradients:
            alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    flags: list[Tensor | bool] = []
    for (device, dtype), group in alike.items():
        # One read of the gradients, in the precision that their squares will have.
        wide = torch.promote_types(dtype, torch.float32)
        norms = torch.stack(torch._foreach_norm(group, 2, dtype=wide))
        if device.type == "cpu" and type(norms) is Tensor:  # as numbers: that is one call, and not six
            found = norms.tolist()
            flags.append(math.isfinite(sum(found)) and max(found) * max(found) <= torch.finfo(wide).max)
        else:
            flags.append(torch.isfinite(norms.square()).all())
    return flags
