"""Words for parts of the core, the same wherever a memory of them is described, and the parts again from their words.

``rebuild`` reads with ``made_model``, ``made_objective`` and ``made_rule`` what is written here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields

from torch import Tensor

from nestlearn.memory.models import ACTIVATIONS, MLP, Constant, Matrix, Model
from nestlearn.memory.momentum import InnerMomentum
from nestlearn.memory.nesting import Consult
from nestlearn.memory.objectives import Objective, dot_product, hypergradient, l2, oja, orthogonality, quadratic
from nestlearn.memory.rules import DeltaGradientDescent, GradientDescent, LeastSquares, Rule
from nestlearn.rules.newton import MeasuredQuadratic

__all__ = [
    "MEASURED",
    "check_model",
    "made_model",
    "made_objective",
    "made_rule",
    "model_words",
    "number_words",
    "objective_words",
    "rule_words",
]


MEASURED: Mapping[str, str] = {
    "seen_inputs": "the covariance of what the layer is given",
    "seen_errors": "the covariance of the layer's error signals",
    "seen_hessian_diagonal": "z * (H z) with random signs z",
    "seen_gauss_newton_diagonal": "the squared gradient at labels drawn from the model",
    "seen_curvature_product": "H M(u), before M is written",
}
"""What is measured outside, by the names that expressions have for it."""


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


_MODEL = re.compile(r"(?P<box>box(?: \d+(?: x \d+)*)?)|(?:(?:(\w+) )?MLP \d+-(\d+)-\d+|matrix \d+ -> \d+)( \+ key)?")


def check_model(words: str) -> re.Match[str]:
    """Raise ValueError for a model that ``model_words`` has no words for.

    The memories of one role in several parameters share their words: the first of their models counts.
    """
    found = _MODEL.fullmatch(words.split(", ")[0])
    if found is None or (found[2] or "silu") not in ACTIVATIONS:
        raise ValueError(f"the model {words!r} is not one of the core's")
    return found


def made_model(words: str, key: Tensor, value: Tensor, objective: Objective) -> Model:
    """The model of ``model_words`` for keys and values of these shapes, whatever sizes the words speak of."""
    box, activation, hidden, residual = check_model(words).groups()
    if box is not None:
        return Constant(() if box == "box" else tuple(value.shape[-2:]))
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
    own = getattr(objective, "curvature", None) is not None
    return f"{'mean ' if objective.mean else ''}{objective.name}{' with a curvature of its own' if own else ''}"


def made_objective(words: str) -> Objective:
    """The objective of ``objective_words``."""
    name = words.removeprefix("mean ")
    if name not in _OBJECTIVES:
        raise ValueError(f"the objective {words!r} is not one of the core's")
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


_RULES: dict[str, Callable[..., Rule]] = {
    _kind(kind): kind for kind in (DeltaGradientDescent, GradientDescent, LeastSquares)
}


def made_rule(words: str) -> Rule:
    """The rule of ``rule_words``, for one whose update is the core's and not an expression."""
    name, *settings = words.split(", ")
    if name not in _RULES:
        raise ValueError(f"the rule {words!r} is not one of the core's and says no update")
    said = (setting.partition(" ") for setting in settings)
    return _RULES[name](**{name: float(value) if value else True for name, _, value in said})


def number_words(value: float | Tensor) -> str:
    """A rate: twelve digits of a number, or that every memory has its own."""
    return "one a memory" if isinstance(value, Tensor) and value.numel() > 1 else f"{float(value):.12g}"
