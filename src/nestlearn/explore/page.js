// The page: which run is looked at, and who draws what of it.

import { createNesting } from "/play/nesting.js";
import { html, short, watch } from "/play/svg.js";
import { BESIDE, CURVES, createDifference, createLosses } from "./charts.js";
import { createFork } from "./fork.js";
import { ask, connect } from "./live.js";
import { lossPicture, lossTable, offerFiles, scorePicture, scoreTable } from "./saving.js";
import { createScore } from "./score.js";
import { showStep } from "./step.js";

const POINTS = 600;
const LISTED = 5000; // milliseconds from one look for new runs to the next
const at = (id) => document.getElementById(id);

let runs = [];
let current = null;
let store = null;
let parameter = "";
let systems = [];
let step = null;
let beside = [];
let drawn = "";
let legend = "";
let choices = 0;

const losses = createLosses(at("losses"));
const nesting = createNesting(at("nesting"));
const difference = createDifference(at("difference"));
const fork = createFork(at("fork"), begun);
const score = createScore(at("score"), at("lanes"), choose, zoom, (part) => fork.off(part));
const line = connect(POINTS, hear, say);

function say(state) {
  at("status").textContent = state === "lost" ? "the connection is lost, trying again" : "";
  at("status").classList.toggle("lost", state === "lost");
  if (state === "connected") refresh();
}

function hear(given) {
  store = given;
  losses.show(store);
  drawLegend();
  difference.show(store);
  score.show(store);
  showFork();
  const loss = store.train.loss.at(-1);
  at("now").textContent = `step ${store.latest}${loss === undefined ? "" : `, training loss ${short(loss)}`}, ${store.status}`;
}

async function refresh() {
  let told;
  try {
    told = await ask("/api/runs");
  } catch (error) {
    at("notes").textContent = error.message;
    return;
  }
  runs = told.runs;
  at("notes").textContent = runs.length ? told.notes.join("; ") : "No run is there yet.";
  listRuns();
  if (!current && runs.length) select(runs.at(-1).id);
  else if (current && !systems.length) describe(current);
  showFork();
  drawBeside();
}

/** What can be forked of the run that is looked at. */
function showFork() {
  const run = runs.find((each) => each.id === current);
  if (!run || run.id !== store?.run) return;
  fork.show(run, store.lanes);
  at("lanes").classList.toggle("forkable", run.checkpoints.length > 0);
}

/** A fork has begun: it is looked at, beside the run that it comes from. */
async function begun(run) {
  await refresh();
  select(run.id);
  at("runs").querySelector(`[value="${run.id}"]`)?.focus();
}

/** The training losses of the runs that are marked, beside the one that is looked at. */
async function drawBeside() {
  beside = beside.filter((id) => runs.some((run) => run.id === id));
  const asked = beside.map((id) => ask(`/api/runs/${id}/series?points=${POINTS}`).catch(() => null));
  const told = await Promise.all(asked);
  losses.beside(told.map((series, i) => series && { name: beside[i], train: series.train }).filter(Boolean));
  difference.to(told[0]?.train ?? null);
  drawLegend();
}

/** Which line of the losses is which. */
function drawLegend() {
  const own = CURVES.filter(({ name }) => store?.[name].step.length).map(({ name, stroke, dash }) => [name, stroke, Boolean(dash)]);
  const others = beside.map((id, i) => [runs.find((run) => run.id === id)?.run ?? "", BESIDE[i % BESIDE.length], false]);
  const now = JSON.stringify([own, others]);
  if (now === legend) return;
  legend = now;
  const said = [...own, ...others].map(([name, stroke, dashed]) => {
    const swatch = html("i", { class: `swatch${dashed ? " dashed" : ""}` });
    swatch.style.setProperty("color", `var(${stroke})`);
    return html("span", {}, swatch, name);
  });
  at("beside").replaceChildren(...said);
}

function listRuns() {
  const now = JSON.stringify(runs.map(({ id, run, status }) => [id, run, status]));
  if (now === drawn) return;
  drawn = now;
  const focused = document.activeElement?.name === "run";
  const labels = runs.map((run) => {
    const input = html("input", { type: "radio", name: "run", value: run.id, checked: run.id === current });
    input.addEventListener("change", () => select(run.id));
    const label = html("label", {}, input, run.run, html("small", {}, `${run.folder}, ${run.status}`));
    const mark = html("input", { type: "checkbox", value: run.id, checked: beside.includes(run.id), title: "Draw its loss beside" });
    mark.setAttribute("aria-label", `Draw the loss of ${run.run} beside`);
    mark.addEventListener("change", () => {
      beside = mark.checked ? [...beside, run.id] : beside.filter((id) => id !== run.id);
      drawBeside();
    });
    return html("div", { class: "run" }, label, mark);
  });
  at("runs").replaceChildren(html("legend", {}, "Runs"), ...labels);
  if (focused) at("runs").querySelector(":checked")?.focus();
}

async function select(id) {
  current = id;
  for (const input of at("runs").querySelectorAll("[type=radio]")) input.checked = input.value === id;
  const run = runs.find((each) => each.id === id);
  at("title").textContent = run.run;
  at("row").textContent = [forkOf(run.forked), rowOf(run.row)].filter(Boolean).join("; ");
  if (runs.some((each) => each.id === run.forked?.id) && run.forked.id !== id) {
    beside = [run.forked.id];
    for (const mark of at("runs").querySelectorAll("[type=checkbox]")) mark.checked = beside.includes(mark.value);
    drawBeside();
  }
  at("stepsays").textContent = "No step is chosen";
  at("step").replaceChildren();
  at("seen").textContent = "";
  line.watch(id);
  systems = [];
  step = null;
  drawNesting();
  describe(id);
}

