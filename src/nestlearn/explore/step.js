// A frozen step: what each memory was shown, what it answered, what was written, as numbers and as small pictures.

import { html, short, svg } from "/play/svg.js";
import { colour } from "./charts.js";

const isTensor = (given) => given && Array.isArray(given.shape) && Array.isArray(given.cells);
const list = (given) => (Array.isArray(given) ? given : []);

/** Fills an element with a frozen step; `parameter` is the name of the one that is shown first. */
export function showStep(root, told, parameter, chosen) {
  const parameters = list(told.parameters);
  const at = Math.max(0, parameters.findIndex((each) => each.name === parameter));
  const choice = html("select", { "aria-label": "Parameter" });
  parameters.forEach((each, i) => choice.append(html("option", { value: i, selected: i === at }, String(each.name))));
  const body = html("div");
  choice.addEventListener("change", () => {
    body.replaceChildren(...ofParameter(parameters[choice.value]));
    chosen(parameters[choice.value].name);
  });
  if (parameters.length) body.append(...ofParameter(parameters[at]));
  const legend = html("p", { class: "soft" }, "Blue cells are above zero, purple ones below, the stronger the larger.");
  root.replaceChildren(...(parameters.length ? [choice, legend] : [html("p", {}, "No parameter had a gradient.")]), body);
}

function ofParameter(one) {
  const weights = one.weights ?? {};
  const parts = [
    html("div", { class: "maps" }, ...maps([["gradient", one.gradient], ["weights before", weights.before], ["change of the weights", weights.change], ["the rule's update", one.update]])),
    ...values("change of the weights", weights.singular),
    ...values("the rule's update", one.update?.singular),
  ];
  if (one.note) parts.push(html("p", { class: "soft" }, String(one.note)));
  return [...parts, ...list(one.memories).map(ofMemory)];
}

function ofMemory(one) {
  const written = Object.entries(one.write ?? {}).map(([name, tensor]) => [`write of ${name}`, tensor]);
  const held = Object.entries(one.holds ?? {}).map(([name, tensor]) => [`holds ${name}`, tensor]);
  const readout = one.readout ?? {};
  const said = [one.model, one.objective, Number.isFinite(one.surprise) && `surprise ${short(one.surprise)}`, one.written === false && "not written"];
  return html(
    "section",
    { class: "memory" },
    html("h3", {}, String(one.path)),
    html("p", { class: "soft" }, said.filter(Boolean).join(", ")),
    html("div", { class: "maps" }, ...maps([["key", one.key], ["value", one.value], ["answer", one.answer], ["error", one.error], ...written, ...held, ["read before", readout.before], ["read after", readout.after]])),
    ...values("before the read-out", readout["singular before"]),
    ...values("after the read-out", readout.singular),
  );
}

const maps = (pairs) => pairs.filter(([, tensor]) => isTensor(tensor)).map(([name, tensor]) => mapOf(name, tensor));

/** A tensor as cells, blue for positive and purple for negative, as strong as they are large. */
function mapOf(name, { shape, rms, largest, cells }) {
  const wide = Math.max(1, ...cells.map((row) => list(row).length));
  const picture = html("canvas", { width: wide, height: Math.max(1, cells.length), role: "img", "aria-label": name });
  const context = picture.getContext("2d");
  const [plus, minus] = [colour("--row0"), colour("--negative")];
  cells.forEach((row, i) =>
    list(row).forEach((x, j) => {
      context.globalAlpha = Math.min(1, Math.abs(x / largest) || 0);
      context.fillStyle = x < 0 ? minus : plus;
      context.fillRect(j, i, 1, 1);
    }),
  );
  const numbers = html("pre", { tabindex: 0 });
  const more = html("details", {}, html("summary", {}, "numbers"), numbers);
  more.addEventListener("toggle", () => {
    numbers.textContent = cells.map((row) => list(row).map((x) => short(x, 3).padStart(9)).join("")).join("\n");
  });
  const size = shape.map(String).join("×") || "a number";
  return html("figure", {}, picture, html("figcaption", {}, `${name}, ${size}, rms ${short(rms)}, largest ${short(largest)}`), more);
}

/** Singular values as bars and as numbers. */
function values(name, given) {
  const numbers = list(given).filter(Number.isFinite);
  if (!numbers.length) return [];
  const top = Math.max(...numbers) || 1;
  const bar = (x, i) => svg("rect", { x: i * 10 + 1, y: 34 - (32 * x) / top, width: 8, height: (32 * x) / top });
  const picture = svg("svg", { viewBox: `0 0 ${Math.max(16, numbers.length) * 10} 34`, preserveAspectRatio: "none", role: "img", "aria-label": `singular values, ${name}` }, ...numbers.map(bar));
  const few = numbers.slice(0, 8).map((x) => short(x));
  return [html("div", { class: "values" }, `singular values, ${name}: ${few.join(", ")}${numbers.length > 8 ? ", …" : ""}`, picture)];
}
