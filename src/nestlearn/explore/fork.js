// What if, from here: a fork of the run, with a memory switched off or other settings, as the server starts it.

import { html } from "/play/svg.js";
import { ask } from "./live.js";

const NONE = "nothing";

/** The part of the rule that a lane is a memory of; null of weights, and of what is no matrix. */
export function partOf({ level, memory }) {
  if (!level) return memory; // of a run that was not recorded: what events say
  return memory.startsWith("matrix.") ? memory.slice("matrix.".length) : null;
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
  const [steps, parts, settings, says] = ["step", "part", "settings", "says"].map((name) => form.querySelector(`#fork${name}`));
  let run = null;
  let shown = "";
  let busy = false;

  /** The steps that leave something to do. */
  const usable = () => run.checkpoints.filter((step) => run.status === "open" || step < run.latest);

  function fill(select, options) {
    const value = select.value;
    select.replaceChildren(...options.map((each) => html("option", { value: each }, String(each))));
    if (options.map(String).includes(value)) select.value = value;
  }

  /** Which run it is, and what can be switched off in it. */
  function show(given, lanes) {
    const other = given.id !== run?.id;
    run = given;
    const names = [...new Set(lanes.map(partOf).filter(Boolean))];
    const now = JSON.stringify([run.id, run.status, run.checkpoints, names]);
    if (now === shown) return;
    shown = now;
    form.hidden = !run.checkpoints.length;
    if (other) says.textContent = "";
    fill(steps, run.checkpoints);
    fill(parts, [NONE, ...names]);
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
