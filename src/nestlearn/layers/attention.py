"""Softmax attention: the memory without parameters, which keeps every key and value that it was shown (S1)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nestlearn.layers.facts import PLAIN
from nestlearn.layers.sequence import SequenceLayer, check_heads, full, merge_heads, split_heads
from nestlearn.layers.unequal import put
from nestlearn.layers.unequal import seen as tokens_seen
from nestlearn.memory.described import Facts
from nestlearn.memory.state import State, state_bytes
from nestlearn.ops.attention import attention

__all__ = ["Attention"]

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


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
    the next token. Where sequences have seen unequal numbers of tokens there is ``"time"`` [batch] too: pairs stand at
    the end of the cache, and what is before them, zeros, is not read.
    """

    grows = True
    periods = ()

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

    def fitted(self, state: State, batch_size: int) -> State:
        if not isinstance(state, Mapping) or "time" not in state:
            return super().fitted(state, batch_size)
        found = super().fitted({name: pairs for name, pairs in state.items() if name != "time"}, batch_size)
        time, held = state["time"], found["key"].shape[-2]
        if not isinstance(time, Tensor) or time.shape != (batch_size,) or time.dtype not in _WHOLE:
            came = f"{list(time.shape)} of {time.dtype}" if isinstance(time, Tensor) else type(time).__name__
            raise ValueError(
                f"Attention: the state does not fit: state.time should be {batch_size} numbers, got {came}"
            )
        counts = [int(number) for number in time.tolist()]
        if any(not 0 <= count <= held for count in counts):
            raise ValueError(f"Attention: the state does not fit: expected state.time from 0 to {held}, got {counts}")
        if len(set(counts)) > 1:
            return {**found, "time": time.to("cpu", torch.int64)}
        return {name: pairs[..., held - sum(counts[:1]) :, :] for name, pairs in found.items()}

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        return_state: bool = False,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> Tensor | tuple[Tensor, State]:
        if (state is not None or return_state) and x.ndim == 3 and lengths is None:
            held = state.get("key") if isinstance(state, Mapping) else None
            self._check_room(held.shape[-2] if isinstance(held, Tensor) and held.ndim == 4 else 0, x.shape[1])
        found: Tensor | tuple[Tensor, State] = super().forward(x, state, return_state, lengths)
        return found

    def advance(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        state = self.initial_state(x.shape[0]) if state is None else state
        seen = state["key"].shape[-2]
        position = torch.arange(seen, seen + x.shape[1], device=x.device, dtype=torch.float64)
        query, key, value = self._pairs(x, position)
        written = {"key": full(key), "value": full(value)}
        if seen:
            written = {name: torch.cat([state[name], new], -2) for name, new in written.items()}
            key, value = (written[name].to(query.dtype) for name in ("key", "value"))
        return self.out(merge_heads(attention(query, key, value, seen))), written

    def advance_unequal(self, x: Tensor, state: State, lengths: Sequence[int]) -> tuple[Tensor, State]:
        """Pairs of each sequence stand at the end of the cache: before a call, and moved there after it."""
        held, length = state["key"].shape[-2], x.shape[1]
        seen = tokens_seen(_with_time(state), x.shape[0])
        after = [before + count for before, count in zip(seen, lengths, strict=True)]
        self._check_room(0, max(after))
        before, counts = (torch.tensor(numbers, device=x.device).view(-1, 1) for numbers in (seen, lengths))
        counted = torch.arange(length, device=x.device) < counts
        x = x.masked_fill(~counted.unsqueeze(-1), 0.0)  # what fills up may be anything, and nothing times it is not 0
        query, key, value = self._pairs(x, before.unsqueeze(1) + torch.arange(length, device=x.device))
        whole = {name: torch.cat([state[name], full(new)], -2) for name, new in (("key", key), ("value", value))}
        key, value = (whole[name].to(query.dtype) for name in ("key", "value"))
        y = self.out(merge_heads(attention(query, key, value, held, (held - before).view(-1, 1, 1, 1))))
        kept = {name: _at_the_end(pairs, held, before, counts, max(after)) for name, pairs in whole.items()}
        if len(set(after)) > 1:
            kept["time"] = torch.tensor(after)
        return y.masked_fill(~counted.unsqueeze(-1), 0.0), kept

    def replaced(self, state: State, part: State, index: Tensor, batch_size: int) -> State:
        width = max(held["key"].shape[-2] for held in (state, part))
        counts = tokens_seen(_with_time(state), batch_size)
        for place, count in zip(index.tolist(), tokens_seen(_with_time(part), len(index)), strict=True):
            counts[place] = count
        held, new = (
            {name: pad(each[name], (0, 0, width - each[name].shape[-2], 0)) for name in ("key", "value")}
            for each in (state, part)
        )
        found = {name: pairs[..., width - max(counts) :, :] for name, pairs in put(held, new, index).items()}
        return found if len(set(counts)) == 1 else {**found, "time": torch.tensor(counts)}

    def _check_room(self, seen: int, more: int) -> None:
        if seen + more > self.max_tokens:
            raise ValueError(
                f"Attention: the state would hold {seen} + {more} tokens, at most {self.max_tokens} are "
                "allowed; make the layer with a larger max_tokens, or begin anew"
            )

    def _pairs(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [batch, heads, time, d], turned to their positions [time] or [batch, 1, time]."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        half = self.dim // self.heads // 2
        slow = torch.arange(half, device=x.device, dtype=torch.float64) / half
        angle = position.to(torch.float64).unsqueeze(-1) * self.base**-slow
        cosine, sine = angle.cos().to(full(x).dtype), angle.sin().to(full(x).dtype)
        return _rotate(query, cosine, sine), _rotate(key, cosine, sine), value

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


def _with_time(state: State) -> State:
    return {"time": torch.tensor(state["key"].shape[-2]), **state}


def _at_the_end(pairs: Tensor, held: int, seen: Tensor, counts: Tensor, width: int) -> Tensor:
    """[batch, heads, held + time, d] with each sequence's own, from held - seen to held + counts, moved to the end."""
    place = held + counts - width + torch.arange(width, device=pairs.device)
    own = (place >= held - seen)[:, None, :, None]
    index = place.clamp(min=0)[:, None, :, None].expand(-1, pairs.shape[1], -1, pairs.shape[3])
    return pairs.gather(2, index).masked_fill(~own, 0.0)
