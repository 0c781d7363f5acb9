"""The top of a model, and what the frozen blocks below it answer, computed once for all contenders.

Contenders write the last blocks alone, so everything below them says the same in every run. ``below`` keeps it, and
``Top`` is a model of the last blocks that finds it where a model has its embedding.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Below", "below", "top"]


class Below(nn.Module):
    """In the place of the embedding: the answers [1, time, dim] to the tokens in their order."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.kept, self.at = kept, 0

    def forward(self, tokens: Tensor) -> Tensor:
        start, self.at = self.at, self.at + tokens.shape[1]
        return self.kept[:, start : self.at].expand(len(tokens), -1, -1)


@torch.no_grad()
def below(model: Any, tokens: Tensor, window: int, blocks: int) -> Tensor:
    """What the last ``blocks`` blocks are given for tokens [1, time], attention beginning anew after each window."""
    found: list[Tensor] = []

    class Enough(Exception):
        """What is wanted has been seen."""

    def keep(module: nn.Module, given: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        found.append((given[0] if given else named["hidden_states"]).clone())
        raise Enough

    handle = model.model.layers[-blocks].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        for piece in tokens.split(window, 1):
            with suppress(Enough):
                model(piece, use_cache=False)
    finally:
        handle.remove()
    return torch.cat(found, 1)


def top(model: Any, kept: Tensor, blocks: int) -> Any:
    """A model of copies of the last blocks, with the norm and the head of ``model``, above what is kept."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = blocks
    with torch.device("meta"):
        made = type(model)(config)
    made.model.embed_tokens = Below(kept)
    made.model.layers = copy.deepcopy(model.model.layers[-blocks:])
    for place, layer in enumerate(made.model.layers):
        layer.self_attn.layer_idx = place
    made.model.norm, made.model.rotary_emb, made.lm_head = model.model.norm, model.model.rotary_emb, model.lm_head
    return made.eval().requires_grad_(False)
