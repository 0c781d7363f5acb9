"""The machine's name, the table and the JSON file."""

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["dated", "header", "judged", "line", "machine", "record", "save", "slug"]


def machine(device: str) -> dict[str, Any]:
    """What a figure is worth nothing without; no host or user name."""
    import torch  # here, as whoever only writes files need not wait for it

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16_instructions": torch.cpu._is_avx512_bf16_supported(),
    }


def slug(described: dict[str, Any]) -> str:
    """A file name for the machine: device and processor."""
    words = (
        described["processor"] if described["device"] == "cpu" else f"{described['device']} {described['processor']}"
    )
    threads = f"{described['threads']}-thread"
    return re.sub(r"[^a-z0-9]+", "-", f"{words} {described['cores']}-core {threads}".lower()).strip("-")


def record(row: Any, measurement: Any, ours_bytes: int, reference_bytes: int) -> dict[str, Any]:
    """One row of the table as plain data."""
    low, high = measurement.quartiles
    return {
        "ours": row.ours,
        "reference": row.reference,
        "workload": row.workload.name,
        "parameters": row.workload.elements,
        "ratio": measurement.median,
        "quartiles": [low, high],
        "bar": row.bar,
        "passed": None if row.bar is None else measurement.median <= row.bar,
        "ours_ms": measurement.ours_ms,
        "reference_ms": measurement.reference_ms,
        "ours_state_bytes": ours_bytes,
        "reference_state_bytes": reference_bytes,
        "rounds": len(measurement.ratios),
        "runs_per_round": measurement.runs_per_round,
    }


def dated(make: Callable[[], Any]) -> dict[str, Any]:
    """A table with when, and how busy the machine was before: the tables of one file may be made one by one."""
    load = round(os.getloadavg()[1], 2)
    return {"date": datetime.now(UTC).date().isoformat(), "load_of_five_minutes": load, "rows": make()}


def header() -> str:
    """The names of the columns."""
    return (
        f"{'ours':<40} {'reference':<14} {'workload':<30} {'ratio':>6}  {'[quartiles]':<14}  {'bar':<9} "
        f"{'ms a step':>19}  state bytes a parameter"
    )


def line(row: dict[str, Any]) -> str:
    """One row of the table as text."""
    verdict = "" if row["bar"] is None else f"{row['bar']:.2f} {'pass' if row['passed'] else 'FAIL'}"
    spread = f"{row['ratio']:6.3f}  [{row['quartiles'][0]:.3f}, {row['quartiles'][1]:.3f}]"
    ours, theirs = (row[f"{whose}_state_bytes"] / row["parameters"] for whose in ("ours", "reference"))
    return (
        f"{row['ours']:<40} {row['reference']:<14} {row['workload']:<30} {spread}  {verdict:<9} "
        f"{row['ours_ms']:8.2f} / {row['reference_ms']:8.2f}  {ours:5.2f} / {theirs:5.2f}"
    )


def save(result: dict[str, Any], path: Path) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def judged(rows: list[dict[str, Any]], bars: Mapping[str, float], quick: bool, results: Path, **about: Any) -> int:
    """Print every row with its bar, and write those of a whole run; the exit status, 0 when all are below theirs.

    Args:
        rows: each with its figures, of which one has a bar.
        bars: by the name of the figure.
        quick: a short run, which is not saved.
        results: the folder.
        about: more that a figure is worth nothing without.
    """
    for row in rows:
        name = next(name for name in bars if name in row)
        row |= {"bar": bars[name], "passed": row[name] < bars[name]}
        facts = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, int | float))
        print(f"{'pass' if row['passed'] else 'FAIL'}  {row['what']}: {facts}")
    if not quick:
        described = {**machine("cpu"), **about}
        path = results / f"{slug(described)}.json"
        save({"machine": described, "date": datetime.now(UTC).date().isoformat(), "rows": rows}, path)
        print(f"written: {path.name}")
    return 0 if all(row["passed"] for row in rows) else 1


def _processor() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    listing = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", listing.read_text(), re.MULTILINE) if listing.exists() else []
    return names[0] if names else platform.processor() or platform.machine()
