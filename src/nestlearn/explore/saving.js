// The charts as files: SVG and PNG as they are seen, CSV with the numbers that they are drawn from.

import { html, svg } from "/play/svg.js";
import { BESIDE, colour } from "./charts.js";
import { blends, shareOf } from "./score.js";

const [WIDE, LEFT, TOP, ROW] = [960, 64, 34, 18];
const LINE = { fill: "none", "stroke-width": 1.7, "stroke-linecap": "round" };

/** Three buttons in an element. `chart` gives `{name, picture, table}`, two functions among them, or null for nothing. */
export function offerFiles(root, what, chart) {
  const kinds = {
    SVG: async ({ picture }) => new Blob([written(picture())], { type: "image/svg+xml" }),
    PNG: async ({ picture }) => pixels(picture()),
    CSV: async ({ table }) => new Blob([csv(table())], { type: "text/csv" }),
  };
  for (const [kind, make] of Object.entries(kinds)) {
    const button = html("button", { type: "button", "aria-label": `Save ${what} as ${kind}` }, kind);
    button.addEventListener("click", async () => {
      const given = chart();
      if (!given) return;
      const name = `${given.name}-${what}`.replace(/[^\p{L}\p{N}.]+/gu, "-").replace(/^[-.]+/, "").slice(0, 80);
      const href = URL.createObjectURL(await make(given));
      html("a", { href, download: `${name}.${kind.toLowerCase()}` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 10_000);
    });
    root.append(button);
  }
}

/** Losses as a picture: `curves` are `{name, step, loss}`, training, validation, and those that are drawn beside. */
export function lossPicture(title, curves) {
  const high = 360;
  const [right, low] = [WIDE - 16, high - 34];
  const losses = curves.flatMap(({ loss }) => loss).filter(Number.isFinite);
  const y = axis(losses.length ? [least(losses), most(losses)] : [0, 1], low, TOP);
  const x = axis([0, Math.max(1, ...curves.map(({ step }) => step.at(-1) ?? 0))], LEFT, right, false);
  const colours = curves.map((_, i) => colour(["--row0", "--hot"][i] ?? BESIDE[(i - 2) % BESIDE.length]));
  const drawn = curves.map(({ name, step, loss }, i) => {
    const points = step.map((each, j) => [x.at(each), y.at(loss[j])]);
    const d = broken(points);
    return svg("path", { ...LINE, d, stroke: colours[i], "stroke-dasharray": i === 1 ? "5 4" : null }, svg("title", {}, name));
  });
  let at = LEFT;
  const legend = curves.flatMap(({ name }, i) => {
    const from = at;
    at += 34 + 7 * name.length;
    return [
      svg("rect", { x: from, y: TOP - 13, width: 16, height: 3, fill: colours[i] }),
      text(name, from + 20, TOP - 8),
    ];
  });
  return framed(title, high, [
    ...y.ticks.flatMap((tick) => [line(LEFT, y.at(tick), right, y.at(tick)), text(number(tick), LEFT - 6, y.at(tick) + 4, "end")]),
    ...x.ticks.map((tick) => text(number(tick), x.at(tick), low + 16, "middle")),
    text("step", right, high - 4, "end"),
    ...legend,
    ...drawn,
  ]);
}

/** The level score as a picture: `rows` of names and one number a look, and which steps are seen. */
export function scorePicture(title, rows, { step: steps, from, to }) {
  const names = 300;
  const high = TOP + rows.length * ROW + 24;
  const x = axis([from, to], names, WIDE - 16, false);
  const tones = Array.from(blends(), (four) => `rgb(${four & 255},${(four >> 8) & 255},${(four >> 16) & 255})`);
  const drawn = rows.flatMap(({ name, lane: { period }, values }, at) => {
    const top = TOP + at * ROW;
    const share = shareOf(values);
    const boxes = [];
    steps.forEach((step, j) => {
      if (!(values[j] >= 0)) return;
      const tone = tones[Math.round(share(values[j]) * (tones.length - 1))];
      const [begin, end] = [x.at(Math.max(from, step - period)), x.at(step)];
      const last = boxes.at(-1);
      if (last?.tone === tone && begin <= last.end + 0.01) last.end = end;
      else boxes.push({ tone, begin, end: Math.max(end, begin + 0.5) });
    });
    return [
      text(name, names - 8, top + 13, "end"),
      ...boxes.map(({ tone, begin, end }) => svg("rect", { x: begin.toFixed(2), y: top, width: (end - begin).toFixed(2), height: ROW - 2, fill: tone })),
    ];
  });
  return framed(title, high, [
    ...x.ticks.map((tick) => text(number(tick), x.at(tick), high - 8, "middle")),
    ...drawn,
  ]);
}

function framed(title, high, inside) {
  const frame = { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${WIDE} ${high}`, width: WIDE, height: high };
  const fonts = { "font-family": "system-ui, sans-serif", "font-size": 11 };
  return svg(
    "svg",
    { ...frame, ...fonts },
    svg("title", {}, title),
    svg("rect", { width: WIDE, height: high, fill: colour("--paper") }),
    svg("text", { x: 16, y: 16, fill: colour("--ink"), "font-size": 13, "font-weight": 600 }, title),
    ...inside,
  );
}

const text = (words, x, y, anchor = "start") =>
  svg("text", { x: x.toFixed(1), y: y.toFixed(1), fill: colour("--soft"), "text-anchor": anchor }, words);
const line = (x1, y1, x2, y2) => svg("line", { x1, y1, x2, y2, stroke: colour("--quiet") });
const number = (x) => (x !== 0 && (Math.abs(x) >= 1e7 || Math.abs(x) < 1e-4) ? x.toExponential(1) : String(Number(x.toPrecision(6))));
const least = (numbers) => numbers.reduce((a, b) => Math.min(a, b));
const most = (numbers) => numbers.reduce((a, b) => Math.max(a, b));

/** From numbers to places, with round numbers between; `wide` makes the range end at round ones. */
function axis([low, high], begin, end, wide = true) {
  const span = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(span / 5));
  const unit = power * [1, 2, 5, 10].find((times) => span / (power * times) <= 6);
  if (wide) [low, high] = [Math.floor(low / unit) * unit, Math.max(Math.ceil(high / unit), Math.floor(low / unit) + 1) * unit];
  const first = Math.ceil(low / unit - 1e-9);
  const ticks = Array.from({ length: Math.floor(high / unit + 1e-9) - first + 1 }, (_, i) => (first + i) * unit);
  return { ticks, at: (x) => begin + ((x - low) / (high - low)) * (end - begin) };
}

/** A line that is broken off where there is no number, and goes on behind it; a point alone is a dot. */
function broken(points) {
  let down = false;
  const words = points.map(([x, y]) => {
    const word = Number.isFinite(y) ? `${down ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}${down ? "" : "h0"}` : "";
    down = word !== "";
    return word;
  });
  return words.join("");
}

const written = (picture) => new XMLSerializer().serializeToString(picture);

/** A picture as PNG, twice as fine. */
async function pixels(picture) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(written(picture))}`;
  await image.decode();
  const canvas = html("canvas", { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/** The losses as rows of a table. */
export const lossTable = (curves) => [
  ["curve", "step", "loss"],
  ...curves.flatMap(({ name, step, loss }) => step.map((each, j) => [name, each, loss[j]])),
];

/** The level score as rows of a table: the range of each lane in each box. */
export const scoreTable = (lanes, { step: steps, low, high }) => [
  ["level", "memory", "role", "period", "measure", "step", "low", "high"],
  ...lanes.flatMap(({ level, memory, role, period, measure }, i) =>
    steps.map((step, j) => [level, memory, role, period, measure, step, low[i][j], high[i][j]]).filter((row) => row[6] === row[6]),
  ),
];

/** Rows as CSV. A word that a spreadsheet would take for a formula begins with a quote there. */
export function csv(rows) {
  const cell = (given) => {
    if (typeof given === "number") return Number.isFinite(given) ? String(given) : "";
    const word = /^[=+\-@\t\r]/.test(given) ? `'${given}` : given;
    return /[",\n\r]/.test(word) ? `"${word.replaceAll('"', '""')}"` : word;
  };
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}
