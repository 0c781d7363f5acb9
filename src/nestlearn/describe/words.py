"""Words for parts of the core, the same wherever a memory of them is described, and the parts again from their words.

What is written here is read by ``made_model``, ``made_objective`` and ``made_rule`` below, for ``rebuild``.
"""

import re
from collections.abc import Mapping
from dataclasses import fields

from torch import Tensor

from nestlearn.memory.models import MLP, Constant, Matrix, Model
from nestlearn.memory.momentum import InnerMomentum
from nestlearn.memory.nesting import Consult
from nestlearn.memory.objectives import Objective, dot_product, hypergradient, l2, oja, orthogonality, quadratic
from nestlearn.memory.rules import DeltaGradientDescent, GradientDescent, LeastSquares, Rule
from nestlearn.rules.newton import MeasuredQuadratic

__all__ = [
    "made_model",
    "made_objective",
    "made_rule",
    "model_words",
    "number_words",
    "objective_words",
    "rule_words",
]


def model_words(model: Model) -> str:
    """'MLP 16-32-16', 'matrix 16 -> 16', 'box'; with '+ key' where the key is added to the answer."""
    match model:
        case MLP():
            kind = "" if model.activation == "silu" else f"{model.activation} "
            return f"{kind}MLP {model.in_dim}-{model.hidden}-{model.out_dim}{_key(model.residual)}"
        case Matrix():
            return f"matrix {model.in_dim} -> {model.out_dim}{_key(model.residual)}"
        case Constant(shape=()):
            return "box"
        case Constant():
            return f"box {' x '.join(map(str, model.shape))}"
        case _:
            return type(model).__name__


def _key(residual: bool) -> str:
    return " + key" if residual else ""


def made_model(words: str, key: Tensor, value: Tensor, objective: Objective) -> Model:
    """The model of ``model_words`` for keys and values of these shapes, whatever sizes the words speak of.

    The memories of one role in several parameters share their words, and each has sizes of its own.
    """
    first, *_ = words.split(", ")
    if first == "box":
        return Constant()
    if re.fullmatch(r"box \d+( x \d+)*", first):
        return Constant(tuple(value.shape[-2:]))
    found = re.fullmatch(r"(?:(?:(\w+) )?MLP \d+-(\d+)-\d+|matrix \d+ -> \d+)( \+ key)?", first)
    if found is None:
        raise ValueError(f"its model is {words!r}, which is not one of the core's")
    activation, hidden, residual = found.groups()
    into, out = key.shape[-1], value.shape[-1] if value.ndim else 0
    # What scores the whole map, or answers beside their curvature, has values of another width than answers.
    out = into if residual or objective.name == orthogonality.name else out
    out = out // 2 if objective.name == MeasuredQuadratic.name and not residual else out
    if hidden is None:
        return Matrix(into, out, residual=bool(residual))
    return MLP(into, int(hidden), out, residual=bool(residual), activation=activation or "silu")


_OBJECTIVES: Mapping[str, Objective] = {
    each.name: each for each in (dot_product, hypergradient, l2, oja, orthogonality, quadratic, MeasuredQuadratic())
}


def objective_words(objective: Objective) -> str:
    """'l2', and 'mean l2' where it is divided by the number of keys."""
    return f"mean {objective.name}" if objective.mean else objective.name


def made_objective(words: str) -> Objective:
    """The objective of ``objective_words``."""
    name = words.removeprefix("mean ")
    if name not in _OBJECTIVES:
        raise ValueError(f"its objective is {words!r}, which is not one of the core's")
    found = _OBJECTIVES[name]
    return found if name == words else found.averaged()


def rule_words(rule: Rule) -> str:
    """The class of a rule as words, with the settings that lr, retention and update do not show."""
    if isinstance(rule, InnerMomentum):
        return f"{rule_words(rule.rule)} through momentum"
    words = _kind(type(rule))
    if hasattr(rule, "update_is") or isinstance(rule, Consult):
        return words
    own = {item.name: getattr(rule, item.name) for item in fields(rule) if item.name not in ("lr", "retention")}
    said = [name if value is True else f"{name} {value}" for name, value in own.items() if value is not False]
    return ", ".join([words, *said])


def _kind(kind: type[Rule]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__.lstrip("_")).lower()


_RULES = {_kind(kind): kind for kind in (DeltaGradientDescent, GradientDescent, LeastSquares)}


def made_rule(words: str) -> Rule:
    """The rule of ``rule_words``, for one whose update is the core's and not an expression."""
    name, *settings = words.split(", ")
    if name not in _RULES:
        raise ValueError(f"its rule is {words!r}, which is not one of the core's and says no update")
    said = (setting.partition(" ") for setting in settings)
    return _RULES[name](**{name: float(value) if value else True for name, _, value in said})


def number_words(value: float | Tensor) -> str:
    """A rate: twelve digits of a number, or that every memory has its own."""
    return "one a memory" if isinstance(value, Tensor) and value.numel() > 1 else f"{float(value):.12g}"
