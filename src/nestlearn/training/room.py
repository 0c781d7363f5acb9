"""Whether a network and its optimizer fit into the memory of this machine, before any of it is allocated."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nestlearn.descriptions import describe
from nestlearn.foreign import reason
from nestlearn.tasks import make_task

__all__ = ["check_room", "check_state", "memory"]

COPIES = 2  # weights and gradients; what an optimizer keeps comes on top
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory() -> int:
    """The bytes of memory that this process may have, those of its container if it is in one."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [1 << 62]
    for file in LIMITS:
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        sizes += [int(text)] if text.isdigit() else []
    return min(sizes)


def check_room(task: str, size: Mapping[str, Any], device: str, dtype: str, seed: int = 0) -> None:
    """Raise ValueError if the network of a task of ours cannot be built here: its sizes, or its bytes, are too many.

    It is built on the meta device, which has shapes and no memory. What a task of the user's makes is not known before.
    """
    if ":" in task:
        return
    try:
        with torch.device("meta"):
            network = make_task(task, size, "meta", dtype).build(seed)
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
        raise ValueError(f"the network of the task {task} cannot be built: {reason(error)}") from error
    needed = COPIES * sum(parameter.nbytes for parameter in network.parameters())
    _refuse(f"the network of the task {task} needs", needed, device)


def check_state(name: str, optimizers: Sequence[torch.optim.Optimizer], device: str) -> None:
    """Raise ValueError if the state of optimizers that have taken no step would not fit."""
    _refuse(f"the state of {name} needs", describe(*optimizers).state_bytes, device)


def _refuse(what: str, needed: int, device: str) -> None:
    if torch.device(device).type == "cpu" and needed > memory():
        raise ValueError(
            f"{what} {needed / 1e9:,.1f} GB, and this machine has {memory() / 1e9:,.1f} GB of memory: make it smaller"
        )
