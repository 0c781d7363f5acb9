"""The optimizers with the settings under which a device is tried: those of the contract suite, which needs pytest, and
composed rules.

Plain data without torch, so that the process that hands out rows need not load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SETTINGS", "Setting"]


@dataclass(frozen=True)
class Setting:
    """One class of `nestlearn.optim` with arguments.

    Args:
        name: of the class.
        settings: keyword arguments.
        model: whether ``model=`` is passed.
        closure: whether ``step`` needs a closure that keeps the graph.
        draws: whether a step draws random numbers on the device, whose stream is not that of a CPU.
        rough: whether rounding errors grow: inverse roots of matrices that hardly have full rank, weights that diverge.
        trains: whether the loss falls; what is kept as it was printed may not.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: bool = False
    closure: bool = False
    draws: bool = False
    rough: bool = False
    trains: bool = True

    def __str__(self) -> str:
        words = [f"{key}={value}" for key, value in self.settings.items()] + (["model"] if self.model else [])
        return f"{self.name}({', '.join(words)})"


def _deep(closure: bool = False, **settings: Any) -> Setting:
    return Setting("DeepMomentum", {"hidden": 4, **settings}, closure=closure)


def _composed(rule: str, place: str = "matrix", **about: Any) -> Setting:
    """An ``Optimizer`` of a rule as it is printed."""
    return Setting("Optimizer", {"lr": 2.0**-7, place: rule}, **about)


SETTINGS: tuple[Setting, ...] = (
    Setting("GradientDescent"),
    Setting("Momentum"),
    Setting("Adam"),
    Setting("Muon"),
    Setting("M3", {"slow_period": 2}),
    _deep(),
    Setting("DeepAdam", {"hidden": 4}),
    Setting("DeltaMomentum"),
    Setting("PreconditionedMomentum"),
    Setting("Nested", {"refresh": 2}),
    Setting("SOAP", {"refresh": 2}),
    Setting("SOAPMuon", {"refresh": 2}),
    Setting("SecantMomentum"),
    Setting("SecantMomentum", model=True),
    Setting("LayerMomentum", {"refresh": 2}, model=True),
    Setting("DeltaGradientDescent", model=True),
    _composed("chain(average(0.65, nesterov=True), within(whiten('root', 0.9, refresh=2), orthogonal()), slow(0.9))"),
    _composed("deep(4, beside=average(0.8), written_by=chain(deep(3, written_by=adam()), keep_length()))"),
    # One of each class is above; what follows are their other settings.
    _deep(levels=2),
    _deep(closure=True, objective="quadratic"),
    Setting("Momentum", {"nesterov": True}),
    Setting("Momentum", {"readout": "newton_schulz"}),
    Setting("Momentum", {"feature_map": "random_features"}),
    Setting("PreconditionedMomentum", {"target": "kronecker", "target_period": 2}, rough=True),
    Setting("PreconditionedMomentum", {"target": "hessian", "target_period": 2}, closure=True, draws=True),
    Setting("DeltaMomentum", {"literal": True}),
    _deep(memory=False),
    _deep(levels=3),
    _deep(readout="identity"),
    _deep(objective="dot_product"),
    _deep(objective="hypergradient"),
    _deep(memory="matrix"),
    _deep(target="orthogonal", target_period=2),
    _deep(target="next_gradient"),
    _deep(target="kronecker", target_period=2),
    _deep(target="average_gradient"),
    _deep(target="random_features"),
    _deep(target="identity"),
    _deep(target="ones", objective="dot_product"),
    Setting("DeepAdam", {"hidden": 4, "memory": False}),
    Setting("Muon", {"scale": "spectral", "nesterov": False}),
    Setting("Muon", {"readout": "memory"}),
    Setting("M3", {"slow_period": 2, "literal": True}, rough=True, trains=False),
    Setting("SOAP", {"memory": False}),
    Setting("Nested", {"memory": False}),
    Setting("SecantMomentum", {"memory": False}),
    Setting("LayerMomentum", {"sides": "input"}, model=True),
    Setting("LayerMomentum", {"sides": "input", "readout": "identity"}, model=True),
    Setting("LayerMomentum", {"memory": False}, model=True),
    _composed("chain(muon(0.9), outer(2, sum(0.5, nesterov=True)))"),
    _composed("parallel(chain(average(0.8), orthogonal()), every(2, muon(0.5)), combine='mean')"),
    _composed("partition(part(adam(), shape=(5, None), lr=0.01), part(muon(0.9)))"),
    _composed("chain(average(0.9), within(whiten(of='layers'), orthogonal()))", model=True),
    _composed("chain(adam(), cautious())", "element"),
)
