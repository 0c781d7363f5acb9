"""What every rank of two does in ``test_many_ranks.py``: python -m contract.ranks FOLDER, in tests/."""

from __future__ import annotations

import datetime
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forked import forked
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import nestlearn as nl

from .members import MEMBERS, Member
from .problems import network

__all__ = ["CLASSES", "CONTROLS", "ELEMENTWISE", "TARGETS"]

CLASSES = {str(member): member for member in MEMBERS if not member.extra}
TARGETS = {str(member): member for member in MEMBERS if member.extra and member.closure}
CONTROLS = [
    Member("LayerMomentum", {"memory": False}, model=True),
    Member("LayerMomentum", {"sides": "input", "readout": "identity", "refresh": 1}, model=True),
    Member("SecantMomentum", {"keys": "kronecker", "nesterov": True}, model=True),
    Member("DeltaGradientDescent", {"period": 3}, model=True),
]
ELEMENTWISE = {"GradientDescent", "Momentum", "PreconditionedMomentum", "Adam"}


def batches(rank: int | None) -> list[torch.Tensor]:
    """What a rank sees in three steps; None sees what both do. More rows than a secant memory takes."""
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randn(302, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    return whole if rank is None else [batch.tensor_split(2)[rank] for batch in whole]


def trained(member: Member, rank: int | None) -> torch.Tensor:
    """The weights after three steps, as a rank of two or as the only process."""
    module = network()
    wrapped = module if rank is None else DistributedDataParallel(module)
    optimizer = member.build(module)
    for inputs in batches(rank):

        def closure(inputs: torch.Tensor = inputs) -> torch.Tensor:
            optimizer.zero_grad()
            loss = wrapped(inputs).square().mean()
            loss.backward(retain_graph=member.closure)
            return loss

        optimizer.step(closure)
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def replicas(member: Member, rank: int, alone: torch.Tensor) -> tuple[float, float]:
    """The largest difference between the ranks' weights, and to those of one process on the whole batch."""
    weights = trained(member, rank)
    everyone = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, weights)
    return float((everyone[0] - everyone[1]).abs().max()), float((weights - alone).abs().max())


def shared_out(member: Member) -> str:
    """One step of an optimizer each of which has some of the parameters."""
    module = network()
    settings = {"model": module} if member.model else {}
    wrapped = DistributedDataParallel(module)
    kind = getattr(nl.optim, member.name)
    optimizer = ZeroRedundancyOptimizer(module.parameters(), optimizer_class=kind, lr=0.01, **settings)
    wrapped(batches(dist.get_rank())[0]).square().mean().backward()
    optimizer.step()
    return "trains"


def flat_shards(name: str, strategy: ShardingStrategy, *, orig: bool, late: bool = False, **settings: Any) -> str:
    """One step on shards; "late" makes the optimizer before the model is wrapped."""
    module = network()
    early = getattr(nl.optim, name)(module.parameters(), **settings) if late else None
    wrapped = FullyShardedDataParallel(
        module, sharding_strategy=strategy, use_orig_params=orig, device_id=torch.device("cpu")
    )
    optimizer = early or getattr(nl.optim, name)(wrapped.named_parameters(), **settings)
    wrapped(torch.ones(4, 6, dtype=torch.float64)).square().mean().backward()
    optimizer.step()
    return "trains"


def tried(scenario: Callable[[], Any]) -> Any:
    """What a scenario returns, or what it raises, in words."""
    try:
        return scenario()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def everyone() -> dict[str, Member]:
    return CLASSES | TARGETS | {str(member): member for member in CONTROLS}


def run(rank: int, meeting: Path, alone: dict[str, torch.Tensor]) -> dict[Any, Any]:
    """All scenarios, once."""
    members = everyone()
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    results: dict[Any, Any] = {
        name: tried(lambda m=m, a=alone[name]: replicas(m, rank, a)) for name, m in members.items()
    }
    full, none = ShardingStrategy.FULL_SHARD, ShardingStrategy.NO_SHARD
    for name in {member.name for member in CLASSES.values() if not member.model}:
        for orig in (True, False):
            results[name, orig] = tried(lambda n=name, o=orig: flat_shards(n, full, orig=o))
    results["shared out, Muon"] = tried(lambda: shared_out(Member("Muon")))
    results["shared out, LayerMomentum"] = tried(lambda: shared_out(Member("LayerMomentum", model=True)))
    results["late"] = tried(lambda: flat_shards("Muon", full, orig=True, late=True))
    results["whole"] = tried(lambda: flat_shards("Muon", none, orig=True))
    results["chosen"] = tried(lambda: flat_shards("Muon", full, orig=True, elementwise=["*"]))
    dist.destroy_process_group()
    return results


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")  # torch has reasons to warn of its own old wrapper
    torch.set_num_threads(1)
    alone = {name: trained(member, None) for name, member in everyone().items()}

    def work(rank: int) -> None:
        (folder / f"{rank}").write_bytes(pickle.dumps(run(rank, folder / "meeting", alone)))

    forked([partial(work, rank) for rank in (0, 1)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
