// A life: W meets the pairs of a world, one write a step, and is written by a rule.

import { linear, l2, write } from "./memory.js";
import { drawn } from "./random.js";
import { expected, pairs } from "./worlds.js";

export const STEPS = 150;

let met = { about: null, pairs: [] };

/** The pairs of a life: its control and every rate that is tried meet the same ones, so they are drawn once. */
function allPairs(world, { noise, steepness, seed }) {
  const about = JSON.stringify([world.title, noise, steepness, seed]);
  if (met.about !== about) {
    const life = drawn(seed);
    met = { about, pairs: Array.from({ length: STEPS }, () => pairs(world, life, { noise, steepness })) };
  }
  return met.pairs;
}

/** The life itself: W after each step, and, if it is traced, what every memory did. */
function* lived(world, rule, settings, traced) {
  const draw = drawn(settings.seed + 1);
  let gradient = null;
  const watched = { answer: (scene, u, a) => ((gradient = u), rule.answer(scene, u, a)) };
  const memory = { name: "W", model: linear(2, world.best.length), objective: l2, lr: settings.lr, rule: watched };
  const held = { memory, params: { weight: settings.start }, behind: {}, pending: null };
  let time = 0;
  for (const { keys, values } of allPairs(world, settings)) {
    const log = traced ? new Map() : null;
    const { surprise } = write(held, keys, values, { time: time++, held: {}, draw, log, path: null });
    yield { W: held.params.weight, entry: traced ? { u: gradient, surprise, keys, values, log } : null };
  }
}

/**
 * The path of W, and on request what every memory did at every step.
 *
 * Settings: world, lr, noise, steepness, seed, start. A step of the trace: u, the surprise of W, and `log`, a Map from
 * the path of a memory to its write. Returns { path, losses, trace }, path and losses one longer than the steps.
 */
export function live(world, rule, settings, { traced = false } = {}) {
  const path = [settings.start];
  const trace = [];
  for (const { W, entry } of lived(world, rule, settings, traced)) {
    path.push(W);
    if (traced) trace.push(entry);
  }
  return { path, losses: path.map((W) => expected(world, W, settings.steepness)), trace };
}

const LATE = (STEPS + 1) >> 1;

/** How good a life was: the loss on average over its second half. */
export function score(losses) {
  const late = losses.slice(LATE);
  const mean = late.reduce((sum, x) => sum + x, 0) / late.length;
  return Number.isFinite(mean) ? mean : Infinity;
}

/** The score of a life, or Infinity as soon as it is sure not to be below `best`. */
function scoreBelow(best, world, rule, settings) {
  const count = STEPS + 1 - LATE;
  let [step, sum] = [0, 0];
  for (const { W } of lived(world, rule, settings, false)) {
    step += 1;
    if (!W.every((row) => row.every(Number.isFinite))) return Infinity; // it never comes back
    if (step >= LATE) sum += expected(world, W, settings.steepness);
    if (!(sum < best * count)) return Infinity;
  }
  return sum / count;
}

const GRID = Array.from({ length: 29 }, (_, i) => Number((2 ** (i / 2 - 13)).toPrecision(3)));

/** The learning rate, of a grid with two points an octave, with which a rule lives best: yields between its lives. */
export function* tuning(world, rule, settings) {
  let best = { lr: settings.lr, score: Infinity };
  // From the present rate outwards: once a good one is found the others need not live to the end.
  const far = (lr) => Math.abs(Math.log(lr / settings.lr));
  for (const lr of [...GRID].sort((a, b) => far(a) - far(b))) {
    const found = scoreBelow(best.score, world, rule, { ...settings, lr });
    if (found < best.score) best = { lr, score: found };
    yield;
  }
  return best.lr;
}

/** The same rate at once. */
export function tuned(world, rule, settings) {
  const search = tuning(world, rule, settings);
  for (;;) {
    const { value, done } = search.next();
    if (done) return value;
  }
}
