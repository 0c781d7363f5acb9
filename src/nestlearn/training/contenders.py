"""The contenders of ``nestlearn compare``, as data: one entry says all that the comparison needs to know about an
optimizer.

An entry holds a factory, the middle of its learning-rate grid, the other settings that are tuned, and its
**control**: the same read-out with nothing remembered (``memory=False``, or a retention of 0). A control is tuned
over a grid of the same size. The middle of the grid differs between families because the length of their steps does
(a raw gradient, a normalised one, an orthogonal one); the number of points and the distance between them never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nestlearn import optim
from nestlearn.errors import choice
from nestlearn.training.spec import Variant

__all__ = ["BASELINE", "CONTENDERS", "Contender", "find_contenders"]

Factory = Callable[..., list[torch.optim.Optimizer]]
Build = Callable[..., torch.optim.Optimizer]

BASELINE = "AdamW"


@dataclass(frozen=True)
class Contender:
    """One optimizer of the comparison.

    Attributes:
        name: what users type and read.
        make: ``make(model, lr, *, tables, elementwise_lr, **settings)`` returns the optimizers to step together, the
            contender first. ``tables`` are the modules (embeddings, head) whose matrices are not its own.
        lr: the middle of the learning-rate grid.
        tuned: the settings tuned besides lr; ``"retention"`` gets the values of the preset.
        control: the settings that switch the memory off; or the variant that already is the control; or None.
        control_tuned: the settings tuned besides lr for that control; a memory switched off may leave a retention
            that acts.
        control_lr: the middle of the control's grid where its steps have another length.
        family: contenders of one family have related colours in the report.
        equation: the id in ``docs/equations.md``.
        about: one line for people.
    """

    name: str
    make: Factory
    lr: float
    about: str
    family: str
    equation: str = ""
    tuned: tuple[str, ...] = ("retention",)
    control: Mapping[str, Any] | Variant | None = None
    control_tuned: tuple[str, ...] = ()
    control_lr: float | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)


Named = list[tuple[str, nn.Parameter]]


def _split(model: nn.Module, tables: Iterable[nn.Module]) -> tuple[Named, Named]:
    """The hidden matrices of a model, and everything else: vectors, and what belongs to ``tables``."""
    apart = {id(parameter) for module in tables for parameter in module.parameters()}
    hidden = [(n, p) for n, p in model.named_parameters() if p.ndim >= 2 and id(p) not in apart]
    chosen = {name for name, _ in hidden}
    return hidden, [(n, p) for n, p in model.named_parameters() if n not in chosen]


def _adamw(
    model: nn.Module, lr: float, *, tables: list[nn.Module], elementwise_lr: float, retention: float
) -> list[torch.optim.Optimizer]:
    hidden, rest = _split(model, tables)
    groups = [{"params": hidden, "lr": lr, "betas": (retention, 0.999)}, {"params": rest, "lr": elementwise_lr}]
    return [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), weight_decay=0.0)]


def _whole(cls: Build, *, needs_model: bool = False, retention: str = "retention") -> Factory:
    """One optimizer for the whole model: matrices have its own rule, everything else already has Adam's.

    ``retention`` is what the optimizer calls the retention of its momentum, where another memory took the plain name.
    """

    def make(
        model: nn.Module, lr: float, *, tables: list[nn.Module], elementwise_lr: float, **settings: Any
    ) -> list[torch.optim.Optimizer]:
        if needs_model:
            settings["model"] = model
        if "retention" in settings:
            settings[retention] = settings.pop("retention")
        named = model.named_parameters()
        return [cls(named, lr, elementwise=tables, elementwise_lr=elementwise_lr, **settings)]

    return make


def _beside_adam(cls: Build, *, needs_model: bool = False) -> Factory:
    """An optimizer with its own rule for vectors gets the hidden matrices only; Adam has the rest, as everywhere."""

    def make(
        model: nn.Module, lr: float, *, tables: list[nn.Module], elementwise_lr: float, **settings: Any
    ) -> list[torch.optim.Optimizer]:
        if needs_model:
            settings["model"] = model
        hidden, rest = _split(model, tables)
        return [cls(hidden, lr, **settings), optim.Adam(rest, elementwise_lr)]

    return make


def _adam(model: nn.Module, lr: float, *, retention: float, **settings: Any) -> list[torch.optim.Optimizer]:
    return _beside_adam(optim.Adam)(model, lr, betas=(retention, 0.999), **settings)


def _deep_adam(model: nn.Module, lr: float, *, retention: float = 0.9, **settings: Any) -> list[torch.optim.Optimizer]:
    return _whole(optim.DeepAdam)(model, lr, betas=(retention, 0.999), **settings)


_OFF = {"memory": False}
_FORGET = {"retention": 0.0}
_PLAIN = Variant("GradientDescent")

# Middles of the learning-rate grids, by the length of a step: found once on seeds that no report uses.
_ADAPTIVE, _ORTHOGONAL, _RAW = 0.0173, 0.052, 0.52

_ALL = (
    Contender(BASELINE, _adamw, _ADAPTIVE, "torch.optim.AdamW, the baseline", "baseline"),
    Contender(
        "GradientDescent", _beside_adam(optim.GradientDescent), _RAW, "nothing but weights", "plain", "O1", tuned=()
    ),
    Contender(
        "DeltaGradientDescent",
        _beside_adam(optim.DeltaGradientDescent, needs_model=True),
        3 * _RAW,
        "gradient descent that also forgets along the layer's input",
        "plain",
        "O12",
        tuned=(),
        control=_PLAIN,
    ),
    Contender(
        "Momentum", _beside_adam(optim.Momentum), _RAW / 3, "a box of past gradients", "momentum", "O2", control=_PLAIN
    ),
    Contender(
        "DeltaMomentum",
        _beside_adam(optim.DeltaMomentum),
        _RAW,
        "momentum written by the delta rule",
        "momentum",
        "O4",
        control=_FORGET,
    ),
    Contender(
        "PreconditionedMomentum",
        _beside_adam(optim.PreconditionedMomentum),
        0.0052,
        "momentum of preconditioned gradients",
        "momentum",
        "O3",
        control=_FORGET,
        control_lr=0.03,  # nothing is summed, so its steps are shorter
    ),
    Contender(
        "DeepMomentum",
        _whole(optim.DeepMomentum, retention="skip_retention"),
        _ORTHOGONAL,
        "the memory is an MLP, trained online",
        "deep",
        "O5",
        control=_OFF,
        control_tuned=("retention",),
    ),
    Contender(
        "DeepMomentum2",
        _whole(optim.DeepMomentum, retention="skip_retention"),
        _ORTHOGONAL,
        "a deep memory written by a deep memory",
        "deep",
        "O6",
        control=Variant("DeepMomentum", control=True),
        fixed={"levels": 2},
    ),
    Contender("Adam", _adam, _ADAPTIVE, "two memories read one gradient", "adam", "O7", control=_FORGET),
    Contender(
        "DeepAdam",
        _deep_adam,
        _ADAPTIVE,
        "Adam with two MLP memories",
        "adam",
        "O8",
        control=_OFF,
        control_tuned=("retention",),
    ),
    Contender(
        "Muon", _whole(optim.Muon), _ORTHOGONAL, "momentum, orthogonalised", "orthogonal", "O10", control=_FORGET
    ),
    Contender(
        "M3",
        _whole(optim.M3),
        _ORTHOGONAL,
        "a fast and a slow momentum, orthogonalised",
        "orthogonal",
        "O14",
        control={"slow_weight": 0.0},
        control_tuned=("retention",),
    ),
    Contender(
        "SecantMomentum",
        _whole(optim.SecantMomentum, needs_model=True),
        _ORTHOGONAL,
        "old gradients carried to where the weights are now",
        "layer",
        "O19",
        control=_OFF,
        control_tuned=("retention",),
    ),
    Contender(
        "LayerMomentum",
        _whole(optim.LayerMomentum, needs_model=True),
        _ORTHOGONAL,
        "momentum whitened by what the layer sees",
        "layer",
        "O15",
        control=_OFF,
        control_tuned=("retention",),
    ),
)

CONTENDERS: Mapping[str, Contender] = {contender.name: contender for contender in _ALL}


def find_contenders(names: Iterable[str]) -> list[Contender]:
    """The contenders with these names, in the order of the registry, without regard to case.

    Raises:
        ValueError: a name is unknown; the message gives the nearest name and all names.
    """
    folded = {name.casefold(): name for name in CONTENDERS}
    chosen: set[str] = set()
    for name in names:
        if name.casefold() not in folded:
            choice("optimizer", name, CONTENDERS)
        chosen.add(folded[name.casefold()])
    return [contender for contender in _ALL if contender.name in chosen]
