"""Continuing a text token by token, with the state as the cache: nothing is read twice.

For models without attention the state has one size, so a text may go on without end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from nestlearn.memory.state import State
from nestlearn.models.choosing import Choice
from nestlearn.models.masks import counted

__all__ = ["Reader", "Stops", "generate", "read", "stream", "whole_numbers"]

PIECE = 1024  # tokens of a prompt that are read at once, so that a long one needs no more memory than this

Stops = int | Sequence[int | Sequence[int]] | Callable[[Tensor], Tensor]
"""A token; several tokens and sequences of tokens; or a function that is handed each new token [batch] and says which
sequences end with it [batch].
"""


class Reader(Protocol):
    """Whatever reads on from a state, as a `LanguageModel` does; ``mask`` is given where some tokens do not count."""

    def __call__(self, tokens: Tensor, state: State | None = None, return_state: bool = False) -> Any:
        """Logits [batch, time, vocab_size] of tokens [batch, time], and with ``return_state`` (logits, state)."""


def generate(
    model: Reader,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    state: State | None = None,
    return_state: bool = False,
    *,
    top_p: float | None = None,
    stop: Stops = (),
    mask: Tensor | None = None,
    fill: int = 0,
) -> Any:
    """The prompt and its continuation.

    Args:
        model: any model.
        tokens: the prompt [batch, time], at least one token.
        max_new_tokens: tokens to add to each sequence.
        temperature: 0 takes the likeliest token, 1 draws as the model says, more is bolder.
        top_k: draw from so many of the likeliest tokens alone.
        seed: of the draws.
        state: what was read before the prompt.
        return_state: whether to return the state, which has seen prompt and continuation.
        top_p: draw from the likeliest tokens alone, as few as have this probability together (arXiv 1904.09751).
        stop: tokens, or sequences of tokens, with which a continuation ends, they are its last; or a function from
            each new token [batch] to truths [batch].
        mask: [batch, time], which tokens of the prompt count, for prompts of unequal length (`nestlearn.models.pad`);
            None for all.
        fill: the token that stands behind a continuation that has ended; no model looks at it.

    Returns:
        [batch, time + new], or (this, state). The continuation begins after the prompt's last column, wherever the
        prompt's tokens stand; ``new`` is max_new_tokens, or less if all have ended.

    Raises:
        ValueError: settings that make no sense; what the model raises.

    Example:
        >>> import nestlearn as nl
        >>> model = nl.models.hope(256, 16, 1, 2)
        >>> tokens, mask = nl.models.pad([list(b"Hello"), list(b"A longer one")], side="left")
        >>> model.generate(tokens, 3, mask=mask).shape
        torch.Size([2, 15])
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens: expected at least 0, got {max_new_tokens}")
    found = [whole_numbers(tokens)]
    new = stream(
        model,
        tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        state=state,
        top_p=top_p,
        stop=stop,
        mask=mask,
        fill=fill,
    )
    for token, after in islice(new, max_new_tokens):
        state = after
        found.append(token.unsqueeze(1))
    if max_new_tokens == 0 and return_state:
        _, state = read(model, tokens, state, mask=mask)
    text = torch.cat(found, 1)
    return (text, state) if return_state else text


def stream(
    model: Reader,
    tokens: Tensor,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    state: State | None = None,
    top_p: float | None = None,
    stop: Stops = (),
    mask: Tensor | None = None,
    fill: int = 0,
) -> Iterator[tuple[Tensor, State]]:
    """New tokens [batch], each with the state that has seen it, until all have ended; arguments as in `generate`.

    A sequence that has ended reads nothing more: its state stays, and ``fill`` is given for it.
    """
    choice, ended = Choice(temperature, top_k, top_p, seed), _ended(stop)
    logits, state = read(model, tokens, state, mask=mask)
    going = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    while ended is None or bool(going.any()):
        token = choice(logits)
        apart = None
        if ended is not None:
            token = torch.where(going, token, fill)
            # A mask is of use only where some have ended while others go on.
            apart = None if bool(going.all()) else going.unsqueeze(1)
        logits, state = _read(model, token.unsqueeze(1), state, apart, logits)
        if ended is not None:
            going = going & ~ended(token).to(going.device)
        yield token, state


