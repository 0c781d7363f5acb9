"""Which optimizer is compared with which, on what, and the bar it has to meet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import nestlearn as nl
from benchmarks.optim.cases import CASES
from benchmarks.optim.timing import Unit
from benchmarks.optim.workloads import WORKLOADS, Build, Workload, layers, plain
from nestlearn.precision import products

__all__ = ["Row", "rows"]

Started = tuple[Unit, torch.optim.Optimizer]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        ours, reference: what is timed, in words.
        workload: what it is timed on.
        start_ours, start_reference: device -> a unit to time and its optimizer.
        bar: largest median ratio that passes; None for a row that only informs.
        cycle: steps after which our optimizer's work repeats.
        compiled: whether torch.compile is involved.
    """

    ours: str
    reference: str
    workload: Workload
    start_ours: Callable[[str], Started]
    start_reference: Callable[[str], Started]
    bar: float | None = None
    cycle: int = 1
    compiled: bool = False


def rows() -> list[Row]:
    """All comparisons, those with a bar first."""
    return [*_adam_rows(), *_matrix_rows(), *_nested_rows(), *_group_rows(), *_subset_rows(), *_informing_rows()]


def _muon(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Muon(parameters, lr=1e-3, weight_decay=0.0)


def _against_muon(ours: str, build: Build, workload: str, bar: float | None = None, cycle: int = 1) -> Row:
    return _against(ours, build, "torch Muon", _muon, workload, bar, cycle=cycle)


def _nested_rows() -> list[Row]:
    """What the covariances cost beside Muon, in single precision and as the processor multiplies by itself."""
    builds: dict[str, tuple[Build, int]] = {
        "Nested": (lambda p: nl.optim.Nested(p, lr=1e-3), 5),
        "SOAP": (lambda p: nl.optim.SOAP(p, lr=1e-3), 10),
        "SOAPMuon": (lambda p: nl.optim.SOAPMuon(p, lr=1e-3), 10),
    }
    squares = WORKLOADS["4 of 1024x1024"]
    return [
        Row(
            f"{name}, {said}",
            f"Muon, {said}",
            squares,
            lambda device, b=build, d=dtype: _multiplied_in(d, plain(squares, b, device)),
            lambda device, d=dtype: _multiplied_in(d, plain(squares, lambda p: nl.optim.Muon(p, lr=1e-3), device)),
            bar=1.5 if name == "Nested" and dtype is not None else None,
            cycle=cycle,
        )
        for dtype, said in ((torch.float32, "float32 products"), (None, "native products"))
        for name, (build, cycle) in builds.items()
    ]


def _multiplied_in(dtype: torch.dtype | None, started: Started) -> Started:
    """The same with matrices multiplied in a dtype."""
    unit, optimizer = started

    def step() -> None:
        with products(dtype):
            optimizer.step()

    return Unit(step, unit.prepare), optimizer


def _adam_rows() -> list[Row]:
    # torch checks no gradient: nonfinite="ignore" is the same work, the default reads every gradient once more.
    found = []
    for ours, options, kind, bar in (
        ("Adam", {}, "fused", 1.4),
        ('Adam(nonfinite="ignore")', {"nonfinite": "ignore"}, "fused", 1.05),
        ("Adam", {}, "foreach", 0.5),
    ):
        for name in ("transformer, 10M", "200 small tensors"):
            build: Build = lambda p, o=options: nl.optim.Adam(p, lr=1e-3, weight_decay=0.01, **o)  # noqa: E731
            found.append(_against(ours, build, f"AdamW {kind}", _adamw(kind), name, bar))
    return found


def _group_rows() -> list[Row]:
    """A thousand groups of one small matrix each: all alike, for every class; and each with a rate of its own."""
    name = "1,000 groups of one 4x4"
    found = [
        Row(
            str(case),
            "AdamW",
            WORKLOADS[name],
            lambda device, c=case: c.start(WORKLOADS[name]),
            lambda device: plain(WORKLOADS[name], _adamw(""), device),
            bar=3.0,
            cycle=case.cycle,
        )
        for case in CASES
    ]
    builds: dict[str, Build] = {
        "Adam": lambda groups: nl.optim.Adam(_with_rates(groups)),
        "Muon": lambda groups: nl.optim.Muon(_with_rates(groups)),
        "DeepMomentum": lambda groups: nl.optim.DeepMomentum(_with_rates(groups)),
    }
    return found + [_against(f"{ours}, 1,000 rates", each, "AdamW", _adamw(""), name) for ours, each in builds.items()]


def _with_rates(groups: list[Any]) -> list[Any]:
    return [{**group, "lr": 1e-3 * (1 + place / len(groups))} for place, group in enumerate(groups)]


def _adamw(kind: str) -> Build:
    options = {kind: True} if kind else {}
    return lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, **options)


def _against(
    ours: str, build: Build, reference: str, other: Build, workload: str, bar: float | None = None, **options: Any
) -> Row:
    chosen = WORKLOADS[workload]
    return Row(
        ours,
        reference,
        chosen,
        lambda device: plain(chosen, build, device),
        lambda device: plain(chosen, other, device),
        bar,
        **options,
    )


