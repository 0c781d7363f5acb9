"""What every rank does: ``python -m benchmarks.ranks.child RANK RANKS FOLDER OPTIMIZER...``."""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ranks.cost import STEPS, make
from benchmarks.ranks.shapes import Matrices

__all__ = ["ROUNDS", "ROWS", "SHAPES"]

SHAPES = ((512, 512),) * 8 + ((1024, 512), (512, 1024)) * 2
ROWS, ROUNDS = 64, 4


def _steps(name: str, ranks: int) -> dict[str, Any]:
    """Seconds, FLOPs and bytes of a step, means over a cycle and medians of those."""
    torch.manual_seed(0)
    model: Any = Matrices(SHAPES, ROWS)
    if ranks > 1:
        mesh = init_device_mesh("cpu", (ranks,))
        for layer in model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = make(name, model)
    sent: list[int] = []
    exchanged = dist.all_to_all_single

    def watched(received: Any, message: Any, theirs: list[int], mine: list[int], **how: Any) -> Any:
        sent.append(sum(mine) - mine[dist.get_rank()])
        return exchanged(received, message, theirs, mine, **how)

    def cycle(clock: Callable[[Callable[[], None]], float]) -> float:
        total = 0.0
        for _ in range(STEPS):
            model.zero_grad()
            model().backward()
            if ranks > 1:
                dist.barrier()
            total += clock(optimizer.step)
        return total / STEPS

    cycle(_seconds)
    seconds = statistics.median(cycle(_seconds) for _ in range(ROUNDS))
    dist.all_to_all_single = watched
    flops = cycle(_flops)
    dist.all_to_all_single = exchanged
    return {"seconds": seconds, "flops": flops, "sent_bytes": sum(sent) / STEPS}


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _flops(step: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def _message(size: int, ranks: int) -> float:
    """Seconds until all ranks have sent all others their share of so many bytes."""
    line, answer = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    parts = [size // ranks] * ranks
    took = []
    for _ in range(8):
        dist.barrier()
        start = time.perf_counter()
        dist.all_to_all_single(answer, line, parts, parts)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def main(rank: int, ranks: int, folder: Path, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    if ranks > 1:
        meeting = f"file://{folder / f'meeting{ranks}'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
        small, large = 1 << 12, 1 << 24
        latency = _message(small, ranks)
        away = (large - small) * (ranks - 1) / ranks
        found["machine"] = {"latency": latency, "bandwidth": away / (_message(large, ranks) - latency)}
    found |= {name: _steps(name, ranks) for name in names}
    (folder / f"{ranks}ranks{rank}.json").write_text(json.dumps(found))
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
