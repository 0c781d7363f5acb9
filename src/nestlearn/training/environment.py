"""Where a comparison ran: what ``environment.json`` holds."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from nestlearn.precision import product_dtype

__all__ = ["environment"]


def _processor() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def environment(device: str, workers: int) -> dict[str, Any]:
    """Machine, versions and threads; no host or user name."""
    try:
        own = version("nestlearn")
    except PackageNotFoundError:  # run from a source tree that is not installed
        own = "source tree"
    return {
        "nestlearn": own,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "products": str(product_dtype(torch.empty(0, device=device))).removeprefix("torch."),
        "workers": workers,
        "threads_per_worker": 1,
    }
