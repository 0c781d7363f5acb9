"""Contenders that are rules: ``"chain(average(0.9), orthogonal())"``, as text alone, so that a name says all of it.

    mine=chain(average(0.65, nesterov=True), orthogonal(), slow(0.97)) without slow

The word before ``=`` is what tables say, by default the names of the parts. The part after ``without`` is taken away in
the control. The rule is for hidden matrices; everything else follows Adam, as for every contender. A rule with classes
of one's own is written as data, ``mine={"average": {"retention": 0.9}}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nestlearn import optim
from nestlearn.contenders.contender import Contender, switched_off, whole
from nestlearn.rules import Link, adam, from_data, parse, to_data
from nestlearn.rules.data import schedule_from_data

__all__ = ["named_rule", "rule_contender", "rule_name"]

_NAME = re.compile(
    r"\s*(?:(?P<label>[\w.+-]+)\s*=)?\s*(?P<rule>\w+\(.*\)|\{.*\})(?:\s+without\s+(?P<part>[\w.]+))?\s*", re.DOTALL
)

# Middles of the learning-rate grids, by the length of a step, as in the registry.
_ORTHOGONAL, _ADAPTIVE, _RAW = 0.052, 0.0173, 0.17
_LENGTHS = {
    "orthogonal": _ORTHOGONAL,
    "preconditioner": _ORTHOGONAL,
    "second_moment": _ADAPTIVE,
    "deep_adam": _ADAPTIVE,
}


def named_rule(name: str) -> bool:
    """Whether a contender's name is a rule."""
    return "(" in name or "{" in name


def rule_name(rule: Any, label: str = "", without: str = "") -> str:
    """The name of the contender that a rule is.

    Args:
        rule: an expression, data, or the rule itself.
        label: what tables say; by default the names of its parts.
        without: the part that is taken away in the control.

    Raises:
        ValueError: it is no rule, or has no such part.
    """
    made = rule if isinstance(rule, Link) else parse(rule) if isinstance(rule, str) else from_data(rule, typed=True)
    if without:
        made.without(without)
    label = label or "+".join(path for path in made.parts() if "." not in path) or "gradient"
    try:
        text = repr(made) if parse(repr(made)) == made else ""
    except ValueError:
        text = ""
    return f"{label}={text or json.dumps(to_data(made))}" + (f" without {without}" if without else "")


def rule_contender(name: str) -> Contender:
    """The contender that a rule is.

    Raises:
        ValueError: it is no rule, or has no part of the name after ``without``.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(
            "expected a rule such as 'mine=chain(average(0.9), orthogonal())', if you like with ' without PART' for "
            f"its control, got {name!r}"
        )
    text, part = found["rule"], found["part"] or ""
    data = json.loads(text) if text.startswith("{") else None
    rule = parse(text) if data is None else from_data(data, typed=True)
    full = rule_name(rule, found["label"] or "", part)
    watches = any({"inputs", "errors"} & set(link.reads) for link in rule.everything())
    numbers = {path: value for path, value in rule.settings().items() if isinstance(value, float)}
    plain = {path.rpartition(".")[2]: path for path in reversed(numbers)}  # of several the first
    tuned = tuple(name for name in ("retention", "inner_lr") if name in plain)

    def build(
        params: Any,
        lr: float,
        *,
        without: str = "",
        model: nn.Module | None = None,
        elementwise: Any = None,
        elementwise_lr: float | None = None,
        **settings: Any,
    ) -> torch.optim.Optimizer:
        common = {key: settings.pop(key) for key in tuple(settings) if key in _COMMON}
        made, element = switched_off(rule, adam(), without)
        changes = {plain.get(path, path): value for path, value in _flat(settings).items()}
        left = made.settings()
        # What is tuned of a part that the control lacks has nothing to act on there.
        changes = {path: value for path, value in changes.items() if path in left or path not in plain.values()}
        return optim.Optimizer(
            params,
            lr,
            matrix=made.replace(changes) if changes else made,
            element=element,
            model=model,
            elementwise=elementwise,
            elementwise_lr=elementwise_lr,
            **common,
        )

    return Contender(
        full,
        whole(build, needs_model=watches),
        next((_LENGTHS[kind] for kind in _LENGTHS if _has(rule, kind)), _RAW),
        f"the rule {rule!r}",
        "own",
        tuned=(*tuned, "weight_decay"),
        inner_lr=numbers[plain["inner_lr"]] if "inner_lr" in tuned else None,
        control={"without": part} if part else None,
        control_tuned=tuple(
            name for name in (*tuned, "weight_decay") if name != "inner_lr" and _left(rule, part, plain.get(name, ""))
        ),
    )


_COMMON = ("weight_decay", "period", "nonfinite", "compile", "maximize", "averaged_weights")


def _has(rule: Link, kind: str) -> bool:
    return any(type(link).__name__ == kind for link in rule.everything())


def _left(rule: Link, part: str, path: str) -> bool:
    """Whether the control without a part still has a setting."""
    return not path or not part or path in rule.without(part).settings()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by path: YAML and ``--set`` make nested mappings of dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and not {"ramp", "with_lr"} & set(value):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = schedule_from_data(value) if isinstance(value, Mapping) else value
    return found
