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
        # Sums of x x^T and delta delta^T and the number of rows, of the present batch and of earlier steps of a period.
        self._sums: dict[Tensor, list[Any]] = {}
        self._kept: dict[Tensor, list[Any]] = {}
        wanted = {id(weight) for weight in weights}
        layers = [
            layer
            for layer in model.modules()
            if isinstance(layer, LAYERS) and id(layer.weight) in wanted and getattr(layer, "groups", 1) == 1
        ]
        self.weights = {layer.weight for layer in layers}
        self._handles = [layer.register_forward_hook(self._forward) for layer in layers]

    def take(self, weight: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """(A, B) of a weight since it was last forgotten, single precision or better; None if nothing came through."""
        sums = self._kept.get(weight)
        return None if sums is None else (sums[0] / sums[2], None if sums[1] is None else sums[1] / sums[2])

    def keep(self) -> None:
        """Count what was recorded: its gradients are used by a step."""
        for weight, sums in self._sums.items():
            kept = self._kept.get(weight)
            self._kept[weight] = (
                sums if kept is None else [None if x is None else x + y for x, y in zip(kept, sums, strict=True)]
            )
        self._sums.clear()

    def drop(self) -> None:
        """Forget what was recorded since the last ``keep``: its gradients were dropped."""
        self._sums.clear()

    def forget(self, weight: Tensor) -> None:
        """Forget what was kept for a weight: it has been written."""
        self._kept.pop(weight, None)

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
        silent.active, silent._handles, silent._sums, silent._kept = False, [], {}, {}
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
        scale = keys.shape[0]
        total = self._sums.setdefault(layer.weight, [0, 0 if self._errors else None, 0])
        total[0] = total[0] + keys.mT @ keys
        if self._errors:
            total[1] = total[1] + errors.mT @ errors
        total[2] += scale

    def _sample(self, tensor: Tensor) -> Tensor:
        rows = tensor.reshape(-1, tensor.shape[-1])
        if self._rows is not None and rows.shape[0] > self._rows:
            rows = rows[:: rows.shape[0] // self._rows]
        return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        raise ValueError(f"layer inputs of a convolution with padding={layer.padding!r}: give the padding as numbers")
    return tuple(layer.padding)
