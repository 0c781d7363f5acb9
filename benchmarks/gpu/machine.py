"""What the figures belong to: the GPU, its driver, and the versions of everything between it and the library."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks.optim import report

__all__ = ["PEAKS", "describe", "peak"]

PEAKS = (
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
    ("B200", 2250e12),
    ("L40S", 362e12),
)
"""FLOP a second of dense bfloat16 products by a part of the GPU's name, from NVIDIA's data sheets."""


def describe(device: str) -> dict[str, Any]:
    """No host or user name."""
    found = report.machine(device)
    found |= {name: _version(name) for name in ("triton", "numpy", "fla-core", "pytest")}
    found |= {"cuda": torch.version.cuda, "driver": _driver()}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "memory": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "capability": list(torch.cuda.get_device_capability(device)),
            "products": "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32",
        }
    found["bfloat16_peak"] = peak(device)
    words = [f"driver {found['driver']}", f"CUDA {found['cuda']}", f"triton {found['triton']}"]
    words += [f"Python {found['python']}", f"{found['cores']} cores"]
    return {"machine": found, "note": f"{found['device']}, torch {found['torch']}, {', '.join(words)}"}


def peak(device: str) -> float | None:
    """FLOP a second of bfloat16 products; None where it is not known."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return next((rate for part, rate in PEAKS if all(word in name for word in part.split())), None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    """As nvidia-smi names it."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    return next(iter(done.stdout.split()), None)
