"""Who learns: an optimizer, what a comparison needs to know about it, and how it is put on a network.

An entry holds a factory, the middle of its learning-rate grid, the settings that are tuned besides, and its
**control**: the same read-out with nothing remembered (``memory=False``, or a retention of 0). A control is tuned with
as many trials as its contender.

The rule under test acts on the *hidden matrices*. Vectors, embeddings and the head follow Adam at one rate, without
weight decay, whoever the contender is; a network that has no hidden matrix is the contender's as a whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, update_wrapper
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn import optim
from nestlearn.optim.settings import Common

__all__ = [
    "Contender",
    "Factory",
    "Variant",
    "as_told",
    "beside_adam",
    "hidden_and_rest",
    "label_of",
    "switched_off",
    "whole",
]

Factory = Callable[..., list[torch.optim.Optimizer]]
Build = Callable[..., torch.optim.Optimizer]
Named = list[tuple[str, nn.Parameter]]
SET_BY_TRAINING = {"params", "model", "tables", "lr", "elementwise", "elementwise_lr", "named_parameters"}
ENTRIES = "element."


def label_of(name: str) -> str:
    """What tables say of a contender: its name, or the word before it where that is a rule."""
    return name.partition("=")[0] if "=" in name else name


@dataclass(frozen=True, order=True)
class Variant:
    """A contender or its control."""

    contender: str
    control: bool = False

    @property
    def name(self) -> str:
        label = label_of(self.contender)
        return f"{label} (control)" if self.control else label


@dataclass(frozen=True)
class Contender:
    """One optimizer of the comparison.

    Attributes:
        name: what users type and read.
        make: ``make(model, lr, *, tables, elementwise_lr, **settings)`` returns the optimizers to step together, the
            contender first. ``tables`` are the parameters (embeddings, head) that are not its own. Its
            ``__wrapped__`` is what takes the settings, so that their names and defaults can be looked up.
        lr: the middle of the learning-rate grid.
        about: one line for people.
        family: contenders of one family have related colours in the report.
        equation: the id in ``docs/equations.md``.
        tuned: the settings tuned besides lr, among ``"retention"``, ``"weight_decay"`` and ``"inner_lr"``.
        inner_lr: the optimizer's own default, which the factors of the grid multiply; None if it has none to tune.
        control: the settings that switch the memory off; or the variant that already is the control; or None.
        control_tuned: the settings tuned besides lr for that control; a memory switched off may leave a retention
            that acts.
        control_lr: the middle of the control's grid where its steps have another length.
        fixed: settings that make it this contender and are never tuned.
    """

    name: str
    make: Factory
    lr: float
    about: str
    family: str
    equation: str = ""
    tuned: tuple[str, ...] = ("retention", "weight_decay")
    inner_lr: float | None = None
    control: Mapping[str, Any] | Variant | None = None
    control_tuned: tuple[str, ...] = ("weight_decay",)
    control_lr: float | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What tables say."""
        return label_of(self.name)

    def takes(self) -> dict[str, Any] | None:
        """The settings that it takes besides its rates, with their defaults; None if it takes whatever it is given."""
        kind = inspect.unwrap(self.make)
        parameters = inspect.signature(kind).parameters
        ours = inspect.isclass(kind) and issubclass(kind, optim.Optimizer)
        if not ours and any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return None
        plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        known: dict[str, Any] = {**dict.fromkeys(self.tuned), **(_common() if ours else {})}
        known |= {key: parameter.default for key, parameter in parameters.items() if parameter.kind in plain}
        return {key: value for key, value in known.items() if key not in SET_BY_TRAINING}


@cache
def _common() -> dict[str, Any]:
    """What every optimizer of ours takes. To make one loads torch's compiler, a second that few verbs need."""
    return {**optim.GradientDescent([torch.zeros(1)]).defaults, "without": ""}


