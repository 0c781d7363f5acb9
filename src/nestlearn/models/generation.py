"""Continuing a text token by token, with the state as the cache: nothing is read twice.

For models without attention the state has one size, so a text may go on without end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from nestlearn.memory.state import State

__all__ = ["Reader", "generate", "read", "stream", "whole_numbers"]

PIECE = 1024  # tokens of a prompt that are read at once, so that a long one needs no more memory than this


class Reader(Protocol):
    """Whatever reads on from a state, as a `LanguageModel` does."""

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

    Returns:
        [batch, time + max_new_tokens], or (this, state).

    Raises:
        ValueError: settings that make no sense; what the model raises.
    """
    found = [whole_numbers(tokens)]
    new = stream(model, tokens, temperature=temperature, top_k=top_k, seed=seed, state=state)
    for token, after in _first(new, max_new_tokens):
        state = after
        found.append(token.unsqueeze(1))
    if max_new_tokens == 0 and return_state:
        _, state = read(model, tokens, state)
    text = torch.cat(found, 1)
    return (text, state) if return_state else text


def _first(new: Iterator[tuple[Tensor, State]], count: int) -> Iterator[tuple[Tensor, State]]:
    if count < 0:
        raise ValueError(f"max_new_tokens: expected at least 0, got {count}")
    for _ in range(count):
        yield next(new)


def stream(
    model: Reader,
    tokens: Tensor,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    state: State | None = None,
) -> Iterator[tuple[Tensor, State]]:
    """New tokens [batch] without end, each with the state that has seen it; arguments as in `generate`."""
    if temperature < 0 or (top_k is not None and top_k < 1):
        raise ValueError(f"expected temperature of at least 0 and top_k of at least 1, got {temperature} and {top_k}")
    # On the CPU, so that a seed draws the same everywhere.
    generator = torch.Generator().manual_seed(seed)
    logits, state = read(model, tokens, state)
    while True:
        token = _choose(logits, temperature, top_k, generator)
        logits, state = read(model, token.unsqueeze(1), state)
        yield token, state


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
def read(model: Reader, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """Logits of the token after the last one [batch, vocab_size], and the state; the text may be of any length.

    Raises:
        ValueError: no token at all.
    """
    tokens = whole_numbers(tokens)
    if not tokens.shape[1]:
        raise ValueError(f"tokens: expected at least one for each sequence, [batch, time], got {tuple(tokens.shape)}")
    for piece in tokens.split(PIECE, 1):
        logits, state = model(piece, state=state, return_state=True)
    return logits[:, -1], state  # type: ignore[return-value]


def _choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """A token [batch] for each row of logits [batch, vocab_size]."""
    if temperature == 0:
        return logits.argmax(-1)
    device, logits = logits.device, logits.double().cpu() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1).to(device)
