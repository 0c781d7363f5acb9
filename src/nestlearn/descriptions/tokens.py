"""What a module carries along a sequence: the memories of its layers, and the bytes of one sequence's state.

The state is made on the meta device, with stand-ins for the parameters, so that a model of any size is described
without its memory. Layers of one kind are one row, as in `nestlearn.descriptions.modules`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import getattr_static
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from nestlearn.descriptions.paths import join, pattern, row_names
from nestlearn.descriptions.stacked import continuum_of, facts_of, remarks_on
from nestlearn.layers import SequenceLayer
from nestlearn.layers.facts import PLAIN
from nestlearn.memory.described import Described, Facts, Piece
from nestlearn.memory.state import State, flatten, state_bytes
from nestlearn.models import Continuum, LanguageModel

__all__ = ["Carried", "look"]

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Carried:
    """What a module carries along a sequence.

    Attributes:
        layers: facts of its sequence layers, by their paths.
        bookkeeping: bytes of state that are no memory.
        known: whether all of it is understood.
        notes: what a reader should know besides.
    """

    layers: Mapping[str, Facts]
    bookkeeping: int
    known: bool
    notes: tuple[str, ...]

    def pieces(self, path: str) -> tuple[Piece, ...]:
        """The parameters of a module by what they are for, if it is a sequence layer that we know."""
        return self.layers[path].pieces if path in self.layers else ()

    def memories(self, row_of: Mapping[int, str]) -> list[Described]:
        """All memories; ``row_of`` has the name of the weights that hold a parameter, by its id."""
        kinds: dict[Any, dict[str, Facts]] = {}
        for path, facts in self.layers.items():
            if facts.memories:
                kinds.setdefault((pattern(path), facts.memories), {})[path] = facts
        found = []
        for name, layers in zip(row_names([list(layers) for layers in kinds.values()]), kinds.values(), strict=True):
            alike = list(layers.values())
            found += [_placed(memory, name, alike, row_of) for memory in alike[0].memories]
        return found


def look(module: nn.Module) -> Carried:
    """Find the sequence layers of a module and read them."""
    found = _Search()
    found.visit("", module)
    bookkeeping = found.bytes - sum(memory.bytes for facts in found.layers.values() for memory in facts.memories)
    notes = (
        f"{name or kind}{f' ({kind})' if name else ''}: {words}"
        for (_, kind, words), paths in found.remarks.items()
        for name in row_names([paths])
    )
    return Carried(found.layers, bookkeeping, found.known, tuple(notes))


class _Search:
    """A walk through a module: facts by path, bytes of all state of a sequence, and remarks for notes."""

    def __init__(self) -> None:
        self.layers: dict[str, Facts] = {}
        self.bytes = 0
        self.known = True
        self.remarks: dict[tuple[str, str, str], list[str]] = {}
        self._visited: set[int] = set()

    def visit(self, path: str, module: nn.Module) -> None:
        if id(module) in self._visited:
            return
        self._visited.add(id(module))
        if (continuum := continuum_of(module)) is not None:
            self._stacked(path, module, continuum)
        before, layers = self.bytes, len(self.layers)
        for name, child in module.named_children():
            self.visit(join(path, name), child)
        if isinstance(module, LanguageModel):
            self.bytes += state_bytes({name: part for name, part in _state(module).items() if name != "parts"})
        elif isinstance(module, SequenceLayer):
            self._read(path, module, self.bytes - before, len(self.layers) > layers)
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            self._remark(path, module, "what it carries from token to token is not described")

    def _stacked(self, path: str, model: nn.Module, continuum: Continuum) -> None:
        """The blocks of a pretrained model that a text writes."""
        blocks, held = facts_of(continuum)
        self.layers |= {join(path, name): facts for name, facts in blocks.items()}
        self.bytes += held
        for words in remarks_on(continuum):
            self._remark(path, model, words)

    def _read(self, path: str, layer: SequenceLayer, inside: int, has_layers: bool) -> None:
        """Facts of one layer, of whose state layers within it have had ``inside`` bytes."""
        speaks = _speaks(layer)
        try:
            state = _state(layer)
        except (RuntimeError, NotImplementedError) as error:
            if speaks:
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            self._unknown(path, layer, f"not known to us, and its state cannot be made without memory ({reason})")
            return
        rest = state_bytes(state) - inside
        self.bytes += rest
        facts = layer.facts(state) if speaks else None
        if facts is not None:
            self.layers[path] = facts
            if facts.frozen:
                self._remark(path, layer, f"{facts.frozen}, so nothing is written in context")
        elif has_layers and rest:
            self._unknown(path, layer, f"{rest} bytes of its state are not in the layers within it, and not described")
        elif not has_layers and state:
            self.layers[path] = Facts(tuple(_tensors(state)))
            self._unknown(
                path, layer,
                "not known to us; what is listed are the tensors in its state, how they are written we do not know, "
                "and that every token writes them is assumed",
            )  # fmt: skip

    def _unknown(self, path: str, layer: nn.Module, words: str) -> None:
        self.known = False
        self._remark(path, layer, words)

    def _remark(self, path: str, module: nn.Module, words: str) -> None:
        self.remarks.setdefault((pattern(path), type(module).__name__, words), []).append(path)


class _Beginning(nn.Module):
    """``initial_state`` as a forward pass, which torch can run with stand-ins for all parameters."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner

    def forward(self) -> State:
        state: State = self.owner.initial_state(1)  # type: ignore[operator]
        return state


