"""All rows in their order: what runs, in which process, and for how long at most. No torch here.

A process runs its rows one after the other. The most telling rows of each kind come first, and what a compiler has to
make comes last, so that whatever the time does not suffice for is the least of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.settings import SETTINGS, Setting

__all__ = ["CONTEXTS", "MARK", "MODELS", "Row", "rows"]

MARK = "@row "
"""Begins the lines of a process that are meant for whoever started it: libraries print too."""

MODELS = ("transformer", "gated_delta_net", "hope")
CONTEXTS = (2048, 8192, 32768)
STEPS = (
    "Adam",
    "Momentum",
    "Muon",
    "M3",
    "DeepMomentum",
    "DeepAdam",
    "Nested",
    "SOAP",
    "SecantMomentum",
    "DeltaMomentum",
    "LayerMomentum",
    'Adam(nonfinite="ignore")',
)
ON_RANKS = ("Adam", "Momentum", "Muon", "M3", "SOAP", "Nested", "DeepMomentum", "SecantMomentum", "DeltaMomentum")
EQUAL_PRODUCTS = {"NESTLEARN_PRODUCTS": "float32"}
"""Where results are compared with those of a CPU: bfloat16 is multiplied where the device does so natively."""

COMPILER_OFF = {"TORCHDYNAMO_DISABLE": "1"}
"""A dry run walks the compiled rows without waiting for a compiler."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: unique.
        process: rows of one process follow each other in it, unless it has to be started anew.
        work: "module:function" of benchmarks.gpu, called with the device and the arguments.
        limit: seconds after which the process is killed.
        arguments: of the function.
        environment: variables that the process starts with; those of its first row count.
        compiled: whether a compiler works for it.
    """

    name: str
    process: str
    work: str
    limit: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    compiled: bool = False


def rows() -> list[Row]:
    """Every row, eager ones first."""
    return [
        Row("machine", "right", "machine:describe", 60, environment=EQUAL_PRODUCTS),
        *_correctness(),
        *_steps("10M", "eager"),
        *_hosted(),
        *_models(),
        *_steps("300M", "large"),
        *_ranks(),
        Row("contract suite", "large", "contract:suite", 60),
        *_compiled(),
    ]


def _correctness() -> Iterator[Row]:
    """Ours on the device: beside the CPU in equal products, then in those that the device is used with."""

    def each(what: str, work: str, process: str, chosen: Iterable[Setting]) -> Iterator[Row]:
        environment = EQUAL_PRODUCTS if process == "right" else {}
        for setting in chosen:
            arguments = {"number": SETTINGS.index(setting)}
            yield Row(f"{what}: {setting}", process, f"{work}:row", 15, arguments, environment)

    yield from each("as on the CPU", "right", "right", SETTINGS)
    yield Row("closed forms", "small", "gate:row", 30)
    yield from each("waits", "syncs", "small", SETTINGS)
    yield from each("half precision", "mixed", "small", SETTINGS)
    # Last in their process: a capture that fails may leave it unusable.
    yield from each("CUDA graph", "graphs", "small", [setting for setting in SETTINGS if not setting.closure])


def _hosted() -> Iterator[Row]:
    """Models of transformers, and what records a run."""
    for rule, objective in (("gradient", "next_token"), ("adam", "direct"), ("muon", "next_token")):
        arguments = {"rule": rule, "objective": objective}
        name = f"continuum as on the CPU: {rule}, {objective}"
        yield Row(name, "hosted", "stacked:writes", 30, arguments, EQUAL_PRODUCTS)
    for model in MODELS:
        name = f"generate in transformers as on the CPU: {model}"
        yield Row(name, "hosted", "stacked:generation", 30, {"model": model}, EQUAL_PRODUCTS)
    for periods, products in ((64, "float32"), (64, "bfloat16"), (256, "float32"), (256, "bfloat16")):
        name = f"continuum, time a token: period {periods}, {products}"
        yield Row(name, "recorded", "stacked:cost", 40, {"periods": periods, "products": products})
    for ours in ("Adam", "DeepMomentum"):
        yield Row(f"recorded: {ours}", "recorded", "recorded:row", 60, {"ours": ours})


def _steps(size: str, process: str) -> Iterator[Row]:
    for ours in STEPS:
        yield Row(f"step, {size}: {ours}", process, "steps:row", 40, {"ours": ours, "size": size})


def _models() -> Iterator[Row]:
    """Short contexts of every model before the long ones, and what a step is made of between them."""

    def train(context: int, model: str, **options: Any) -> Row:
        words = "".join(f", {key}={value}" for key, value in options.items())
        limit = 60 if context == max(CONTEXTS) and model == "hope" else 40
        arguments = {"model": model, "context": context, **options}
        return Row(f"train, {context} tokens: {model}{words}", "eager", "models:train", limit, arguments)

    for context in CONTEXTS:
        yield from (train(context, model) for model in MODELS)
        if context == CONTEXTS[0]:
            for model in MODELS:
                arguments = {"model": model, "context": context}
                yield Row(f"profile, {context} tokens: {model}", "eager", "models:profiled", 40, arguments)
            yield train(context, "hope", products="high")
    for model in ("hope", "transformer"):
        yield Row(f"decode: {model}", "eager", "models:decode", 25, {"model": model})
    arguments = {"model": "transformer", "context": CONTEXTS[-1]}
    yield Row(f"profile, {CONTEXTS[-1]} tokens: transformer", "eager", "models:profiled", 30, arguments)
    yield Row("gated delta rule of fla-core", "eager", "models:fused", 40)


def _ranks() -> Iterator[Row]:
    """What is sharded over ranks, on the one that there is: with NCCL, which no CPU has."""
    for name in ON_RANKS:
        number = next(number for number, setting in enumerate(SETTINGS) if setting.name == name)
        yield Row(f"FSDP2: {SETTINGS[number]}", "ranks", "ranks:row", 30, {"number": number})
    for ours in ("Adam", "Muon", "Nested"):
        yield Row(f"step in shards, 300M: {ours}", "ranks", "ranks:cost", 40, {"ours": ours, "size": "300M"})


def _compiled() -> Iterator[Row]:
    """What takes a compiler longest comes last."""

    def compiled(name: str, work: str, limit: float, **arguments: Any) -> Row:
        return Row(name, "compiled", work, limit, arguments, COMPILER_OFF, True)

    def train(model: str, context: int, limit: float) -> Row:
        name = f"train compiled, {context} tokens: {model}"
        return compiled(name, "models:train_compiled", limit, model=model, context=context)

    adam = "Adam(compile=True)"
    yield compiled(f"step, 10M: {adam}", "steps:row", 60, ours=adam, size="10M", compiled=True)
    yield train("transformer", CONTEXTS[0], 60)
    yield train("gated_delta_net", CONTEXTS[0], 75)
    for context, limit in ((256, 75.0), (CONTEXTS[0], 60.0)):
        name = f"train, chunks compiled, {context} tokens: hope"
        yield compiled(name, "models:train_compiled", limit, model="hope", context=context, chunks=True)
    yield compiled(f"step, 300M: {adam}", "steps:row", 75, ours=adam, size="300M", compiled=True)
    # Its chunks are unrolled: a compiler meets every one of them, so that a long context takes it an hour.
    yield train("hope", 256, 120)
