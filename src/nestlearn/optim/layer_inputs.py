"""What a layer sees and how it errs: covariances of inputs and error signals, recorded by hooks (O12, O15, O19).

For a linear layer y = W x the recorder collects, from one optimizer step to the next and only where a backward pass
came through, A = mean of x x^T [in, in] and B = mean of delta delta^T [out, out] with delta = dL/dy. A convolution is
the linear layer that its patches see.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LayerRecorder", "Sums"]

Layer = nn.Linear | nn.Conv2d

Sums = tuple[Tensor, Tensor | None, int | Tensor]
"""Sums of x x^T [in, in] and of delta delta^T [out, out] (None where they are not wanted) over so many rows."""


class LayerRecorder:
    """Records what layers of ``model`` see.

    Args:
        model: searched for ``nn.Linear`` and ``nn.Conv2d`` (one group).
        rows: at most so many of a batch's rows are used, evenly spaced; None uses all.
        wanted: weight -> what the coming step looks at: nothing, "inputs" (A), or "errors" (B) too. It is asked in each
            backward pass, so that weights may come, go and be replaced.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rows: int | None,
        wanted: Callable[[Tensor], tuple[str, ...]] = lambda weight: ("inputs", "errors"),
    ) -> None:
        self._wanted = wanted
        self._rows = rows
        # By layer: a weight may be replaced, by one that has grown say, and is then still what its layer multiplies.
        self._sums: dict[Layer, Sums] = {}
        self._layers: list[Layer] = [
            layer for layer in model.modules() if isinstance(layer, Layer) and getattr(layer, "groups", 1) == 1
        ]
        self._handles = [layer.register_forward_hook(self._forward) for layer in self._layers]

    def watched(self) -> set[Tensor]:
        """The weights of the layers, as they are now."""
        return {layer.weight for layer in self._layers}

    def recorded(self) -> dict[Tensor, Sums]:
        """Weight -> sums of x x^T and delta delta^T since the last ``drop``, and the number of rows."""
        found: dict[Tensor, Sums] = {}
        for layer, sums in self._sums.items():
            found[layer.weight] = _add(found.get(layer.weight), sums)
        return found

    def drop(self) -> None:
        """Forget what was recorded: a step has used it, or its gradients were dropped."""
        self._sums.clear()

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def __deepcopy__(self, memo: dict[int, object]) -> "LayerRecorder":
        return self._silent()

    def __reduce__(self) -> "tuple[Callable[[], LayerRecorder], tuple[()]]":
        return (LayerRecorder._silent, ())

    @staticmethod
    def _silent() -> "LayerRecorder":
        """What a copied model carries instead of a recorder: a copy's optimizer brings its own."""
        silent = LayerRecorder.__new__(LayerRecorder)
        silent._wanted = lambda weight: ()
        silent._handles, silent._layers, silent._sums = [], [], {}
        return silent

    def _forward(self, layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if torch.is_grad_enabled() and output.requires_grad and layer.weight.requires_grad:
            output.register_hook(partial(self._backward, layer, inputs[0].detach()))

    @torch.no_grad()
    def _backward(self, layer: Layer, inputs: Tensor, error: Tensor) -> None:
        wanted = self._wanted(layer.weight)
        if not wanted:
            return
        if isinstance(layer, nn.Conv2d):
            patches = F.unfold(inputs, layer.kernel_size, layer.dilation, _padding(layer), layer.stride)
            inputs, error = patches.mT, error.flatten(2).mT
        keys, errors = self._sample(inputs), self._sample(error)
        sums = keys.mT @ keys, errors.mT @ errors if "errors" in wanted else None, keys.shape[0]
        # A layer used twice, or gradients that accumulate.
        self._sums[layer] = _add(self._sums.get(layer), sums)

    def _sample(self, tensor: Tensor) -> Tensor:
        rows = tensor.reshape(-1, tensor.shape[-1])
        if self._rows is not None and rows.shape[0] > self._rows:
            rows = rows[:: rows.shape[0] // self._rows]
        return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _add(earlier: Sums | None, sums: Sums) -> Sums:
    if earlier is None:
        return sums
    errors = None if sums[1] is None or earlier[1] is None else sums[1] + earlier[1]
    return sums[0] + earlier[0], errors, sums[2] + earlier[2]


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        raise ValueError(f"layer inputs of a convolution with padding={layer.padding!r}: give the padding as numbers")
    return tuple(layer.padding)