/** Fetch how the memories of a run are nested; one that has just begun does not know it yet, and is asked again. */
async function describe(id) {
  const told = await ask(`/api/runs/${id}/systems`).catch(() => null);
  if (!told || id !== current) return;
  systems = told.systems;
  drawNesting();
}

/** Where a fork comes from, and what was changed there. */
const forkOf = (told) => told && `from step ${told.step} of ${told.folder}: ${told.changed.join("; ") || "nothing is changed"}`;

/** What a finished run says of itself. */
function rowOf(row) {
  const numbers = (given) => Object.entries(given ?? {}).filter(([, x]) => typeof x === "number");
  const said = ["validation", "test"].flatMap((split) => numbers(row[split]).map(([name, x]) => `${split} ${name} ${short(x, 4)}`));
  const settings = Object.entries(row.settings ?? {}).map(([name, x]) => `${name}=${x}`);
  return [row.variant, row.task && `on ${row.task}`, ...settings, ...said, row.reason].filter(Boolean).join(", ");
}

/** The memories of the first system, as warm as they were at the step that is chosen. */
function drawNesting() {
  const memories = systems[0]?.memories;
  at("nesting").toggleAttribute("hidden", !Array.isArray(memories));
  if (!Array.isArray(memories)) return;
  const all = store && store.run === current ? score.rows().filter((row) => row.key !== null) : [];
  const rows = all.filter(({ lane }) => !isElement(lane) || all.every((row) => isElement(row.lane)));
  const measures = new Map(rows.map(({ lane }) => [pathOf(lane), lane.measure]));
  const cards = memories
    .filter((memory) => memory.home !== "weights")
    .map((memory) => ({ path: String(memory.name), label: String(memory.symbol || memory.name), says: String(memory.model), part: null }));
  const looks = rows.length ? score.seen().step : [];
  const trace = looks.map((_, j) => {
    const log = new Map();
    for (const { lane, values } of rows) if (values[j] === values[j]) log.set(pathOf(lane), { surprise: values[j], written: true });
    return { surprise: log.get("")?.surprise, log };
  });
  nesting.draw({ face: { cards, measures }, trace, off: [], path: [] });
  const nearest = (a, b) => (Math.abs(looks[b] - step) < Math.abs(looks[a] - step) ? b : a);
  nesting.show(step === null || !looks.length ? 0 : [...looks.keys()].reduce(nearest) + 1, false);
}

const isElement = ({ level, memory }) => level > 0 && memory.startsWith("element");

/** Where the memory of a lane lies behind W: "" is W itself. Runs without a record name the memories behind it alone. */
const pathOf = ({ level, memory }) => (level > 0 ? memory.split(".").slice(1).join(".") : memory);

/** Fewer steps, told anew and so in more detail, or all of them: what comes is seen there alone. */
async function zoom(range) {
  at("seen").textContent = range ? `steps ${range[0]} to ${range[1]}` : "";
  if (!range) return score.see(null);
  const [run, [from, to]] = [current, range];
  const told = await ask(`/api/runs/${run}/score?from=${from}&to=${to}&points=${POINTS}`).catch(() => null);
  if (!told || run !== current) return null;
  const numbers = (side) => told.lanes.map((lane) => lane[side].map((x) => x ?? NaN));
  return score.see({ from, to, score: { step: told.steps, low: numbers("low"), high: numbers("high") } });
}

/** A look was chosen: what is frozen nearest to it is shown. */
async function choose(wanted) {
  step = wanted;
  drawNesting();
  fork.from(step);
  const nearest = store.frozen.reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a), store.frozen[0]);
  if (nearest === undefined) {
    at("stepsays").textContent = `Step ${step}; none is frozen`;
    at("step").replaceChildren();
    return;
  }
  const [run, chosen] = [current, ++choices];
  try {
    const told = await ask(`/api/runs/${run}/steps/${nearest}`);
    if (run !== current || chosen !== choices) return; // another was chosen while this one was fetched
    at("stepsays").textContent = nearest === step ? `Step ${step}` : `Step ${step}; step ${nearest} is frozen`;
    showStep(at("step"), told, parameter, (name) => (parameter = name));
  } catch (error) {
    at("stepsays").textContent = `Step ${nearest}`;
    at("step").replaceChildren(html("p", { class: "soft" }, error.message));
  }
}

const title = () => at("title").textContent;
const curves = () => losses.told().map((curve) => ({ ...curve, name: runs.find(({ id }) => id === curve.name)?.run ?? curve.name }));
offerFiles(at("savelosses"), "losses", () => store && {
  name: title(),
  picture: () => lossPicture(title(), curves()),
  table: () => lossTable(curves()),
});
offerFiles(at("all").parentElement, "level score", () => store && {
  name: title(),
  picture: () => scorePicture(title(), score.rows(), score.seen()),
  table: () => scoreTable(store.lanes, score.seen()),
});
for (const [id, factor] of [["closer", 1 / 4], ["wider", 4], ["all", Infinity]])
  at(id).addEventListener("click", () => store && score.closer(factor));
at("score").addEventListener("keydown", (event) => {
  if (event.key !== "f" || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  fork.focus();
});
watch([at("nesting")], () => systems.length && drawNesting());
setInterval(() => document.hidden || refresh(), LISTED);
window.explore = { drop: () => line.drop(), store: () => store, hear, losses, difference, score };
