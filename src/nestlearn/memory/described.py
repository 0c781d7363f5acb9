"""A memory in words, numbers and expressions: what a description says of each (M1-M5).

Whoever holds memories says it of them, an optimizer's rule or a layer; ``nestlearn.describe`` sorts them into levels
and shows them. To read a description that somebody stored takes no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Described", "Facts", "Piece"]


@dataclass(frozen=True)
class Described:
    """One memory in words, numbers and expressions.

    Attributes:
        name: what it is called; the memories of one role in many parameters are one entry.
        symbol: what expressions call it.
        level: its place in the order of frequencies, 1 being the slowest (M4).
        period: it is written every so many optimizer steps or tokens.
        collects: what comes in a period is summed and written at its end; otherwise only the first of it is shown.
        unit: "step" or "token", what the period is counted in.
        chunk: tokens whose gradients are taken at one state, the first one's (S6); what they write comes at once.
        model: what holds the map: "box", "MLP 64-32-64", "Linear 64 -> 10".
        objective: what a good answer is, by the name of the core's objective.
        key, value: what it is shown; a box has no key.
        rule: what writes it.
        lr, retention: numbers of the rule, as expressions: theta <- retention theta - lr update (M3).
        update: the rule's update where it is not the gradient of the objective.
        query: what it is asked; empty if it is asked the key it was just shown.
        readout: what is made of its answer M; empty if nothing.
        refresh: the read-out is made at every so many writes of the rule that asks, and kept in between.
        first_answer: of a memory whose answer is kept until it is written again, the answer before its first write;
            empty where every read is new.
        fresh: it is read after its write of the same step or token, not before.
        consulted_by: the memory whose rule asks it, empty for the outermost ones. "weights" stands for all weights.
        read_by: the memories whose writes depend on its answer, where these are several; it may be one of them (S4).
        starts_from: the memories that hold its learned start, written by slower levels (M5).
        follows: the memory whose new state it is shown in the same step, for one that looks on and is not consulted.
        turn: its place in the order in which the memories of one rule are consulted.
        home: "weights", "optimizer" (state of the optimizer), "model" (state of the model, such as running means) or
            "sequence" (state that belongs to one sequence of tokens).
        holds: one value an "entry", "row" or "column" of a parameter, one "number" a parameter, a "history", a "map".
        initial: what a box holds before the first write.
        state: the name of its tensor in the state of a torch optimizer.
        count: how many there are: one for every parameter it serves, and more for memories that write memories.
        parameters: entries of all of them together.
        bytes: bytes of all of them together, in the optimizer's or the model's state, or in that of one sequence.
        bytes_per_token: bytes that every token adds to them, for memories that grow.
        max_tokens: how many tokens such a memory holds at most.
        surprise: its objective before the latest write, averaged; None where nobody measures it.
    """

    name: str
    symbol: str = ""
    level: int = 0
    period: int = 1
    collects: bool = True
    unit: str = "step"
    chunk: int = 1
    model: str = "box"
    objective: str = "l2"
    key: str = "none"
    value: str = "u"
    rule: str = "gradient descent"
    lr: str = "1"
    retention: str = "1"
    update: str = ""
    query: str = ""
    readout: str = ""
    refresh: int = 1
    first_answer: str = ""
    fresh: bool = True
    consulted_by: str = ""
    read_by: tuple[str, ...] = ()
    starts_from: tuple[str, ...] = ()
    follows: str = ""
    turn: int = 0
    home: str = "optimizer"
    holds: str = "entry"
    initial: str = "0"
    state: str = ""
    count: int = 0
    parameters: int = 0
    bytes: int = 0
    bytes_per_token: int = 0
    max_tokens: int = 0
    surprise: float | None = None


@dataclass(frozen=True)
class Piece:
    """Parameters of a layer that are for one thing.

    Attributes:
        name: their path in the layer.
        words: what they are.
        parameters: by the names that they have there.
    """

    name: str
    words: str
    parameters: Mapping[str, Tensor]


@dataclass(frozen=True)
class Facts:
    """What a layer holds.

    Attributes:
        memories: of one sequence, with names as within the layer.
        starts: names of pieces that hold their starts, by the memories' names.
        pieces: its parameters, as far as their modules' classes do not say what they are.
        frozen: why nothing is ever written, if so.
    """

    memories: tuple[Described, ...] = ()
    starts: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[Piece, ...] = ()
    frozen: str = ""

    def parameters(self, piece: str) -> list[Tensor]:
        """Those of the piece with this name."""
        return [tensor for each in self.pieces if each.name == piece for tensor in each.parameters.values()]
