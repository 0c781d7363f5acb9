// The losses of a run, with uPlot.

import uPlot from "/vendor/uPlot.esm.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Colours of the runs that are drawn beside. */
export const BESIDE = ["--ghost", "--row1", "--negative", "--ink"];

/** A chart of losses in an element; `show` draws those of a store. */
export function createLosses(root) {
  let plot = null;
  let drawn = "";
  let latest = null;
  let others = [];

  const size = () => ({ width: Math.max(200, root.clientWidth), height: root.clientHeight || 220 });
  const line = (label, stroke, width, dash) => ({ label, stroke: () => colour(stroke), width, dash, spanGaps: true });
  const axis = (more) => ({
    stroke: () => colour("--soft"),
    grid: { stroke: () => colour("--quiet"), width: 1 },
    ticks: { stroke: () => colour("--quiet"), width: 1 },
    ...more,
  });

  function show(store) {
    latest = store;
    const curves = [store.train, store.validation, ...others.map((other) => other.train)];
    const data = uPlot.join(curves.map(({ step, loss }) => [step, loss]));
    const names = others.map(({ name }) => name).join("\n");
    if (plot && names === drawn) return plot.setData(data);
    plot?.destroy();
    drawn = names;
    plot = new uPlot(
      {
        ...size(),
        scales: { x: { time: false } },
        series: [
          {},
          line("train", "--row0", 1.5),
          line("validation", "--hot", 2, [5, 4]),
          ...others.map(({ name }, i) => line(name, BESIDE[i % BESIDE.length], 1.2)),
        ],
        axes: [axis({}), axis({ size: 60 })],
        legend: { show: false },
        cursor: { show: true, drag: { x: false, y: false } },
      },
      data,
      root,
    );
  }

  new ResizeObserver(() => plot?.setSize(size())).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => latest && plot.redraw());
  return {
    show,
    lines: () => plot.series.length - 1,
    /** Runs that are drawn beside: `{name, train}` each. */
    beside(given) {
      others = given;
      if (latest) show(latest);
    },
    /** The curves that are drawn: `{name, step, loss}` each. */
    told: () => [
      { name: "train", ...latest.train },
      { name: "validation", ...latest.validation },
      ...others.map(({ name, train }) => ({ name, ...train })),
    ],
  };
}
