"""Modules as memories: every layer with parameters of its own maps its input to its output (M1, M2).

Back-propagation writes a layer y = f(x) with the gradient of <f(x), delta>, delta = dL/dy held fixed: a memory whose
key is the layer's input, whose value is minus its error signal, and whose objective is the dot product. That is exact
for any layer. Layers that are alike are one row. Running statistics are boxes that a training forward writes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from nestlearn.describe.parameters import covered, outermost, tensor_bytes
from nestlearn.describe.system import WEIGHTS, Memory, NestedSystem, sort_into_levels

__all__ = ["describe_module", "with_layers"]


def describe_module(module: nn.Module) -> NestedSystem:
    """The layers of a module, and nothing that writes them."""
    unwritten = replace(outermost(()), rule="no optimizer was given", lr="", retention="")
    trained: list[Tensor] = [] if _is_average(module) else [p for p in module.parameters() if p.requires_grad]
    system = NestedSystem(type(module).__name__, (unwritten,), covers=covered(trained) if trained else "")
    return with_layers([(system, trained)], module)


def with_layers(parts: list[tuple[NestedSystem, list[Tensor]]], module: nn.Module) -> NestedSystem:
    """One learning system: the layers of ``module`` in the place of the weights, and what their rules consult.

    Args:
        parts: systems and the parameters that follow them, the main one first.
        module: parameters that no part has are mentioned in a note.
    """
    average = _is_average(module)
    systems: list[NestedSystem] = []
    for system, parameters in parts:
        (weights,) = (memory for memory in system.memories if memory.home == "weights")
        rows = [] if average else list(_layer_rows(module, parameters, weights))
        known = {id(parameter) for parameter in module.parameters()}
        outside = [parameter for parameter in parameters if id(parameter) not in known]
        if outside:
            sized = outermost(outside)
            name = "outside the module" if rows else WEIGHTS
            rows.append(replace(weights, name=name, count=sized.count, parameters=sized.parameters, bytes=sized.bytes))
        others = [memory for memory in system.memories if memory.home != "weights"]
        boxes = [] if systems else [_average(module, followed=bool(rows))] if average else list(_statistics(module))
        systems.append(replace(system, memories=sort_into_levels([*rows, *others, *boxes])))
    first, *rest = systems
    written = {id(parameter) for _, parameters in parts for parameter in parameters}
    notes = first.notes if average else (*first.notes, *_left_out(module, written))
    return replace(first, notes=notes, others=(*first.others, *rest))


def _is_average(module: nn.Module) -> bool:
    from torch.optim.swa_utils import AveragedModel  # loads slowly, and torch itself does not load it

    return isinstance(module, AveragedModel)


def _pattern(path: str) -> str:
    """'blocks.0.query' -> 'blocks.*.query': what layers of one kind have in common."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


@dataclass(frozen=True)
class _Layer:
    """A layer of a kind, or some of its parameters, by its path in the module."""

    path: str
    kind: str
    parameters: tuple[Tensor, ...]


def _layer_rows(module: nn.Module, parameters: Iterable[Tensor], weights: Memory) -> Iterator[Memory]:
    """A row for each kind of layer that has some of the parameters."""
    chosen = {id(parameter) for parameter in parameters}
    kinds: dict[tuple[str, str], list[_Layer]] = {}
    for layer in _layers(module, chosen):
        kinds.setdefault((_pattern(layer.path), layer.kind), []).append(layer)
    for (pattern, kind), layers in kinds.items():
        own = [parameter for layer in layers for parameter in layer.parameters]
        yield replace(
            weights,
            name=layers[0].path if len(layers) == 1 else pattern,
            model=kind,
            objective="dot_product",
            key="x",
            value="-delta",
            count=len(layers),
            parameters=sum(parameter.numel() for parameter in own),
            bytes=tensor_bytes(own),
        )


def _layers(module: nn.Module, chosen: set[int]) -> Iterator[_Layer]:
    """Each layer with parameters of its own; a parameter that layers share belongs to the first of them."""
    seen: set[int] = set()
    for path, layer in module.named_modules():
        own = {name: p for name, p in layer.named_parameters(recurse=False) if id(p) not in seen}
        mine = {name: parameter for name, parameter in own.items() if id(parameter) in chosen}
        seen |= {id(parameter) for parameter in own.values()}
        if not mine:
            continue
        some = "" if len(mine) == len(own) else f".{','.join(mine)}"
        yield _Layer(f"{path or type(layer).__name__}{some}", _kind(layer, mine), tuple(mine.values()))


def _kind(layer: nn.Module, parameters: dict[str, Tensor]) -> str:
    if isinstance(layer, nn.Linear) and "weight" in parameters:
        return f"Linear {layer.in_features} -> {layer.out_features}"
    shape = next(iter(parameters.values())).shape
    return f"{type(layer).__name__} {' x '.join(map(str, shape))}".strip()


def _average(module: nn.Module, *, followed: bool) -> Memory:
    """The averages of an ``AveragedModel``, a box that follows the weights of another model."""
    averages = list(module.parameters())
    plain = getattr(module, "avg_fn", None) is None and getattr(module, "multi_avg_fn", None) is None
    return Memory(
        "average_weights",
        symbol="A",
        value="W, at each update_parameters",
        lr="1 / (n_averaged + 1)" if plain else "chosen by its averaging function",
        follows=WEIGHTS if followed else "",
        home="model",
        count=len(averages),
        parameters=sum(parameter.numel() for parameter in averages),
        bytes=tensor_bytes(averages),
    )


def _statistics(module: nn.Module) -> Iterator[Memory]:
    """Running statistics, which a training forward writes and nobody reads before evaluation."""
    found: dict[tuple[str, str, str], list[Tensor]] = {}
    for path, layer in module.named_modules():
        for name, value in (("running_mean", "mean of the batch"), ("running_var", "variance of the batch")):
            held = getattr(layer, name, None)
            if isinstance(held, Tensor) and getattr(layer, "track_running_stats", False):
                momentum = getattr(layer, "momentum", None)
                rate = "1 / batches" if momentum is None else f"{momentum:g}"
                found.setdefault((_pattern(f"{path}.{name}".lstrip(".")), value, rate), []).append(held)
    for (pattern, value, rate), tensors in found.items():
        yield Memory(
            pattern,
            value=value,
            lr=rate,
            readout="M, in evaluation only",
            home="model",
            initial="1" if value.startswith("variance") else "0",
            count=len(tensors),
            parameters=sum(tensor.numel() for tensor in tensors),
            bytes=tensor_bytes(tensors),
        )


def _left_out(module: nn.Module, written: set[int]) -> Iterator[str]:
    """Notes on parameters that nothing writes."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if id(parameter) not in written]
    frozen = [(name, parameter) for name, parameter in named if not parameter.requires_grad]
    missing = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    if frozen:
        yield f"frozen, so nothing writes them: {_listed(frozen)}"
    if missing:
        yield f"not given to the optimizer, so nothing writes them: {_listed(missing)}"


def _listed(named: Iterable[tuple[str, Tensor]]) -> str:
    pairs = list(named)
    names = [name for name, _ in pairs]
    shown = ", ".join(names if len(names) < 5 else [*names[:3], f"{len(names) - 3} more"])
    return f"{covered(parameter for _, parameter in pairs)} ({shown})"
