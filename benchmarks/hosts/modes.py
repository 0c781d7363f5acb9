"""Every way to train in every host: the columns of the table."""

from __future__ import annotations

from benchmarks.hosts import (
    accelerate,
    averaging,
    compiled,
    ignite,
    lightning,
    skorch,
    timm,
    torch_amp,
    trainer,
)
from benchmarks.hosts.common import Mode

__all__ = ["MODES"]

MODES: tuple[Mode, ...] = (
    *trainer.MODES,
    *accelerate.MODES,
    *lightning.MODES,
    *timm.MODES,
    *torch_amp.MODES,
    *averaging.MODES,
    *skorch.MODES,
    *ignite.MODES,
    *compiled.MODES,
)
