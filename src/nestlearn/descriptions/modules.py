"""Modules as memories: every layer with parameters of its own maps its input to its output (M1, M2).

Back-propagation writes a layer y = f(x) with the gradient of <f(x), delta>, delta = dL/dy held fixed: a memory whose
key is the layer's input, whose value is minus its error signal, and whose objective is the dot product. That is exact
for any layer. Layers that are alike are one row. Running statistics are boxes that a training forward writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nestlearn.descriptions.data import WEIGHTS, sort_into_levels
from nestlearn.descriptions.parameters import covered, outermost
from nestlearn.descriptions.paths import join, pattern, row_names
from nestlearn.descriptions.system import NestedSystem
from nestlearn.memory.described import Described, Piece
from nestlearn.memory.state import state_bytes

if TYPE_CHECKING:
    from nestlearn.descriptions.tokens import Carried

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
    carried = None if _is_average(module) else _look(module)
    systems: list[NestedSystem] = []
    row_of: dict[int, str] = {}
    for system, parameters in parts:
        (weights,) = (memory for memory in system.memories if memory.home == "weights")
        layers = [] if carried is None else _layer_rows(module, carried, parameters, weights)
        row_of |= {id(parameter): row.name for row, own in layers for parameter in own}
        rows = [*(row for row, _ in layers), *_outside(parameters, row_of, weights, named=bool(layers))]
        behind = [memory for memory in system.memories if memory.home != "weights"]
        systems.append(replace(system, memories=sort_into_levels([*rows, *behind])))
    first, *rest = systems
    others = first.others + tuple(rest)
    if carried is None:
        box = _average(module, followed=any(memory.home == "weights" for memory in first.memories))
        return replace(first, memories=sort_into_levels([*first.memories, box]), others=others)
    written = {id(parameter) for _, parameters in parts for parameter in parameters}
    return replace(
        first,
        memories=sort_into_levels([*first.memories, *_statistics(module), *carried.memories(row_of)]),
        known=first.known and carried.known,
        notes=(*first.notes, *_left_out(module, written), *carried.notes),
        sequence_bookkeeping=carried.bookkeeping,
        others=others,
    )


def _look(module: nn.Module) -> Carried:
    # Loads all layers and models, which descriptions of optimizers have no use for.
    from nestlearn.descriptions.tokens import look

    return look(module)


def _outside(
    parameters: Iterable[Tensor], row_of: Mapping[int, str], weights: Described, *, named: bool
) -> Iterator[Described]:
    """A row for the parameters that no row of layers has."""
    outside = [parameter for parameter in parameters if id(parameter) not in row_of]
    if outside:
        sized = outermost(outside)
        name = "outside the module" if named else WEIGHTS
        yield replace(weights, name=name, count=sized.count, parameters=sized.parameters, bytes=sized.bytes)


def _is_average(module: nn.Module) -> bool:
    from torch.optim.swa_utils import AveragedModel  # loads slowly, and torch itself does not load it

    return isinstance(module, AveragedModel)


@dataclass(frozen=True)
class _Layer:
    """A layer of a kind, or some of its parameters, by its path in the module."""

    path: str
    kind: str
    parameters: tuple[Tensor, ...]


def _layer_rows(
    module: nn.Module, carried: Carried, parameters: Iterable[Tensor], weights: Described
) -> list[tuple[Described, list[Tensor]]]:
    """A row for each kind of layer that has some of the parameters, and those that it has."""
    chosen = {id(parameter) for parameter in parameters}
    kinds: dict[tuple[str, str], list[_Layer]] = {}
    for layer in _layers(module, carried, chosen):
        kinds.setdefault((pattern(layer.path), layer.kind), []).append(layer)
    rows = []
    names = row_names([[layer.path for layer in layers] for layers in kinds.values()])
    for name, ((_, kind), layers) in zip(names, kinds.items(), strict=True):
        own = [parameter for layer in layers for parameter in layer.parameters]
        row = replace(
            weights,
            name=name,
            model=kind,
            objective="dot_product",
            key="x",
            value="-delta",
            count=len(layers),
            parameters=sum(parameter.numel() for parameter in own),
            bytes=state_bytes(own),
        )
        rows.append((row, own))
    return rows


def _layers(module: nn.Module, carried: Carried, chosen: set[int]) -> Iterator[_Layer]:
    """Each layer with parameters of its own; a parameter that layers share belongs to the first of them.

    Parameters of a sequence layer are told apart by what they are for.
    """
    seen: set[int] = set()
    for path, layer in module.named_modules():
        for piece in (*carried.pieces(path), Piece("", "", dict(layer.named_parameters(recurse=False)))):
            own = {name: p for name, p in piece.parameters.items() if id(p) not in seen}
            mine = {name: parameter for name, parameter in own.items() if id(parameter) in chosen}
            seen |= {id(parameter) for parameter in own.values()}
            if not mine:
                continue
            some = "" if len(mine) == len(own) else f".{','.join(mine)}"
            kind = piece.words or _kind(layer, mine)
            yield _Layer(f"{join(path, piece.name) or type(layer).__name__}{some}", kind, tuple(mine.values()))


def _kind(layer: nn.Module, parameters: dict[str, Tensor]) -> str:
    if isinstance(layer, nn.Linear) and "weight" in parameters:
        return f"Linear {layer.in_features} -> {layer.out_features}"
    shape = next(iter(parameters.values())).shape
    return f"{type(layer).__name__} {' x '.join(map(str, shape))}".strip()


def _average(module: nn.Module, *, followed: bool) -> Described:
    """The averages of an ``AveragedModel``, a box that follows the weights of another model."""
    averages = list(module.parameters())
    plain = getattr(module, "avg_fn", None) is None and getattr(module, "multi_avg_fn", None) is None
    return Described(
        "average_weights",
        symbol="A",
        value="W, at each update_parameters",
        lr="1 / (n_averaged + 1)" if plain else "chosen by its averaging function",
        follows=WEIGHTS if followed else "",
        home="model",
        count=len(averages),
        parameters=sum(parameter.numel() for parameter in averages),
        bytes=state_bytes(averages),
    )


def _statistics(module: nn.Module) -> Iterator[Described]:
    """Running statistics, which a training forward writes and nobody reads before evaluation."""
    found: dict[tuple[str, str, str], list[Tensor]] = {}
    for path, layer in module.named_modules():
        for buffer, value in (("running_mean", "mean of the batch"), ("running_var", "variance of the batch")):
            held = getattr(layer, buffer, None)
            if isinstance(held, Tensor) and getattr(layer, "track_running_stats", False):
                momentum = getattr(layer, "momentum", None)
                rate = "1 / batches" if momentum is None else f"{momentum:g}"
                found.setdefault((pattern(join(path, buffer)), value, rate), []).append(held)
    for (name, value, rate), tensors in found.items():
        yield Described(
            name,
            value=value,
            lr=rate,
            readout="M, in evaluation only",
            home="model",
            initial="1" if value.startswith("variance") else "0",
            count=len(tensors),
            parameters=sum(tensor.numel() for tensor in tensors),
            bytes=state_bytes(tensors),
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
