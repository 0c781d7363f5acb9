"""The models by their names: each is a `LanguageModel` whose blocks have one mixer and one feed-forward layer (C6).

===================  ==============================  =========================
name                 mixes tokens                    then, token by token
===================  ==============================  =========================
``hope``             self-modifying Titans (S4)      continuum memory (C1)
``hope_attention``   softmax attention (S1)          continuum memory (C1)
``titans``           self-modifying Titans, or with  SwiGLU
                     ``self_modifying=False`` one
                     MLP memory a head (S5)
``gated_delta_net``  memory, gated delta rule (S2)   SwiGLU
``transformer``      softmax attention (S1)          SwiGLU
===================  ==============================  =========================

All take ``(vocab_size, dim, depth, heads, **options)``. An option is a setting of one of the two layers, under the
layer's own name for it: ``hope(256, 128, 2, 4, memory="mlp", variant="nested")``. Where both have it, the feed-forward
layer's is meant, as with ``hidden``; ``mixer={"hidden": 64}`` says otherwise. ``tied`` and
``checkpointing`` are those of `LanguageModel`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from nestlearn.errors import choice
from nestlearn.models.block import PARTS
from nestlearn.models.language_model import LanguageModel

__all__ = ["MODELS", "gated_delta_net", "hope", "hope_attention", "match_parameters", "titans", "transformer"]

WHOLE = ("tied", "checkpointing")
OWN = ("dim", "heads")


def hope(vocab_size: int = 256, dim: int = 128, depth: int = 2, heads: int = 4, **options: Any) -> LanguageModel:
    """Hope: self-modifying Titans, then a continuum memory, in every block (C6, [NL] 94-96)."""
    return _named("hope", "self_modifying", "continuum", vocab_size, dim, depth, heads, options)


def hope_attention(
    vocab_size: int = 256, dim: int = 128, depth: int = 2, heads: int = 4, **options: Any
) -> LanguageModel:
    """Hope-Attention: softmax attention, then a continuum memory, in every block (C6, [NL] 97)."""
    return _named("hope_attention", "attention", "continuum", vocab_size, dim, depth, heads, options)


def titans(
    vocab_size: int = 256,
    dim: int = 128,
    depth: int = 2,
    heads: int = 4,
    *,
    self_modifying: bool = True,
    **options: Any,
) -> LanguageModel:
    """Titans without attention: self-modifying, or one MLP memory a head under delta gradient descent, then SwiGLU."""
    if self_modifying:
        return _named("titans", "self_modifying", "swiglu", vocab_size, dim, depth, heads, options)
    options = {"memory": "mlp", "rule": "dgd", **options}
    return _named("titans", "memory", "swiglu", vocab_size, dim, depth, heads, options)


def gated_delta_net(
    vocab_size: int = 256, dim: int = 128, depth: int = 2, heads: int = 4, **options: Any
) -> LanguageModel:
    """Gated DeltaNet: a matrix memory a head under the gated delta rule, then SwiGLU (arXiv 2412.06464)."""
    options = {"rule": "gated_delta", "output_gate": True, **options}
    return _named("gated_delta_net", "memory", "swiglu", vocab_size, dim, depth, heads, options)


def transformer(vocab_size: int = 256, dim: int = 128, depth: int = 2, heads: int = 4, **options: Any) -> LanguageModel:
    """The baseline: softmax attention with rotary positions, RMSNorm, SwiGLU."""
    return _named("transformer", "attention", "swiglu", vocab_size, dim, depth, heads, options)


MODELS: Mapping[str, Callable[..., LanguageModel]] = MappingProxyType(
    {model.__name__: model for model in (hope, hope_attention, titans, gated_delta_net, transformer)}
)
"""Every named model."""


def match_parameters(
    name: str, target: int, vocab_size: int = 256, depth: int = 2, heads: int = 4, *, multiple: int = 1, **options: Any
) -> int:
    """The dim at which a named model comes nearest to ``target`` parameters; nothing is allocated.

    Args:
        name: one of `MODELS`.
        target: number of parameters, such as those of another model.
        vocab_size, depth, heads, options: of the model.
        multiple: dims are multiples of ``2 * heads * multiple``.

    Raises:
        ValueError: no such model; even the smallest has more than twice as many.
    """
    choice("model", name, MODELS)
    step = 2 * heads * multiple

    def count(steps: int) -> int:
        with torch.device("meta"):
            model = MODELS[name](vocab_size, steps * step, depth, heads, **options)
        return sum(parameter.numel() for parameter in model.parameters())

    above = 1
    while count(above) < target:
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (middle, above) if count(middle) < target else (below, middle)
    best = min((each for each in (below, above) if each), key=lambda each: abs(count(each) - target))
    if count(best) > 2 * target:
        raise ValueError(f"expected at least {count(best):,} parameters for {name} with {heads} heads, got {target:,}")
    return best * step


def _named(
    name: str,
    mixer: str,
    feed_forward: str,
    vocab_size: int,
    dim: int,
    depth: int,
    heads: int,
    options: Mapping[str, Any],
) -> LanguageModel:
    if depth < 1:
        raise ValueError(f"depth: expected at least 1 block, got {depth}")
    mixes, feeds = dict(options.get("mixer", {})), dict(options.get("feed_forward", {}))
    whole: dict[str, Any] = {}
    known = {part: _settings(part) for part in (mixer, feed_forward)}
    for option, value in options.items():
        if option in ("mixer", "feed_forward"):
            continue
        choice(f"option of {name}", option, {*known[mixer], *known[feed_forward], *WHOLE, "mixer", "feed_forward"})
        home = whole if option in WHOLE else feeds if option in known[feed_forward] else mixes
        home[option] = value
    block = [(mixer, {"heads": heads, **mixes}), (feed_forward, feeds)]
    return LanguageModel(vocab_size, dim, [block] * depth, **whole)


def _settings(part: str) -> Iterable[str]:
    """What a layer takes besides its width and its heads."""
    return [setting for setting in inspect.signature(PARTS[part]).parameters if setting not in OWN]
