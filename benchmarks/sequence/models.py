"""Our models, the plain transformer of as many parameters, and what is timed of them.

Width 128, two blocks, four heads, 256 tokens: bytes. Weights are fresh; what is in them does not change the time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.optim.timing import Unit
from nestlearn.models import MODELS, LanguageModel, match_parameters, read

__all__ = ["DECODED", "OURS", "count", "decoding", "named_training", "network", "reading", "text", "training", "unit"]

VOCABULARY, WIDTH, DEPTH, HEADS = 256, 128, 2, 4
DECODED = 128
"""Tokens of one timed continuation: two writes of the faster continuum block, half of one of the slower."""

OURS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Hope": ("hope", {}),
    "Hope, MLP memories": ("hope", {"memory": "mlp"}),
    "Hope, chunks of 4": ("hope", {"chunk": 4}),
    "Hope, inner_lr=0": ("hope", {"inner_lr": 0.0}),
    "Hope, next_token": ("hope", {"objective": "next_token"}),
    "Hope-Attention": ("hope_attention", {}),
    "Hope-Attention, next_token": ("hope_attention", {"objective": "next_token"}),
    "Titans": ("titans", {}),
    "gated DeltaNet": ("gated_delta_net", {}),
    "transformer": ("transformer", {}),
}
"""Names in the table -> model and options; everything else is its default, such as chunks of 64."""


def network(name: str, parameters: int | None = None) -> LanguageModel:
    """One of `OURS` with new weights, of width 128 or as wide as brings it nearest to a number of parameters."""
    model, options = OURS[name]
    width = WIDTH if parameters is None else match_parameters(model, parameters, VOCABULARY, DEPTH, HEADS, **options)
    torch.manual_seed(0)
    return MODELS[model](VOCABULARY, width, DEPTH, HEADS, **options)


def count(model: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters())


def text(batch: int, time: int) -> Tensor:
    """Random bytes [batch, time]."""
    return torch.randint(VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(1))


def unit(model: nn.Module, run: Callable[[], object]) -> Unit:
    """``run`` with the gradients of the model forgotten before, outside the clock."""
    return Unit(run, lambda: model.zero_grad(set_to_none=True))


def reading(model: LanguageModel, lengths: Sequence[int], further: bool) -> Unit:
    """A forward pass over texts of these lengths, without gradients; with ``further`` over more text after it, which
    is as long for all, but begins where each stands.
    """
    tokens, longest = text(len(lengths), max(lengths)), max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    with torch.no_grad():
        state = model(tokens, return_state=True, mask=mask)[1] if further else None

    @torch.no_grad()
    def run() -> None:
        model(tokens, state, return_state=True, mask=None if further else mask)

    return unit(model, run)


def training(model: nn.Module, batch: int, time: int) -> Unit:
    """Forward, cross-entropy of the next byte, backward. Memories begin anew and are written as the text is read."""
    tokens = text(batch, time)

    def run() -> None:
        logits = model(tokens)
        F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:]).backward()

    return unit(model, run)


def named_training(name: str, batch: int, time: int) -> Unit:
    """`training` of the network with that name, which is what another process can be sent."""
    return training(network(name), batch, time)


def decoding(model: LanguageModel, context: int) -> Unit:
    """`DECODED` tokens, one by one, after a context that was read once, outside the clock."""
    _, state = read(model, text(1, context))
    last = torch.zeros(1, 1, dtype=torch.int64)
    return unit(model, lambda: model.generate(last, DECODED, state=state))
