"""What an optimizer loads: whether a checkpoint fits, and states as they were saved.

torch's rules hold: a checkpoint may be loaded any number of times, what others keep in a state or in a group stays
theirs, and a setting that a checkpoint does not know yet has its default.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nestlearn.optim.adapter import Adapter
from nestlearn.optim.checks import describe
from nestlearn.optim.settings import COMMON
from nestlearn.optim.stacks import Held
from nestlearn.rules import difference

__all__ = ["Checkpoint", "check_checkpoint", "check_state", "restore"]

Checkpoint = dict[str, Any]
"""What ``state_dict`` returns: "state" by the numbers of parameters, and "param_groups"."""

_ON_CPU = ("step", "pending_rows")
"""Counts, which stay where they were saved."""


def check_checkpoint(optimizer: Adapter, given: Checkpoint) -> None:
    """Raise ValueError if a state dictionary is not one of this kind of optimizer at all.

    A checkpoint of ours names settings that all optimizers here share, and some of those that the class has.
    """
    who = f"{type(optimizer).__name__}.load_state_dict"
    missing = {"state", "param_groups"} - set(given)
    if missing:
        raise ValueError(
            f"{who}: expected the result of state_dict(); {sorted(missing)} missing, got keys {sorted(given)}"
        )
    shared = set(COMMON) - {"weight_decay", "maximize"}
    own = set(optimizer.rule_settings(optimizer.param_groups[0])) - set(COMMON)
    for number, settings in enumerate(given["param_groups"]):
        for wanted in filter(None, (shared, own)):
            if wanted.isdisjoint(settings):
                first = next(iter(settings.get("params", [])), None)
                parameters = optimizer.param_groups[min(number, len(optimizer.param_groups) - 1)]["params"]
                where = describe(optimizer, parameters[0]) if parameters else "nothing"
                raise ValueError(
                    f"{who}: group {number} has none of the settings {sorted(wanted)}: the checkpoint is from another "
                    f"optimizer. It holds {sorted(map(str, given['state'].get(first, {})))} for {where}."
                )
    _check_rule(optimizer, given)


def _check_rule(optimizer: Adapter, given: Checkpoint) -> None:
    """Raise ValueError if a checkpoint was written by another rule; numbers and switches are the groups'."""
    own = optimizer.defaults.get("rule")
    if own is None:
        return
    for number, settings in enumerate(given["param_groups"]):
        found = difference(own, settings["rule"]) if isinstance(settings.get("rule"), Mapping) else ["it has none"]
        if found:
            raise ValueError(
                f"{type(optimizer).__name__}.load_state_dict: group {number} was written by another rule: "
                f"{'; '.join(found)}. Make the optimizer with the rule of the checkpoint, or start anew"
            )


def restore(optimizer: Adapter, saved: Checkpoint) -> None:
    """Put states as they were saved: torch casts what it loads to the parameter's dtype, and memories are wider."""
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        if number not in saved["state"]:
            continue
        state = optimizer.state[parameter]
        for name, value in saved["state"][number].items():
            state[name] = _as_saved(value, None if name in _ON_CPU else parameter.device)
        # Others count in plain numbers, as torch did before 1.12, or in tensors of one element.
        step = state.get("step")
        if isinstance(step, int | float):
            state["step"] = torch.tensor(float(step), dtype=torch.float32)
        elif isinstance(step, Tensor) and step.numel() == 1:
            state["step"] = step.reshape(())


def _as_saved(value: object, device: torch.device | None) -> object:
    if isinstance(value, Tensor):
        return value.detach().to(value.device if device is None else device, copy=True)
    if isinstance(value, dict):
        return {name: _as_saved(item, device) for name, item in value.items()}
    return copy.deepcopy(value)


def check_state(optimizer: Adapter) -> None:
    """Raise ValueError if a parameter's memories are not what this optimizer would have made for it.

    What else a state holds is somebody else's, or was left by other settings. A parameter that had no dimensions
    when it was saved, and has one of size one now, takes its memories along.
    """
    for settings in optimizer.param_groups:
        layouts: dict[tuple[torch.Size, torch.dtype, bool], dict[str, torch.Size]] = {}
        for parameter in settings["params"]:
            found = optimizer.state.get(parameter, {})
            if not found:
                continue
            alike = (parameter.shape, parameter.dtype, optimizer.entry(parameter, settings).flat)
            if alike not in layouts:
                fresh = optimizer.fresh_state(parameter, settings, device="meta")
                layouts[alike] = {name: tensor.shape for name, tensor in fresh.items()}
            if not found.keys().isdisjoint(layouts[alike]):
                _give_a_dimension(found, layouts[alike])
                _compare(optimizer, parameter, found, layouts[alike])


def _give_a_dimension(found: Held, expected: Mapping[str, torch.Size]) -> None:
    """Memories that were saved for a parameter without dimensions, as a `rate_bias` of version 0.1 was."""
    for name, shape in expected.items():
        value = found.get(name)
        if isinstance(value, Tensor) and value.ndim == 0 and tuple(shape) == (1,):
            found[name] = value.reshape(1)


def _compare(optimizer: Adapter, parameter: Tensor, found: Held, expected: Mapping[str, torch.Size]) -> None:
    # What waits for the end of a period is not there yet where the period has just been made longer.
    expected = {name: shape for name, shape in expected.items() if name in found or not name.startswith("pending")}
    if not set(expected) <= set(found):
        raise ValueError(
            f"{_where(optimizer, parameter)}: the state has keys {sorted(map(str, found))}, expected "
            f"{sorted(expected)}. It was saved by another optimizer or with other settings."
        )
    for name, shape in expected.items():
        value = found[name]
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if got != tuple(shape):
            raise ValueError(
                f"{_where(optimizer, parameter)}: state {name!r} has shape {got}, expected {tuple(shape)}. It was "
                "saved for another model."
            )


def _where(optimizer: Adapter, parameter: Tensor) -> str:
    return f"{type(optimizer).__name__}.load_state_dict: {describe(optimizer, parameter)}"