def _state(owner: nn.Module) -> State:
    """The state of one sequence before its first token, on the meta device."""
    held = [*owner.named_parameters(prefix="owner"), *owner.named_buffers(prefix="owner")]
    stand_ins = {name: torch.empty_like(tensor, device="meta") for name, tensor in held}
    with torch.no_grad():
        state: State = functional_call(_Beginning(owner), stand_ins, ())
    return state


def _speaks(layer: SequenceLayer) -> bool:
    """Whether a layer says what it holds, and it is still true: a subclass has left the ways of the class that says it
    alone.
    """
    kind = type(layer)
    teller = next(base for base in kind.__mro__ if "facts" in vars(base))
    above = [base for base in teller.__mro__ if issubclass(base, SequenceLayer)]
    own = [(name, item) for base in above for name, item in vars(base).items() if not name.startswith("__")]
    ways = {name for name, item in own if callable(item) or isinstance(item, property)} - {"extra_repr"}
    same = all(getattr_static(kind, name) is getattr_static(teller, name) for name in ways)
    return same and teller is not SequenceLayer


def _tensors(state: State) -> Iterator[Described]:
    """A memory for each tensor of numbers in the state of a layer that we do not know."""
    for name, held in flatten(state).items():
        if held.is_floating_point():
            yield replace(
                PLAIN,
                name=name,
                model=UNKNOWN, objective=UNKNOWN, key=UNKNOWN, value=UNKNOWN, rule=UNKNOWN, lr="", retention="",
                holds=UNKNOWN, initial="", count=1, parameters=held.numel(), bytes=state_bytes(held),
            )  # fmt: skip


def _placed(memory: Described, name: str, alike: list[Facts], row_of: Mapping[int, str]) -> Described:
    """A memory of layers that are alike, by its name in the whole module."""

    def outside(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(join(name, each) for each in names)

    learned = [facts.parameters(facts.starts[memory.name]) for facts in alike if memory.name in facts.starts]
    rows = dict.fromkeys(row_of[id(tensor)] for held in learned for tensor in held if id(tensor) in row_of)
    times = len(alike)
    return replace(
        memory,
        name=join(name, memory.name),
        consulted_by=join(name, memory.consulted_by) if memory.consulted_by else "",
        read_by=outside(memory.read_by),
        starts_from=(*outside(memory.starts_from), *rows),
        count=times * memory.count,
        parameters=times * memory.parameters,
        bytes=times * memory.bytes,
        bytes_per_token=times * memory.bytes_per_token,
    )
