// The state of the page, and its address, which holds what differs from the usual.

import { STEPS } from "./life.js";
import { filled } from "./matrix.js";
import { rungOf, rungs, SETTINGS } from "./rungs.js";
import { worlds } from "./worlds.js";

/** Rung, world, signs, seed, start, what the control is without, and numbers; null is what a rung does not have. */
export const state = {};

/** The state that a rung and a world begin with. */
export function usual(rung, world) {
  const { noise, steepness, start } = worlds[world];
  return {
    rung,
    world,
    signs: "theirs",
    seed: 7,
    own: false,
    off: rungOf(rung).off.join(","),
    start: start.flat().join(","),
    step: null,
    lr: null,
    retention: null,
    inner_lr: null,
    period: null,
    noise,
    steepness,
    ...rungOf(rung).settings,
  };
}

const known = (name, list) => (list.includes(name) ? name : list[0]);

/** Take the state of an address; what does not fit is the usual. */
export function adopt(hash) {
  const told = Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
  const ids = rungs.map(({ id }) => id);
  const rung = known(told.rung, ids);
  const world = known(told.world, Object.keys(worlds));
  const found = usual(rung, world);
  for (const [name, { low, high, step = 0 }] of Object.entries(SETTINGS)) {
    const wanted = parseFloat(told[name]);
    if (found[name] === null || !Number.isFinite(wanted)) continue;
    found[name] = Math.min(high, Math.max(low, step === 1 ? Math.round(wanted) : wanted));
  }
  if (/^\d{1,9}$/.test(told.seed ?? "")) found.seed = Number(told.seed);
  if (/^\d{1,3}$/.test(told.step ?? "")) found.step = Math.min(STEPS, Number(told.step));
  const start = (told.start ?? "").split(",").map(parseFloat);
  if (start.length === found.start.split(",").length && start.every(Number.isFinite)) found.start = placed(start);
  const parts = rungOf(rung).rule(found).parts();
  const off = told.off?.split(",").filter((part) => parts.includes(part));
  if (off) found.off = off.join(",");
  found.own = told.own === "true";
  found.signs = known(told.signs, ["theirs", "ours"]);
  Object.assign(state, found);
}

/** Numbers of a start as text, within the map; and the rows of W that a text says. */
export const placed = (numbers) => numbers.map((x) => Number(Math.max(-3, Math.min(3, x)).toFixed(2))).join(",");

export function rows(text) {
  const numbers = text.split(",").map(Number);
  return filled(numbers.length / 2, 2, (i, j) => numbers[2 * i + j]);
}

/** What of the state differs from the usual, for behind the address of the page. */
export function fragment() {
  const basis = { ...usual(state.rung, state.world), rung: rungs[0].id, world: "ravine" };
  const told = Object.entries(state)
    .filter(([name, value]) => value !== null && String(value) !== String(basis[name]))
    .map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`);
  return told.length ? `#${told.join("&")}` : "";
}

let later = 0;

/** Keep the state in the address, once the hand rests: browsers count how often that is done. */
export function remember() {
  clearTimeout(later);
  later = setTimeout(() => history.replaceState(null, "", fragment() || location.pathname + location.search), 120);
}