def switched_off(matrix: Any, element: Any, parts: str) -> tuple[Any, Any]:
    """The two rules of an optimizer without a part, or several with commas between them.

    Args:
        matrix, element: the rules for matrices, None for the other one, and for entries.
        parts: paths in the rule for matrices, or, behind ``element.``, in that for entries. Where all follow the latter
            they are its own.
    """
    for name in filter(None, map(str.strip, parts.split(","))):
        if matrix is None or name.startswith(ENTRIES):
            element = element.without(name.removeprefix(ENTRIES))
        else:
            matrix = matrix.without(name)
    return matrix, element


def _without(cls: Build, part: str) -> Build:
    """What makes an optimizer as ``cls`` does, by the same rules without a part, or several with commas between them:
    the memories that are left have the names and shapes that they had.

    Args:
        part: as `switched_off` takes it.
    """

    def build(params: Any, lr: float, **given: Any) -> torch.optim.Optimizer:
        groups = [{**each, "params": list(each["params"])} if isinstance(each, dict) else each for each in params]
        made: Any = cls(groups, lr, **given)
        group = made.param_groups[0]
        matrix, element = switched_off(made.matrix_rule(group), made.element_rule(group), part)
        common = {key: value for key, value in given.items() if key in Common.__annotations__}
        off = optim.Optimizer(groups, lr, matrix=matrix, element=element, model=given.get("model"), **common)
        off.smallest_side = made.smallest_side
        return off

    return build


def hidden_and_rest(model: nn.Module, tables: Iterable[Tensor]) -> tuple[Named, Named]:
    """The hidden matrices of a model, and everything else: vectors, and ``tables``.

    A model without hidden matrices is returned as if all its parameters were some.
    """
    apart = set(map(id, tables))
    hidden = [(n, p) for n, p in model.named_parameters() if p.ndim >= 2 and id(p) not in apart]
    if not hidden:
        return list(model.named_parameters()), []
    chosen = {name for name, _ in hidden}
    return hidden, [(n, p) for n, p in model.named_parameters() if n not in chosen]


def as_told(cls: Build, settings: dict[str, Any]) -> Build:
    """What makes an optimizer of a class, by a rule without the part that settings take away; a rule does it alone."""
    part = settings.pop("without", "") if inspect.isclass(cls) else ""
    return _without(cls, part) if part else cls


def whole(cls: Build, *, needs_model: bool = False, retention: str = "retention") -> Factory:
    """One optimizer for the whole model: matrices have its own rule, everything else already has Adam's.

    ``retention`` is what the optimizer calls the retention of its momentum, where another memory took the plain name.
    """

    def make(
        model: nn.Module, lr: float, *, tables: list[Tensor], elementwise_lr: float, **settings: Any
    ) -> list[torch.optim.Optimizer]:
        if needs_model:
            settings["model"] = model
        if "retention" in settings:
            settings[retention] = settings.pop("retention")
        build = as_told(cls, settings)
        hidden, rest = hidden_and_rest(model, tables)
        groups: list[dict[str, Any]] = [{"params": hidden, "weight_decay": settings.pop("weight_decay", 0.0)}]
        if rest:
            groups.append({"params": rest, "weight_decay": 0.0})
        return [build(groups, lr, elementwise=tables, elementwise_lr=elementwise_lr if rest else lr, **settings)]

    return update_wrapper(make, cls, assigned=())


def beside_adam(cls: Build, *, needs_model: bool = False) -> Factory:
    """An optimizer with its own rule for vectors gets the hidden matrices only; Adam has the rest, as everywhere."""

    def make(
        model: nn.Module, lr: float, *, tables: list[Tensor], elementwise_lr: float, **settings: Any
    ) -> list[torch.optim.Optimizer]:
        if needs_model:
            settings["model"] = model
        build = as_told(cls, settings)
        hidden, rest = hidden_and_rest(model, tables)
        return [build(hidden, lr, **settings), *([optim.Adam(rest, elementwise_lr)] if rest else [])]

    return update_wrapper(make, cls, assigned=())
