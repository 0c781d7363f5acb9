"""Words for parts of the core, the same wherever a memory of them is described: its model, its rule, a number."""

import re
from dataclasses import fields

from torch import Tensor

from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.models import MLP, Constant, Matrix, Model
from nestlearn.memory.nesting import Consult
from nestlearn.memory.rules import Rule

__all__ = ["model_words", "number_words", "rule_words"]


def model_words(model: Model) -> str:
    """'MLP 16-32-16', 'matrix 16 -> 16', 'box'."""
    match model:
        case MLP():
            return f"MLP {model.in_dim}-{model.hidden}-{model.out_dim}"
        case Matrix():
            return f"matrix {model.in_dim} -> {model.out_dim}"
        case Constant(shape=()):
            return "box"
        case Constant():
            return f"box {' x '.join(map(str, model.shape))}"
        case _:
            return type(model).__name__


def rule_words(rule: Rule) -> str:
    """The class of a rule as words, with the settings that lr, retention and update do not show."""
    if isinstance(rule, InnerMomentum):
        return f"{rule_words(rule.rule)} through momentum"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(rule).__name__.lstrip("_")).lower()
    if hasattr(rule, "update_is") or isinstance(rule, Consult):
        return words
    own = {item.name: getattr(rule, item.name) for item in fields(rule) if item.name not in ("lr", "retention")}
    said = [name if value is True else f"{name} {value}" for name, value in own.items() if value is not False]
    return ", ".join([words, *said])


def number_words(value: float | Tensor) -> str:
    """A rate: twelve digits of a number, or that every memory has its own."""
    return "one a memory" if isinstance(value, Tensor) and value.numel() > 1 else f"{float(value):.12g}"
