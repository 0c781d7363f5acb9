"""Who is compared, as data: the class, the settings that are not its defaults, and how it wants its parameters.

Defaults are the library's own. Weight decay is off everywhere, so that no contender has a regulariser that others lack.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from benchmarks.peers.libraries import find_class
from benchmarks.peers.managed import Managed

__all__ = ["CONTENDERS", "Contender"]


@dataclass(frozen=True)
class Contender:
    """One optimizer with one setting.

    Args:
        library: its distribution.
        name: what tables show; the class where ``cls`` is empty.
        cls: the class, where it differs from ``name``.
        retention: the argument that says how much of the momentum is kept: a number, or the first of a tuple; None if
            it has none.
        fixed: arguments that differ from the defaults.
        group: entries that every parameter group must have.
        needs_model: whether ``model=`` is passed.
        member: whether it takes part in the drop-in checks and the quality table; False for a setting that only
            the step time needs.
    """

    library: str
    name: str
    cls: str = ""
    retention: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    group: Mapping[str, Any] = field(default_factory=dict)
    needs_model: bool = False
    member: bool = True

    @property
    def key(self) -> str:
        return f"{self.library} {self.name}"

    def build(
        self,
        params: Iterable[Any],
        model: nn.Module | None = None,
        *,
        lr: float | None = None,
        retention: float | None = None,
        compiled: bool = False,
    ) -> Any:
        """The optimizer over parameters, named parameters or groups; None leaves lr and retention at the defaults."""
        keywords = dict(self.fixed)
        made = Managed if self.cls == "Managed" else find_class(self.library, self.cls or self.name, compiled)
        if lr is not None:
            keywords["lr"] = lr
        if retention is not None and self.retention is not None:
            default = inspect.signature(made).parameters[self.retention].default
            keywords[self.retention] = (retention, *default[1:]) if isinstance(default, tuple) else retention
        if self.needs_model:
            keywords["model"] = model
        return made(self._grouped(list(params)), **keywords)

    def _grouped(self, params: list[Any]) -> list[Any]:
        if not self.group:
            return params
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        return [{**group, **self.group} for group in groups]

    def settings(self) -> str:
        """The settings that are not defaults, as text."""
        return ", ".join(f"{name}={value}" for name, value in {**self.fixed, **self.group}.items())


def _ours(name: str, retention: str | None = "retention", **options: Any) -> Contender:
    return Contender("nestlearn", name, retention=retention, **options)


def _managed(variant: str) -> Contender:
    return Contender("nested-learning", f"DeepMomentum {variant}", "Managed", "beta", {"variant": variant})


def _kronecker(period: int) -> Contender:
    """Our nearest to Shampoo, SOAP and PSGD, with factors renewed as often as theirs."""
    fixed = {"target": "kronecker", "target_period": period}
    name = f"PreconditionedMomentum kronecker/{period}"
    return _ours(name, cls="PreconditionedMomentum", fixed=fixed, member=False)


_NO_DECAY = {"weight_decay": 0.0}

_ALL = (
    Contender("torch", "SGD", retention="momentum", fixed={"momentum": 0.9}),
    Contender("torch", "AdamW", retention="betas", fixed=_NO_DECAY),
    Contender("torch", "Muon", retention="momentum", fixed=_NO_DECAY),
    _ours("GradientDescent", None),
    _ours("Momentum"),
    _ours("PreconditionedMomentum"),
    _ours("DeltaMomentum"),
    _ours("DeepMomentum", "skip_retention"),
    _ours("Adam", "betas"),
    _ours("DeepAdam", "betas"),
    _ours("Muon"),
    _ours("M3"),
    _ours("SecantMomentum"),
    _ours("LayerMomentum", needs_model=True),
    _ours("DeltaGradientDescent", None, needs_model=True),
    Contender("heavyball", "SGD", retention="beta"),
    Contender("heavyball", "AdamW", retention="betas"),
    Contender("heavyball", "Muon", retention="betas"),
    Contender("heavyball", "SOAP", retention="betas", fixed=_NO_DECAY),
    Contender("heavyball", "PSGDKron", retention="betas"),
    Contender("pytorch-optimizer", "Muon", retention="momentum", group={"use_muon": True}),
    Contender("pytorch-optimizer", "SOAP", retention="betas", fixed=_NO_DECAY),
    Contender("pytorch-optimizer", "Kron", retention="momentum"),
    Contender("pytorch-optimizer", "Shampoo", retention="momentum"),
    Contender("pytorch-optimizer", "Adan", retention="betas"),
    Contender("pytorch-optimizer", "Lion", retention="betas"),
    Contender("nested-learning", "M3"),
    _managed("dmgd"),
    _managed("muon"),
    _managed("preconditioned"),
    # Settings that only the step time needs.
    Contender("torch", "AdamW foreach", "AdamW", fixed={**_NO_DECAY, "foreach": True}, member=False),
    *(_kronecker(period) for period in (1, 2, 10, 30)),
    Contender(
        "heavyball",
        "PSGDKron settled",
        "PSGDKron",
        fixed={"preconditioner_update_probability": 0.03},
        member=False,
    ),
)

CONTENDERS: Mapping[str, Contender] = {contender.key: contender for contender in _ALL}
