"""NaN and infinite gradients: stopped before anything is written, or let in and said once.

Whatever enters an average stays in it: one such gradient is the end of a memory, and a scaler's skipped step is not.
"""

import math
import warnings
from functools import lru_cache
from operator import attrgetter

import torch
from torch import Tensor

from nestlearn.optim.adapter import Adapter
from nestlearn.optim.checks import describe
from nestlearn.optim.lanes import SMALL, as_real
from nestlearn.optim.ranks import added, place
from nestlearn.optim.sharded import any_sharded, local

__all__ = ["LetIn", "check_gradients"]

_ON_CPU, _IS_SPARSE = attrgetter("is_cpu"), attrgetter("is_sparse")

TURNS = 32
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
    sharded = False
    watched: list[Tensor] = []
    ignored: list[Tensor] = []
    for group in optimizer.param_groups:
        seen = watched if group["nonfinite"] == "raise" else ignored
        gradients = [gradient for parameter in group["params"] if (gradient := parameter.grad) is not None]
        if any_sharded(gradients):
            sharded, gradients = True, list(map(local, gradients))
        if any(map(_IS_SPARSE, gradients)):
            sparse = next(
                parameter for parameter in group["params"] if parameter.grad is not None and parameter.grad.is_sparse
            )
            raise TypeError(
                f"{describe(optimizer, sparse)} has a sparse gradient, and memories are dense: "
                "use sparse=False in its embedding, or give it to torch.optim.SparseAdam"
            )
        seen += gradients
    if watched and not (_all_finite_everywhere(watched) if sharded else _all_finite(watched)):
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["nonfinite"] == "raise" else ():
                if parameter.grad is not None:
                    _refuse(optimizer, parameter, as_real(local(parameter.grad)))
        raise FloatingPointError(
            f"{type(optimizer).__name__}: a gradient on another rank has NaN, infinite or too large entries. Nothing "
            "was written; that rank names the parameter."
        )
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


def _all_finite_everywhere(gradients: list[Tensor]) -> bool:
    """The same on every rank, of all of which a shard is looked at here: no rank goes on alone."""
    found = torch.tensor([float(_all_finite(gradients))])
    (total,) = added([found.to(gradients[0].device)])
    return int(total) == place()[1]


def _all_finite(gradients: list[Tensor]) -> bool:
    """Whether every gradient has a finite norm, so that second moments can hold its square."""
    return all(map(bool, _finite_flags(gradients)))


def _finite_flags(gradients: list[Tensor]) -> list[Tensor | bool]:
    """One flag a device and dtype: whether its gradients have norms that can be squared; a tensor on accelerators."""
    kinds = {gradient.dtype for gradient in gradients}
    if any(kind.is_complex for kind in kinds):
        gradients = list(map(as_real, gradients))
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    if len(kinds) == 1 and all(map(_ON_CPU, gradients)):  # the usual case, quickly
        alike[gradients[0].device, gradients[0].dtype] = gradients
    else:
        for tensor in gradients:
            alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    flags: list[Tensor | bool] = []
    for (device, dtype), group in alike.items():
        # One read of the gradients, in the precision that their squares will have.
        wide = torch.promote_types(dtype, torch.float32)
        if device.type == "cpu" and set(map(type, group)) == {Tensor}:
            # Together the squares of small ones may overflow where each alone does not.
            flags.append(_have_squares(_joined(group), wide) or _have_squares(group, wide))
        else:
            norms = torch.stack(torch._foreach_norm(group, 2, dtype=wide))
            flags.append(torch.isfinite(norms.square()).all())
    return flags


def _have_squares(gradients: list[Tensor], wide: torch.dtype) -> bool:
    """Whether all of these have norms that can be squared."""
    norms = torch.stack(torch._foreach_norm(gradients, 2, dtype=wide)).tolist()
    return math.isfinite(sum(norms)) and max(norms) * max(norms) <= torch.finfo(wide).max


def _joined(gradients: list[Tensor]) -> list[Tensor]:
    """Small gradients end to end: to copy many costs less than to ask each for its norm."""
    if len(gradients) < 8:
        return gradients
    together, alone = _rows(tuple([gradient.shape for gradient in gradients]))
    return [torch.cat([gradients[place] for place in places]) for places in together] + [
        gradients[place] for place in alone
    ]


@lru_cache(8)
def _rows(shapes: tuple[torch.Size, ...]) -> tuple[list[list[int]], list[int]]:
    """Places of tensors that can be joined, as they have rows of one shape, and of the others."""
    found: dict[torch.Size, list[int]] = {}
    for number, shape in enumerate(shapes):
        if shape and shape.numel() < SMALL:
            found.setdefault(shape[1:], []).append(number)
    together = [places for places in found.values() if len(places) > 1]
    joined = {place for places in together for place in places}
    return together, [place for place in range(len(shapes)) if place not in joined]