def _ended(stop: Stops) -> Callable[[Tensor], Tensor] | None:
    """Which sequences end with a token; None if none ever does."""
    if callable(stop):
        return stop
    several = [stop] if isinstance(stop, int) else list(stop)
    ends = [torch.tensor([end] if isinstance(end, int) else list(end), dtype=torch.int64) for end in several]
    if any(not len(end) for end in ends):
        raise ValueError("stop: expected at least one token in each sequence, got one without any")
    longest = max(map(len, ends), default=0)
    recent = torch.full((1, longest), -1, dtype=torch.int64)

    def ended(token: Tensor) -> Tensor:
        nonlocal recent
        recent = torch.cat([recent.to(token.device).expand(len(token), -1)[:, 1:], token.unsqueeze(1)], 1)
        found = [(recent[:, longest - len(end) :] == end.to(token.device)).all(1) for end in ends]
        return torch.stack(found).any(0)

    return ended if ends else None


def whole_numbers(tokens: Tensor) -> Tensor:
    """Tokens [batch, time] of any type of whole numbers, as int64.

    Raises:
        TypeError: no tensor.
        ValueError: another shape, or numbers of another kind.
    """
    if not isinstance(tokens, Tensor):
        raise TypeError(f"tokens: expected a tensor of whole numbers [batch, time], got {type(tokens).__name__}")
    if tokens.ndim != 2 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        remedy = ": a mask says which tokens count, not which they are" if tokens.dtype == torch.bool else ""
        raise ValueError(
            f"tokens: expected whole numbers [batch, time], got {tuple(tokens.shape)} of {tokens.dtype}{remedy}"
        )
    return tokens.long()


@torch.no_grad()
def read(
    model: Reader, tokens: Tensor, state: State | None = None, *, mask: Tensor | None = None
) -> tuple[Tensor, State]:
    """Logits of the token after the last one [batch, vocab_size], and the state; the text may be of any length.

    Args:
        model: any model.
        tokens: [batch, time].
        state: what was read before.
        mask: [batch, time], which tokens count; None for all.

    Raises:
        ValueError: no token at all, for some sequence.
    """
    tokens = whole_numbers(tokens)
    counts = counted(mask, (tokens.shape[0], tokens.shape[1]), tokens.device)
    if not tokens.shape[1] or (counts is not None and not all(counts.lengths)):
        which = "" if counts is None else f" with {list(counts.lengths)} that count"
        raise ValueError(
            f"tokens: expected at least one for each sequence, [batch, time], got {tuple(tokens.shape)}{which}"
        )
    logits: Tensor | None = None
    # What counts is brought to the front, so that a piece is not all padding for some while others wait.
    tokens = tokens if counts is None else counts.front(tokens)
    own = [None] * -(-tokens.shape[1] // PIECE) if counts is None else counts.mask().split(PIECE, 1)
    for piece, part in zip(tokens.split(PIECE, 1), own, strict=True):
        logits, state = _read(model, piece, state, part, logits)
    assert logits is not None and state is not None, "there is at least one piece"
    return logits, state


@torch.no_grad()
def _read(
    model: Reader, tokens: Tensor, state: State | None, mask: Tensor | None, before: Tensor | None
) -> tuple[Tensor, State]:
    """Logits after the last token that counts; where none does, those ``before``."""
    if mask is None:
        logits, state = model(tokens, state=state, return_state=True)
        return logits[:, -1], state
    counts = counted(mask, (tokens.shape[0], tokens.shape[1]), tokens.device)
    given = {} if counts is None else {"mask": mask}
    logits, state = model(tokens, state=state, return_state=True, **given)
    return (logits[:, -1] if counts is None else counts.last(logits, before)), state
