// The reading page: a text goes into a model that remembers, and what it does there is seen.

import { html, short } from "/play/svg.js";
import { about, createRecord, put } from "./readings.js";

const MOST = 32768; // characters of a question; a longer text is read in several
const SHOWN = 20000; // units of text on the page: of more, the latest
const STRONGEST = 55; // percent of the colour, behind which text is still read
const at = (id) => document.getElementById(id);
const WORKS = ["open", "read", "cut", "forget", "save", "restore", "ask"];

let record = createRecord();
let memories = [];
let expected = 1; // nats of a token that is drawn blindly
let opened = "";
let chosen = -1;
let first = 0; // unit of the first word on the page
let working = null;

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("lost", wrong);
}

/** Do one thing at a time; what goes wrong is said. */
async function work(what, deed) {
  if (working) return;
  working = new AbortController();
  enable();
  say(what);
  try {
    await deed(working.signal);
    say("");
  } catch (error) {
    say(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
    if (error.name === "AbortError" && opened) await settle().catch((failure) => say(failure.message, true));
  }
  working = null;
  enable();
}

function enable() {
  for (const id of WORKS) at(id).disabled = working !== null || (id !== "open" && !opened);
  at("stop").disabled = working === null;
  if (at("saved").disabled) at("save").disabled = at("restore").disabled = true;
}

/** After a stop: the model may have read a piece more, of which nothing was heard, and gives it back. */
async function settle() {
  for (let tries = 0; tries < 100 && (await about()).busy; tries++) await new Promise((done) => setTimeout(done, 100));
  let { done } = await put({ model: opened, do: "open" });
  const more = done.here - (record.pieces.at(-1)?.at ?? 0);
  if (more > 0) ({ done } = await put({ model: opened, do: "cut", tokens: more }));
  show(done);
}

async function list() {
  const told = await about();
  const options = (names) => names.map(({ id, name }) => html("option", { value: id }, name));
  const model = at("model").value || told.open;
  at("model").replaceChildren(...options(told.models));
  if (told.models.some(({ id }) => id === model)) at("model").value = model;
  if (!told.models.length) say("no model that reads is here: nestlearn train --config hope --out runs/hope makes one");
  const saved = at("saved").value;
  at("saved").replaceChildren(...options((told.states ?? []).map((name) => ({ id: name, name }))));
  if (told.states?.includes(saved)) at("saved").value = saved;
  at("saved").disabled = told.states === null;
  at("folder").textContent = told.states === null ? "nestlearn explore --states FOLDER keeps states." : "";
}

async function open() {
  const model = at("model").value;
  const told = await put({ model, do: "open" });
  opened = model;
  memories = told.about.memories;
  expected = Math.log(told.about.vocabulary);
  at("scale").textContent = `Strongest: ${short(expected)} nats or more, as if all tokens were alike.`;
  const { parameters, window: sees } = told.about;
  const anew = sees ? `; attention begins anew after ${sees.toLocaleString("en")} tokens` : "";
  at("model-says").textContent = `${parameters.toLocaleString("en")} weights, which no text changes; ${memories.length} memories${anew}`;
  at("memories").replaceChildren(...memories.map(row));
  clear();
  show(told.done);
}

function row({ name, layer, period }) {
  const says = period ? `${layer}, every ${period} tokens` : layer;
  const strip = html("canvas", { role: "img", "aria-label": `${name}: nothing was read` });
  return html(
    "tr",
    {},
    html("th", { scope: "row" }, name, html("small", {}, says)),
    html("td", {}, strip),
    html("td", {}),
    html("td", {}),
  );
}

function clear() {
  record = createRecord();
  chosen = -1;
  redraw();
}

/** What the model says of its state. */
function show(done) {
  if (done.here < (record.pieces.at(-1)?.at ?? 0)) {
    record.cut(done.here);
    redraw();
  }
  const kilo = short(done.bytes / 1024);
  at("state").textContent = `${done.seen.toLocaleString("en")} tokens were read, ${done.here.toLocaleString("en")} of them here; the state has ${kilo} KiB`;
  at("count").max = Math.max(1, done.here);
  for (const [i, { name }] of memories.entries())
    at("memories").rows[i].cells[3].textContent = done.far[name] === null ? "∞" : short(done.far[name]);
  strips();
}

let drawing = 0;

/** The strips, once a frame however many pieces come. */
function later() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(strips);
}

function hear(told) {
  const before = record.units.length;
  record.take(told);
  add(before);
  if (!before) choose(-1); // it says no longer that nothing was read
  lasts();
  later();
}

/** How far each memory moved when it last did. */
function lasts() {
  for (const [i, { name }] of memories.entries()) {
    const far = record.last(name);
    at("memories").rows[i].cells[2].textContent = far === undefined ? "" : short(far);
  }
}

function add(from) {
  const spans = record.units.slice(from).map(({ text, loss }) => {
    const span = html("span", {}, text);
    const share = Math.min(1, Math.max(0, loss ?? 0) / expected) * STRONGEST;
    span.style.setProperty("background", `color-mix(in srgb, var(--hot) ${share.toFixed(1)}%, transparent)`);
    return span;
  });
  at("words").append(...spans);
  while (at("words").childElementCount > SHOWN) {
    at("words").firstElementChild.remove();
    first++;
  }
  bounds();
}

function redraw() {
  at("words").replaceChildren();
  first = Math.max(0, record.units.length - SHOWN);
  add(first);
  choose(Math.min(chosen, record.units.length - 1));
  lasts();
}

