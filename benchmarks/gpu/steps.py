"""Time of a step over those of torch's fused AdamW, its Muon, and its SGD, on the shapes of a transformer.

All optimizers of a process share parameters and gradients, as their values do not change the time. They take turns,
and a ratio is the median of the ratios of the rounds. Every step begins on an idle device, so that time which Python
needs to launch kernels counts; ``busy_ms`` is what the kernels alone take.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import nestlearn as nl
from benchmarks.gpu.clock import kernels, memory, turns
from benchmarks.gpu.problem import difference
from benchmarks.optim.timing import Unit, seconds
from benchmarks.optim.workloads import WORKLOADS, state_bytes

__all__ = ["CYCLES", "OURS", "Bench", "row"]

ROUNDS, FEWEST = 5, 3
ROUND_SECONDS, ALL_SECONDS = 0.1, 6.0
"""A round of ours takes about as long as the first, or one cycle of its work; all of them at most the second."""

CLOSE = 1e-2
"""How far a compiled step may end from AdamW's, in the largest movement of a weight."""

CYCLES = {"M3": 10, "SOAP": 10, "Nested": 5, "LayerMomentum": 5}
"""Steps after which work repeats, where it is more than one."""

LR = 1e-5

Build = Callable[["Bench"], torch.optim.Optimizer]


