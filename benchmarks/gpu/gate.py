"""The checks of `benchmarks.optim` against closed forms in float64, on this device and in its own products."""

from __future__ import annotations

from typing import Any

from benchmarks.optim import gate

__all__ = ["row"]


def row(device: str) -> dict[str, Any]:
    """All of them."""
    checks = gate.gate(device, compiled=False)
    missed = [check for check in checks if not check.passed]
    words = [f"{check.name}: {check.error:.1e}" for check in missed or checks[-1:]]
    note = f"{len(checks) - len(missed)} of {len(checks)} hold; {'; '.join(words)}"
    return {"checks": [check.record() for check in checks], "status": "wrong" if missed else "ok", "note": note}
