"""What a shell offers when TAB is pressed: names of tasks, optimizers and settings.

The names stand here as text, because an answer has to come at once and the registries that know them import torch. A
test compares every list with its registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = [
    "COMPARE_KEYS",
    "CONTENDERS",
    "DEVICES",
    "DTYPES",
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
    *("warmup", "points", "rows", "checkpoint_every", "device", "dtype", "strategy", "threads"),
)
COMPARE_KEYS = (
    *("preset", "tasks", "optimizers", "seeds", "steps", "task_steps", "sizes", "fixed", "elementwise_lr", "schedule"),
    *("search", "trial_fraction", "lr_points", "lr_ratio", "retentions", "weight_decays", "inner_factors", "refine"),
    *("grow", "keep", "points", "matched", "device", "dtype", "executor", "workers", "cluster"),
)

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
