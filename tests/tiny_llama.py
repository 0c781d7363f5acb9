"""A tiny random Llama of transformers in float64, for the tests of what goes on learning in it."""

from __future__ import annotations

from typing import Any

import torch
from needed import needs

__all__ = ["tiny_llama"]


def tiny_llama(vocab_size: int = 40) -> Any:
    needs("transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, num_key_value_heads=1, **sizes)).double().eval()
