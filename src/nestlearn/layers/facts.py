"""What a sequence layer says of itself to a description: its memories, and what its parameters are for (S1-S7, C1-C3).

Models, objectives, rules, periods, chunks and bounds come from the layer's own objects, and bytes from a state that it
made; what it adds are words for keys, values and read-outs:

=============  =====================================================================
x              the layer's input
k, v, q        key, value and query that it makes of a token, k[t] where time matters
eta, alpha     how much the token writes and how much it leaves (S4)
theta          what a momentum box keeps (S2)
=============  =====================================================================
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.described import Described, Piece
from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.state import State, count_entries, state_bytes
from nestlearn.memory.words import model_words, number_words, rule_words

__all__ = ["PLAIN", "by_tokens", "listed", "momentum_box", "named"]

PLAIN = Described("", unit="token", home="sequence", holds="map", initial="learned")
"""What the memories of all layers have in common."""


def by_tokens(name: str, memory: AssociativeMemory, held: Mapping[str, Tensor], /, **said: Any) -> Described:
    """A memory of the core that tokens write, as it describes itself.

    Args:
        name: within the layer.
        memory: as it is written.
        held: its parameters in the state of one sequence, which are counted.
        **said: what is to be said otherwise, or besides: any attribute of ``Described``.
    """
    own = replace(
        PLAIN,
        name=name,
        model=model_words(memory.model),
        objective=memory.objective.name,
        rule=rule_words(memory.rule),
        lr=number_words(memory.rule.lr),
        retention=number_words(memory.rule.retention),
        count=1,
        parameters=count_entries(held),
        bytes=state_bytes(held),
    )
    return replace(own, **said)


def momentum_box(
    above: Described, memory: AssociativeMemory, state: State, share: Callable[[int], int] = int
) -> tuple[Described, ...]:
    """The momentum box behind a rule, if there is one."""
    if not isinstance(memory.rule, InnerMomentum):
        return ()
    own = by_tokens(
        f"{above.name}.momentum",
        memory.rule.box,
        {},
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


def listed(name: str, words: str, parameters: nn.ParameterDict, order: Iterable[str]) -> tuple[Piece, ...]:
    """One piece for parameters of several memories, if there are any, named in this order."""
    names = [each for each in order if each in parameters]
    return (Piece(name, words.format(", ".join(names)), named(parameters)),) if names else ()


def named(module: nn.Module) -> dict[str, Tensor]:
    """Parameters of a module by the names that they have there."""
    return dict(module.named_parameters())
