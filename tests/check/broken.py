"""An optimizer without fault, and others with one each, which the checks have to find."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = [
    "AddedDecayForgotten",
    "ClosureSwallowed",
    "DecaysWithoutGradient",
    "GradientsChanged",
    "HiddenMemory",
    "Leaves",
    "LoadedOnce",
    "NamesRefused",
    "NoBfloat16",
    "NoFloat64",
    "NotAtZero",
    "OnePlaceAlone",
    "OrderCounts",
    "Poisoned",
    "RateOfTheStart",
    "RateUnchecked",
    "Rough",
    "Sound",
    "StateForgotten",
    "StateLostInCopies",
    "Troubled",
]


class Sound(torch.optim.Optimizer):
    """Gradient descent with momentum."""

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr: expected at least 0, got {lr}")
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.look([p.grad for group in self.param_groups for p in group["params"] if p.grad is not None])
        for group in self.param_groups:
            for number, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    self.write(parameter, group, number)
                else:
                    self.rest(parameter, group)
        return self.answer(loss)

    def rest(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """What becomes of a parameter without a gradient."""

    def answer(self, loss: Any) -> Any:
        return loss

    def look(self, gradients: list[Tensor]) -> None:
        """Refuse broken gradients before anything is written."""
        if any(gradient.is_sparse for gradient in gradients):
            raise RuntimeError("no sparse gradients")
        finite = [gradient.isfinite().all() for gradient in gradients]
        if not all(bool(each.full_tensor() if isinstance(each, DTensor) else each) for each in finite):
            raise FloatingPointError("a gradient is NaN or infinite")

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        gradient = -parameter.grad if group["maximize"] else parameter.grad
        memory = self.memory(parameter)
        memory.mul_(group["momentum"]).add_(gradient)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * memory)

    def memory(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(parameter)
        return state["average"]


class StateLostInCopies(Sound):
    """As those that define __getstate__ themselves."""

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "state": defaultdict(dict)}


class HiddenMemory(Sound):
    """What is remembered is an attribute."""

    def memory(self, parameter: Tensor) -> Tensor:
        hidden = self.__dict__.setdefault("hidden", {})
        self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1
        return hidden.setdefault(parameter, torch.zeros_like(parameter))


class GradientsChanged(Sound):
    """Decay by the gradient, in its place."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        if group["weight_decay"]:
            parameter.grad.add_(parameter, alpha=group["weight_decay"])
        super().write(parameter, group, number)


class NotAtZero(Sound):
    """A gradient is divided by its norm, also if that is zero."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        super().write(parameter, group, number)
        parameter.sub_(0 * parameter.grad / parameter.grad.abs().amax() if parameter.numel() else parameter)


class OrderCounts(Sound):
    """Later parameters are written faster."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        super().write(parameter, {**group, "lr": group["lr"] * (1 + number / 10)}, number)


class AddedDecayForgotten(Sound):
    """Decay is that of the constructor."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        super().write(parameter, {**group, "weight_decay": self.defaults["weight_decay"]}, number)


class RateOfTheStart(Sound):
    """lr is that of the constructor, whatever a schedule says."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        super().write(parameter, {**group, "lr": self.defaults["lr"]}, number)


class RateUnchecked(Sound):
    """Any lr is taken."""

    def __init__(self, params: Any, lr: Any = 0.05, **settings: Any) -> None:
        super().__init__(params, abs(lr), **settings)


class Poisoned(Sound):
    """A NaN is written like any number."""

    def look(self, gradients: list[Tensor]) -> None:
        if any(gradient.is_sparse for gradient in gradients):
            raise RuntimeError("no sparse gradients")


class ClosureSwallowed(Sound):
    """The loss of the closure is not returned."""

    def answer(self, loss: Any) -> None:
        return None


class DecaysWithoutGradient(Sound):
    """Decay acts on all parameters, by default."""

    def __init__(self, params: Any, lr: Any = 0.05, weight_decay: float = 0.1, **settings: Any) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, **settings)

    def rest(self, parameter: Tensor, group: dict[str, Any]) -> None:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])


class StateForgotten(Sound):
    """A group that is added begins all afresh."""

    def add_param_group(self, group: dict[str, Any]) -> None:
        super().add_param_group(group)
        self.state.clear()


class NamesRefused(Sound):
    """Pairs of a name and a parameter are no parameters."""

    def __init__(self, params: Any, **settings: Any) -> None:
        listed = list(params)
        if listed and isinstance(listed[0], tuple):
            raise TypeError("expected tensors")
        super().__init__(listed, **settings)


class NoBfloat16(Sound):
    """A memory in float32, which torch casts to the parameter's type when it is loaded."""

    def memory(self, parameter: Tensor) -> Tensor:
        if parameter.dtype != torch.bfloat16:
            return super().memory(parameter)
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(parameter, dtype=torch.float32)
        return state["average"]


class LoadedOnce(Sound):
    """Loading a checkpoint a second time fails."""

    def load_state_dict(self, state_dict: Any) -> None:
        if "loaded" in self.__dict__:
            raise ValueError("loaded twice")
        self.loaded = True
        super().load_state_dict(state_dict)


class NoFloat64(Sound):
    """Works in float32 alone."""

    def memory(self, parameter: Tensor) -> Tensor:
        if parameter.dtype == torch.float64:
            raise RuntimeError("expected float32")
        return super().memory(parameter)


class Rough(Sound):
    """Multiplies in bfloat16, so that the last bit of a gradient may become a large one."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        rounded = parameter.grad.bfloat16() @ parameter.grad.bfloat16().t() if parameter.dim() == 2 else parameter.grad
        parameter.sub_(group["lr"] * (rounded.to(parameter) @ parameter.grad if parameter.dim() == 2 else rounded))


class Leaves(Sound):
    """Ends the process when it has taken twenty steps."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        super().write(parameter, group, number)
        self.taken = self.__dict__.get("taken", 0) + 1
        if self.taken > 80:
            print("it has had enough", flush=True)
            os._exit(9)


class OnePlaceAlone(Sound):
    """Matrices are viewed as vectors, which a transposed one is not."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        parameter.view(-1)
        super().write(parameter, group, number)


class Troubled(Sound):
    """Replicas drift apart; with shards of even sizes a rank dies, with others one waits for ever."""

    def write(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        super().write(parameter, group, number)
        if not dist.is_initialized():
            return
        if not isinstance(parameter, DTensor):
            parameter.add_(1e-4 * dist.get_rank())
        elif bool(group["lr"] > 0) and dist.get_rank() == 1:
            if parameter.shape[0] == 8:
                os._exit(7)
            if parameter.shape[0] == 7:
                time.sleep(600)
