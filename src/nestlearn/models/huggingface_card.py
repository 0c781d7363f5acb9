"""The model card that is saved beside the weights: what the model is, and how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from nestlearn.version import __version__

__all__ = ["card"]


def card(config: Mapping[str, Any], parameters: int, dtype: torch.dtype) -> str:
    """The text of a ``README.md``.

    Args:
        config: the arguments of the `nestlearn.models.LanguageModel`.
        parameters: how many numbers its weights are.
        dtype: of the weights.

    Example:
        >>> print(card({"vocab_size": 256, "dim": 8, "blocks": [], "tied": True}, 2056, torch.float32).splitlines()[1])
        library_name: transformers
    """
    blocks = [" + ".join(name for name, _ in block) for block in config["blocks"]]
    kept = str(dtype).removeprefix("torch.")
    runs = [f"{blocks.count(kind)} x {kind}" for kind in dict.fromkeys(blocks)]
    return f"""\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- nestlearn
- nested-learning
---

# A language model of nestlearn

{parameters:,} parameters in {kept}, {config["vocab_size"]:,} tokens, width {config["dim"]}.
Blocks: {", ".join(runs) or "none"}. {"The head is the embedding." if config["tied"] else "The head is its own."}

Its layers are memories that go on being written while they read, so what it has read is kept in a state instead of in
a window of tokens. It is made of `nestlearn`, which registers it:

```python
import nestlearn.models.huggingface
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("this folder")
```

What it was trained on, what it is for and what it gets wrong: not said yet.

## Architecture

```json
{json.dumps({**config, "nestlearn": __version__}, indent=1)}
```
"""
