// The nesting, as in Figures 1 and 2 of the article: W above, below it the memories that its wirer asks, below these
// the ones that their wirers ask. The wire of a memory lights up when it is written; a card is as warm as its surprise.

import { fit, set, short, svg } from "./svg.js";

const GAP = 8;
const NARROWEST = 56; // of a card that can be read; where more are side by side the picture is smaller

/** The picture of the memories in an SVG element. */
export function createNesting(root) {
  let cards = [];
  let trace = [];
  let spread = new Map();

  function draw({ face, trace: given, off, path }) {
    trace = given;
    const all = [{ path: "", label: "W", says: "the model", part: null }, ...face.cards];
    const parentOf = (one) =>
      all
        .filter((other) => other !== one && (other.path === "" || one.path.startsWith(`${other.path}.`)))
        .sort((a, b) => b.path.length - a.path.length)[0];
    const links = all.slice(1).map((one) => [one, parentOf(one)]);
    const depth = (one) => (one.path === "" ? 0 : 1 + depth(links.find(([child]) => child === one)[1]));
    const rows = [];
    for (const one of all) (rows[depth(one)] ??= []).push(one);
    const wide = Math.max(...rows.map((row) => row.length * (NARROWEST + GAP) - GAP));
    const width = Math.max(fit(root)[0], wide);
    const height = rows.length * 96 + (rows.length - 1) * 6 - 6;
    root.style.setProperty("height", `${height}px`);
    set(root, {
      viewBox: `0 0 ${width.toFixed(1)} ${height}`,
      "aria-label": `The nesting: ${all.map((one) => `${one.label}, ${one.says}`).join("; ")}`,
    });
    rows.forEach((row, level) => {
      const cardWidth = Math.min(150, (width - GAP * (row.length - 1)) / row.length);
      const left = (width - (cardWidth + GAP) * row.length + GAP) / 2;
      row.forEach((one, i) =>
        Object.assign(one, { x: left + i * (cardWidth + GAP), y: 1 + level * 102, w: cardWidth, h: 62 }),
      );
    });
    cards = all.map((one, i) =>
      face.measures
        ? plainCard(one, i + 1, face.measures.get(one.path))
        : cardOf(one, i + 1, off.includes(one.part), given, path),
    );
    root.replaceChildren(...links.map(([one, parent]) => asks(parent, one)), ...cards.map((each) => each.group));
    for (const each of cards) each.narrow?.(); // now that its letters have a width
    spread = surprises(all, given);
  }

  /** What is seen after so many steps; `lively` lets wires pulse. */
  function show(step, lively) {
    const entry = trace[step - 1];
    for (const each of cards) {
      const seen = each.path === "" ? wirerOf(entry) : entry?.log.get(each.path);
      const heat = seen ? rank(spread.get(each.path), seen.surprise) : 0;
      each.group.style.setProperty("--heat", heat.toFixed(3));
      each.group.classList.toggle("written", Boolean(seen?.written));
      each.surprise.textContent = seen ? short(seen.surprise, 2) : "";
      each.fill?.(each.path === "" ? { weight: each.weights[step] } : (seen?.params ?? null));
      if (lively && seen?.written) pulse(each.wire);
    }
  }

  return { draw, show };
}

/** What is known of W at a step. */
const wirerOf = (entry) => entry && entry.surprise !== undefined && { surprise: entry.surprise, written: true };

function pulse(wire) {
  wire.classList.remove("pulse");
  requestAnimationFrame(() => wire.classList.add("pulse"));
}

/** The surprises of every memory in order, to say how unusual one is. */
function surprises(all, trace) {
  const of = (path) =>
    trace.map((entry) => (path === "" ? entry.surprise : entry.log.get(path)?.surprise)).filter(Number.isFinite);
  return new Map(all.map(({ path }) => [path, of(path).sort((a, b) => a - b)]));
}

function rank(sorted, value) {
  if (!sorted?.length || sorted[0] === sorted.at(-1)) return 0;
  return Math.max(0, sorted.findIndex((x) => x >= value)) / sorted.length;
}

function asks(parent, child) {
  const [x, y] = [parent.x + parent.w / 2, parent.y + 86];
  const [to, top] = [child.x + child.w / 2, child.y];
  return svg("path", { class: "asks", d: `M${x} ${y}C${x} ${y + 14} ${to} ${top - 14} ${to} ${top}` });
}

function cardOf(one, number, without, trace, path) {
  const surprise = svg("text", { class: "heat", x: one.x + one.w - 6, y: one.y + 15 });
  const first = one.path === "" ? null : trace.map((entry) => entry.log.get(one.path)).find(Boolean);
  const glyph = glyphOf(one, first?.memory.model.kind ?? "box", first?.params ?? { value: path[0] });
  const title =
    `${one.label}: ${one.says}. Its wirer is number ${number}. The number in the corner is its surprise.` +
    (without ? " The control is without it." : "");
  const label = svg("text", { class: "label", x: one.x + 7, y: one.y + 16 }, one.label);
  const made = framed(one, number, title, label, surprise, glyph.group);
  made.group.classList.toggle("without", without);
  return { path: one.path, surprise, fill: glyph.fill, weights: path, ...made };
}

