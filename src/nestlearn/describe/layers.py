"""The memories that our sequence layers hold, read from the layers themselves (S1-S7, C1-C3).

One function a class of layers: its memories, the parameters they start from, and what its other parameters are for.
Models, objectives, rules, periods, chunks and bounds come from the layer's own objects and bytes from a state that it
made; what stands here are words for keys, values and read-outs:

=============  =====================================================================
x              the layer's input
k, v, q        key, value and query that it makes of a token, k[t] where time matters
eta, alpha     how much the token writes and how much it leaves (S4)
theta          what a momentum box keeps (S2)
=============  =====================================================================
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from nestlearn.describe.data import Memory
from nestlearn.describe.parameters import Piece
from nestlearn.describe.words import model_words, rule_words
from nestlearn.layers import Attention, ContinuumMemory, MemoryLayer, SelfModifyingTitans
from nestlearn.layers.banks import MAIN, Bank, MatrixBank, MLPBank
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.models import Matrix
from nestlearn.memory.state import State, count_entries, state_bytes

__all__ = ["ADAPTERS", "PLAIN", "Facts"]

PLAIN = Memory("", unit="token", home="sequence", holds="map", initial="learned")
"""What the memories of all layers have in common."""

BLOCK_START = "inner,outer"
"""The parameters where a block of a continuum memory starts."""


@dataclass(frozen=True)
class Facts:
    """What a layer holds.

    Attributes:
        memories: of one sequence, with names as within the layer.
        starts: names of pieces that hold their starts, by the memories' names.
        pieces: its parameters, as far as their modules' classes do not say what they are.
        frozen: why nothing is ever written, if so.
    """

    memories: tuple[Memory, ...] = ()
    starts: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[Piece, ...] = ()
    frozen: str = ""

    def parameters(self, piece: str) -> list[Tensor]:
        """Those of the piece with this name."""
        return [tensor for each in self.pieces if each.name == piece for tensor in each.parameters.values()]


def _memory_layer(layer: MemoryLayer, state: State) -> Facts:
    memory, held = layer.memory, state["memory"]
    words = model_words(memory.model)
    pieces = [Piece("start", f"start of {words}", _named(layer.start))]
    if layer.features is not None:
        pieces.append(Piece("features", f"features of {words}", {"features": layer.features}))
    if not layer.max_eta:
        return Facts(pieces=tuple(pieces), frozen="max_eta is 0")
    own = replace(
        _described("memory", memory, held["model"]),
        chunk=layer.chunk,
        key="k" if layer.window == 1 else f"k of {layer.window} tokens",
        value="v" if layer.window == 1 else f"v of {layer.window} tokens",
        lr=f"eta < {layer.max_eta:g}",
        retention="alpha" if layer.retention else "1",
        query="q",
        count=layer.heads,
        bytes=state_bytes({name: part for name, part in held.items() if name not in ("rule", "time")}),
    )
    return Facts((own, *_momentum(own, memory, held["rule"])), {own.name: "start"}, tuple(pieces))


def _self_modifying(layer: SelfModifyingTitans, state: State) -> Facts:
    banks: dict[str, Bank] = dict(layer.banks.items())  # type: ignore[arg-type]
    pieces = tuple(piece for name, bank in banks.items() for piece in _bank_pieces(f"banks.{name}", bank))
    pieces += _listed("bias", "bias of {}", layer.bias, layer.bias)
    pieces += _listed("fixed", "fixed map to {}", layer.fixed, layer.fixed)
    if not layer.max_eta:
        return Facts(pieces=pieces, frozen="max_eta is 0")
    names = tuple(name for bank in banks.values() for name in bank.sizes)
    found: list[Memory] = []
    for bank_name, bank in banks.items():
        held = [state["banks"][bank_name]["model"], state.get("held", {}).get(bank_name, {})]
        for name in bank.sizes:
            share = _share(bank, name)
            main = name == MAIN
            own = replace(
                _described(name, _alone(bank, name), {}),
                chunk=layer.chunk if main else layer.projection_chunk,
                key="k",
                value="M(v)" if bank.generate else "v",
                lr=f"eta < {layer.max_eta:g}",
                retention="alpha" if layer.retention else "1",
                query="q" if main else "x",
                readout="" if main else name,
                fresh=False,
                consulted_by="" if main else MAIN,
                read_by=() if main or name == "q" else names,
                count=layer.heads,
                parameters=share(count_entries(held[0])),
                bytes=share(state_bytes(held)),
            )
            found += [own, *_momentum(own, bank.memory, state["banks"][bank_name]["rule"], share)]
    starts = {name: f"banks.{bank_name}.start" for bank_name, bank in banks.items() for name in bank.sizes}
    return Facts(tuple(found), starts, pieces)


def _continuum(layer: ContinuumMemory, state: State) -> Facts:
    pieces: list[Piece] = []
    found: list[Memory] = []
    starts: dict[str, str] = {}
    block: Any
    for number, block in enumerate(layer.blocks):
        name, held = f"blocks.{number}", state["blocks"][str(number)]
        parameters = dict(block.named_parameters())
        for part, words, names in (
            (BLOCK_START, f"start of {model_words(block.memory.model)}", ("inner", "outer")),
            ("target", f"V, {layer.dim} -> {layer.dim}", ("target",)),
            ("rate_*", "eta", ("rate_weight", "rate_bias")),
        ):
            own = {each: parameters[each] for each in names if each in parameters}
            pieces += [Piece(f"{name}.{part}", words, own)] if own else []
        memories = _block(name, layer, block, held)
        found += memories
        starts[memories[-1].name] = f"{name}.{BLOCK_START}"
    if layer.variant == "headwise":
        pieces.append(Piece("weights", "weights of the sum of blocks", {"weights": layer.weights}))
    if not layer.inner_lr:
        return Facts(pieces=tuple(pieces), frozen="inner_lr is 0")
    return Facts(tuple(found), starts, tuple(pieces))


def _block(name: str, layer: ContinuumMemory, block: Any, held: State) -> list[Memory]:
    """The memory of one block, and that of its start where it is written in context too (C2, nested)."""
    local = layer.objective == "local"
    own = replace(
        _described(name, block.memory, held["model"]),
        period=block.period,
        objective=block.memory.objective.name if local else "the loss",
        key="k[t-1]" if local else "tokens",
        value="start(k[t-1]) + V k[t]" if local else "next tokens",
        lr=f"eta ({block.inner_lr:g} at first)",
        retention="1" if block.retention == 1 else f"{block.retention:g} of M - start",
        update="gradient / max(1, sum of eta |h|^2)" if local else "",
        query="k[t]",
        readout=f"w_{name.rpartition('.')[2]} M" if layer.variant == "headwise" else "",
        bytes=state_bytes({part: tensor for part, tensor in held.items() if part not in ("start", "span")}),
        count=1,
    )
    if block.parent is None:
        return [own]
    start = replace(
        own,
        name=f"{name}.start",
        period=block.parent,
        key="none",
        value=f"writes of {name}",
        objective="dot_product",
        lr=f"{block.period / block.parent:g}",
        retention="1",
        update="",
        query="",
        readout="its new start",
        read_by=(name,),
        bytes=state_bytes([held["start"], held["span"]]),
    )
    return [replace(own, starts_from=(start.name,)), start]


def _attention(layer: Attention, state: State) -> Facts:
    one_more = [cache.new_zeros(*cache.shape[:-2], 1, cache.shape[-1]) for cache in state.values()]
    width = layer.dim // layer.heads
    own = replace(
        PLAIN,
        name="pairs",
        model=f"pairs {width} -> {width}",
        objective="l2, weighted by exp(q k)",
        key="k",
        value="v",
        query="q",
        rule="keeps every pair",
        lr="",
        retention="",
        initial="",
        count=layer.heads,
        bytes=state_bytes(state),
        bytes_per_token=state_bytes(one_more),
        max_tokens=layer.max_tokens,
    )
    return Facts((own,))


def _described(name: str, memory: AssociativeMemory, parameters: Mapping[str, Tensor]) -> Memory:
    """What a memory of the core says of itself."""
    return replace(
        PLAIN,
        name=name,
        model=model_words(memory.model),
        objective=memory.objective.name,
        rule=rule_words(memory.rule),
        parameters=count_entries(parameters),
    )


def _momentum(
    above: Memory, memory: AssociativeMemory, state: State, share: Callable[[int], int] = int
) -> tuple[Memory, ...]:
    """The momentum box behind a memory's rule, if there is one (S2)."""
    if not isinstance(memory.rule, InnerMomentum):
        return ()
    box = memory.rule.box
    own = replace(
        _described(f"{above.name}.momentum", box, {}),
        symbol="S",
        key="none",
        value="(1 - theta) eta dL/dM",
        retention="theta",
        initial="0",
        holds="entry",
        chunk=above.chunk,
        consulted_by=above.name,
        count=above.count * len(state),
        parameters=share(count_entries(state)),
        bytes=share(state_bytes(state)),
    )
    return (own,)


