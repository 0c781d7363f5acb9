"""What every optimizer checks before it writes anything: settings, gradients, loaded states."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nestlearn.errors import choice, did_you_mean
from nestlearn.optim.lanes import as_real

if TYPE_CHECKING:
    from nestlearn.optim.optimizer import Optimizer

__all__ = ["all_selected", "checkpoint", "describe", "gradients", "group", "select", "state"]


def describe(optimizer: "Optimizer", parameter: Tensor) -> str:
    """A parameter in words: its name if the optimizer knows it, else its place, and its shape."""
    for number, candidate in enumerate(optimizer.param_groups):
        for place, other in enumerate(candidate["params"]):
            if other is parameter:
                names = candidate.get("param_names")
                name = names[place] if names else f"{place} of group {number}"
                return f"parameter {name} with shape {tuple(parameter.shape)}"
    return f"parameter with shape {tuple(parameter.shape)}"


_AT_LEAST_ZERO = ("lr", "weight_decay", "elementwise_lr", "inner_lr", "eps", "rho", "damping", "slow_weight", "ridge")
_SHARES = ("retention", "slow_retention", "target_retention", "second_retention", "inner_retention")
_COUNTS = ("period", "hidden", "levels", "target_period", "slow_period", "steps", "refresh")


def group(optimizer: "Optimizer", settings: dict[str, Any]) -> None:
    """Raise ValueError for a setting of a parameter group that is out of its range."""
    who = type(optimizer).__name__
    for name, value in settings.items():
        if name in ("params", "param_names") or value is None:
            continue
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"{who}: Tensor {name} must be 1-element, got shape {tuple(value.shape)}")
        if name in _AT_LEAST_ZERO and not float(value) >= 0:
            label = "learning rate (lr)" if name == "lr" else name
            raise ValueError(f"{who}: Invalid {label}: expected at least 0, got {value}")
        if name in _SHARES and not 0 <= value <= 1:
            raise ValueError(f"{who}: {name} is the share that is kept, between 0 and 1; got {value}")
        if name in _COUNTS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{who}: {name} must be a whole number of at least 1, got {value!r}")
    choice("nonfinite", settings["nonfinite"], ("raise", "ignore"))
    optimizer.check_group(settings)


def gradients(optimizer: "Optimizer") -> None:
    """Raise before anything is written if a gradient is sparse, or has no finite norm where the group says "raise".

    Raises:
        TypeError: a sparse gradient.
        FloatingPointError: NaN, infinity, or entries whose squares overflow, naming the parameter.
    """
    watched: list[tuple[Tensor, Tensor]] = []
    for candidate in optimizer.param_groups:
        for parameter in candidate["params"]:
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                raise TypeError(
                    f"{describe(optimizer, parameter)} has a sparse gradient, and memories are dense: "
                    "use sparse=False in its embedding, or give it to torch.optim.SparseAdam"
                )
            if candidate["nonfinite"] == "raise" and parameter.numel():
                watched.append((parameter, as_real(parameter.grad)))
    if not watched or _finite([gradient for _, gradient in watched]):
        return
    for parameter, gradient in watched:
        if not _finite([gradient]):
            bad = int((~torch.isfinite(gradient)).sum())
            what = f"{bad} of {gradient.numel()} gradient entries are NaN or infinite"
            if not bad:
                peak = float(gradient.abs().max())
                what = f"the squared gradient overflows {gradient.dtype}, its largest entry is {peak:.3g}"
            raise FloatingPointError(
                f"{describe(optimizer, parameter)}: {what}. Nothing was written. Lower lr, clip gradients, use a "
                "GradScaler with float16, or pass nonfinite='ignore'."
            )


def _finite(tensors: list[Tensor]) -> bool:
    """Whether every gradient has a finite norm, so that second moments can hold its square."""
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for (_, dtype), group in alike.items():
        # One read of the gradients, in the precision that their squares will have; one number is looked at.
        norms = torch._foreach_norm(group, 2, dtype=torch.promote_types(dtype, torch.float32))
        if not torch.isfinite(torch.stack(norms).square()).all():
            return False
    return True


def checkpoint(optimizer: "Optimizer", given: dict[str, Any]) -> None:
    """Raise ValueError if a state dictionary is not one of this kind of optimizer at all."""
    who = f"{type(optimizer).__name__}.load_state_dict"
    missing = {"state", "param_groups"} - set(given)
    if missing:
        raise ValueError(
            f"{who}: expected the result of state_dict(); {sorted(missing)} missing, got keys {sorted(given)}"
        )
    for number, settings in enumerate(given["param_groups"]):
        missing = set(optimizer.defaults) - set(settings)
        if missing:
            first = next(iter(settings.get("params", [])), None)
            own = optimizer.param_groups[min(number, len(optimizer.param_groups) - 1)]["params"]
            where = describe(optimizer, own[0]) if own else "nothing"
            raise ValueError(
                f"{who}: group {number} lacks the settings {sorted(missing)}: the checkpoint is from another "
                f"optimizer. It holds {sorted(given['state'].get(first, {}))} for {where}."
            )


def state(optimizer: "Optimizer") -> None:
    """Raise ValueError if a parameter's state is not the one this optimizer would have made for it."""
    for settings in optimizer.param_groups:
        for parameter in settings["params"]:
            found = optimizer.state.get(parameter)
            if not found:
                continue
            where = f"{type(optimizer).__name__}.load_state_dict: {describe(optimizer, parameter)}"
            expected = optimizer.fresh_state(parameter, settings, device="meta")
            if set(found) != set(expected):
                raise ValueError(
                    f"{where}: the state has keys {sorted(map(str, found))}, expected {sorted(expected)}. It was saved "
                    f"by another "
                    "optimizer or with other settings."
                )
            for name, tensor in expected.items():
                got = tuple(found[name].shape) if isinstance(found[name], Tensor) else type(found[name]).__name__
                if got != tuple(tensor.shape):
                    raise ValueError(
                        f"{where}: state {name!r} has shape {got}, expected {tuple(tensor.shape)}. It was saved for "
                        f"another model."
                    )


