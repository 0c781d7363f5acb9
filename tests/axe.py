"""What axe-core finds against a page: the rules of WCAG 2.2 up to AA, and its best practices."""

import os
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import pytest
from playwright.sync_api import Page

marks = pytest.mark.skipif(
    find_spec("axe_playwright_python") is None and not os.environ.get("CI"),
    reason="no axe-core (pip install axe-playwright-python)",
)


@cache
def _script() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def violations(page: Page, *rules: str) -> list[str]:
    """Each rule that is broken and by what; of these rules alone if some are named."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_script())
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    found = page.evaluate("(options) => axe.run(document, options)", options)["violations"]
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]
