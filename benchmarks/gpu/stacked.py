"""Models of transformers on the device: ours among theirs, and a pretrained one that goes on learning."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

import nestlearn as nl
from benchmarks.gpu.problem import difference, fewer
from benchmarks.optim.timing import Unit, interleave
from nestlearn.memory.state import leaves
from nestlearn.models import add_continuum

__all__ = ["cost", "generation", "writes"]

TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
"""The shape of SmolLM2-135M, whose vocabulary is 49,152; its weights are drawn here."""

RULES = {"gradient": nl.rules.gradient, "adam": nl.rules.adam, "muon": lambda: nl.rules.muon(0.9)}
READ, DRY = 2048, 64


def writes(device: str, rule: str, objective: str = "next_token") -> dict[str, Any]:
    """What a tiny model loses on a text that it learns from, beside the same on the CPU, in float64 but for angles."""
    if (made := _llama(vocabulary=40, heads=1, **TINY)) is None:
        return _ABSENT
    tokens = torch.randint(40, (2, 45), generator=torch.Generator().manual_seed(1))
    losses, states = [], []
    for where in (device, "cpu"):
        model = copy.deepcopy(made).double().to(where)
        continuum = add_continuum(model, periods=4, inner_lr=0.01, blocks=2, writer=RULES[rule](), objective=objective)
        losses.append(continuum.read(tokens.to(where), window=20))
        states.append(continuum.state()["blocks"]["2"]["down"]["model"]["weight"])
        places = {held.device.type for matrix in continuum.matrices.values() for held in leaves(matrix.state)}
        if places != {torch.device(where).type}:
            return {"status": "wrong", "note": f"its state lies on {', '.join(sorted(places))}"}
    gap = max(difference(losses[:1], losses[1:]), difference(states[:1], states[1:]))
    return {"gap": gap, "status": "ok" if gap < 1e-5 else "wrong", "note": f"{gap:.0e} from the CPU"}


def generation(device: str, model: str) -> dict[str, Any]:
    """Tokens that one of our models continues with in transformers, beside those on the CPU, in float64."""
    try:
        from nestlearn.models.huggingface import NestlearnForCausalLM
    except ImportError:
        return _ABSENT
    torch.manual_seed(0)
    own = NestlearnForCausalLM.of(nl.models.MODELS[model](vocab_size=40, dim=16, depth=2, heads=2)).double().eval()
    tokens = torch.randint(1, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0  # on the left, where generate has it
    found = []
    for where in (device, "cpu"):
        given = {"attention_mask": mask.to(where), "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        for more in ({}, {"num_beams": 3}):
            found.append(own.to(where).generate(tokens.to(where), **given, **more).cpu())
    same = all(map(torch.equal, found[:2], found[2:]))
    return {"status": "ok" if same else "wrong", "note": "greedy and by beams, as on the CPU" if same else "others"}


def cost(device: str, periods: int, products: str) -> dict[str, Any]:
    """The time a token of a model that learns from a text over the same model that reads it as a whole.

    Args:
        device: where.
        periods: tokens from one write to the next, of W_down of the last four blocks.
        products: type of the model's weights.
    """
    small = not device.startswith("cuda")
    sizes = SMOLLM2 | ({"num_hidden_layers": 4} if small else {})
    if (model := _llama(vocabulary=512 if small else 49152, heads=3, **sizes)) is None:
        return _ABSENT
    model = model.to(device, getattr(torch, products))
    count = fewer(device, READ, DRY)
    tokens = torch.randint(512, (1, count), device=device)
    continuum = add_continuum(model, periods=periods, inner_lr=1e-5, blocks=4)

    def frozen() -> Tensor:
        with continuum.paused(), torch.no_grad():
            return model(tokens, use_cache=False).logits

    reads = Unit(lambda: continuum.read(tokens, window=count), continuum.reset)
    rounds, target = (3, 300.0) if not small else (1, 1.0)
    turns = interleave(reads, Unit(frozen, lambda: None), device=device, rounds=rounds, cycle=1, target_ms=target)
    kept = continuum.bytes
    note = f"{turns.median:.2f} of the frozen model, {turns.ours_ms:.0f} ms of {turns.reference_ms:.0f}, {count} tokens"
    return {"ratio": turns.median, "ms": turns.ours_ms, "frozen_ms": turns.reference_ms, "bytes": kept, "note": note}


_ABSENT = {"status": "absent", "note": "transformers is not installed"}


def _llama(vocabulary: int, heads: int, **sizes: int) -> Any:
    """A random Llama; None where transformers is not installed."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        return None
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, num_key_value_heads=heads, tie_word_embeddings=True, **sizes)
    return LlamaForCausalLM(config).eval().requires_grad_(False)
