// A life: W meets the pairs of a world, one write a step, and is written by a rule.

import { linear, l2, write } from "./memory.js";
import { drawn } from "./random.js";
import { expected, pairs } from "./worlds.js";

export const STEPS = 150;

/**
 * The path of W, and on request what every memory did at every step.
 *
 * Settings: world, lr, noise, steepness, seed, start. A step of the trace: u, the surprise of W, and `log`, a Map from
 * the path of a memory to its write. Returns { path, losses, trace }, path and losses one longer than the steps.
 */
export function live(world, rule, { lr, noise, steepness, seed, start }, { traced = false, steps = STEPS } = {}) {
  const life = drawn(seed);
  const draw = drawn(seed + 1);
  let gradient = null;
  const watched = { answer: (scene, u, a) => ((gradient = u), rule.answer(scene, u, a)) };
  const memory = { name: "W", model: linear(2, world.best.length), objective: l2, lr, rule: watched };
  const held = { memory, params: { weight: start }, behind: {}, pending: null };
  const path = [start];
  const trace = [];
  for (let time = 0; time < steps; time++) {
    const { keys, values } = pairs(world, life, { noise, steepness });
    const log = traced ? new Map() : null;
    const { surprise } = write(held, keys, values, { time, held: {}, draw, log, path: null });
    if (traced) trace.push({ u: gradient, surprise, keys, values, log });
    path.push(held.params.weight);
  }
  return { path, losses: path.map((W) => expected(world, W, steepness)), trace };
}

/** How good a life was: the loss on average over its second half. */
export function score(losses) {
  const late = losses.slice(losses.length >> 1);
  const mean = late.reduce((sum, x) => sum + x, 0) / late.length;
  return Number.isFinite(mean) ? mean : Infinity;
}

/** The learning rate, of a grid with two points an octave, with which a rule lives best. */
export function tuned(world, rule, settings) {
  let best = { lr: settings.lr, score: Infinity };
  for (let i = 0; i <= 28; i++) {
    const lr = Number((2 ** (i / 2 - 13)).toPrecision(3));
    const found = score(live(world, rule, { ...settings, lr }).losses);
    if (found < best.score) best = { lr, score: found };
  }
  return best;
}
