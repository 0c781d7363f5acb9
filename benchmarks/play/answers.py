"""How long it takes from the move of a slider until its answer is painted, for every rung, world and slider."""

from __future__ import annotations

from statistics import median
from typing import Any

from playwright.sync_api import Browser

__all__ = ["answers"]

SLIDERS = "[...document.querySelectorAll('.slider:not([hidden])')].map((one) => one.dataset.name)"
RESTED = "new Promise((done) => setTimeout(done, 30))"
# The frame that shows the answer is painted before a message comes that was sent from that frame.
MOVED = """([name, share]) => new Promise((done) => {
    const input = document.getElementById(`set-${name}`);
    const [low, high] = [Number(input.min), Number(input.max)];
    const start = performance.now();
    input.value = low + share * (high - low);
    input.dispatchEvent(new Event("input"));
    requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done(performance.now() - start);
        port2.postMessage(0);
    });
})"""


def answers(browser: Browser, address: str, moves: int, only: tuple[str, ...] | None) -> dict[str, Any]:
    """The slowest slider by the median of its moves, and all of them.

    ``ms`` is the time of the processor that the page's thread takes for an answer, scripts, layout and painting, which
    other processes do not move; ``wall_ms`` is that of a clock, and has the wait for the next frame in it. A control
    at its best rate is measured as a case of its own, as that rate is looked for anew.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    clock = context.new_cdp_session(page)
    clock.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        """Milliseconds of the processor that the page's thread has spent."""
        metrics = clock.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(each["value"] for each in metrics if each["name"] == "ThreadTime"))

    cases: list[dict[str, Any]] = []
    for rung in only or page.evaluate("playground.rungs"):
        for world in page.evaluate("playground.worlds"):
            for own in ("false", "true"):
                page.evaluate(f"playground.open('#rung={rung}&world={world}&step=75&own={own}')")
                for name in page.evaluate(SLIDERS):
                    spent, walls = [], []
                    for move in range(moves + 1):
                        page.evaluate(RESTED)
                        before = busy()
                        walls.append(page.evaluate(MOVED, [name, 0.1 + 0.8 * (5 * move % (moves + 1)) / moves]))
                        spent.append(busy() - before)
                    # The first move is the one that the scripts of a rung are compiled for.
                    cases.append(
                        {
                            "rung": rung,
                            "slider": f"{name}, {world}{', control at its best rate' if own == 'true' else ''}",
                            "ms": median(spent[1:]),
                            "worst_ms": max(spent[1:]),
                            "wall_ms": median(walls[1:]),
                            "worst_wall_ms": max(walls[1:]),
                        }
                    )
    context.close()
    by_rung: dict[str, dict[str, Any]] = {}
    for case in sorted(cases, key=lambda case: case["ms"]):
        by_rung[case["rung"]] = case
    slowest = max(by_rung.values(), key=lambda case: case["ms"])
    return {
        "what": f"the answer to a slider, the slowest of {len(cases)}: rung {slowest['rung']}, {slowest['slider']}",
        **{name: slowest[name] for name in ("ms", "worst_ms", "wall_ms", "worst_wall_ms")},
        "median_of_all_ms": median(case["ms"] for case in cases),
        "median_of_all_wall_ms": median(case["wall_ms"] for case in cases),
        "worst_of_all_ms": max(case["worst_ms"] for case in cases),
        "worst_of_all_wall_ms": max(case["worst_wall_ms"] for case in cases),
        "slowest_of_each_rung": list(by_rung.values()),
    }
