"""What every rank of two does in ``test_many_ranks.py``: python -m contract.ranks RANK MEETING RESULTS, in tests/."""

from __future__ import annotations

import datetime
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.nn.parallel import DistributedDataParallel

import nestlearn as nl

from .members import MEMBERS, Member
from .problems import network

__all__ = ["CLASSES", "ELEMENTWISE", "TARGETS"]

CLASSES = {str(member): member for member in MEMBERS if not member.extra}
TARGETS = {str(member): member for member in MEMBERS if member.extra and member.closure}
ELEMENTWISE = {"GradientDescent", "Momentum", "PreconditionedMomentum", "Adam"}


def replicas(member: Member, rank: int) -> float:
    """The largest difference between the ranks' weights after some steps on other data for each rank."""
    module = network()
    wrapped = DistributedDataParallel(module)
    optimizer = member.build(module)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(3):
        inputs = torch.randn(8, 6, generator=generator, dtype=torch.float64)

        def closure(inputs: torch.Tensor = inputs) -> torch.Tensor:
            optimizer.zero_grad()
            loss = wrapped(inputs).square().mean()
            loss.backward(retain_graph=member.closure)
            return loss

        optimizer.step(closure)
    weights = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    everyone = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, weights)
    return float((everyone[0] - everyone[1]).abs().max())


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


def run(rank: int, meeting: str) -> dict[Any, Any]:
    """All scenarios, once."""
    warnings.simplefilter("ignore")  # torch has reasons to warn of its own old wrapper
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    results: dict[Any, Any] = {name: tried(lambda m=m: replicas(m, rank)) for name, m in (CLASSES | TARGETS).items()}
    controls = [Member("LayerMomentum", {"memory": False}, model=True)]
    results |= {str(member): tried(lambda m=member: replicas(m, rank)) for member in controls}
    full, none = ShardingStrategy.FULL_SHARD, ShardingStrategy.NO_SHARD
    for name in {member.name for member in CLASSES.values() if not member.model}:
        for orig in (True, False):
            results[name, orig] = tried(lambda n=name, o=orig: flat_shards(n, full, orig=o))
    results["late"] = tried(lambda: flat_shards("Muon", full, orig=True, late=True))
    results["whole"] = tried(lambda: flat_shards("Muon", none, orig=True))
    results["chosen"] = tried(lambda: flat_shards("Muon", full, orig=True, elementwise=["*"]))
    dist.destroy_process_group()
    return results


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(pickle.dumps(run(int(sys.argv[1]), sys.argv[2])))
