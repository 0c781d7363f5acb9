"""Parameters in shards, as FSDP2 has them, on a process group of this one rank: what travels does, through NCCL."""

from __future__ import annotations

import statistics
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from benchmarks.gpu.clock import turns
from benchmarks.gpu.problem import Problem, build, difference
from benchmarks.gpu.right import LR, ROUGH, STEPS, TOLERANCES
from benchmarks.gpu.settings import SETTINGS
from benchmarks.gpu.steps import CYCLES, OURS, Bench
from benchmarks.optim.timing import Unit, seconds

__all__ = ["cost", "row"]

ROUNDS = 3


def row(device: str, number: int) -> dict[str, Any]:
    """A setting in shards beside the same without, and beside its own continuation from a state_dict."""
    setting, mesh = SETTINGS[number], _mesh(device)
    whole, parts, again = (Problem(device, torch.float64) for _ in range(3))
    shards = [_sharded(each, mesh) for each in (parts, again)]
    optimizers = [build(setting, each.module, lr=LR) for each in (whole, parts, again)]
    for step in range(STEPS):
        if step == STEPS // 2:
            weights, state = get_state_dict(shards[0], optimizers[1])
            set_state_dict(shards[1], optimizers[2], model_state_dict=weights, optim_state_dict=state)
        for problem, optimizer in zip((whole, parts, again), optimizers, strict=True):
            if problem is not again or step >= STEPS // 2:
                problem.step(setting, optimizer, step)
    apart = difference(_whole(parts), whole.weights())
    resumed = difference(_whole(again), _whole(parts))
    right = apart <= (ROUGH if setting.rough else TOLERANCES)[torch.float64] and resumed == 0
    note = f"{apart:.1e} from the same without shards, {resumed:.1e} after a state_dict; {dist.get_backend()}"
    return {"status": "ok" if right else "wrong", "apart": apart, "resumed": resumed, "note": note}


def cost(device: str, ours: str, size: str) -> dict[str, Any]:
    """A step on shards over one on plain tensors, which is what owners and their messages cost without a network."""
    mesh = _mesh(device)
    layouts = {"plain": lambda tensor: tensor, "shards": lambda tensor: distribute_tensor(tensor, mesh, [Shard(0)])}
    cycle, units = CYCLES.get(ours, 1), {}
    for name, laid_out in layouts.items():
        bench = Bench(size, device, laid_out)
        units[name] = Unit(OURS[ours](bench).step, bench.prepare)
        seconds(units[name], device, cycle + 1)
    times = turns(units, device, ROUNDS, cycle * (4 if device.startswith("cuda") else 1))
    ms = {name: 1e3 * statistics.median(each) for name, each in times.items()}
    ratio = statistics.median(one / two for one, two in zip(times["shards"], times["plain"], strict=True))
    return {"ms": ms, "ratio": ratio, "note": f"{ratio:.2f} of the step on plain tensors, {ms['shards']:.2f} ms"}


@cache
def _mesh(device: str) -> DeviceMesh:
    kind = torch.device(device).type
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    return init_device_mesh(kind, (1,))


def _sharded(problem: Problem, mesh: DeviceMesh) -> nn.Module:
    for layer in problem.module:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(problem.module, mesh=mesh)


def _whole(problem: Problem) -> list[Tensor]:
    return [each.full_tensor() if isinstance(each, DTensor) else each for each in problem.weights()]
