"""A call of a model that transformers made, read in pieces with its own cache of keys and values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Call", "cache_name", "detach_cache"]

CACHES = ("cache", "past_key_values")
"""What the cache is called, in newer versions of transformers and in older ones."""

WHOLE = ("output_attentions", "output_hidden_states")
"""What a call in pieces has no single answer to."""


@dataclass
class Call:
    """The arguments of one call, by name.

    Args:
        original: the model's forward pass.
        given: its arguments besides those below.
        tokens: [batch, time].
        cache: of keys and values, None before the first piece of a text without one.
        name: what the model calls it.
    """

    original: Callable[..., Any]
    given: dict[str, Any]
    tokens: Tensor
    cache: Any
    name: str
    use_cache: bool | None
    mask: Tensor | None
    labels: Tensor | None
    keep: int | Tensor
    part: slice = field(default_factory=lambda: slice(0))
    """Which of the tokens are being read."""

    @classmethod
    def of(cls, original: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> Call:
        """Raises:
        ValueError: no tokens; an answer that is to be a tuple; labels that are shifted already.
        """
        signature = inspect.signature(original)
        found: dict[str, Any] = {}
        for name, value in signature.bind_partial(*args, **given).arguments.items():
            several = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            found |= value if several else {name: value}
        tokens = found.pop("input_ids", None)
        if tokens is None or found.get("inputs_embeds") is not None:
            raise ValueError(
                "a continuum learns from tokens: expected input_ids and no inputs_embeds; within "
                "model.continuum.paused() a call may have these"
            )
        if tokens.ndim != 2 or not tokens.shape[1]:
            raise ValueError(f"expected input_ids [batch, time] of one token at least, got {list(tokens.shape)}")
        if found.get("return_dict") is False:
            raise ValueError("expected an answer with names, got return_dict=False")
        if found.get("shift_labels") is not None:
            raise ValueError("expected labels as they are read, got shift_labels")
        name = cache_name(original)
        caches = [cache for each in CACHES if (cache := found.pop(each, None)) is not None]
        return cls(
            original,
            found,
            tokens,
            caches[0] if caches else None,
            name,
            found.pop("use_cache", None),
            found.pop("attention_mask", None),
            found.pop("labels", None),
            found.pop("logits_to_keep", 0),
        )

    @property
    def counts(self) -> Tensor | None:
        """[batch, time], which of the tokens are no padding; None if all are."""
        if self.mask is None or self.mask.ndim != 2:
            return None
        return self.mask[:, self.mask.shape[1] - self.tokens.shape[1] :] != 0

    def piece(self, start: int, stop: int) -> Any:
        """The model's answer to a part of the tokens."""
        length, self.part = self.tokens.shape[1], slice(start, stop)
        given: dict[str, Any] = {**self.given, "input_ids": self.tokens[:, start:stop], self.name: self.cache}
        given["use_cache"] = self.use_cache
        if stop - start < length:
            given["use_cache"] = True
            for name in ("position_ids", "cache_position"):
                if given.get(name) is not None:
                    given[name] = given[name][..., start:stop]
        if self.mask is not None:
            given["attention_mask"] = self.mask[:, : self.mask.shape[1] - length + stop] if stop < length else self.mask
        out = self.original(**given)
        self.cache = getattr(out, self.name, None)
        return out

    def whole(self, trunk: Callable[..., Any]) -> Any:
        """Give all tokens at once to the model without its head, which makes no pieces; its cache after them."""
        given = {**self.given, "input_ids": self.tokens, self.name: self.cache, "attention_mask": self.mask}
        return trunk(**given, use_cache=True)[self.name]

    def answer(self, last: Any, logits: Tensor) -> Any:
        """The answer to the whole call: that to its last piece, with all logits."""
        loss = None
        if self.labels is not None:
            wanted = self.labels[:, 1:].to(logits.device)
            each = logits[:, :-1].float().flatten(0, 1), wanted.flatten()
            if (count := self.given.get("num_items_in_batch")) is None:
                loss = F.cross_entropy(*each, ignore_index=-100)
            else:  # Trainer's, of a batch that comes in several calls
                loss = F.cross_entropy(*each, ignore_index=-100, reduction="sum") / count
        kept = logits[:, -self.keep :] if isinstance(self.keep, int) else logits[:, self.keep]
        held = {**last, "logits": kept, "loss": loss, self.name: None if self.use_cache is False else self.cache}
        return type(last)(**held)

    def check_parts(self, config: Any) -> None:
        """Raise ValueError for what a call in pieces does not have, asked for by the call or its model's settings."""
        if self.mask is not None and self.mask.ndim != 2:
            raise ValueError(
                f"a call that goes beyond the next write takes an attention_mask [batch, time], got "
                f"{list(self.mask.shape)}: read the text with model.continuum.read"
            )
        told = {name: self.given.get(name) for name in WHOLE}
        if asked := [name for name in WHOLE if (getattr(config, name, False) if told[name] is None else told[name])]:
            raise ValueError(f"{asked[0]}: a call that goes beyond the next write is read in pieces and has none")


def cache_name(forward: Callable[..., Any]) -> str:
    """What a model calls its cache of keys and values."""
    parameters = inspect.signature(forward).parameters
    return next((name for name in CACHES if name in parameters), CACHES[0])


def detach_cache(cache: Any) -> None:
    """What later pieces look back at is numbers, without the graph of the pieces before.

    Raises:
        TypeError: a cache that is no list of layers with keys and values; slopes that reach into the state of others.
    """
    if cache is None:
        return
    if not hasattr(cache, "layers"):
        raise TypeError(f"expected a cache with layers of keys and values, got {type(cache).__name__}")
    for layer in cache.layers:
        for name in ("keys", "values"):
            held = getattr(layer, name, None)
            if isinstance(held, torch.Tensor) and held.requires_grad:
                setattr(layer, name, held.detach())
        others = (each for held in vars(layer).values() if isinstance(held, dict) for each in held.values())
        if any(isinstance(each, torch.Tensor) and each.requires_grad for each in others):
            raise TypeError(
                "no slopes go through linear attention, whose state is written in place: expected blocks with none of "
                'it above the lowest that is written, or objective="direct"'
            )
