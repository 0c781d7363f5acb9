// The level score: a lane for each memory, boxes as wide as its period and as dark as its surprise. Parameters that stand
// for the same are one role; the roles of a memory are folded into one lane until somebody opens it.

import { html } from "/play/svg.js";
import { colour } from "./charts.js";
import { whyOf } from "./fork.js";

export const ROW = 22;
const FOOT = 14;
const SHADES = 64;

/** The score on a canvas, its names in a list; `chosen` is told the step that somebody chose,
 *  `zoom` by how much somebody wants to see more, or less, and around which step,
 *  `off` the part of the rule that is to be switched off. */
export function createScore(canvas, list, chosen, zoom, off) {
  const context = canvas.getContext("2d");
  const open = new Set();
  let store = null;
  let view = null;
  let rows = [];
  let step = null;
  let shape = "";
  let due = false;
  let shades = null;
  const drawn = new OffscreenCanvas(1, 1);

  /** The lanes that are drawn: of a memory all roles as one, and below it each, if it is open. */
  function fold() {
    const groups = new Map();
    store.lanes.forEach((lane, i) => {
      const key = `${lane.level}/${lane.memory}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(i);
    });
    rows = [];
    for (const [key, members] of groups) {
      rows.push({ key, members, lane: store.lanes[members[0]] });
      if (open.has(key) && members.length > 1)
        for (const i of members) rows.push({ key: null, members: [i], lane: store.lanes[i] });
    }
    const now = JSON.stringify([[...open], rows.map(({ lane, members }) => [lane.level, lane.name, lane.part, lane.ended, members.length])]);
    if (now === shape) return;
    shape = now;
    list.replaceChildren(...rows.map(nameOf));
    canvas.style.height = `${rows.length * ROW + FOOT}px`;
  }

  function nameOf({ key, members, lane }) {
    const level = lane.level ? `L${lane.level} ` : "";
    const every = lane.period > 1 ? `, every ${lane.period}` : "";
    if (key === null) return html("li", { title: `${lane.role}, ${lane.parameters} parameters` }, `   ${lane.role}`);
    const words = `${level}${lane.memory}${every}`;
    const why = whyOf(lane);
    const title = [words, lane.measure, why].filter(Boolean).join(", ");
    const switches = [lane.ended ? null : lane.part].filter(Boolean).map((part) => {
      const says = `Switch ${lane.memory} off from here${why ? `: ${why}` : ""}`;
      const made = html("button", { type: "button", class: "off", "aria-label": says, title: says }, "off");
      made.addEventListener("click", () => off(part));
      return made;
    });
    if (members.length === 1)
      return html("li", { title }, `${words} ${lane.role}`, ...switches);
    const button = html("button", { type: "button", "aria-expanded": String(open.has(key)) }, `${words}, ${members.length} roles`);
    button.addEventListener("click", () => {
      if (!open.delete(key)) open.add(key);
      draw();
      list.querySelectorAll("button")[[...list.querySelectorAll("button")].findIndex((b) => b.textContent === button.textContent)]?.focus();
    });
    return html("li", { title }, button, ...switches);
  }

  /** One number a look for a row: the highest of its box, over roles the mean of those that have one. NaN is none: a
   *  memory that a look did not change was not written there, and has no box to lie over that of its last write. */
  function values({ members }) {
    const { high, step: steps } = seen();
    const unchanged = (i, x) => x === 0 && store.lanes[i].measure === "update";
    const made = new Float64Array(steps.length);
    for (let j = 0; j < made.length; j++) {
      let [sum, count] = [0, 0];
      for (const i of members) {
        const x = high[i]?.[j];
        if (x === x && x !== undefined && !unchanged(i, x)) {
          sum += x;
          count += 1;
        }
      }
      made[j] = count ? sum / count : NaN;
    }
    return made;
  }

  const width = () => Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  const seen = () => view?.score ?? store.score;
  const first = () => view?.from ?? 0;
  const last = () => Math.max(first() + 1, view?.to ?? store.score.step.at(-1) ?? 1);

  function draw() {
    if (!store) return;
    fold();
    const wide = width();
    const ratio = devicePixelRatio;
    const high = Math.round((rows.length * ROW + FOOT) * ratio);
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    context.clearRect(0, 0, wide, high);
    if (rows.length && seen().step.length) paint(wide, ratio);
    mark(wide, ratio);
    canvas.setAttribute("aria-valuemax", String(store.latest));
    canvas.setAttribute("aria-valuenow", String(step ?? store.latest));
  }

  /** The lanes in sight as an image one pixel high a lane, which is drawn as high as the lanes are. */
  function paint(wide, ratio) {
    shades ??= blends();
    const frame = canvas.parentElement;
    const top = Math.max(0, Math.floor(frame.scrollTop / ROW));
    const seenRows = rows.slice(top, Math.ceil((frame.scrollTop + frame.clientHeight) / ROW) + 1);
    if (!seenRows.length) return;
    if (drawn.width !== wide || drawn.height !== seenRows.length)
      Object.assign(drawn, { width: wide, height: seenRows.length });
    const image = new ImageData(wide, seenRows.length);
    const pixels = new Uint32Array(image.data.buffer);
    const { step: steps } = seen();
    const [begin, scale] = [first(), wide / (last() - first())];
    seenRows.forEach((row, at) => {
      const numbers = values(row);
      const shareAt = shareOf(numbers);
      for (let j = 0; j < steps.length; j++) {
        const x = numbers[j];
        if (!(x >= 0)) continue;
        const share = shareAt(x);
        const to = Math.min(wide, Math.max(1, Math.round((steps[j] - begin) * scale)));
        const from = Math.max(0, Math.min(to - 1, Math.round((steps[j] - begin - row.lane.period) * scale)));
        pixels.fill(shades[Math.round(share * (SHADES - 1))], at * wide + from, at * wide + to);
      }
    });
    drawn.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(drawn, 0, top * ROW * ratio, wide, seenRows.length * ROW * ratio);
    context.fillStyle = colour("--paper");
    for (let at = top; at <= top + seenRows.length; at++) context.fillRect(0, at * ROW * ratio - 1, wide, 2);
  }

  /** The frozen steps, and the one that is chosen. */
  function mark(wide, ratio) {
    const [foot, begin, scale] = [rows.length * ROW * ratio, first(), wide / (last() - first())];
    context.fillStyle = colour("--link");
    for (const each of store.frozen) context.fillRect(Math.round((each - begin) * scale) - 1, foot + 3 * ratio, 2 * ratio, 8 * ratio);
    if (step === null) return;
    context.fillStyle = colour("--ink");
    context.fillRect(Math.min(wide - 2, Math.round((step - begin) * scale) - 1), 0, 2, foot + FOOT * ratio);
  }

  /** Chooses the look that is nearest to a step. */
  function choose(wanted) {
    const steps = store ? seen().step : [];
    if (!steps.length) return;
    let at = 0;
    steps.forEach((each, j) => {
      if (Math.abs(each - wanted) < Math.abs(steps[at] - wanted)) at = j;
    });
    step = steps[at];
    schedule();
    chosen(step);
  }

  canvas.addEventListener("click", (event) => store && choose(first() + (event.offsetX / canvas.clientWidth) * (last() - first())));
  canvas.addEventListener("keydown", (event) => {
    if (!store) return;
    const factor = { "+": 1 / 4, "=": 1 / 4, "-": 4, 0: Infinity }[event.key];
    if (factor) closer(factor);
    const steps = seen().step;
    const at = step === null ? steps.length : steps.indexOf(step);
    const { frozen } = store;
    const now = step ?? Infinity;
    const to = {
      ArrowLeft: steps[Math.max(0, at - 1)],
      ArrowRight: steps[Math.min(steps.length - 1, at + 1)],
      Home: steps[0],
      End: steps.at(-1),
      PageUp: frozen.findLast((each) => each < now),
      PageDown: frozen.find((each) => each > now),
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
  });

  /** Ask for fewer steps around the one that is chosen, or for more. */
  function closer(factor) {
    const span = (last() - first()) * factor;
    if (span >= store.score.step.at(-1)) return zoom(null);
    const middle = step ?? (first() + last()) / 2;
    const wide = Math.max(8, Math.round(span));
    const from = Math.max(0, Math.min(Math.round(middle - wide / 2), store.score.step.at(-1) - wide));
    return zoom([from, from + wide]);
  }

  function schedule() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      draw();
    });
  }

  canvas.parentElement.addEventListener("scroll", schedule, { passive: true });
  new ResizeObserver(schedule).observe(canvas.parentElement);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    shades = null;
    schedule();
  });
  return {
    show(given) {
      if (given.run !== store?.run) [step, view] = [null, null];
      store = given;
      schedule();
    },
    /** Show some steps alone, `{from, to, score}`; null shows all, and what comes. */
    see(given) {
      view = given;
      schedule();
    },
    closer,
    draw,
    rows: () => rows.map((row, i) => ({ ...row, name: list.children[i].firstChild.textContent, values: values(row) })),
    /** The steps that are seen, and what every lane has there. */
    seen: () => ({ ...seen(), from: first(), to: last() }),
  };
}

/** How dark a number is among those of its lane, 0 to 1. */
export function shareOf(numbers) {
  let [low, high] = [Infinity, 0];
  for (const x of numbers) {
    if (x > 0 && x < low) low = x;
    if (x > high) high = x;
  }
  const spread = Math.log(high / low) || 1;
  return (x) => (x > 0 ? (high > low ? Math.log(x / low) / spread : 0.5) : 0);
}

/** From paper to the colour of surprise, as the four bytes of a pixel. */
export function blends() {
  const [from, to] = [colour("--wash"), colour("--hot")].map((text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)));
  return Uint32Array.from({ length: SHADES }, (_, i) => {
    const share = 0.12 + (0.88 * i) / (SHADES - 1);
    const [red, green, blue] = from.map((x, k) => Math.round(x + share * (to[k] - x)));
    return (255 << 24) | (blue << 16) | (green << 8) | red;
  });
}