/** A card of a memory of which a number is known, its surprise or its update, and not what it holds. */
function plainCard(one, number, measure) {
  const surprise = svg("text", { class: "heat plain", x: one.x + one.w / 2, y: one.y + 36 });
  const title = `${one.label}: ${one.says}. Its wirer is number ${number}.${measure ? ` The number is its ${measure}.` : ""}`;
  const label = labelOf(one);
  const narrow = () => {
    if (label.getComputedTextLength() > one.w - 12) set(label, { textLength: one.w - 12, lengthAdjust: "spacingAndGlyphs" });
  };
  return { path: one.path, surprise, narrow, ...framed(one, number, title, label, surprise) };
}

const LETTER = 0.64; // the width of a letter as a share of its size, in most fonts

/** The name of a memory in letters as large as its card has room for, cut where they would be too small. */
function labelOf(one) {
  const room = one.w - 12;
  const size = Math.max(9, Math.min(14, room / (LETTER * one.label.length)));
  const fits = Math.floor(room / (LETTER * size));
  const said = one.label.length > fits ? `${one.label.slice(0, fits - 1)}…` : one.label;
  const label = svg("text", { class: "label", x: one.x + 6, y: one.y + 16 }, said);
  label.style.setProperty("font-size", `${size.toFixed(1)}px`);
  return label;
}

/** What every card has around what it shows, and below it its wirer. */
function framed(one, number, title, ...shown) {
  const middle = one.x + one.w / 2;
  const below = one.y + one.h;
  const wire = svg("path", { class: "wire", d: `M${middle} ${below + 12}V${below}` });
  const group = svg(
    "g",
    { class: "card" },
    svg("title", {}, title),
    svg("rect", { class: "plate", x: one.x, y: one.y, width: one.w, height: one.h, rx: 8 }),
    ...shown,
    words(one),
    wire,
    svg("circle", { class: "wirer", cx: middle, cy: below + 19, r: 8 }),
    svg("text", { class: "number", x: middle, y: below + 23 }, String(number)),
  );
  return { group, wire };
}

function words(one) {
  const fits = Math.floor((one.w - 8) / 5.8);
  const said = one.says.length > fits ? `${one.says.slice(0, fits - 1).trimEnd()}…` : one.says;
  return svg("text", { class: "says", x: one.x + one.w / 2, y: one.y + one.h - 7 }, said);
}

/** Numbers as cells, or the wires of a brain. */
const glyphOf = (one, kind, params) => (kind === "mlp" ? brainOf(one, params) : cellsOf(one, params));

function cellsOf(one, params) {
  const matrix = Object.values(params)[0];
  const gap = matrix.length + matrix[0].length > 6 ? 0.5 : 2;
  const size = Math.max(1, Math.min(15, 30 / matrix.length - gap, (one.w - 24) / matrix[0].length - gap));
  const left = one.x + one.w / 2 - (matrix[0].length * (size + gap)) / 2;
  const top = one.y + 33 - (matrix.length * (size + gap)) / 2;
  const cells = matrix.map((row, i) =>
    row.map((_, j) =>
      svg("rect", {
        class: "cell",
        x: left + j * (size + gap),
        y: top + i * (size + gap),
        width: size,
        height: size,
        rx: size / 5,
      }),
    ),
  );
  let largest = 1e-9;
  return {
    group: svg("g", {}, ...cells.flat()),
    fill(held) {
      const values = held && Object.values(held)[0];
      if (values) largest = Math.max(largest, ...values.flat().map(Math.abs).filter(Number.isFinite));
      cells.forEach((row, i) => row.forEach((cell, j) => tint(cell, values ? values[i][j] / largest : 0)));
    },
  };
}

function brainOf(one, params) {
  const [hidden, into] = [params.inner.length, params.inner[0].length];
  const middle = one.x + one.w / 2;
  const reach = Math.max(4, Math.min(30, one.w / 2 - 12));
  const column = (x, count, gap) =>
    Array.from({ length: count }, (_, i) => [x, one.y + 28 + (i - (count - 1) / 2) * gap]);
  const layers = [column(middle - reach, into, 10), column(middle, hidden, 4.6), column(middle + reach, into, 10)];
  const wires = { inner: [], outer: [] };
  const wire = ([x, y], [a, b]) => svg("path", { class: "synapse", d: `M${x} ${y}L${a} ${b}` });
  for (let h = 0; h < hidden; h++) {
    wires.inner.push(layers[0].map((from) => wire(from, layers[1][h])));
    layers[2].forEach((to, i) => ((wires.outer[i] ??= [])[h] = wire(layers[1][h], to)));
  }
  const nodes = layers.flatMap((layer, i) =>
    layer.map(([cx, cy]) => svg("circle", { class: "neuron", cx, cy, r: i === 1 ? 1.5 : 2.5 })),
  );
  const largest = { inner: 1e-9, outer: 1e-9 };
  return {
    group: svg("g", {}, ...Object.values(wires).flat(2), ...nodes),
    fill(held) {
      for (const name of ["inner", "outer"]) {
        if (held) largest[name] = Math.max(largest[name], ...held[name].flat().map(Math.abs).filter(Number.isFinite));
        wires[name].forEach((row, i) =>
          row.forEach((one, j) => tint(one, held ? held[name][i][j] / largest[name] : 0)),
        );
      }
    },
  };
}

/** Blue for positive, purple for negative, as strong as the number is large. */
function tint(element, share) {
  element.style.setProperty("--size", Math.min(1, Math.abs(share) || 0).toFixed(3));
  element.classList.toggle("negative", share < 0);
}
