"""What a layer sees and how it errs: covariances of inputs and error signals, recorded by hooks (O12, O15, O19).

For a linear layer y = W x the recorder collects, from one optimizer step to the next and only where a backward pass
came through on its way to W, A = mean of x x^T [in, in] and B = mean of delta delta^T [out, out] with delta = dL/dy.

A pass on its way to something else, as that of a gradient penalty or of an adversarial example to the inputs, meets the
answers of a layer as well. So what is met waits until the slope of the weight arrives in the same pass.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nestlearn.optim.ranks import place
from nestlearn.optim.readable import readable_layers, rows_of, weight_of
from nestlearn.optim.sharded import is_sharded

__all__ = ["LayerRecorder", "Sums", "add", "in_backward"]

Sums = tuple[Tensor, Tensor | None, int | Tensor]
"""Sums of x x^T [in, in] and of delta delta^T [out, out] (None where they are not wanted) over so many rows."""

Wanted = Callable[[str, Tensor], tuple[str, ...]]
"""Name of a layer and its weight -> what the coming step looks at: nothing, "inputs" (A), or "errors" (B) too."""


_Met = tuple[int, Tensor, Tensor]
"""A pass, inputs of a layer, and slopes in its answers."""


def in_backward() -> bool:
    """Whether a backward pass is under way: a hook of it has called."""
    return _this_pass() != -1


def _this_pass() -> int:
    """The number of the backward pass that is under way, -1 outside of any."""
    return int(torch._C._current_graph_task_id())


class LayerRecorder:
    """Records what layers of ``model`` see, by the names of the layers: their weights may be replaced, or be gathered
    for a pass from shards.

    Args:
        model: searched for layers that can be read.
        rows: at most so many of a batch's rows are used, evenly spaced over the shares of all ranks; None uses all.
        wanted: is asked in each backward pass.

    Attributes:
        layers: by name.
        called: names of those that have answered, with a graph, since the last ``drop``.
        lost: names of those of which something was not finite, and left out, on a CPU. Elsewhere it is left out without
            being waited for, and no row is counted.
    """

    def __init__(
        self, model: nn.Module, *, rows: int | None, wanted: Wanted = lambda name, weight: ("inputs", "errors")
    ) -> None:
        self._wanted = wanted
        self._rows = rows
        self._sums: dict[str, Sums] = {}
        self.layers = readable_layers(model)
        self.called: set[str] = set()
        self.lost: set[str] = set()
        self._met: dict[str, list[_Met]] = {}
        self._weights: dict[str, tuple[Tensor, RemovableHandle]] = {}
        self._handles: list[RemovableHandle] = []
        for name, layer in self.layers.items():
            self._handles.append(layer.register_forward_pre_hook(partial(self._before, name)))
            self._handles.append(layer.register_forward_hook(partial(self._forward, name), with_kwargs=True))

    def recorded(self, name: str) -> Sums | None:
        """The sums of a layer since they were dropped."""
        return self._sums.get(name)

    def drop(self, names: Iterable[str] | None = None) -> None:
        """Forget what was recorded, of all layers or of some: a step has used it, or its gradients were dropped."""
        if names is None:
            self._sums.clear()
            self._met.clear()
            self.called.clear()
            self.lost.clear()
            return
        for name in names:
            self._sums.pop(name, None)
            self.lost.discard(name)

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in [*self._handles, *(handle for _, handle in self._weights.values())]:
            handle.remove()

    def __deepcopy__(self, memo: dict[int, object]) -> "LayerRecorder":
        return self._silent()

    def __reduce__(self) -> "tuple[Callable[[], LayerRecorder], tuple[()]]":
        return (LayerRecorder._silent, ())

    @staticmethod
    def _silent() -> "LayerRecorder":
        """What a copied model carries instead of a recorder: a copy's optimizer brings its own."""
        silent = LayerRecorder.__new__(LayerRecorder)
        silent._wanted = lambda name, weight: ()
        silent._handles, silent.layers, silent._sums = [], {}, {}
        silent.called, silent.lost, silent._met, silent._weights = set(), set(), {}, {}
        return silent

    # A compiler runs the model around the hooks; it could not trace them, and to try ends in a warning of torch's.
    @torch._disable_dynamo
    def _before(self, name: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Wait for the slope of the weight, which may be another than before: replaced, or gathered from shards."""
        weight, known = weight_of(layer), self._weights.get(name)
        if weight.requires_grad and (known is None or known[0] is not weight) and name in self.layers:
            if known is not None:
                known[1].remove()
            self._weights[name] = weight, weight.register_hook(partial(self._arrived, name))

    @torch._disable_dynamo
    def _forward(
        self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        if torch.is_grad_enabled() and output.requires_grad and weight_of(layer).requires_grad and name in self.layers:
            self.called.add(name)
            inputs: Tensor = args[0] if args else next(iter(kwargs.values()))
            output.register_hook(partial(self._passed, name, inputs.detach()))

    def _passed(self, name: str, inputs: Tensor, error: Tensor) -> None:
        """A backward pass has come to the answer of a layer."""
        if self._wanted(name, weight_of(self.layers[name])):
            now = _this_pass()
            waiting = [met for met in self._met.get(name, ()) if met[0] == now]
            self._met[name] = [*waiting, (now, inputs, error.detach())]

    def _arrived(self, name: str, slope: Tensor) -> None:
        """The pass has come to the weight: what it has met on its way counts."""
        now = _this_pass()
        for number, inputs, error in self._met.pop(name, ()):
            if number == now:
                self._record(name, inputs, error)

    @torch.no_grad()
    def _record(self, name: str, inputs: Tensor, error: Tensor) -> None:
        layer = self.layers[name]
        wanted = self._wanted(name, weight_of(layer))
        if not wanted:
            return
        if is_sharded(inputs) or is_sharded(error):
            raise RuntimeError(
                f"layer {name!r} works on shards of what it sees and answers (tensor parallelism), which is not put "
                "together here. Name its weight in elementwise=, or shard it by FSDP2 alone."
            )
        keys, errors = map(self._sample, rows_of(layer, inputs, error))
        sums: Sums = keys.mT @ keys, errors.mT @ errors if "errors" in wanted else None, keys.shape[0]
        finite = torch.isfinite(errors).all()
        for each in sums[:2]:
            if each is not None:  # no entry is larger than the largest of the diagonal
                finite = finite & torch.isfinite(each.diagonal()).all()
        if finite.device.type != "cpu":
            sums = _where(finite, sums)
        elif not finite:
            self.lost.add(name)
            return
        # A layer used twice, or gradients that accumulate.
        self._sums[name] = add(self._sums.get(name), sums)

    def _sample(self, rows: Tensor) -> Tensor:
        rank, ranks = place()
        if self._rows is not None and rows.shape[0] * ranks > self._rows:
            apart = rows.shape[0] * ranks // self._rows
            rows = rows[-rank * rows.shape[0] % apart :: apart]
        return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _where(finite: Tensor, sums: Sums) -> Sums:
    """The sums, or none of any row."""
    inputs, errors, rows = sums
    return torch.where(finite, inputs, 0), None if errors is None else torch.where(finite, errors, 0), finite * rows


def add(earlier: Sums | None, sums: Sums) -> Sums:
    """Sums over the rows of both."""
    if earlier is None:
        return sums
    errors = None if sums[1] is None or earlier[1] is None else sums[1] + earlier[1]
    return sums[0] + earlier[0], errors, sums[2] + earlier[2]
