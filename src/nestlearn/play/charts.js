// Two small pictures: the loss step by step, which is the time line too, and what a memory holds or answers.

import { fit, line, set, short, svg } from "./svg.js";

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

/** The losses of the path and of the control on a logarithmic scale; `show(step)` moves the mark. */
export function createTimeline(root) {
  const mark = svg("path", { class: "mark" });
  let at = () => 0;
  let high = 0;

  function draw({ losses, ghostLosses }) {
    const [width, height] = fit(root);
    high = height;
    const seen = [...losses, ...(ghostLosses ?? [])].filter((x) => x > 0 && Number.isFinite(x));
    const [low, top] = [Math.max(1e-5, Math.min(...seen)), clamp(Math.max(...seen), 1e-3, 100)].map(Math.log);
    // The scrubber's thumb has a width: its middle goes from 8 to width - 8.
    at = (step) => 8 + ((width - 16) * step) / (losses.length - 1);
    const place = (loss, step) => [
      at(step),
      height - 3 - ((height - 6) * (clamp(Math.log(loss || 1e-9), low, top) - low)) / (top - low || 1),
    ];
    const drawn = [svg("path", { class: "path row0", d: line(losses.map(place)) })];
    if (ghostLosses) drawn.unshift(svg("path", { class: "ghost", d: line(ghostLosses.map(place)) }));
    root.replaceChildren(...drawn, mark);
  }

  const show = (step) => set(mark, { d: `M${at(step).toFixed(1)} 0V${high}` });
  return { draw, show };
}

/**
 * What the memory of a rung holds, over time, or answers, over keys.
 *
 * A chart of a rung is { says, over: "time", lines: [{ label, of(step of the trace) }], dots(step) } or
 * { says, over: "keys", memory }.
 */
export function createHolds(root, words) {
  let shown = null;

  function draw(scene) {
    const [width, height] = fit(root);
    const frame = { left: 30, right: width - 8, top: 8, bottom: height - 20 };
    words.textContent = scene.chart.says;
    set(root, { "aria-label": scene.chart.says });
    shown = (scene.chart.over === "keys" ? overKeys : overTime)(root, scene, frame);
  }

  return { draw, show: (step) => shown?.(step) };
}

function axes({ left, right, top, bottom }, [x0, x1], [y0, y1], name) {
  const x = (value) => left + ((right - left) * (value - x0)) / (x1 - x0);
  const y = (value) => bottom - ((bottom - top) * (value - y0)) / (y1 - y0);
  const drawn = [
    svg("path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}` }),
    svg("path", { class: "nought", d: `M${left} ${y(0)}H${right}` }),
    svg("text", { class: "tick end", x: left - 4, y: top + 9 }, short(y1, 2)),
    svg("text", { class: "tick end", x: left - 4, y: bottom }, short(y0, 2)),
    svg("text", { class: "tick", x: left, y: bottom + 14 }, short(x0, 2)),
    svg("text", { class: "tick end", x: right, y: bottom + 14 }, short(x1, 2)),
    svg("text", { class: "tick middle", x: (left + right) / 2, y: bottom + 14 }, name),
  ];
  return { x, y, drawn };
}

function overTime(root, { chart, trace }, frame) {
  const lines = chart.lines.map((each) => ({ ...each, values: trace.map(each.of) }));
  const dots = trace.map(chart.dots);
  const sizes = [...dots, ...lines.flatMap((each) => each.values)]
    .map(Math.abs)
    .filter(Number.isFinite)
    .sort((a, b) => a - b);
  const high = 1.1 * Math.min(1e6, sizes[Math.floor(0.985 * (sizes.length - 1))] || 1);
  const { x, y, drawn } = axes(frame, [0, trace.length], [-high, high], "steps");
  const place = (value, step) => [x(step + 1), y(clamp(value, -high, high))];
  const cloud = svg("path", { class: "cloud" });
  const strokes = lines.map((_, i) => svg("path", { class: `line kind${i}` }));
  const legend = lines.map((each, i) =>
    svg("text", { class: `key kind${i}`, x: frame.right - 4, y: frame.top + 10 + 14 * i }, each.label),
  );
  root.replaceChildren(...drawn, cloud, ...strokes, ...legend);
  return (step) => {
    set(cloud, {
      d: dots
        .slice(0, step)
        .map(
          (value, i) =>
            `M${place(value, i)
              .map((p) => p.toFixed(1))
              .join(" ")}h0`,
        )
        .join(""),
    });
    strokes.forEach((one, i) => set(one, { d: line(lines[i].values.slice(0, step).map(place)) }));
  };
}

function overKeys(root, { chart, trace }, frame) {
  const reach = 1.5;
  const { x, y, drawn } = axes(frame, [-reach, reach], [-reach, reach], "gradient, rows of length one");
  const keys = Array.from({ length: 41 }, (_, i) => -reach + (2 * reach * i) / 40);
  const skip = svg("path", {
    class: "ghost",
    d: line([
      [x(-reach), y(-reach)],
      [x(reach), y(reach)],
    ]),
  });
  const cloud = svg("path", { class: "cloud" });
  const now = svg("path", { class: "cloud now" });
  const width = trace[0].log.get(chart.memory).key[0].length;
  const strokes = Array.from({ length: width }, (_, i) => svg("path", { class: `line kind${i}` }));
  const legend = [
    svg("text", { class: "key kind0", x: frame.right - 4, y: frame.bottom - 8 }, "its answer"),
    svg("text", { class: "key hot", x: frame.right - 4, y: frame.bottom - 22 }, "P, what it is asked for"),
  ];
  root.replaceChildren(...drawn, skip, cloud, now, ...strokes, ...legend);
  // The memory answers what its skip path, the gradient itself, is short of: both together are compared with P.
  const asked = ({ key, value }) =>
    key.flatMap((row, i) => row.map((u, j) => [x(u), y(clamp(u + value[i][j], -reach, reach))]));
  const marks = (entry) =>
    asked(entry)
      .map(([a, b]) => `M${a.toFixed(1)} ${b.toFixed(1)}h0`)
      .join("");
  return (step) => {
    const entries = trace.slice(Math.max(0, step - 40), step).map((each) => each.log.get(chart.memory));
    set(cloud, { d: entries.map(marks).join("") });
    set(now, { d: entries.length ? marks(entries.at(-1)) : "" });
    const last = entries.at(-1);
    strokes.forEach((one, i) => {
      if (!last) return set(one, { d: "" });
      const rows = keys.map((u) => Array.from({ length: width }, (_, j) => (j === i ? u : 0)));
      const { answer: answers } = last.memory.model.read(last.params, rows);
      set(one, { d: line(keys.map((u, k) => [x(u), y(clamp(u + answers[k][i], -2 * reach, 2 * reach))])) });
    });
  };
}
