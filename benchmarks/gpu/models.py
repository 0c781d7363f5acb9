"""Training steps of our language models in bfloat16 by autocast, with weights in float32.

A step is forward, cross-entropy of the next token, and backward, on the same number of tokens whatever the context.
``utilisation`` is of the products of bfloat16 that the data sheet promises: six operations for each weight and token,
for the transformer those of causal attention too. What memories compute is work that it does not count.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
import torch._dynamo.utils  # counts what is compiled
from torch import Tensor, nn
from torch.nn import functional as F

import nestlearn as nl
from benchmarks.gpu.clock import kernels, settled
from benchmarks.gpu.machine import peak
from benchmarks.optim.timing import Unit, seconds
from nestlearn.models import MODELS, LanguageModel

__all__ = ["decode", "fused", "profiled", "train", "train_compiled"]

VOCABULARY, WIDTH, DEPTH, HEADS, TOKENS = 256, 512, 6, 8, 32768
SMALL = 64
"""By so much are tokens and contexts of a dry run shorter."""

PROFILED_DEPTH = 2
"""Blocks are alike, and a profile of a hundred thousand kernels takes a minute to read."""

LONGEST = 6.0
"""Seconds after which no further step is timed; five are enough."""


def train(device: str, model: str, context: int, products: str = "highest") -> dict[str, Any]:
    """Tokens a second of a training step; half the batch where it does not fit.

    Args:
        device, model, context: where, which, and tokens of a sequence.
        products: precision of float32 products, see `torch.set_float32_matmul_precision`.
    """
    network = _network(model, device)
    batch, length = _shape(context, device)
    torch.set_float32_matmul_precision(products)
    tried = []
    try:
        while True:
            try:
                found = _figures(network, device, batch, length, model)
                break
            except torch.OutOfMemoryError:
                tried.append(batch)
            _release(network)  # outside the handler, which holds the frames of the failed step
            if batch == 1:
                note = f"out of memory with {length} tokens"
                return {"status": "failed", "out_of_memory": tried, "note": note}
            batch //= 2
    finally:
        torch.set_float32_matmul_precision("highest")
    note = f"{_words(found)}{f'; out of memory with batches of {tried}' if tried else ''}"
    return {**found, "out_of_memory": tried, "note": note}


def train_compiled(device: str, model: str, context: int, chunks: bool = False) -> dict[str, Any]:
    """A step with every layer compiled over one without, and the seconds until the first compiled one was over.

    Args:
        device, model, context: as in `train`.
        chunks: compile what a loop over chunks repeats, see `nestlearn.layers.compile_chunks`, and nothing else.
    """
    torch._dynamo.reset()
    network = _network(model, device)
    batch, length = _shape(context, device)
    eager = _figures(network, device, batch, length, model)
    expected = _loss(network, _text(batch, length, device), device).item()
    if chunks:
        nl.layers.compile_chunks(network)
    else:
        for block in network.blocks:
            for stage in block:  # alike in every block, so that one compilation serves them all
                stage.compile(dynamic=False)
    found = _figures(network, device, batch, length, model)
    error = abs(_loss(network, _text(batch, length, device), device).item() - expected)
    ratio = found["ms"] / eager["ms"]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found |= {"eager_ms": eager["ms"], "ratio": ratio, "loss_error": error, "graphs": graphs}
    note = (
        f"{ratio:.2f} of eager; {graphs} graphs, first step {found['first_step_seconds']:.0f} s; loss {error:.0e} off"
    )
    return {**found, "status": "ok" if error < 0.05 else "wrong", "note": f"{_words(found)}; {note}"}


def profiled(device: str, model: str, context: int) -> dict[str, Any]:
    """What the device does in a training step of two blocks, and for which share of the time it does anything."""
    network = _network(model, device, depth=PROFILED_DEPTH)
    batch, length = _shape(context, device)
    unit = _unit(network, batch, length, device)
    seconds(unit, device, 2)
    ms = 1e3 * seconds(unit, device)
    unit.prepare()
    found = kernels(unit.run, device)
    figures = {"depth": PROFILED_DEPTH, "batch": batch, "context": length, "ms": ms}
    if found["kernels"] is None:
        return {**found, **figures, "note": f"{ms:.0f} ms; no profile: {found['profile_error']}"}
    busy = found["busy_ms"] / ms
    top = ", ".join(f"{each['share']:.0%} {each['kernel'][:44]}" for each in found["top"][:3])
    note = f"{found['kernels']} kernels, busy {busy:.0%} of {ms:.0f} ms; {top}"
    return {**found, **figures, "busy": busy, "note": note}


def decode(device: str, model: str) -> dict[str, Any]:
    """Tokens a second of a continuation, one by one, after a context that was read before."""
    network = _network(model, device)
    length, count = (2048, 64) if device.startswith("cuda") else (32, 4)
    last = torch.zeros(1, 1, dtype=torch.int64, device=device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        _, state = network(_text(1, length, device), return_state=True)
        unit = Unit(lambda: network.generate(last, count, state=state), lambda: None)
        seconds(unit, device)
        spent = [seconds(unit, device) for _ in range(3)]
    rate = count / statistics.median(spent)
    note = f"{rate:.0f} tokens a second, one sequence, after {length} tokens"
    return {"tokens_a_second": rate, "context": length, "decoded": count, "note": note}


def fused(device: str) -> dict[str, Any]:
    """The layer of the gated delta rule through the kernel of fla-core over our own form, where it is installed."""
    from nestlearn.layers import memory_layer as home
    from nestlearn.ops import fused as kernel
    from nestlearn.ops import matrix_memory

    if not kernel.is_fused(torch.empty(0, dtype=torch.bfloat16, device=device)):
        return {
            "status": "absent",
            "note": "absent: fla-core, or a triton with which it is right on this GPU"
            if device.startswith("cuda")
            else "absent: CUDA",
        }
    torch.manual_seed(0)
    layer = nl.layers.MemoryLayer(WIDTH, heads=HEADS, rule="gated_delta").to(device)
    x = torch.randn(4, 2048, WIDTH, device=device)

    def slopes() -> list[Tensor]:
        with torch.autocast(device, torch.bfloat16):
            answers = layer(x)
        return [answers.detach(), *torch.autograd.grad(answers.float().square().mean(), list(layer.parameters()))]

    theirs, spent = slopes(), {}
    spent["fla-core"] = statistics.median(seconds(Unit(slopes, lambda: None), device) for _ in range(5))
    for module in (home, matrix_memory):
        module.is_fused = lambda key: False  # type: ignore[attr-defined]
    try:
        ours = slopes()
        spent["ours"] = statistics.median(seconds(Unit(slopes, lambda: None), device) for _ in range(5))
    finally:
        for module in (home, matrix_memory):
            module.is_fused = kernel.is_fused  # type: ignore[attr-defined]
    errors = [float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in zip(theirs, ours, strict=True)]
    ratio = spent["fla-core"] / spent["ours"]
    note = f"{ratio:.2f} of the time of ours; answers {errors[0]:.0e} apart, slopes {max(errors[1:]):.0e}"
    status = "ok" if errors[0] < 0.05 else "wrong"
    return {"seconds": spent, "ratio": ratio, "relative_errors": errors, "status": status, "note": note}


def _network(model: str, device: str, depth: int = DEPTH) -> LanguageModel:
    torch.manual_seed(0)
    if device.startswith("cuda"):
        return MODELS[model](VOCABULARY, WIDTH, depth, HEADS).to(device)
    return MODELS[model](VOCABULARY, 16, 1, 2)


def _shape(context: int, device: str) -> tuple[int, int]:
    """Sequences, and tokens of each."""
    shorter = 1 if device.startswith("cuda") else SMALL
    return max(1, TOKENS // context // shorter), max(8, context // shorter)


def _text(batch: int, length: int, device: str) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1)).to(device)


def _loss(network: nn.Module, tokens: Tensor, device: str) -> Tensor:
    with torch.autocast(device, torch.bfloat16):
        logits = network(tokens)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


def _unit(network: nn.Module, batch: int, length: int, device: str) -> Unit:
    tokens = _text(batch, length, device)

    def run() -> None:
        _loss(network, tokens, device).backward()

    return Unit(run, lambda: network.zero_grad(set_to_none=True))


def _figures(network: LanguageModel, device: str, batch: int, length: int, model: str) -> dict[str, Any]:
    unit = _unit(network, batch, length, device)
    first = _wall(unit, device)
    before = settled(device)
    spent = [seconds(unit, device)]
    while sum(spent) < LONGEST and len(spent) < 5:
        spent.append(seconds(unit, device))
    highest = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    rate = batch * length / statistics.median(spent)
    most = peak(device)
    return {
        "batch": batch,
        "context": length,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "ms": 1e3 * statistics.median(spent),
        "steps": len(spent),
        "tokens_a_second": rate,
        "peak_bytes": highest,
        "bytes_before": before,
        "first_step_seconds": first,
        "utilisation": None if most is None else rate * _operations(network, model, length) / most,
    }


def _wall(unit: Unit, device: str) -> float:
    """Seconds by the clock on the wall, compilers included."""
    start = time.monotonic()
    unit.prepare()
    unit.run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.monotonic() - start


def _operations(network: LanguageModel, model: str, length: int) -> float:
    """Of a token, forward and backward: 6 N without the embedding, which is looked up; 6 depth width context more for
    causal attention.
    """
    weights = sum(parameter.numel() for parameter in network.parameters()) - network.embedding.weight.numel()
    attention = 6 * len(network.blocks) * network.dim * length if model == "transformer" else 0
    return float(6 * weights + attention)


def _release(network: nn.Module) -> None:
    network.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _words(found: dict[str, Any]) -> str:
    words = [f"{found['tokens_a_second']:,.0f} tokens a second, {found['ms']:.0f} ms, batch {found['batch']}"]
    if found["peak_bytes"] is not None:
        words.append(f"{found['peak_bytes'] / 2**30:.1f} GiB")
    share = found["utilisation"]
    words.append("utilisation not known" if share is None else f"utilisation {share:.1%}")
    return ", ".join(words)
