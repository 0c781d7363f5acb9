"""What an optimizer keeps for a parameter in ``state[parameter]``: plain tensors with dotted names."""

import torch
from torch import Tensor

from nestlearn.memory.state import flatten
from nestlearn.optim.adapter import Adapter
from nestlearn.optim.checks import describe
from nestlearn.optim.lanes import as_real, memory_dtype
from nestlearn.optim.settings import Group
from nestlearn.optim.stacks import Held

__all__ = ["fresh", "initialised", "layout", "surprises", "with_waiting"]


def fresh(
    optimizer: Adapter, parameter: Tensor, group: Group, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """What a state holds before the first write; on device "meta" only its names and shapes."""
    entry = optimizer.entry(parameter, group)
    real = as_real(parameter.detach())
    like = torch.zeros(entry.shape, dtype=memory_dtype(real), device=device or real.device)
    generator = None
    if like.device.type != "meta":
        # The same draw for every parameter of a shape: their order and grouping then do not matter.
        generator = torch.Generator(like.device).manual_seed(group.get("seed", 0))
    made = entry.rule.init({"weight": like}, generator)
    if set(made) - {"weight"}:
        raise TypeError(
            f"{type(optimizer).__name__}: a rule for weights keeps what it remembers under the parameter's name, "
            f"{{'weight': {{...}}}}; init of {type(entry.rule).__name__} returned the keys {sorted(made)}"
        )
    state = flatten(made.get("weight", {}))
    if entry.cut.into > 1:  # every block of a matrix has memories of its own, which begin alike
        state = {name: torch.stack([leaf] * entry.cut.into) for name, leaf in state.items()}
    if group["period"] > 1:
        state["pending"] = torch.zeros(real.shape, dtype=like.dtype, device=like.device)
        if optimizer.layers is not None and not entry.flat:
            state.update(optimizer.layers.waiting(parameter, group, device))
    return {"step": torch.zeros((), dtype=torch.float32), **state}


def layout(optimizer: Adapter, parameter: Tensor, group: Group) -> dict[str, Tensor]:
    """The memories behind a parameter's rule by their names in the state, as tensors without data."""
    names = fresh(optimizer, parameter, group, device="meta")
    return {name: leaf for name, leaf in names.items() if name != "step" and not name.startswith("pending")}


def initialised(optimizer: Adapter, parameter: Tensor, group: Group) -> Held:
    """``state[parameter]``, with what the optimizer keeps there; entries of others are left alone."""
    state = optimizer.state[parameter]
    if "step" not in state:
        new = fresh(optimizer, parameter, group)
        left = sorted(set(new) & set(state))
        if left:
            raise RuntimeError(
                f"{type(optimizer).__name__}: {describe(optimizer, parameter)}: the state holds {left} but no 'step'; "
                "clear it (optimizer.state[parameter].clear()) to start anew, or load a checkpoint"
            )
        state.update(new)
    elif not isinstance(state["step"], Tensor):
        state["step"] = torch.tensor(float(state["step"]), dtype=torch.float32)
    if group["period"] > 1 and "pending" not in state:  # the period has changed since
        new = fresh(optimizer, parameter, group)
        state.update({name: leaf for name, leaf in new.items() if name.startswith("pending")})
    return state


def with_waiting(state: Held, gradient: Tensor) -> Tensor:
    """A gradient and those that have waited for the end of a period, where there is none any more."""
    if "pending" not in state:
        return gradient
    waiting: Tensor = state.pop("pending")
    for name in ("pending_inputs", "pending_errors", "pending_rows"):
        state.pop(name, None)
    return waiting + gradient


def surprises(optimizer: Adapter) -> dict[str, list[Tensor]]:
    """The latest surprise of each memory that records it: memory name -> a 0-D tensor for each parameter that is here.

    Of matrices that ranks share out each rank knows those that it owns.
    """
    found: dict[str, list[Tensor]] = {}
    for values in optimizer.state.values():
        for name, tensor in values.items() if isinstance(values, dict) else ():
            if isinstance(name, str) and name.endswith(".surprise") and not tensor.is_meta:
                found.setdefault(name.rpartition(".")[0], []).append(tensor.mean())
    return found
