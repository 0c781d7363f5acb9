// The losses of a run, with uPlot.

import uPlot from "/vendor/uPlot.esm.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A chart of losses in an element; `show` draws those of a store. */
export function createLosses(root) {
  let plot = null;
  let latest = null;

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
    const data = uPlot.join([
      [store.train.step, store.train.loss],
      [store.validation.step, store.validation.loss],
    ]);
    if (plot) return plot.setData(data);
    plot = new uPlot(
      {
        ...size(),
        scales: { x: { time: false } },
        series: [{}, line("train", "--row0", 1.5), line("validation", "--hot", 2, [5, 4])],
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
  return { show };
}
