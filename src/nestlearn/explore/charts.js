// The losses of a run, and what they differ by from those of another, with uPlot.

import { short } from "/play/svg.js";
import uPlot from "/vendor/uPlot.esm.js";

/** A colour of the page, as it is on its paper now. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Colours of the runs that are drawn beside. */
export const BESIDE = ["--ghost", "--row1", "--negative", "--ink"];

/** The curves of a run itself, by their names in a store. */
export const CURVES = [
  { name: "train", stroke: "--row0", width: 1.5 },
  { name: "validation", stroke: "--hot", width: 2, dash: [5, 4] },
];

const line = (label, stroke, width, dash) => ({ label, stroke: () => colour(stroke), width, dash, spanGaps: true });
const axis = (more) => ({
  stroke: () => colour("--soft"),
  grid: { stroke: () => colour("--quiet"), width: 1 },
  ticks: { stroke: () => colour("--quiet"), width: 1 },
  ...more,
});

/** A chart in an element: `set` draws data, anew where there are other lines. */
function createChart(root) {
  let plot = null;
  let drawn = "";
  const size = () => ({ width: Math.max(200, root.clientWidth), height: root.clientHeight || 220 });

  function set(data, lines) {
    const names = lines.map(({ label }) => label).join("\n");
    if (plot && names === drawn) return plot.setData(data);
    plot?.destroy();
    drawn = names;
    plot = new uPlot(
      {
        ...size(),
        scales: { x: { time: false } },
        series: [{}, ...lines],
        axes: [axis({}), axis({ size: 60, values: (_, splits) => splits.map((x) => short(x)) })],
        legend: { show: false },
        cursor: { show: true, drag: { x: false, y: false } },
      },
      data,
      root,
    );
  }

  new ResizeObserver(() => plot?.setSize(size())).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot?.redraw());
  return { set, lines: () => plot.series.length - 1 };
}

/** A chart of losses in an element; `show` draws those of a store. */
export function createLosses(root) {
  const chart = createChart(root);
  let latest = null;
  let others = [];

  function show(store) {
    latest = store;
    const curves = [store.train, store.validation, ...others.map((other) => other.train)];
    chart.set(uPlot.join(curves.map(({ step, loss }) => [step, loss])), [
      ...CURVES.map(({ name, stroke, width, dash }) => line(name, stroke, width, dash)),
      ...others.map(({ name }, i) => line(name, BESIDE[i % BESIDE.length], 1.2)),
    ]);
  }

  return {
    show,
    lines: chart.lines,
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

/** What each loss of a curve is above that of another, which is read between its points; none beyond its ends. */
export function difference(one, other) {
  let at = 0;
  return one.step.map((step, j) => {
    while (at < other.step.length && other.step[at] < step) at += 1;
    const [s, loss] = [other.step, other.loss];
    if (s[at] === step) return one.loss[j] - loss[at];
    if (!at || at === s.length) return null;
    const share = (step - s[at - 1]) / (s[at] - s[at - 1]);
    return one.loss[j] - (loss[at - 1] + share * (loss[at] - loss[at - 1]));
  });
}

/** The training loss of the run, less that of the first run beside it. */
export function createDifference(root) {
  const chart = createChart(root);
  let [store, other] = [null, null];
  let values = [];

  function draw() {
    root.parentElement.hidden = !store || !other;
    if (root.parentElement.hidden) return;
    values = difference(store.train, other);
    chart.set([store.train.step, store.train.step.map(() => 0), values], [
      line("no difference", "--soft", 1, [2, 4]),
      line("difference", "--row0", 1.5),
    ]);
  }

  return {
    show(given) {
      store = given;
      draw();
    },
    /** The curve of the other run, or null. */
    to(given) {
      other = given;
      draw();
    },
    values: () => values,
  };
}
