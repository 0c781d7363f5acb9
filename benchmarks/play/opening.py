"""How long it takes from opening the playground until something, and until all of it, is seen."""

from __future__ import annotations

from statistics import median
from typing import Any

from playwright.sync_api import Browser

__all__ = ["opening"]

# Notes when the frame that first has a path on the map is painted: a message comes behind the painting of its frame.
DRAWN = """new MutationObserver((_, watcher) => {
    if (!document.querySelector("#map .path[d]")) return;
    watcher.disconnect();
    requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => { window.drawn = performance.now(); };
        port2.postMessage(0);
    });
}).observe(document, { subtree: true, childList: true, attributes: true });"""
PAINTED = """() => new Promise((done) => {
    const look = () => {
        const [first] = performance.getEntriesByName("first-contentful-paint");
        if (first && window.drawn) done([first.startTime, window.drawn]);
        else setTimeout(look, 10);
    };
    look();
})"""


def opening(browser: Browser, address: str, repeats: int) -> dict[str, Any]:
    """Milliseconds on the wall from the navigation on, each time in a new process of the browser without a cache."""
    firsts, wholes = [], []
    for _ in range(repeats):
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_init_script(DRAWN)
        page = context.new_page()
        page.goto(address)
        first, whole = page.evaluate(PAINTED)
        firsts.append(first)
        wholes.append(whole)
        context.close()
    return {
        "what": f"first paint, of {repeats} openings",
        "first_ms": median(firsts),
        "first_worst_ms": max(firsts),
        "whole_ms": median(wholes),
        "whole_worst_ms": max(wholes),
    }
