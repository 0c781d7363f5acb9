"""Running the Python examples of a page of the documentation, as a reader would: all blocks in one session."""

from __future__ import annotations

import re
from typing import Any

import torch

__all__ = ["run_page"]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(text: str, name: str) -> dict[str, Any]:
    """Run the Python blocks of a page in one namespace and return it; torch's settings are as before."""
    namespace: dict[str, Any] = {"__name__": name.partition(".")[0]}
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order on every machine
    try:
        for number, block in enumerate(BLOCK.findall(text), 1):
            exec(compile(block, f"{name}, example {number}", "exec", dont_inherit=True), namespace)
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
    return namespace
