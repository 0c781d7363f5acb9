"""What a stacked model says of itself: each matrix that a text writes, and the memories behind its writer (C5).

A matrix starts at the weight that was trained, and what it was taught is what the rule of the continuum makes of slopes
of the model's own loss. All of it belongs to one text, and is gone with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from nestlearn.descriptions.data import WEIGHTS
from nestlearn.descriptions.ours import behind, definitions, update_and_kept
from nestlearn.layers.facts import PLAIN
from nestlearn.memory.described import Described, Facts, Piece
from nestlearn.memory.state import flatten, state_bytes
from nestlearn.memory.words import number_words, rule_words
from nestlearn.models import Continuum
from nestlearn.models.stacking_matrix import WrittenMatrix

__all__ = ["continuum_of", "facts_of", "remarks_on"]

NAME = "continuum"
RULE = "rule.weight."  # where the state of a matrix has what its rule keeps


def continuum_of(module: nn.Module) -> Continuum | None:
    """What was added to a model, if anything was."""
    found = vars(module).get(NAME)
    return found if isinstance(found, Continuum) else None


def facts_of(continuum: Continuum) -> tuple[dict[str, Facts], int]:
    """What each written block holds, by its number, and the bytes of one text's state; nothing is allocated."""
    blocks: dict[str, Facts] = {}
    every = 0
    for path, matrix in continuum.matrices.items() if continuum.inner_lr else ():
        number, name = path.split(".")
        state = flatten(matrix.form(1))
        facts = blocks.get(number, Facts())
        blocks[number] = Facts(
            (*facts.memories, *_memories(name, matrix, state)),
            {**facts.starts, name: name},
            (*facts.pieces, Piece(name, "", {"weight": matrix.linear.weight})),
        )
        every += state_bytes(state)
    return {f"{NAME}.{number}": facts for number, facts in blocks.items()}, every


def _memories(name: str, matrix: WrittenMatrix, state: Mapping[str, Tensor]) -> Iterator[Described]:
    """The matrix, and whatever its rule consults."""
    rows, columns = matrix.shape
    update, kept = update_and_kept(matrix.writer.rule, torch.Size(matrix.shape), number_words(matrix.retention))
    width = "" if matrix.basis is None else f"{columns} -> "
    yield replace(
        PLAIN,
        name=name,
        period=matrix.period,
        model=f"matrix {matrix.linear.in_features} -> {width}{rows}",
        objective="the loss",
        key="tokens",
        value="next tokens",
        rule=rule_words(matrix.writer.rule),
        lr=number_words(matrix.lr),
        retention=kept if kept == "1" else f"{kept} of M - start",
        update=update,
        initial="the weight",
        count=1,
        parameters=state["model.weight"].numel(),
        bytes=state_bytes([state["model.weight"], state["pending.weight"]]),
    )
    own = {name.removeprefix(RULE): tensor for name, tensor in state.items() if name.startswith(RULE)}
    for memory in behind(matrix.writer.rule, torch.Size(matrix.shape), own, matrix.period)[0]:
        yield replace(
            memory,
            name=f"{name}.{memory.name}",
            consulted_by=name if memory.consulted_by == WEIGHTS else f"{name}.{memory.consulted_by}",
            unit="token",
            home="sequence",
            initial=memory.initial or "its own start",
            state="",
        )


def remarks_on(continuum: Continuum) -> Iterator[str]:
    """What a reader should know besides."""
    if not continuum.inner_lr:
        yield "inner_lr is 0, so nothing is written in context"
        return
    matrices = continuum.matrices.values()
    where = " before the last norm" if any(matrix.keep is not None for matrix in matrices) else ""
    yield (
        f"in the continuum u is the slope of the model's own next-token loss{where}, summed over the tokens since the "
        "last write, and t is the number of the write; the weights stay as they were trained"
    )
    if continuum.gate:
        yield f"a token that was predicted with a loss of at most {continuum.gate:g} writes nothing"
    said = [definitions(matrix.writer.rule, torch.Size(matrix.shape)) for matrix in matrices]
    if found := {name: words for each in said for name, words in each.items()}:
        yield "in the continuum " + "; ".join(f"{name} = {words}" for name, words in found.items())
