"""Parts of the core from the words that ``nestlearn.memory.described`` has for them, and words for what is measured."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from nestlearn.memory.models import ACTIVATIONS, MLP, Constant, Matrix, Model
from nestlearn.memory.objectives import Objective, dot_product, hypergradient, l2, oja, orthogonality, quadratic
from nestlearn.memory.rules import DeltaGradientDescent, GradientDescent, LeastSquares, Rule
from nestlearn.memory.words import kind_words
from nestlearn.rules.newton import MeasuredQuadratic

__all__ = [
    "check_model",
    "made_model",
    "made_objective",
    "made_rule",
]


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


def made_objective(words: str) -> Objective:
    """The objective of ``objective_words``."""
    name = words.removeprefix("mean ")
    if name not in _OBJECTIVES:
        raise ValueError(f"the objective {words!r} is not one of the core's")
    found = _OBJECTIVES[name]
    return found if name == words else found.averaged()


_RULES: dict[str, Callable[..., Rule]] = {
    kind_words(kind): kind for kind in (DeltaGradientDescent, GradientDescent, LeastSquares)
}


def made_rule(words: str) -> Rule:
    """The rule of ``rule_words``, for one whose update is the core's and not an expression."""
    name, *settings = words.split(", ")
    if name not in _RULES:
        raise ValueError(f"the rule {words!r} is not one of the core's and says no update")
    said = (setting.partition(" ") for setting in settings)
    return _RULES[name](**{name: float(value) if value else True for name, _, value in said})
