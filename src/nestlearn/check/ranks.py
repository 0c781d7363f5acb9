"""Checks on two ranks: what a process of the pair does, as ``nestlearn.check.child`` calls it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from nestlearn.check.compare import leaves, same
from nestlearn.check.outcome import claim
from nestlearn.check.subject import Subject
from nestlearn.check.training import Run, agree, noise
from nestlearn.errors import NotApplicable

__all__ = ["CHECKS", "RANKS", "Place", "place"]

RANKS = 2
EVEN, UNEVEN = (6, 8, 4), (6, 7, 1)
"""Widths whose rows divide by the ranks, and such that one rank has no row of the last layer."""


@dataclass(frozen=True)
class Place:
    """Where a check runs: what one process gave before there were ranks, and a folder that both see.

    Args:
        rank: 0 or 1.
        folder: for checkpoints.
        alone: widths -> the weights of one process on whole batches, or what it raised.
        saved: a checkpoint that one process wrote after two steps, or what it raised.
    """

    rank: int
    folder: Path
    alone: dict[Sequence[int], list[Tensor] | Exception] = field(default_factory=dict)
    saved: bytes | Exception = b""

    def reference(self, widths: Sequence[int]) -> list[Tensor]:
        """The weights of one process."""
        found = self.alone[widths]
        if isinstance(found, Exception):
            raise found
        return found


def place(subject: Subject, rank: int, folder: Path) -> Place:
    """What one process does on its own, to be called before there is a process group."""
    alone: dict[Sequence[int], list[Tensor] | Exception] = {}
    for widths in (EVEN, UNEVEN):
        try:
            noise(subject)
            alone[widths] = Run(subject, _network(subject, widths)).steps().weights()
        except Exception as error:  # noqa: BLE001 - told by the checks that need it
            alone[widths] = error
    try:
        run = Run(subject).steps(range(2))
        file = io.BytesIO()
        torch.save(get_state_dict(run.module, run.optimizer, options=StateDictOptions(full_state_dict=True)), file)
        return Place(rank, folder, alone, file.getvalue())
    except Exception as error:  # noqa: BLE001 - the same
        return Place(rank, folder, alone, error)


def _network(subject: Subject, widths: Sequence[int] = EVEN) -> nn.Sequential:
    return subject.network(widths=widths)


def _replicas(subject: Subject, here: Place) -> Run:
    module = _network(subject)
    run = Run(subject, module, forward=DistributedDataParallel(module))
    run.rows = lambda rows: rows.chunk(RANKS)[here.rank]
    return run


def _shards(subject: Subject, here: Place, widths: Sequence[int] = EVEN) -> Run:
    module = _network(subject, widths)
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in module:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    run = Run(subject, module)
    run.rows = lambda rows: rows.chunk(RANKS)[here.rank]
    return run


def _whole(run: Run) -> list[Tensor]:
    found = [each.detach() for each in run.parameters()]
    return [(each.full_tensor() if isinstance(each, DTensor) else each).clone() for each in found]


def ddp(subject: Subject, here: Place) -> None:
    """DistributedDataParallel: both ranks have the same bits, and what one process has on the whole batch."""
    run = _replicas(subject, here).steps()
    for weight in run.weights():
        everyone = [torch.empty_like(weight) for _ in range(RANKS)]
        dist.all_gather(everyone, weight)
        far = float((everyone[0] - everyone[1]).abs().max())
        claim(far == 0, f"the ranks' weights differ by {far:.1e}")
    agree(subject, run.weights(), here.reference(EVEN), "weights of two ranks and of one process")


def fsdp2(subject: Subject, here: Place) -> None:
    """FSDP2: parameters in shards give what one process has on the whole batch."""
    run = _shards(subject, here).steps()
    agree(subject, _whole(run), here.reference(EVEN), "weights of two ranks and of one process")


def fsdp2_uneven(subject: Subject, here: Place) -> None:
    """FSDP2, with rows that do not divide by the ranks, and a rank without any row of a layer."""
    run = _shards(subject, here, UNEVEN).steps()
    agree(subject, _whole(run), here.reference(UNEVEN), "weights of two ranks and of one process")


def same_keys(subject: Subject, here: Place) -> None:
    """FSDP2: before the first step all ranks know the same names of states, and asking moves nothing."""
    run = _shards(subject, here)
    before = _whole(run)
    states: Any = get_optimizer_state_dict(run.module, run.optimizer)["state"]
    everyone: list[Any] = [None] * RANKS
    dist.all_gather_object(everyone, {name: sorted(state) for name, state in states.items()})
    claim(everyone[0] == everyone[1], f"rank 0 has {everyone[0]}, rank 1 {everyone[1]}")
    claim(same(before, _whole(run)), "weights moved, or became NaN")


def dcp_replicas(subject: Subject, here: Place) -> None:
    """DDP: what torch.distributed.checkpoint saves on two ranks goes on there to the same bits."""
    _goes_on(_replicas(subject, here), _replicas(subject, here), here.folder / "replicas")


def dcp_shards(subject: Subject, here: Place) -> None:
    """FSDP2: what torch.distributed.checkpoint saves on two ranks goes on there to the same bits."""
    _goes_on(_shards(subject, here), _shards(subject, here), here.folder / "shards")


def dcp_elsewhere(subject: Subject, here: Place) -> None:
    """FSDP2: what torch.distributed.checkpoint saves on two ranks goes on in one process."""
    run = _shards(subject, here).steps(range(2))
    _save(run, here.folder / "elsewhere")
    alone = Run(subject, _network(subject))
    _load(alone, here.folder / "elsewhere", no_dist=True)
    agree(subject, alone.steps(range(2, 4)).weights(), here.reference(EVEN), "weights of it and of one process")


def shared_out(subject: Subject, here: Place) -> None:
    """FSDP2: a whole checkpoint that one process wrote by torch.save goes on in shards."""
    if isinstance(here.saved, Exception):
        raise here.saved
    weights, state = torch.load(io.BytesIO(here.saved), weights_only=False)
    if not any(isinstance(value, Tensor) and value.dim() for _, value in leaves(state["state"])):
        raise NotApplicable("it remembers numbers alone, and torch takes the device from a tensor with dimensions")
    run = _shards(subject, here)
    options = StateDictOptions(full_state_dict=True)
    set_state_dict(run.module, run.optimizer, model_state_dict=weights, optim_state_dict=state, options=options)
    run.steps(range(2, 4))
    agree(subject, _whole(run), here.reference(EVEN), "weights of it and of one process")


def _goes_on(run: Run, other: Run, folder: Path) -> None:
    """Another run takes over after two steps, and both take two more."""
    _save(run.steps(range(2)), folder)
    _load(other, folder)
    ends = [_whole(each.steps(range(2, 4))) for each in (run, other)]
    claim(same(*ends), "weights are others than without the checkpoint")


def _save(run: Run, folder: Path) -> None:
    weights, state = get_state_dict(run.module, run.optimizer)
    save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def _load(run: Run, folder: Path, no_dist: bool = False) -> None:
    weights, state = get_state_dict(run.module, run.optimizer)
    tree: dict[str, Any] = {"model": weights, "optimizer": state}
    load(tree, checkpoint_id=folder, no_dist=no_dist)
    set_state_dict(run.module, run.optimizer, model_state_dict=tree["model"], optim_state_dict=tree["optimizer"])


CHECKS = (ddp, fsdp2, fsdp2_uneven, same_keys, dcp_replicas, dcp_shards, dcp_elsewhere, shared_out)
