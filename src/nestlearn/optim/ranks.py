"""Ranks that train replicas of one model, each with its share of the batch: what they observe is put together.

Gradients are averaged by DistributedDataParallel. What a rule looks at besides (covariances, products with the Hessian)
is measured on each rank's share, and is added here, so that replicas stay equal and equal to one process on the whole
batch. Shares are of one size, as DistributedDataParallel supposes too, and lie in the batch in the order of the ranks.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from nestlearn.optim.sharded import whole

__all__ = ["added", "agree", "averaged", "place"]


def place() -> tuple[int, int]:
    """This rank, and how many there are in the default process group; (0, 1) without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


_agreed: set[tuple[object, ...]] = set()
"""Whose parameters, by their shapes, all ranks were found to have in common."""


def agree(who: str, parameters: Sequence[Tensor]) -> None:
    """Raise RuntimeError, on every rank, unless all of them are about to observe the same parameters.

    They are replicas when their values are equal. What was agreed on once is not asked again: ranks differ from the
    first step on, or never.

    Args:
        who: name of the optimizer.
        parameters: of which something is measured.
    """
    ranks = place()[1]
    key = (who, *(parameter.shape for parameter in parameters))
    if ranks == 1 or key in _agreed:
        return
    sums = [float(whole(parameter.detach()).double().sum()) for parameter in parameters]
    digest = hashlib.sha256(repr((key, sums)).encode()).digest()
    mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8).to(torch.int64)
    mine = mine.cuda() if dist.get_backend() == "nccl" else mine
    everyone = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(everyone, mine)
    if not all(torch.equal(mine, other) for other in everyone):
        raise RuntimeError(
            f"{who}: the {ranks} ranks do not hold the same parameters, and what they observe is put together. Give "
            "every rank all of them with the same values, as DistributedDataParallel does. ZeroRedundancyOptimizer "
            "shares parameters out: it is for optimizers that read gradients alone."
        )
    _agreed.add(key)


def added(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Every tensor added over the ranks, in one message for each device and dtype."""
    if place()[1] == 1:
        return list(tensors)
    alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for number, tensor in enumerate(tensors):
        alike.setdefault((tensor.device, tensor.dtype), []).append(number)
    found = list(tensors)
    messages = []
    for numbers in alike.values():
        message = torch.cat([tensors[number].reshape(-1) for number in numbers])
        messages.append((numbers, message, dist.all_reduce(message, async_op=True)))
    for numbers, message, work in messages:
        work.wait()
        parts = message.split([tensors[number].numel() for number in numbers])
        for number, part in zip(numbers, parts, strict=True):
            found[number] = part.view(tensors[number].shape)
    return found


def averaged(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of every tensor over the ranks."""
    ranks = place()[1]
    return list(tensors) if ranks == 1 else [tensor / ranks for tensor in added(tensors)]
