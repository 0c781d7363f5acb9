"""One language model for every mixture of layers: the pattern of its blocks is data (C6).

    model = LanguageModel(256, 128, [[("self_modifying", {"heads": 4}), ("continuum", {})]] * 2)

is Hope with two blocks. A block is a list of parts, a part the name of a layer and its settings. Parts stand one after
the other on the residual stream, x <- x + layer(RMSNorm(x)); a continuum memory has norms and residuals of its own.

**State.** ``{"parts": {"0": ..., "1": ...}}``, the states of all parts in their order. If a continuum memory learns
from the next token (``objective="next_token"``), ``replay`` holds what its next write needs, see
`nestlearn.models.next_token`. Everything in it belongs to one sequence of the batch; nothing is ever written into the
model, so that one model serves any number of texts, each with memories of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nestlearn.layers.sequence import SequenceLayer
from nestlearn.memory.state import State
from nestlearn.models.block import Block, Part, Stage
from nestlearn.models.generation import Stops, generate, whole_numbers
from nestlearn.models.masks import counted
from nestlearn.models.next_token import IN_NO_GRAPH, advance_and_learn, learning_parts
from nestlearn.models.next_token_apart import advance_and_learn_apart, places
from nestlearn.ops.tracing import by_hand, transformed

__all__ = ["LanguageModel"]


class LanguageModel(nn.Module):
    """Tokens [batch, time] -> logits of the next token [batch, time, vocab_size].

    Args:
        vocab_size: of the tokens; 256 for bytes.
        dim: width of the residual stream.
        blocks: of each block its parts, each a name in `PARTS` and the layer's settings without dim.
        tied: whether the head is the embedding, scaled.
        checkpointing: whether a block keeps only what goes in while it trains, and is computed again in the backward
            pass: less memory, about a third more work. May be switched at any time, ``model.checkpointing = True``.
            The transforms of torch.func know no checkpoints, within them nothing changes.

    Attributes:
        config: the arguments as JSON can hold them; ``LanguageModel(**config)`` is this model with new weights.

    Raises:
        ValueError: names that do not exist, settings that do not fit.
        TypeError: a setting that a layer does not have.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        blocks: Sequence[Sequence[Part]],
        *,
        tied: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        if vocab_size < 1 or dim < 1:
            raise ValueError(f"expected vocab_size and dim of at least 1, got {vocab_size} and {dim}")
        self.config: dict[str, Any] = json.loads(
            json.dumps({"vocab_size": vocab_size, "dim": dim, "blocks": blocks, "tied": tied})
        )
        self.vocab_size, self.dim, self.tied = vocab_size, dim, tied
        self.embedding = nn.Embedding(vocab_size, dim)
        self.blocks = nn.ModuleList(Block(Stage(dim, part) for part in block) for block in blocks)
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.head = None if tied else nn.Linear(dim, vocab_size, bias=False)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.5 * dim**-0.5)
        self._learning = learning_parts(self)

    @property
    def parts(self) -> dict[str, SequenceLayer]:
        """The layers by the names that their states have."""
        layers = (layer for block in self.blocks for layer in cast(Block, block).layers)
        return {str(number): layer for number, layer in enumerate(layers)}

    @property
    def fingerprint(self) -> str:
        """Sixteen digits that are the same for models of one architecture, whatever their weights."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:16]

    def initial_state(self, batch_size: int) -> State:
        """The state before the first token, differentiable in what of it is learned."""
        parts = {name: layer.initial_state(batch_size) for name, layer in self.parts.items()}
        state: State = {"parts": parts}
        if self._learning:
            none = torch.zeros(batch_size, 0, dtype=torch.int64, device=self.embedding.weight.device)
            state["replay"] = {"tokens": none, "parts": parts}
        return state

    def forward(
        self,
        tokens: Tensor | None = None,
        state: State | None = None,
        return_state: bool = False,
        *,
        inputs_embeds: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Any:
        """Logits [batch, time, vocab_size] in the dtype of the weights, and with ``return_state`` (logits, state).

        Args:
            tokens: [batch, time], whole numbers of any type below ``vocab_size``.
            state: from ``initial_state`` or an earlier call; None begins anew.
            inputs_embeds: [batch, time, dim], read in the place of embedded tokens, as learned prompts are.
            mask: [batch, time], which tokens count; None for all. The others, wherever they stand, are not read and
                write nothing, and their logits are zeros: a sequence has the answers and the state that it has alone.
                `pad` makes both of prompts of unequal length.

        Raises:
            ValueError: tokens of another shape, kind or range; the state of another model, batch size or device;
                inputs_embeds for a model that learns from the next token; a mask of another shape.
            TypeError: tokens that are no tensor; tokens and inputs_embeds, or neither.
            NotImplementedError: a mask in a compiled graph or in a transform, or of a layer that cannot read sequences
                of unequal length.
        """
        if (tokens is None) == (inputs_embeds is None):
            raise TypeError(f"expected tokens or inputs_embeds, got {'neither' if tokens is None else 'both'}")
        given = tokens if tokens is not None else self._checked_embeds(cast(Tensor, inputs_embeds))
        if tokens is not None:
            given = whole_numbers(tokens)
        counts = counted(mask, (given.shape[0], given.shape[1]), given.device)
        given = given if counts is None else counts.front(given)
        x = given if tokens is None else self._checked(given)
        batch, lengths = x.shape[0], None if counts is None else counts.unequal
        if state is not None:
            self._check_state(state, batch)
        if self._learning:
            self._check_shards()
            if torch.compiler.is_compiling():
                raise NotImplementedError(IN_NO_GRAPH)
            begun = self.initial_state(batch) if state is None else self._fitted(state, batch)
            logits, written = self._learn(x, begun, lengths, keep=return_state)
        else:
            parts = None if state is None else state["parts"]
            x = x if tokens is None else self.embedding(x)
            logits, parts = self._read(x, parts, keep=return_state, lengths=lengths)
            written = {"parts": parts}
        logits = logits if counts is None else counts.back(logits)
        return (logits, written) if return_state else logits

    def advance(
        self, tokens: Tensor, parts: State | None, *, keep: bool, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, State]:
        """Logits and, with ``keep``, the parts' states: one pass without the writes that need the loss."""
        return self._read(self.embedding(tokens), parts, keep=keep, lengths=lengths)

    def _learn(
        self, tokens: Tensor, state: State, lengths: Sequence[int] | None, *, keep: bool
    ) -> tuple[Tensor, State]:
        if lengths is None and (transformed() or len(set(places(self._learning, state, len(tokens)))) < 2):
            return advance_and_learn(self, self._learning, tokens, state, keep=keep)
        counts = [tokens.shape[1]] * len(tokens) if lengths is None else lengths
        return advance_and_learn_apart(self, self._learning, tokens, state, counts)

    def _read(
        self, x: Tensor, parts: State | None, *, keep: bool, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, State]:
        written: State = {}
        for block, names in self._blocks():
            own = None if parts is None else {str(number): parts[name] for number, name in enumerate(names)}
            again = self.checkpointing and self.training and torch.is_grad_enabled() and not transformed()
            given = (x, own, keep) if lengths is None else (x, own, keep, lengths)
            answer = checkpoint(block, *given, use_reentrant=False) if again else block(*given)
            x, after = answer if keep else (answer, {})
            written |= {name: after[str(number)] for number, name in enumerate(names) if keep}
        x = self.norm(x)
        if self.head is None:
            return F.linear(x, self.embedding.weight) * self.dim**-0.5, written
        return self.head(x), written

    def get_output_embeddings(self) -> nn.Module:
        """The layer that gives the logits: the head, or the embedding that is one."""
        return self.embedding if self.head is None else self.head

    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
        state: State | None = None,
        return_state: bool = False,
        top_p: float | None = None,
        stop: Stops = (),
        mask: Tensor | None = None,
        fill: int = 0,
    ) -> Any:
        """The prompt and its continuation [batch, time + max_new_tokens]; see `nestlearn.models.generate`."""
        chosen = (temperature, top_k, seed, state, return_state)
        return generate(self, tokens, max_new_tokens, *chosen, top_p=top_p, stop=stop, mask=mask, fill=fill)

    def _blocks(self) -> Iterator[tuple[nn.Module, list[str]]]:
        """Each block, or what a tool wrapped it in, with the names that the states of its parts have."""
        first = 0
        for block in self.blocks:
            count = len(cast(Block, block).layers)
            yield block, [str(first + number) for number in range(count)]
            first += count

    def _checked(self, tokens: Tensor) -> Tensor:
        tokens = whole_numbers(tokens)
        if tokens.numel() and not tokens.is_meta and by_hand():
            low, high = (int(bound) for bound in torch.aminmax(tokens))
            if low < 0 or high >= self.vocab_size:
                raise ValueError(f"tokens: expected numbers from 0 to {self.vocab_size - 1}, got {low} to {high}")
        return tokens

    def _checked_embeds(self, x: Tensor) -> Tensor:
        if self._learning:
            raise ValueError("inputs_embeds: a model with objective='next_token' learns from tokens: pass these")
        if x.ndim != 3 or x.shape[-1] != self.dim or not x.is_floating_point():
            raise ValueError(
                f"inputs_embeds: expected real numbers [batch, time, {self.dim}], got {tuple(x.shape)} of {x.dtype}"
            )
        return x

    def _check_shards(self) -> None:
        if any(hasattr(block, "set_reshard_after_backward") for block in self.blocks):
            raise NotImplementedError(
                "objective='next_token' takes slopes within a call, after which FSDP2 shards blocks again: expected a "
                "model that is sharded as a whole, fully_shard(model), got one whose blocks are sharded one by one"
            )

    def _check_state(self, state: State, batch_size: int) -> None:
        """The layers check their own parts; here is what would go wrong before they are asked."""
        expected = ["parts", "replay"] if self._learning else ["parts"]
        if (names := _names(state)) != expected:
            raise ValueError(
                f"state: expected one that holds {expected}, as initial_state({batch_size}) gives it, got {names}"
            )
        if self._learning and (names := _names(state["replay"])) != ["parts", "tokens"]:
            raise ValueError(f"state.replay: expected what holds ['parts', 'tokens'], got {names}")
        for held in (state, state["replay"]) if self._learning else (state,):
            if (names := _names(held["parts"])) != (expected := sorted(self.parts)):
                raise ValueError(f"state: expected that of a model with the parts {expected}, got parts {names}")
        if self._learning and (count := state["replay"]["tokens"].shape[0]) != batch_size:
            raise ValueError(f"state: expected that of {batch_size} sequences, got one of {count} sequences")

    def _fitted(self, state: State, batch_size: int) -> State:
        """With the states of all parts as their layers take them, those that are read once more too."""
        found = [
            {name: layer.fitted(parts[name], batch_size) for name, layer in self.parts.items()}
            for parts in (state["parts"], state["replay"]["parts"])
        ]
        fitted: State = {"parts": found[0], "replay": {"tokens": state["replay"]["tokens"], "parts": found[1]}}
        if not transformed():  # of sequences that stand at unequal places, the longest's tokens
            longest = max(places(self._learning, fitted, batch_size), default=0)
            fitted["replay"]["tokens"] = fitted["replay"]["tokens"][:, :longest]
        fitted["replay"]["tokens"] = self._checked(fitted["replay"]["tokens"])
        return fitted


def _names(held: object) -> list[str] | str:
    return sorted(map(str, held)) if isinstance(held, Mapping) else type(held).__name__