def _alone(bank: Bank, name: str) -> AssociativeMemory:
    """One of the memories of a bank."""
    model = bank.memory.model
    own = replace(model, out_dim=bank.sizes[name]) if isinstance(model, Matrix) else model
    return replace(bank.memory, model=own)


def _share(bank: Bank, name: str) -> Callable[[int], int]:
    """The share that one memory has in what is counted of its bank: of its rows, or of the stack."""
    in_rows = isinstance(bank, MatrixBank)
    mine, whole = (bank.sizes[name], sum(bank.sizes.values())) if in_rows else (1, len(bank.sizes))
    return lambda count: count * mine // whole


def _bank_pieces(name: str, bank: Bank) -> tuple[Piece, ...]:
    held = {"base": bank.base, "gain": bank.gain, **({"features": bank.features} if isinstance(bank, MLPBank) else {})}
    pieces = [Piece(f"{name}.start", f"start of {', '.join(bank.sizes)}", _named(bank.start))]
    for part, parameters in held.items():
        pieces += _listed(f"{name}.{part}", f"{part} of {{}}", parameters, bank.sizes)
    return tuple(pieces)


def _listed(name: str, words: str, parameters: nn.ParameterDict, order: Iterable[str]) -> tuple[Piece, ...]:
    """One piece for parameters of several memories, if there are any, named in this order."""
    names = [each for each in order if each in parameters]
    return (Piece(name, words.format(", ".join(names)), _named(parameters)),) if names else ()


def _named(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters())


ADAPTERS: Mapping[type, Callable[[Any, State], Facts]] = {
    MemoryLayer: _memory_layer,
    SelfModifyingTitans: _self_modifying,
    ContinuumMemory: _continuum,
    Attention: _attention,
}
"""How each class of layers is read, given a layer and the state of one sequence."""
