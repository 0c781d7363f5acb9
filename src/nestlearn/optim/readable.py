"""Which layers can be read: as the linear map y = W x of rows that stands behind each of them (O12, O15, O19)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Convolution", "is_turned", "readable_layers", "refusal", "rows_of", "weight_of"]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

KINDS = "nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d and the Conv1D of transformers"


def readable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model that can be read, by their names in it."""
    inner = {id(child) for module in model.modules() if _uses_weights(module) for child in module.children()}
    return {
        name: layer
        for name, layer in model.named_modules()
        if id(layer) not in inner and _is_linear_map(layer) and "weight" in dict(layer.named_parameters(recurse=False))
    }


def weight_of(layer: nn.Module) -> Tensor:
    """The weight of a readable layer, as it is now."""
    weight = layer.weight
    assert isinstance(weight, Tensor), "a readable layer has a weight"
    return weight


def is_turned(layer: nn.Module) -> bool:
    """Whether the weight is stored as [in, out], as GPT-2's is."""
    return any(f"{kind.__module__}.{kind.__qualname__}" == _TURNED for kind in type(layer).__mro__)


_TURNED = "transformers.pytorch_utils.Conv1D"


def rows_of(layer: nn.Module, inputs: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """What a readable layer has seen, and the slopes of the loss in its answers, row by row: [n, in] and [n, out].

    A convolution is the linear map that its patches see: a row for every position of its answer.

    Args:
        layer: nn.Linear and the like, or a convolution in one group.
        inputs: what it was called with; [*B, in], or [B, in, *space] with or without the B.
        error: dL/dy, shaped like the answer.
    """
    if isinstance(layer, Convolution):
        dims = len(layer.kernel_size)
        if inputs.ndim == dims + 1:
            inputs, error = inputs.unsqueeze(0), error.unsqueeze(0)
        return _patches(layer, inputs), error.movedim(1, -1).flatten(0, -2)
    return inputs.reshape(-1, inputs.shape[-1]), error.reshape(-1, error.shape[-1])


def _patches(layer: Convolution, inputs: Tensor) -> Tensor:
    """[B, in, *space] as patches [B * positions, in * kernel], in the order in which the weight has its entries."""
    dims = len(layer.kernel_size)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padding = [length for sides in reversed(list(_padding(layer))) for length in sides]
    seen = F.pad(inputs, padding, mode=mode) if any(padding) else inputs
    for place, (size, stride, dilation) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), start=2
    ):
        seen = seen.unfold(place, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return seen.movedim(1, 1 + dims).flatten(-1 - dims).flatten(0, -2)


def _padding(layer: Convolution) -> Iterator[tuple[int, int]]:
    """What is put before and behind each dimension."""
    for place, (size, dilation) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        if layer.padding == "same":
            total = dilation * (size - 1)
            yield total // 2, total - total // 2
        elif layer.padding == "valid":
            yield 0, 0
        else:
            assert not isinstance(layer.padding, str), "torch knows two words for it"
            yield layer.padding[place], layer.padding[place]


def refusal(model: nn.Module, parameter: Tensor) -> str:
    """Why nothing can be read for a parameter that belongs to no readable layer."""
    found = _owner(model, parameter)
    if found is None:
        return "is no parameter of model="
    name, module = found
    user = model.get_submodule(name.rpartition(".")[0]) if name else module
    if _uses_weights(module) or _uses_weights(user):
        return "nn.MultiheadAttention multiplies by it without calling a layer"
    groups = getattr(module, "groups", 1)
    if isinstance(module, Convolution) and groups > 1:
        return f"a convolution in {groups} groups is as many maps at once"
    return f"it belongs to {type(module).__name__}, and what can be read are {KINDS}"


def _owner(model: nn.Module, parameter: Tensor) -> tuple[str, nn.Module] | None:
    """The module that holds a parameter, and its name in the model."""
    for name, module in model.named_modules():
        if any(own is parameter for own in module.parameters(recurse=False)):
            return name, module
    return None


def _uses_weights(module: nn.Module) -> bool:
    """Whether a module takes the weights of its children instead of calling them."""
    return isinstance(module, nn.MultiheadAttention)


def _is_linear_map(layer: nn.Module) -> bool:
    if isinstance(layer, Convolution):
        return layer.groups == 1
    return isinstance(layer, nn.Linear) or is_turned(layer)
