"""docs/tour.ipynb: the tour as a notebook, made from the page alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from page_code import BLOCK

__all__ = ["tour_notebook"]

LINK = re.compile(r"\]\(#")
"""Links within the page: a notebook has no anchors for them to lead to, so they lead to the page."""


def tour_notebook(page: str) -> str:
    """A notebook with a cell for every block and for the words between two blocks; what blocks print is its output."""
    cells = list(_cells(page))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:03}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cells(page: str) -> Iterator[dict[str, Any]]:
    end = 0
    for block in BLOCK.finditer(page):
        yield from _words(page[end : block.start()])
        stream = {"name": "stdout", "output_type": "stream", "text": _lines(block[2] or "")}
        yield {
            "cell_type": "code",
            "execution_count": None,
            "id": "",
            "metadata": {},
            "outputs": [stream] if block[2] else [],
            "source": _lines(block[1].rstrip()),
        }
        end = block.end()
    yield from _words(page[end:])


def _words(text: str) -> Iterator[dict[str, Any]]:
    if text.strip():
        source = _lines(LINK.sub("](tour.md#", text.strip()))
        yield {"cell_type": "markdown", "id": "", "metadata": {}, "source": source}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)
