"""What a shell offers when TAB is pressed: names of tasks, optimizers and settings.

The names stand here as text, because an answer has to come at once and the registries that know them import torch. A
test compares every list with its registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = [
    "CHECKS",
    "COMPARE_KEYS",
    "CONTENDERS",
    "DEVICES",
    "DTYPES",
    "OPTIMIZER_MODULES",
    "PRESETS",
    "STRATEGIES",
    "TASKS",
    "TORCH_OPTIMIZERS",
    "TRAIN_KEYS",
    "key_of",
    "list_of",
    "one_of",
]

TASKS = ("digits", "speeches", "text", "delayed-gradients", "fashion-mnist", "ravine", "quadratic", "orthogonal-tasks")
CONTENDERS = (
    *("AdamW", "GradientDescent", "DeltaGradientDescent", "Momentum", "DeltaMomentum", "PreconditionedMomentum"),
    *("DeepMomentum", "DeepMomentum2", "Adam", "DeepAdam", "SOAP", "Muon", "M3", "Nested", "SecantMomentum"),
    "LayerMomentum",
)
TORCH_OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adamax", "LBFGS", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"),
    "SparseAdam",
)
PRESETS = ("demo", "quick", "full")
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float32", "float64", "bfloat16")
STRATEGIES = ("none", "ddp", "fsdp2", "hsdp")
TRAIN_KEYS = (
    *(
        "task.name",
        "optimizer.name",
        "optimizer.lr",
        "optimizer.rule",
        "optimizer.elementwise_lr",
        "steps",
        "seeds",
        "schedule",
    ),
    *("warmup", "points", "rows", "checkpoint_every", "log", "record", "device", "dtype", "strategy", "threads"),
)
COMPARE_KEYS = (
    *("preset", "tasks", "optimizers", "seeds", "steps", "task_steps", "sizes", "fixed", "elementwise_lr", "schedule"),
    *("search", "trial_fraction", "lr_points", "lr_ratio", "retentions", "weight_decays", "inner_factors", "refine"),
    *("grow", "keep", "points", "matched", "device", "dtype", "executor", "workers", "cluster"),
)

CHECKS = (
    *("whole-model", "learns", "deterministic", "order", "closure", "no-gradients", "missing-gradient", "frozen"),
    *("gradients-kept", "zero-step", "maximize", "hooks", "accumulated", "evaluation-between", "recomputed"),
    *("compiled-model", "foreach", "lets-go", "base-class", "prints", "quiet", "named-parameters", "group-rate"),
    *("added-group", "group-decay", "decay-shrinks", "schedule", "tensor-rate", "negative-rate", "empty-list"),
    *("twice", "other-state", "group-saved", "round-trip", "safe-load", "untrained", "rolled-back", "deep-copied"),
    *("pickled", "half-round-trip", "by-name", "asked-early", "no-graph", "nonfinite", "scaled-loss"),
    *("every-shape", "empty-parameter", "parameter-layout", "gradient-layout", "double-precision"),
    *("half-precision", "complex-numbers", "sparse-gradients", "apart-from-others", "accelerate"),
    *("transformers-trainer", "lightning", "ddp", "fsdp2", "fsdp2-uneven", "same-keys", "dcp-replicas"),
    *("dcp-shards", "dcp-elsewhere", "shared-out"),
)
OPTIMIZER_MODULES = ("torch.optim:", "nestlearn.optim:")

Complete = Callable[[str], list[str]]


def one_of(names: Iterable[str]) -> Complete:
    """For an option that takes one name."""
    known = tuple(names)

    def complete(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return complete


def list_of(names: Iterable[str]) -> Complete:
    """For an option that takes names with commas between them: the last one is completed, those given are left out."""
    known = tuple(names)

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        left = [name for name in known if name not in before.split(",")]
        return [before + comma + name for name in one_of(left)(last)]

    return complete


def key_of(keys: Iterable[str]) -> Complete:
    """For ``--set``: the keys, each with the sign that follows it."""
    return one_of([f"{key}=" for key in keys])
