"""Running the Python examples of a page of the documentation, as a reader would: all blocks in one session."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch

__all__ = ["BLOCK", "run_page", "run_printing", "said", "with_output"]

BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
"""A block of Python, and what it prints if a block of text follows."""


def run_page(text: str, name: str) -> dict[str, Any]:
    """Run the Python blocks of a page in one namespace and return it; torch's settings are as before."""
    return run_printing(text, name)[0]


def run_printing(text: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """The same, and what each block printed."""
    namespace: dict[str, Any] = {"__name__": name.partition(".")[0]}
    dtype, threads, printed = torch.get_default_dtype(), torch.get_num_threads(), []
    torch.set_num_threads(1)  # sums in one order on every machine
    try:
        for number, (block, _) in enumerate(BLOCK.findall(text), 1):
            with redirect_stdout(StringIO()) as output:
                exec(compile(block, f"{name}, example {number}", "exec", dont_inherit=True), namespace)
            printed.append(output.getvalue())
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
    return namespace, printed


def said(text: str) -> list[str]:
    """What a page says that its blocks print, block by block; empty where it says nothing."""
    return [output for _, output in BLOCK.findall(text)]


def with_output(text: str, printed: Sequence[str]) -> str:
    """The page with what its blocks print below them."""
    outputs = iter(printed)

    def block(found: re.Match[str]) -> str:
        output = next(outputs)
        return f"```python\n{found[1]}```" + (f"\n\n```text\n{output}```" if output else "")

    return BLOCK.sub(block, text)