def _matrix_rows() -> list[Row]:
    def deep(readout: str) -> Build:
        return lambda p: nl.optim.DeepMomentum(p, lr=1e-3, hidden=128, readout=readout)

    return [
        *(
            _against_muon("Muon", lambda p: nl.optim.Muon(p, lr=1e-3), name, bar=1.0)
            for name in ("4 of 1024x1024", "block of width 1024", "24 of 256x256, 8 of 256x1024")
        ),
        _against_muon(
            "M3(slow_period=10)",
            lambda p: nl.optim.M3(p, lr=1e-3, slow_period=10),
            "4 of 1024x1024",
            bar=1.3,
            cycle=10,
        ),
        _against_muon("DeepMomentum(hidden=128, identity)", deep("identity"), "4 of 1024x1024", bar=0.25),
        _against_muon("DeepMomentum(hidden=128, newton_schulz)", deep("newton_schulz"), "4 of 1024x1024", bar=1.2),
    ]


def _subset_rows() -> list[Row]:
    """A step in which every parameter misses one of five, against a step over all of them.

    M3 has no bar on small matrices, where calls cost more than products: step counts drift apart, so at each step the
    slow memory of some parameter is due and orthogonalised, not of all of them at every tenth.
    """
    builds: dict[str, tuple[Build, int]] = {
        "Adam": (lambda p: nl.optim.Adam(p, lr=1e-3), 1),
        "Momentum": (lambda p: nl.optim.Momentum(p, lr=1e-3), 1),
        "Muon": (lambda p: nl.optim.Muon(p, lr=1e-3), 1),
        "M3(slow_period=10)": (lambda p: nl.optim.M3(p, lr=1e-3), 10),
        "DeepMomentum": (lambda p: nl.optim.DeepMomentum(p, lr=1e-3), 1),
        "SecantMomentum": (lambda p: nl.optim.SecantMomentum(p, lr=1e-3), 1),
    }
    return [
        Row(
            f"{name}, a fifth absent",
            f"{name}, all",
            chosen,
            lambda device, w=chosen, b=build: plain(w, b, device, absent=0.2),
            lambda device, w=chosen, b=build: plain(w, b, device),
            bar=None if cycle > 1 and chosen.name != "32 layers of 128x128" else 1.5,
            cycle=cycle,
        )
        for chosen in (WORKLOADS[name] for name in ("200 small tensors", "32 layers of 128x128", "24 of 32x32"))
        for name, (build, cycle) in builds.items()
    ]


def _informing_rows() -> list[Row]:
    squares = WORKLOADS["4 of 1024x1024"]

    def watched(ours: str, build: Callable[[torch.nn.Module], torch.optim.Optimizer], cycle: int) -> Row:
        return Row(
            ours,
            "torch Muon",
            squares,
            lambda device: layers(squares, build, device),
            lambda device: layers(squares, lambda model: _muon(list(model.parameters())), device),
            cycle=cycle,
        )

    plain_rows: dict[str, Build] = {
        'Muon(readout="memory")': lambda p: nl.optim.Muon(p, lr=1e-3, readout="memory"),
        "DeepMomentum(hidden=128, levels=2)": lambda p: nl.optim.DeepMomentum(p, lr=1e-3, hidden=128, levels=2),
        "SecantMomentum": lambda p: nl.optim.SecantMomentum(p, lr=1e-3),
        "DeltaMomentum": lambda p: nl.optim.DeltaMomentum(p, lr=1e-3),
        "DeepAdam(hidden=128)": lambda p: nl.optim.DeepAdam(p, lr=1e-3, hidden=128),
    }
    entries = "transformer, 10M"

    def element(rule: nl.rules.Link) -> Build:
        return lambda p: nl.optim.Optimizer(p, 1e-3, element=rule)

    def preconditioned(compiles: bool) -> Build:
        return lambda p: nl.optim.PreconditionedMomentum(p, lr=1e-3, compile=compiles)

    momentum: Build = lambda p: nl.optim.Momentum(p, lr=1e-3)  # noqa: E731
    sgd: Build = lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True)  # noqa: E731
    adagrad: Build = lambda p: torch.optim.Adagrad(p, lr=1e-3, fused=True)  # noqa: E731
    rmsprop: Build = lambda p: torch.optim.RMSprop(p, lr=1e-3, foreach=True)  # noqa: E731
    squares_of_all, squares_of_late = nl.rules.sum_of_squares(under_root=False), nl.rules.second_moment(0.99)
    return [
        _against("Momentum", momentum, "SGD fused", sgd, entries),
        _against("sum_of_squares()", element(squares_of_all), "Adagrad fused", adagrad, entries),
        _against("second_moment()", element(squares_of_late), "RMSprop foreach", rmsprop, entries),
        _against(
            "PreconditionedMomentum(compile=True)",
            preconditioned(True),
            "as it is",
            preconditioned(False),
            entries,
            compiled=True,
        ),
        *(_against_muon(name, build, squares.name) for name, build in plain_rows.items()),
        watched("SecantMomentum(model)", lambda model: nl.optim.SecantMomentum(model.parameters(), model=model), 1),
        watched("LayerMomentum(model)", lambda model: nl.optim.LayerMomentum(model.parameters(), model=model), 5),
    ]