def select(optimizer: "Optimizer", settings: dict[str, Any], wanted: Any) -> list[Tensor]:
    """The parameters of a group that ``elementwise`` names."""
    if wanted is None:
        return []
    parameters, names = settings["params"], settings.get("param_names") or []
    needs_names = callable(wanted) or any(isinstance(item, str) for item in wanted)
    if needs_names and not names:
        raise ValueError(
            f"{type(optimizer).__name__}: elementwise looks at parameter names, so pass model.named_parameters() "
            f"instead of "
            "model.parameters()"
        )
    if callable(wanted):
        test: Callable[[str, Tensor], bool] = wanted
        return [parameter for name, parameter in zip(names, parameters, strict=True) if test(name, parameter)]
    chosen = {id(tensor) for item in wanted for tensor in _tensors(item)}
    patterns = [item for item in wanted if isinstance(item, str)]
    return [
        parameter
        for place, parameter in enumerate(parameters)
        if id(parameter) in chosen or any(fnmatchcase(names[place], pattern) for pattern in patterns)
    ]


def all_selected(optimizer: "Optimizer", wanted: Any) -> None:
    """Raise ValueError if something that ``elementwise`` names is not among the optimizer's parameters."""
    if wanted is None or callable(wanted):
        return
    names = [name for settings in optimizer.param_groups for name in settings.get("param_names", [])]
    owned = {id(parameter) for settings in optimizer.param_groups for parameter in settings["params"]}
    for item in wanted:
        if isinstance(item, str):
            if not any(fnmatchcase(name, item) for name in names):
                raise ValueError(
                    f"{type(optimizer).__name__}: elementwise pattern {item!r} matches no parameter name; "
                    f"the names are {', '.join(names)}.{did_you_mean(item, names)}"
                )
        elif not any(id(tensor) in owned for tensor in _tensors(item)):
            raise ValueError(
                f"{type(optimizer).__name__}: elementwise names a {type(item).__name__} of which no parameter was "
                "given to the optimizer"
            )


def _tensors(item: Any) -> list[Tensor]:
    if isinstance(item, nn.Module):
        return list(item.parameters())
    if isinstance(item, Tensor):
        return [item]
    if isinstance(item, str):
        return []
    raise TypeError(f"elementwise takes parameters, modules, name patterns or a function; got {type(item).__name__}")
