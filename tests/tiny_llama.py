"""A tiny random Llama of transformers in float64, for the tests of what goes on learning in it."""

from __future__ import annotations

from typing import Any

import torch
from needed import needs
from torch import Tensor

from nestlearn.models.stacking_calls import cache_name

__all__ = ["read_on", "tiny_llama"]


def tiny_llama(vocab_size: int = 40) -> Any:
    needs("transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, num_key_value_heads=1, **sizes)).double().eval()


def read_on(model: Any, tokens: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
    """Logits of tokens that come after those in a cache, and the cache, whatever this version calls it."""
    name = cache_name(model.forward)
    out = model(tokens, use_cache=True, **{name: cache})
    return out.logits, out[name]
