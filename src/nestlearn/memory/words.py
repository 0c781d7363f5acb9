"""Words for parts of the core, a model, an objective, a rule, a number: the same wherever a memory has them."""

import re
from dataclasses import fields

from torch import Tensor

from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.models import MLP, Constant, Matrix, Model
from nestlearn.memory.nesting import Consult
from nestlearn.memory.objectives import Objective
from nestlearn.memory.rules import Rule

__all__ = ["kind_words", "model_words", "number_words", "objective_words", "rule_words"]


def model_words(model: Model) -> str:
    """'MLP 16-32-16', 'matrix 16 -> 16', 'box'; with '+ key' where the key is added to the answer."""
    added = " + key" if getattr(model, "residual", False) else ""
    match model:
        case MLP() if type(model) is MLP:
            kind = "" if model.activation == "silu" else f"{model.activation} "
            return f"{kind}MLP {model.in_dim}-{model.hidden}-{model.out_dim}{added}"
        case Matrix() if type(model) is Matrix:
            return f"matrix {model.in_dim} -> {model.out_dim}{added}"
        case Constant() if type(model) is Constant:
            return f"box {' x '.join(map(str, model.shape))}".strip()
        case _:
            return type(model).__name__


def objective_words(objective: Objective) -> str:
    """'l2', and 'mean l2' where it is divided by the number of keys."""
    own = getattr(objective, "curvature", None) is not None
    return f"{'mean ' if objective.mean else ''}{objective.name}{' with a curvature of its own' if own else ''}"


def rule_words(rule: Rule) -> str:
    """The class of a rule as words, with the settings that lr, retention and update do not show."""
    if isinstance(rule, InnerMomentum):
        return f"{rule_words(rule.rule)} through momentum"
    words = kind_words(type(rule))
    if hasattr(rule, "update_is") or isinstance(rule, Consult):
        return words
    own = {item.name: getattr(rule, item.name) for item in fields(rule) if item.name not in ("lr", "retention")}
    said = [name if value is True else f"{name} {value}" for name, value in own.items() if value is not False]
    return ", ".join([words, *said])


def kind_words(kind: type[Rule]) -> str:
    """The class of a rule in words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__.lstrip("_")).lower()


def number_words(value: float | Tensor) -> str:
    """A rate: twelve digits of a number, or that every memory has its own."""
    return "one a memory" if isinstance(value, Tensor) and value.numel() > 1 else f"{float(value):.12g}"