class Bench:
    """Parameters of a transformer with two sets of gradients that take turns, and what else a step may look at.

    Args:
        size: "10M" or "300M"; on a CPU all are small.
        device: where they lie.
        laid_out: how each lies there, as it is by default.
    """

    def __init__(self, size: str, device: str, laid_out: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        torch.manual_seed(0)
        self.device = device
        shapes = _shapes(size) if device.startswith("cuda") else _small_shapes()
        self.parameters = [nn.Parameter(laid_out(0.02 * torch.randn(shape, device=device))) for shape in shapes]
        self.gradients = [[laid_out(0.01 * torch.randn(s, device=device)) for s in shapes] for _ in range(2)]
        self.embedding, self.others = self.parameters[0], self.parameters[1:]
        self.matrices = [parameter for parameter in self.others if parameter.ndim == 2]
        self.vectors = [parameter for parameter in self.others if parameter.ndim < 2]

    @property
    def elements(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters)

    def prepare(self) -> None:
        """The other set of gradients."""
        self.gradients.reverse()
        for parameter, gradient in zip(self.parameters, self.gradients[0], strict=True):
            parameter.grad = gradient

    def wait(self) -> None:
        """Until the device has nothing to do."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def layers(self) -> _Apart:
        """Linear layers that have the matrices as weights."""
        return _Apart(self.matrices)

    def observed(self, layers: _Apart) -> Callable[[], None]:
        """Gradients as `prepare` makes them, and a backward pass through the layers for whoever watches them."""
        generator = torch.Generator(self.device).manual_seed(1)
        widths = {matrix.shape[1] for matrix in self.matrices}
        batch = {w: torch.randn(128, w, generator=generator, device=self.device) for w in widths}

        def prepare() -> None:
            self.prepare()
            for matrix in self.matrices:
                matrix.grad = None
            layers(batch).backward()

        return prepare


class _Apart(nn.Module):
    """Layers side by side: each sees a batch of its own width."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for weight in weights:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            layer.weight = weight
            self.layers.append(layer)

    def forward(self, batch: Mapping[int, Tensor]) -> Tensor:
        answers = [layer(batch[layer.in_features]).square().mean() for layer in self.layers]
        return torch.stack(answers).sum()


class _Both:
    """Two optimizers that step together: torch's Muon takes matrices alone."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self._optimizers = optimizers

    @property
    def state(self) -> dict[int, Any]:
        return dict(enumerate(optimizer.state for optimizer in self._optimizers))

    def step(self) -> None:
        for optimizer in self._optimizers:
            optimizer.step()


def _muon(bench: Bench) -> _Both:
    rest = [bench.embedding, *bench.vectors]
    muon = torch.optim.Muon(bench.matrices, lr=LR, weight_decay=0.0)
    return _Both(muon, torch.optim.AdamW(rest, lr=LR, weight_decay=0.0, fused=True))


REFERENCES: Mapping[str, Callable[[Bench], Any]] = {
    "AdamW fused": lambda b: torch.optim.AdamW(b.parameters, lr=LR, weight_decay=0.01, fused=True),
    "Muon": _muon,
    "SGD foreach": lambda b: torch.optim.SGD(b.parameters, lr=LR, momentum=0.9, foreach=True),
}


def _matrix(kind: Any, **settings: Any) -> Build:
    return lambda b: kind(b.parameters, lr=LR, elementwise=[b.embedding], **settings)


OURS: Mapping[str, Build] = {
    "Adam": lambda b: nl.optim.Adam(b.parameters, lr=LR, weight_decay=0.01),
    'Adam(nonfinite="ignore")': lambda b: nl.optim.Adam(b.parameters, lr=LR, weight_decay=0.01, nonfinite="ignore"),
    "Adam(compile=True)": lambda b: nl.optim.Adam(b.parameters, lr=LR, weight_decay=0.01, compile=True),
    "Momentum": lambda b: nl.optim.Momentum(b.parameters, lr=LR),
    "Muon": _matrix(nl.optim.Muon),
    "M3": _matrix(nl.optim.M3),
    "DeepMomentum": _matrix(nl.optim.DeepMomentum, hidden=128),
    "DeepAdam": lambda b: nl.optim.DeepAdam(b.parameters, lr=LR, hidden=128),
    "Nested": _matrix(nl.optim.Nested),
    "SOAP": _matrix(nl.optim.SOAP),
    "SecantMomentum": _matrix(nl.optim.SecantMomentum),
    "DeltaMomentum": lambda b: nl.optim.DeltaMomentum(b.parameters, lr=LR),
}


def row(device: str, ours: str, size: str, compiled: bool = False) -> dict[str, Any]:
    """Ours over each reference; a compiled one has to go where AdamW goes first."""
    gc.collect()  # what the last row held, hooks on layers included
    if compiled:
        torch._dynamo.reset()
    bench = _bench(size, device)
    unit, optimizer = _started(bench, ours)
    found = _first_steps(bench, unit, compiled)
    times = _timed(unit, device, size, CYCLES.get(ours, 1))
    unit.prepare()
    temporary = memory(unit.run, device)
    unit.prepare()
    found |= {
        "parameters": bench.elements,
        "ms": {name: 1e3 * statistics.median(each) for name, each in times.items()},
        "ratios": {name: _ratio(times["ours"], times[name]) for name in REFERENCES},
        "state_bytes_a_parameter": state_bytes(optimizer) / bench.elements,
        "reference_state_bytes_a_parameter": {
            name: state_bytes(each) / bench.elements for name, (_, each) in _references(size, device).items()
        },
        "temporary_bytes_a_parameter": None if temporary is None else temporary / bench.elements,
        "rounds": len(times["ours"]),
        **kernels(unit.run, device, 5),
    }
    return {"status": "wrong" if found.get("error", 0.0) > CLOSE else "ok", **found, "note": _words(found)}


def _timed(unit: Unit, device: str, size: str, cycle: int) -> dict[str, list[float]]:
    """Seconds of ours and of all references, in turns of at least one cycle."""
    references = {name: each for name, (each, _) in _references(size, device).items()}
    if not device.startswith("cuda"):
        return turns({"ours": unit, **references}, device, 2, 1)
    own = seconds(unit, device, cycle + 1) / (cycle + 1)
    runs = cycle * max(1, min(20, round(ROUND_SECONDS / max(own, 1e-6) / cycle)))
    rounds = max(FEWEST, min(ROUNDS, int(ALL_SECONDS / (own * runs))))
    return turns({"ours": unit, **references}, device, rounds, runs)


@cache
def _bench(size: str, device: str) -> Bench:
    return Bench(size, device)


@cache
def _references(size: str, device: str) -> dict[str, tuple[Unit, Any]]:
    """Built once a process, and warm."""
    found = {}
    for name, build in REFERENCES.items():
        bench = _bench(size, device)
        optimizer = build(bench)
        found[name] = (Unit(optimizer.step, bench.prepare), optimizer)
        seconds(found[name][0], device, 3)
    return found


def _started(bench: Bench, ours: str) -> tuple[Unit, Any]:
    if ours != "LayerMomentum":
        optimizer = OURS[ours](bench)
        return Unit(optimizer.step, bench.prepare), optimizer
    layers = bench.layers()
    rest = [bench.embedding, *bench.vectors]
    optimizer = nl.optim.LayerMomentum(bench.parameters, lr=LR, model=layers, elementwise=rest)
    return Unit(optimizer.step, bench.observed(layers)), optimizer


def _first_steps(bench: Bench, unit: Unit, compared: bool) -> dict[str, Any]:
    """Seconds of the step that makes the state and compiles, and how far three steps end from those of AdamW.

    The clock is that on the wall: compilers work in processes of their own.
    """
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in bench.parameters] if compared else []
    start = time.monotonic()
    unit.prepare()
    unit.run()
    bench.wait()
    found: dict[str, Any] = {"first_step_seconds": time.monotonic() - start}
    if not compared:
        return found
    begun = [copy.detach().clone() for copy in copies]
    reference = torch.optim.AdamW(copies, lr=LR, weight_decay=0.01)
    for step in range(3):
        if step:
            unit.prepare()
            unit.run()
        for copy, parameter in zip(copies, bench.parameters, strict=True):
            copy.grad = parameter.grad
        reference.step()
    moved = difference(copies, begun)
    return {**found, "error": difference(bench.parameters, copies) / moved}


def _ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    ratios = [one / max(two, 1e-9) for one, two in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def _shapes(size: str) -> list[tuple[int, ...]]:
    """The 10M transformer of `benchmarks.optim`; as 300M four times as deep and 3.2 times as wide."""
    ten = WORKLOADS["transformer, 10M"].shapes
    if size == "10M":
        return list(ten)
    wide = [tuple(side * 1024 // 320 if side % 320 == 0 else side for side in shape) for shape in ten]
    return [wide[0], *wide[1:-2] * 4, *wide[-2:]]


def _small_shapes() -> list[tuple[int, ...]]:
    """For a dry run: one block of width 16."""
    ten = WORKLOADS["transformer, 10M"].shapes
    small = [tuple(side // 20 if side % 320 == 0 else 64 for side in shape) for shape in ten]
    return [*small[:13], *small[-2:]]


def _words(found: dict[str, Any]) -> str:
    ratios = ", ".join(f"{each['median']:.2f} of {name}" for name, each in found["ratios"].items())
    busy = "no profile" if found["kernels"] is None else f"{found['busy_ms']:.2f} ms in {found['kernels']} kernels"
    memories = f"{found['state_bytes_a_parameter']:.1f} state bytes"
    if found["temporary_bytes_a_parameter"] is not None:
        memories += f" and {found['temporary_bytes_a_parameter']:.1f} for a moment a parameter"
    error = f"; error {found['error']:.0e}" if "error" in found else ""
    first = f"; first step {found['first_step_seconds']:.1f} s" if found["first_step_seconds"] > 1 else ""
    return f"{found['ms']['ours']:.2f} ms: {ratios}; {busy}; {memories}{error}{first}"
