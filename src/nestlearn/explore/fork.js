// What if, from here: a fork of the run, with a memory switched off or other settings, as the server starts it.

import { html } from "/play/svg.js";
import { ask } from "./live.js";

const NONE = "nothing";

/** What goes with each part of the rule: a Map from the part to the memories that are switched off with it. */
function takenBy(lanes) {
  const found = new Map();
  for (const { part, memory, along, ended } of lanes) {
    if (!part || ended) continue;
    if (!found.has(part)) found.set(part, new Set());
    for (const each of [memory, ...along]) found.get(part).add(each);
  }
  return found;
}

/** Why a lane has no switch of its own, or what its switch takes along; empty where there is nothing to say. */
export function whyOf({ level, memory, part, along, ended }) {
  if (ended) return "no longer there";
  if (part) return along.length ? `${listed(along)} ${along.length > 1 ? "go" : "goes"} with it` : "";
  if (level && !memory.includes(".")) return "the weights themselves, which are what is trained";
  return part === null ? "nothing can be taken out of the optimizer that switches it off" : "its record does not say what switches it off";
}

const listed = (names) => (names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0]);

/** The same of all lanes, as sentences. */
function whyNot(lanes) {
  const found = new Map();
  for (const lane of lanes) {
    if (lane.part && !lane.ended) continue;
    if (!found.has(whyOf(lane))) found.set(whyOf(lane), new Set());
    found.get(whyOf(lane)).add(lane.memory);
  }
  return [...found].map(([why, names]) => `${listed([...names])}: ${why}.`).join(" ");
}

/** A text as settings: `optimizer.lr=0.01 steps=600`. */
export function settingsOf(text) {
  const pairs = text.trim().split(/[\s,]+/).filter(Boolean).map((each) => {
    const [name, ...rest] = each.split("=");
    const value = rest.join("=");
    if (!name || !value) throw new Error(`expected name=value, as optimizer.lr=0.01, got ${each}`);
    const words = { true: true, false: false, null: null };
    return [name, value in words ? words[value] : Number.isNaN(Number(value)) ? value : Number(value)];
  });
  return Object.fromEntries(pairs);
}

/** The form; `started` is told what the server says of the run that was begun. */
export function createFork(form, started) {
  const [steps, parts, settings, why, says] = ["step", "part", "settings", "why", "says"].map((name) => form.querySelector(`#fork${name}`));
  let run = null;
  let shown = "";
  let busy = false;

  /** The steps that leave something to do. */
  const usable = () => run.checkpoints.filter((step) => run.status === "open" || step < run.latest);

  function fill(select, options) {
    const value = select.value;
    select.replaceChildren(...options.map(([each, words]) => html("option", { value: each }, words)));
    if (options.some(([each]) => String(each) === value)) select.value = value;
  }

  /** Which run it is, and what can be switched off in it. */
  function show(given, lanes) {
    const other = given.id !== run?.id;
    run = given;
    const taken = [...takenBy(lanes)].map(([part, names]) => [part, names.size > 1 ? `${part}: ${listed([...names])}` : part]);
    const now = JSON.stringify([run.id, run.status, run.checkpoints, taken, whyNot(lanes)]);
    if (now === shown) return;
    shown = now;
    form.hidden = !run.checkpoints.length;
    if (other) says.textContent = "";
    fill(steps, run.checkpoints.map((step) => [step, String(step)]));
    fill(parts, [[NONE, NONE], ...taken]);
    why.textContent = whyNot(lanes);
    if (other && run.checkpoints.length) steps.value = usable().at(-1) ?? run.checkpoints.at(-1);
  }

  /** Take the latest checkpoint that is not after a step. */
  function from(step) {
    const before = usable().filter((each) => each <= step);
    if (before.length) steps.value = before.at(-1);
  }

  async function begin(part, changed) {
    if (busy) return;
    busy = true;
    const asked = { step: Number(steps.value), without: part === NONE ? "" : part, settings: changed };
    says.textContent = `forking from step ${asked.step}…`;
    try {
      const told = await ask(`/api/runs/${run.id}/fork`, asked);
      says.textContent = "";
      await started(told);
    } catch (error) {
      says.textContent = error.message;
    } finally {
      busy = false;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      begin(parts.value, settingsOf(settings.value));
    } catch (error) {
      says.textContent = error.message;
    }
  });
  return { show, from, off: (part) => begin(part, {}), focus: () => form.hidden || steps.focus() };
}
