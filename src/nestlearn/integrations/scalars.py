"""What an optimizer did, and what its memories hold, in named numbers by level (M4).

A number is called ``what/level/memory``. The memory "matrix" are the weights that the rule for matrices writes,
"element" all others; "matrix.momentum" is the momentum behind the former. Level 1 is the slowest.

| name | what it is | unit |
| --- | --- | --- |
| ``surprise/2/matrix.momentum`` | objective of a memory before its latest write, averaged over parameters | its own |
| ``size/1/matrix`` | root mean square of the weights, or of what a memory holds | an entry's |
| ``update/1/matrix`` | root mean square of what a step changed, over that of what was there before | none |
| ``spectrum/1/matrix/top`` | the largest singular value, averaged over matrices | an entry's |
| ``spectrum/1/matrix/stable_rank`` | over the smaller side of the matrix, averaged over matrices | none, 1 at most |
| ``spectrum/1/matrix/effective_rank`` | likewise, see `nestlearn.ops.spectrum` | none, 1 at most |

The spectrum of the weights is that of what the step changed. A memory has one where it is a map, a matrix of numbers
and not one number for each of the weights.

All is measured in stacks of equal shapes, on the device, and comes from there in one message.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nestlearn.integrations.places import MATRIX, Copies, Found, Place, places, unwrapped
from nestlearn.ops.spectrum import spectrum as spectrum_of
from nestlearn.optim.lanes import matrix_shape, memory_dtype

__all__ = ["measured", "scalars"]

AT_ONCE = 1 << 26
"""Entries of equal matrices whose spectra are measured at once; beyond that a batch saves no time."""


def scalars(
    optimizer: torch.optim.Optimizer, before: Copies | None = None, *, spectrum: bool = True
) -> dict[str, float]:
    """The numbers of an optimizer as it is now: name -> number, see above.

    Nothing is written, drawn or kept. Where ranks share parameters each measures what lies on it: its shards, the
    memories that it owns, and no spectrum of a shard. A number that nothing defines, such as the rank of an update that
    is zero, is left out; one that is not finite says so.

    Args:
        optimizer: of `nestlearn.optim`, of ``torch.optim``, or any other, of which the weights are measured and what
            `nestlearn.describe` finds in the state.
        before: ``copies(optimizer)`` of before the latest step; without it no update is measured.
        spectrum: False leaves out what is dear: 2 n^2 m FLOP for a matrix with sides n <= m, and n eigenvalues.

    Example:
        >>> import nestlearn as nl
        >>> from nestlearn.integrations.places import copies
        >>> layer = torch.nn.Linear(3, 2, bias=False)
        >>> optimizer = nl.optim.Muon(layer.parameters(), lr=0.1)
        >>> before = copies(optimizer)
        >>> layer(torch.eye(3)).square().sum().backward()
        >>> optimizer.step()
        >>> print(*scalars(optimizer, before), sep=", ")
        size/1/matrix, update/1/matrix, spectrum/1/matrix/top, spectrum/1/matrix/stable_rank, \
