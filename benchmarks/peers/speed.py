"""The time of a step and the bytes of the state, of theirs, of our nearest counterpart and of torch's."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.optim.timing import Measurement, Unit, interleave, settle_allocator
from benchmarks.optim.workloads import WORKLOADS, Workload, layers, plain, state_bytes
from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.isolation import isolated

__all__ = ["CHAINS", "ROWS", "Row", "bytes_a_parameter", "measure"]


@dataclass(frozen=True)
class Row:
    """One optimizer of theirs, our nearest counterpart, torch's, and what they step on.

    Args:
        theirs, ours, torch: keys of ``CONTENDERS``.
        workload: a key of ``SIZES``.
        cycle: steps after which the work of theirs or of ours repeats.
        note: what a reader must know.
    """

    theirs: str
    ours: str
    torch: str
    workload: str
    cycle: int = 1
    note: str = ""

    def record(self) -> dict[str, str]:
        return {
            "theirs": self.theirs,
            "ours": self.ours,
            "torch": self.torch,
            "workload": self.workload,
            "note": self.note,
        }


SIZES: Mapping[str, Workload] = {**WORKLOADS, "4 of 256x256": Workload("4 of 256x256", [(256, 256)] * 4)}

CHAINS = {
    workload.name: workload
    for workload in (SIZES["4 of 256x256"], Workload("1024x256, 256x1024", [(1024, 256), (256, 1024)]))
}
"""Shapes that make a chain of linear layers, since some of ours read layer inputs."""

_SMALL, _LARGE = "200 small tensors", "transformer, 10M"
_FOUR, _MATRICES = "4 of 256x256", "24 of 256x256, 8 of 256x1024"
_ADAMW, _MUON, _SGD = "torch AdamW foreach", "torch Muon", "torch SGD"
_KRONECKER = "nestlearn PreconditionedMomentum kronecker"
_BFLOAT16 = "Muon of torch, heavyball and pytorch-optimizer multiplies in bfloat16, which not every CPU does natively"
_MANAGED = "nested-learning DeepMomentum"

ROWS = (
    *(Row("heavyball AdamW", "nestlearn Adam", _ADAMW, size) for size in (_LARGE, _SMALL)),
    Row("heavyball SGD", "nestlearn Momentum", _SGD, _LARGE),
    Row("heavyball Muon", "nestlearn Muon", _MUON, _FOUR, note=_BFLOAT16),
    Row("heavyball SOAP", f"{_KRONECKER}/2", _ADAMW, _FOUR, 10),
    Row("heavyball PSGDKron", f"{_KRONECKER}/1", _ADAMW, _FOUR, note="first steps: refreshed at each"),
    Row("heavyball PSGDKron settled", f"{_KRONECKER}/30", _ADAMW, _FOUR, 30, "refreshed at 3% of the steps"),
    Row("pytorch-optimizer Muon", "nestlearn Muon", _MUON, _FOUR, note=_BFLOAT16),
    Row("pytorch-optimizer SOAP", f"{_KRONECKER}/10", _ADAMW, _FOUR, 10),
    Row("pytorch-optimizer Kron", f"{_KRONECKER}/1", _ADAMW, _FOUR, note="first steps: refreshed at each"),
    Row("pytorch-optimizer Shampoo", f"{_KRONECKER}/1", _ADAMW, _FOUR),
    *(Row("pytorch-optimizer Adan", "nestlearn Adam", _ADAMW, size) for size in (_LARGE, _SMALL)),
    *(Row("pytorch-optimizer Lion", "nestlearn Momentum", _ADAMW, size) for size in (_LARGE, _SMALL)),
    Row("nested-learning M3", "nestlearn M3", _ADAMW, _FOUR, 10),
    Row(f"{_MANAGED} dmgd", "nestlearn DeepMomentum", _ADAMW, _MATRICES),
    Row(f"{_MANAGED} muon", "nestlearn Muon", _MUON, _FOUR, note=_BFLOAT16),
    Row(f"{_MANAGED} preconditioned", "nestlearn PreconditionedMomentum", _ADAMW, _SMALL),
)


def _start(key: str, workload: str) -> tuple[Unit, Any]:
    contender = CONTENDERS[key]
    return plain(SIZES[workload], lambda params: contender.build(params, compiled=True), "cpu")


def measure(row: Row, rounds: int, target_ms: float) -> dict[str, Any]:
    """The row's two ratios: ours / theirs, and theirs / torch, each from interleaved pairs."""

    def pair(one: str, two: str) -> Measurement:
        return interleave(
            _start(one, row.workload)[0],
            _start(two, row.workload)[0],
            device="cpu",
            rounds=rounds,
            cycle=row.cycle,
            target_ms=target_ms,
        )

    settle_allocator()
    against_us, against_torch = pair(row.ours, row.theirs), pair(row.theirs, row.torch)
    return {
        "ours_over_theirs": {"median": against_us.median, "quartiles": list(against_us.quartiles)},
        "theirs_over_torch": {"median": against_torch.median, "quartiles": list(against_torch.quartiles)},
        "milliseconds": {
            "ours": against_us.ours_ms,
            "theirs": against_torch.ours_ms,
            "torch": against_torch.reference_ms,
        },
        "rounds": rounds,
        "cpu_seconds": time.process_time(),
    }


def bytes_a_parameter(keys: Iterable[str]) -> dict[str, dict[str, float | str]]:
    """Contender -> shapes -> state bytes a parameter, or in words why there is no such number."""
    return {
        key: {name: outcome.problem or outcome.value for name in CHAINS for outcome in [isolated(_bytes, key, name)]}
        for key in keys
    }


def _bytes(key: str, name: str) -> float:
    contender, workload = CONTENDERS[key], CHAINS[name]
    unit, optimizer = layers(workload, lambda model: contender.build(model.parameters(), model), "cpu")
    for _ in range(2):
        unit.prepare()
        unit.run()
    return state_bytes(optimizer) / workload.elements
