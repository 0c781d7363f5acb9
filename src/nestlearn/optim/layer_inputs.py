"""What a layer sees and how it errs: covariances of inputs and error signals, recorded by hooks (O12, O15, O19).

For a linear layer y = W x the recorder collects, from one optimizer step to the next and only where a backward pass
came through, A = mean of x x^T [in, in] and B = mean of delta delta^T [out, out] with delta = dL/dy. A convolution is
the linear layer that its patches see.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LayerRecorder"]

LAYERS = (nn.Linear, nn.Conv2d)


class LayerRecorder:
    """Records the layers of ``model`` whose weights are in ``weights``.

    Args:
        model: searched for ``nn.Linear`` and ``nn.Conv2d`` (one group).
        weights: parameters to record for.
        errors: record error signals (B) too.
        rows: at most so many of a batch's rows are used, evenly spaced; None uses all.
    """

    def __init__(self, model: nn.Module, weights: list[Tensor], *, errors: bool, rows: int | None) -> None:
        self.active = True
        self._errors = errors
        self._rows = rows
        self._sums: dict[Tensor, tuple[Tensor, Tensor | None, int]] = {}
        wanted = {id(weight) for weight in weights}
        layers = [
            layer
            for layer in model.modules()
            if isinstance(layer, LAYERS) and id(layer.weight) in wanted and getattr(layer, "groups", 1) == 1
        ]
        self.weights = {layer.weight for layer in layers}
        self._handles = [layer.register_forward_hook(self._forward) for layer in layers]

    def take(self, weight: Tensor) -> tuple[Tensor, Tensor | None, int] | None:
        """Sums of x x^T and delta delta^T of a weight since the last ``drop``, and the number of rows; None if none."""
        return self._sums.get(weight)

    def drop(self) -> None:
        """Forget what was recorded: a step has used it, or its gradients were dropped."""
        self._sums.clear()

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def __deepcopy__(self, memo: dict[int, Any]) -> "LayerRecorder":
        return self._silent()

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return (LayerRecorder._silent, ())

    @staticmethod
    def _silent() -> "LayerRecorder":
        """What a copied model carries instead of a recorder: a copy's optimizer brings its own."""
        silent = LayerRecorder.__new__(LayerRecorder)
        silent.active, silent._handles, silent._sums = False, [], {}
        return silent

    def _forward(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.active and torch.is_grad_enabled() and output.requires_grad:
            output.register_hook(partial(self._backward, layer, inputs[0].detach()))

    @torch.no_grad()
    def _backward(self, layer: Any, inputs: Tensor, error: Tensor) -> None:
        if not self.active:
            return
        if isinstance(layer, nn.Conv2d):
            patches = F.unfold(inputs, layer.kernel_size, layer.dilation, _padding(layer), layer.stride)
            inputs, error = patches.mT, error.flatten(2).mT
        keys, errors = self._sample(inputs), self._sample(error)
        found_inputs, rows = keys.mT @ keys, keys.shape[0]
        found_errors = errors.mT @ errors if self._errors else None
        earlier = self._sums.get(layer.weight)
        if earlier is not None:  # a layer used twice, or gradients that accumulate
            found_inputs, rows = found_inputs + earlier[0], rows + earlier[2]
            found_errors = None if found_errors is None or earlier[1] is None else found_errors + earlier[1]
        self._sums[layer.weight] = (found_inputs, found_errors, rows)

    def _sample(self, tensor: Tensor) -> Tensor:
        rows = tensor.reshape(-1, tensor.shape[-1])
        if self._rows is not None and rows.shape[0] > self._rows:
            rows = rows[:: rows.shape[0] // self._rows]
        return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        raise ValueError(f"layer inputs of a convolution with padding={layer.padding!r}: give the padding as numbers")
    return tuple(layer.padding)