spectrum/1/matrix/effective_rank, size/2/matrix.momentum
    """
    optimizer = unwrapped(optimizer)
    return measured(optimizer, places(optimizer), before or {}, spectrum=spectrum)


class _Part(NamedTuple):
    """Numbers [n] on a device, and what becomes of them: None where they define nothing."""

    name: str
    numbers: Tensor
    reduce: Callable[[Tensor], float | None]


@torch.no_grad()
def measured(
    optimizer: torch.optim.Optimizer, among: Iterable[Place], before: Copies, *, spectrum: bool
) -> dict[str, float]:
    """``scalars`` where the places are known."""
    members: dict[tuple[int, str], list[tuple[Place, Found]]] = defaultdict(list)
    for place in among:
        found = place.find(optimizer)
        if found is not None:
            members[place.level, place.memory].append((place, found))
    parts: list[_Part] = []
    for (level, memory), each in members.items():
        name = f"{level}/{memory}"
        parts += _surprise(name, [found.tensor for place, found in each if place.kind == "surprise"])
        held = [(place, found) for place, found in each if place.kind != "surprise"]
        if held:
            changes = _changes(held, before)
            parts += _sizes(name, [found.tensor for _, found in held])
            parts += _update(name, [change.tensor for _, change in changes], [before[p.spot] for p, _ in changes])
            if spectrum and memory.partition(".")[0] == MATRIX:
                maps = [(place, found) for place, found in held if place.kind == "map"]
                parts += _spectra(name, changes if held[0][0].kind == "weights" else maps)
    if not parts:
        return {}
    numbers = _joined([part.numbers for part in parts]).cpu().double()
    shares = numbers.split([len(part.numbers) for part in parts])
    values = [(part.name, part.reduce(share)) for part, share in zip(parts, shares, strict=True)]
    return {name: value for name, value in values if value is not None}


def _joined(numbers: Sequence[Tensor]) -> Tensor:
    """Numbers [n] from any devices end to end on one, in the best precision that it has."""
    first = numbers[0].device
    wide = torch.float32 if first.type == "mps" else torch.float64
    return torch.cat([each.to(first).to(wide) for each in numbers])


def _surprise(name: str, surprises: list[Tensor]) -> Iterator[_Part]:
    if surprises:
        means = [each.mean(dtype=memory_dtype(each)).reshape(1) for each in surprises]
        yield _Part(f"surprise/{name}", _joined(means), lambda each: each.mean().item())


def _norms(tensors: list[Tensor]) -> Tensor:
    """The length of each tensor, [n]."""
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    return _joined([norm.reshape(1) for norm in torch._foreach_norm(tensors, 2, dtype)])


def _sizes(name: str, tensors: list[Tensor]) -> Iterator[_Part]:
    root = math.sqrt(sum(tensor.numel() for tensor in tensors))
    yield _Part(f"size/{name}", _norms(tensors), lambda norms: norms.norm().item() / root)


def _changes(held: list[tuple[Place, Found]], before: Copies) -> list[tuple[Place, Found]]:
    """What became of each tensor of which there is a copy, minus that."""
    known = [(place, found, before[place.spot]) for place, found in held if place.spot in before]
    return [
        (place, Found(found.tensor.to(memory_dtype(then)) - then, found.whole))
        for place, found, then in known
        if found.tensor.shape == then.shape
    ]


def _update(name: str, changes: list[Tensor], before: list[Tensor]) -> Iterator[_Part]:
    def ratio(norms: Tensor) -> float | None:
        change, there = (each.norm().item() for each in norms.chunk(2))
        return change / there if there else None

    if changes:
        yield _Part(f"update/{name}", torch.cat([_norms(changes), _norms(before)]), ratio)


def _spectra(name: str, held: list[tuple[Place, Found]]) -> Iterator[_Part]:
    """Spectra of all matrices among them, those of one shape together."""
    stacks: dict[tuple[torch.Size, torch.device], list[Tensor]] = defaultdict(list)
    for place, found in held:
        for matrices in _as_matrices(place, found):
            stacks[matrices.shape[1:], matrices.device].append(matrices)
    spectra = []
    for (shape, _), each in stacks.items():
        for start in range(0, len(each), count := max(1, AT_ONCE // each[0].numel())):
            top, stable, effective = spectrum_of(torch.cat(each[start : start + count]))
            spectra.append((top, stable / min(shape), effective / min(shape)))
    if spectra:
        top, stable, effective = map(_joined, zip(*spectra, strict=True))
        yield _Part(f"spectrum/{name}/top", top, lambda each: each.mean().item())
        yield _Part(f"spectrum/{name}/stable_rank", stable, _mean_of_known)
        yield _Part(f"spectrum/{name}/effective_rank", effective, _mean_of_known)


def _mean_of_known(ranks: Tensor) -> float | None:
    known = ranks[~ranks.isnan()]
    return known.mean().item() if len(known) else None


def _as_matrices(place: Place, found: Found) -> Iterator[Tensor]:
    """[B, n, m] of what is a matrix, or several; nothing of what is none, and of a shard, which is part of one."""
    tensor = found.tensor
    if place.kind == "weights":
        tensor = tensor.reshape(matrix_shape(tensor))
    if found.whole and tensor.ndim > 1 and min(tensor.shape[-2:]) > 1:
        yield tensor.reshape(-1, *tensor.shape[-2:]).to(memory_dtype(tensor))