function bounds() {
  at("words").setAttribute("aria-valuemin", first);
  at("words").setAttribute("aria-valuemax", Math.max(first, record.units.length - 1));
}

function choose(place) {
  at("words").querySelector(".chosen")?.classList.remove("chosen");
  chosen = record.units.length ? Math.min(record.units.length - 1, Math.max(place, -1)) : -1;
  const unit = record.units[chosen];
  let says = record.units.length ? "no token is chosen" : "nothing was read";
  if (unit) {
    const piece = record.pieces.find(({ at }) => at >= unit.at);
    const most = memories.reduce((a, b) => ((piece.moved[b.name] ?? 0) > (piece.moved[a.name] ?? 0) ? b : a), memories[0]);
    const far = most && piece.moved[most.name] ? `; its piece moved ${most.name} most, by ${short(piece.moved[most.name])}` : "";
    says = `token ${unit.at}, ${JSON.stringify(unit.text)}: ${unit.loss === null ? "nothing was expected" : `${short(unit.loss)} nats`}${far}`;
    const span = at("words").children[chosen - first];
    span?.classList.add("chosen");
    span?.scrollIntoView({ block: "nearest" });
  }
  at("chosen").textContent = says;
  at("words").setAttribute("aria-valuetext", says);
  at("words").setAttribute("aria-valuenow", Math.max(first, chosen));
}

/** Each memory's movement, token by token, as strong as it moved, among its own pieces. */
function strips() {
  const colour = getComputedStyle(document.body).getPropertyValue("--row0");
  for (const [i, { name }] of memories.entries()) {
    const strip = at("memories").rows[i].cells[1].firstElementChild;
    const wide = (strip.width = Math.max(1, Math.round(strip.clientWidth * devicePixelRatio)));
    const moves = record.moves(name, wide);
    const most = moves.reduce((a, b) => Math.max(a, b), 0);
    const pen = strip.getContext("2d");
    strip.height = 1;
    pen.fillStyle = colour;
    moves.forEach((far, j) => {
      pen.globalAlpha = most ? far / most : 0;
      pen.fillRect(j, 0, 1, 1);
    });
    const told = record.pieces.length ? `moved by ${short(most)} at most in a piece, of ${record.pieces.length}` : "nothing was read";
    strip.setAttribute("aria-label", `${name}: ${told}`);
  }
}

const doing = (what, question, then = () => {}) =>
  work(what, async (signal) => {
    const told = await put({ model: opened, ...question() }, hear, signal);
    then();
    show(told.done);
    if (what.startsWith("saving")) await list();
  });

/** A text in parts that a question holds, which end with a space where there is one. */
function parts(text) {
  const found = [];
  for (let from = 0; from < text.length; ) {
    const end = from + MOST;
    const space = end < text.length ? text.lastIndexOf(" ", end) : -1;
    const to = space > from + MOST / 2 ? space : end - (text.codePointAt(end - 1) > 0xffff ? 1 : 0);
    found.push(text.slice(from, to));
    from = to;
  }
  return found.length ? found : [""];
}

async function read(signal) {
  let told;
  for (const text of parts(at("text").value)) told = await put({ model: opened, do: "read", text, piece: piece() }, hear, signal);
  show(told.done);
}

const piece = () => Number(at("piece").value);
at("open").addEventListener("click", () => work("the model is being opened", open));
at("read").addEventListener("click", () => work("reading", read));
at("cut").addEventListener("click", () => doing("taking away", () => ({ do: "cut", tokens: Number(at("count").value) })));
at("forget").addEventListener("click", () => doing("forgetting", () => ({ do: "forget" }), clear));
at("save").addEventListener("click", () => doing("saving", () => ({ do: "save", name: at("name").value })));
at("restore").addEventListener("click", () => doing("restoring", () => ({ do: "restore", name: at("saved").value }), clear));
at("stop").addEventListener("click", () => working?.abort());
at("close").addEventListener("click", async () => {
  working?.abort();
  opened = "";
  await put({ do: "close" }).catch((error) => say(error.message, true));
  enable();
});
at("ask").addEventListener("click", () =>
  work("asking", async (signal) => {
    at("answer").textContent = "";
    const numbers = { tokens: Number(at("tokens").value), temperature: Number(at("temperature").value) };
    const question = { model: opened, do: "ask", question: at("question").value, ...numbers, keep: at("keep").checked };
    const heard = (told) => (told.said === undefined ? hear(told) : at("answer").append(told.said));
    show((await put({ ...question, seed: Date.now() % 65536, piece: piece() }, heard, signal)).done);
  }),
);

at("words").addEventListener("click", ({ target }) => {
  if (target.parentElement === at("words")) choose(first + [...at("words").children].indexOf(target));
});
at("words").addEventListener("keydown", (event) => {
  const last = record.units.length - 1;
  const places = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: first, End: last };
  if (!(event.key in places)) return;
  event.preventDefault();
  choose(Math.max(first, places[event.key]));
});

async function load(file) {
  if (file) at("text").value = await file.text();
}
at("file").addEventListener("change", () => load(at("file").files[0]));
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
  at("text").addEventListener(name, (event) => {
    at("text").classList.toggle("over", over);
    if (name !== "dragleave" && event.dataTransfer.types.includes("Files")) event.preventDefault();
    if (name === "drop") load(event.dataTransfer.files[0]);
  });
new ResizeObserver(strips).observe(at("memories"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", strips);
enable();
list().catch((error) => say(error.message, true));
window.explore = { record: () => record };
