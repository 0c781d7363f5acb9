"""Optimizers of other libraries that take more than parameters and settings, made as their manuals have it.

Kernels are not compiled: that takes minutes for every process and changes no result that is checked here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

__all__: list[str] = []


def _without_compiler(name: str) -> Callable[..., torch.optim.Optimizer]:
    def make(params: Any, **settings: Any) -> torch.optim.Optimizer:
        importlib.import_module("heavyball.utils").compile_mode = None
        made: torch.optim.Optimizer = getattr(importlib.import_module("heavyball"), name)(params, **settings)
        return made

    make.__qualname__ = make.__name__ = f"heavyball_{name}"
    return make


heavyball_AdamW = _without_compiler("AdamW")
heavyball_SGD = _without_compiler("SGD")
heavyball_Muon = _without_compiler("Muon")
heavyball_SOAP = _without_compiler("SOAP")
heavyball_PSGDKron = _without_compiler("PSGDKron")


def _on_mesh(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Under FSDP2 dion is given the mesh, under DDP the group."""

    def make(params: Any, **settings: Any) -> torch.optim.Optimizer:
        entries = list(params)
        if dist.is_initialized():
            first = entries[0]["params"][0] if isinstance(entries[0], dict) else entries[0]
            mesh = first.device_mesh if isinstance(first, DTensor) else dist.group.WORLD
            settings["distributed_mesh"] = mesh
        made: torch.optim.Optimizer = getattr(importlib.import_module("dion"), name)(entries, **settings)
        return made

    make.__qualname__ = make.__name__ = f"dion_{name}"
    return make


dion_Muon = _on_mesh("Muon")
dion_NorMuon = _on_mesh("NorMuon")
dion_Dion2 = _on_mesh("Dion2")
