"""Softmax attention: the memory without parameters, which keeps every key and value that it was shown (S1)."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from nestlearn.layers.facts import PLAIN
from nestlearn.layers.sequence import SequenceLayer, check_heads, full, merge_heads, split_heads
from nestlearn.memory.described import Facts
from nestlearn.memory.state import State, state_bytes
from nestlearn.ops.attention import attention

__all__ = ["Attention"]


class Attention(SequenceLayer):
    """Causal softmax attention with rotary positions and a key-value cache (S1).

    The optimum of a locally weighted l2 regression, sum_s exp(<q, k_s>) ||y - v_s||^2, is softmax attention (the
    estimator of Nadaraya and Watson, [NL] 62): a memory that is not written but keeps its pairs, and so one that grows
    with the sequence. Positions rotate queries and keys (arXiv 2104.09864).

    Args:
        dim: width of the tokens.
        heads: must divide dim into heads of even width.
        max_tokens: how many tokens a state may hold; more are an error. Calls that neither get nor return a state
            keep nothing and have no limit.
        base: of the rotations' wavelengths.

    State: ``{"key": [batch, heads, seen, d], "value": the same}``, keys already rotated; ``seen`` is the position of
    the next token.
    """

    grows = True

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        max_tokens: int = 32_768,
        base: float = 10_000.0,
    ) -> None:
        super().__init__(dim)
        if check_heads(dim, heads) % 2:
            raise ValueError(f"heads: rotations need an even width of a head, got {dim} / {heads} = {dim // heads}")
        if max_tokens < 1:
            raise ValueError(f"max_tokens: expected at least 1, got {max_tokens}")
        self.heads, self.max_tokens, self.base = heads, max_tokens, base
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def initial_state(self, batch_size: int) -> State:
        empty = full(self.qkv.weight).new_zeros(batch_size, self.heads, 0, self.dim // self.heads)
        return {"key": empty, "value": empty}

    def forward(
        self, x: Tensor, state: State | None = None, return_state: bool = False
    ) -> Tensor | tuple[Tensor, State]:
        if (state is not None or return_state) and x.ndim == 3:
            held = state.get("key") if isinstance(state, Mapping) else None
            seen = held.shape[-2] if isinstance(held, Tensor) and held.ndim == 4 else 0
            if seen + x.shape[1] > self.max_tokens:
                raise ValueError(
                    f"Attention: the state would hold {seen} + {x.shape[1]} tokens, at most {self.max_tokens} are "
                    "allowed; make the layer with a larger max_tokens, or begin anew"
                )
        found: Tensor | tuple[Tensor, State] = super().forward(x, state, return_state)
        return found

    def advance(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        state = self.initial_state(x.shape[0]) if state is None else state
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        seen, length = state["key"].shape[-2], x.shape[1]
        cosine, sine = self._rotation(seen, length, full(x))
        query, key = (_rotate(part, cosine, sine) for part in (query, key))
        written = {"key": full(key), "value": full(value)}
        if seen:
            written = {name: torch.cat([state[name], new], -2) for name, new in written.items()}
            key, value = (written[name].to(query.dtype) for name in ("key", "value"))
        return self.out(merge_heads(attention(query, key, value, seen))), written

    def _rotation(self, seen: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [time, d / 2] of the positions from ``seen`` on."""
        half = self.dim // self.heads // 2
        position = torch.arange(seen, seen + length, device=like.device, dtype=torch.float64)
        slow = torch.arange(half, device=like.device, dtype=torch.float64) / half
        angle = position.unsqueeze(-1) * self.base**-slow
        return angle.cos().to(like.dtype), angle.sin().to(like.dtype)

    def facts(self, state: State) -> Facts:
        one_more = [cache.new_zeros(*cache.shape[:-2], 1, cache.shape[-1]) for cache in state.values()]
        width = self.dim // self.heads
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
            count=self.heads,
            bytes=state_bytes(state),
            bytes_per_token=state_bytes(one_more),
            max_tokens=self.max_tokens,
        )
        return Facts((own,))


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the pairs (i, i + d / 2) of [*, time, d] by the angle of their position."""
    first, second = full(x).chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1).to(x.dtype)
