"""The contenders of ``nestlearn compare`` by name, as data. ``Contender`` says what an entry holds.

The middle of the learning-rate grid differs between families because the length of their steps does (a raw gradient,
a normalised one, an orthogonal one); how many trials they have, and how these are spent, never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache, wraps
from typing import Any, cast

import torch
from torch import Tensor, nn

from nestlearn import optim
from nestlearn.contenders.by_class import class_contender, optimizer_classes
from nestlearn.contenders.by_rule import named_rule, rule_contender
from nestlearn.contenders.contender import Contender, Variant, beside_adam, hidden_and_rest, whole
from nestlearn.contenders.own import own_contender
from nestlearn.errors import choice

__all__ = ["BASELINE", "CONTENDERS", "MUON", "find_contender", "find_contenders"]

BASELINE, MUON = "AdamW", "Muon"  # what every other contender is tested against


def _adamw(
    model: nn.Module,
    lr: float,
    *,
    tables: list[Tensor],
    elementwise_lr: float,
    retention: float = 0.9,
    weight_decay: float = 0.0,
) -> list[torch.optim.Optimizer]:
    hidden, rest = hidden_and_rest(model, tables)
    groups: list[dict[str, Any]] = [
        {"params": hidden, "lr": lr, "betas": (retention, 0.999), "weight_decay": weight_decay}
    ]
    if rest:
        groups.append({"params": rest, "lr": elementwise_lr})
    return [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), weight_decay=0.0)]


@wraps(optim.Adam, assigned=())
def _adam(model: nn.Module, lr: float, *, retention: float = 0.9, **settings: Any) -> list[torch.optim.Optimizer]:
    return beside_adam(optim.Adam)(model, lr, betas=(retention, 0.999), **settings)


@wraps(optim.SOAP, assigned=())
def _soap(model: nn.Module, lr: float, *, retention: float = 0.95, **settings: Any) -> list[torch.optim.Optimizer]:
    return whole(optim.SOAP)(model, lr, betas=(retention, 0.95), **settings)


@wraps(optim.DeepAdam, assigned=())
def _deep_adam(model: nn.Module, lr: float, *, retention: float = 0.9, **settings: Any) -> list[torch.optim.Optimizer]:
    return whole(optim.DeepAdam)(model, lr, betas=(retention, 0.999), **settings)


_OFF = {"memory": False}
_FORGET = {"retention": 0.0}
_PLAIN = Variant("GradientDescent")

# Middles of the learning-rate grids, by the length of a step: found once on seeds that no report uses.
_ADAPTIVE, _ORTHOGONAL, _RAW = 0.0173, 0.052, 0.52

_ALL = (
    Contender(BASELINE, _adamw, _ADAPTIVE, "torch.optim.AdamW, the baseline", "baseline"),
    Contender(
        "GradientDescent",
        beside_adam(optim.GradientDescent),
        _RAW,
        "nothing but weights",
        "plain",
        "O1",
        tuned=("weight_decay",),
    ),
    Contender(
        "DeltaGradientDescent",
        beside_adam(optim.DeltaGradientDescent, needs_model=True),
        3 * _RAW,
        "gradient descent that also forgets along the layer's input",
        "plain",
        "O12",
        tuned=("weight_decay",),
        control=_PLAIN,
    ),
    Contender(
        "Momentum", beside_adam(optim.Momentum), _RAW / 3, "a box of past gradients", "momentum", "O2", control=_PLAIN
    ),
    Contender(
        "DeltaMomentum",
        beside_adam(optim.DeltaMomentum),
        _RAW,
        "momentum written by the delta rule",
        "momentum",
        "O4",
        tuned=("retention", "weight_decay", "inner_lr"),
        inner_lr=0.5,
        control=_PLAIN,
    ),
    Contender(
        "PreconditionedMomentum",
        beside_adam(optim.PreconditionedMomentum),
        0.0052,
        "momentum of preconditioned gradients",
        "momentum",
        "O3",
        control=_FORGET,
        control_lr=0.03,  # nothing is summed, so its steps are shorter
    ),
    Contender(
        "DeepMomentum",
        whole(optim.DeepMomentum, retention="skip_retention"),
        _ORTHOGONAL,
        "the memory is an MLP, trained online",
        "deep",
        "O5",
        tuned=("retention", "weight_decay", "inner_lr"),
        inner_lr=0.1,
        control=_OFF,
        control_tuned=("retention", "weight_decay"),
    ),
    Contender(
        "DeepMomentum2",
        whole(optim.DeepMomentum, retention="skip_retention"),
        _ORTHOGONAL,
        "a deep memory written by a deep memory",
        "deep",
        "O6",
        tuned=("retention", "weight_decay", "inner_lr"),
        inner_lr=0.1,
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
        tuned=("retention", "weight_decay", "inner_lr"),
        inner_lr=0.1,
        control=_OFF,
        control_tuned=("retention", "weight_decay"),
    ),
    Contender("SOAP", _soap, _ADAPTIVE, "Adam in the eigenbasis of its gradients", "adam", "O20", control=_OFF),
    Contender("Muon", whole(optim.Muon), _ORTHOGONAL, "momentum, orthogonalised", "orthogonal", "O10", control=_FORGET),
    Contender(
        "M3",
        whole(optim.M3),
        _ORTHOGONAL,
        "a fast and a slow momentum, orthogonalised",
        "orthogonal",
        "O14",
        control={"slow_weight": 0.0},
        control_tuned=("retention", "weight_decay"),
    ),
    Contender(
        "Nested",
        whole(optim.Nested),
        _ORTHOGONAL,
        "Muon in the geometry of its gradients' covariances",
        "orthogonal",
        "O20",
        control=_OFF,
        control_tuned=("retention", "weight_decay"),
    ),
    Contender(
        "SecantMomentum",
        whole(optim.SecantMomentum, needs_model=True),
        _ORTHOGONAL,
        "old gradients carried to where the weights are now",
        "layer",
        "O19",
        control=_OFF,
        control_tuned=("retention", "weight_decay"),
    ),
    Contender(
        "LayerMomentum",
        whole(optim.LayerMomentum, needs_model=True),
        _ORTHOGONAL,
        "momentum whitened by what the layer sees",
        "layer",
        "O15",
        control=_OFF,
        control_tuned=("retention", "weight_decay"),
    ),
)

CONTENDERS: Mapping[str, Contender] = {contender.name: contender for contender in _ALL}
_FOLDED = {name.casefold(): contender for name, contender in CONTENDERS.items()}


@lru_cache
def find_contender(name: str) -> Contender:
    """The contender with this name, without regard to case; else the one that a rule or ``module:function`` makes, or a
    class of ``nestlearn.optim`` or ``torch.optim``. A name that is both is the contender; ``torch.optim.AdamW`` in full
    is the class.

    Raises:
        ValueError: there is none; the message gives the nearest name and all names.
    """
    if named_rule(name):
        return rule_contender(name)
    if ":" in name:
        return own_contender(name)
    found = _FOLDED.get(name.casefold()) or class_contender(name)
    if found is None:
        choice("optimizer", name, {*CONTENDERS, *(full.rpartition(".")[2] for full in optimizer_classes())})
    return cast(Contender, found)


def find_contenders(names: Iterable[str]) -> list[Contender]:
    """The contenders with these names, each once: those of the registry in its order, then the user's own. What is a
    class alone has no grids to be tuned on.

    Raises:
        ValueError: there is none of this name; the message gives the nearest one and all names.
    """
    names = list(names)
    for name in names:
        if ":" not in name and not named_rule(name) and name.casefold() not in _FOLDED:
            choice("optimizer", name, CONTENDERS)
    found = {contender.name: contender for contender in map(find_contender, names)}
    own = [contender for name, contender in found.items() if name not in CONTENDERS]
    return [*(contender for contender in _ALL if contender.name in found), *own]
