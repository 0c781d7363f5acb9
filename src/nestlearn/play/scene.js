// What the page shows for its state: both lives, and what is drawn of them.

import { rows, state } from "./address.js";
import { without } from "./combine.js";
import { faces } from "./faces.js";
import { live, STEPS, tuned } from "./life.js";
import { python } from "./python.js";
import { rungOf } from "./rungs.js";
import { worlds } from "./worlds.js";

const remembered = new Map();

/** What was computed for the same things before: a control does not depend on every slider. */
function once(about, compute) {
  const key = JSON.stringify(about);
  if (!remembered.has(key)) {
    if (remembered.size > 100) remembered.clear();
    remembered.set(key, compute());
  }
  return remembered.get(key);
}

/** Both lives, from the state alone. */
function lives(traced) {
  const rung = rungOf(state.rung);
  const world = worlds[state.world];
  const rule = rung.rule(state);
  const off = state.off.split(",").filter(Boolean);
  const control = without(rule, off);
  const settings = { ...state, start: rows(state.start) };
  const about = [state.world, control.python, state.noise, state.steepness, state.seed, state.start];
  const ghostRate = state.own && off.length ? once(about, () => tuned(world, control, settings)).lr : state.lr;
  const life = live(world, rule, settings, { traced });
  const ghost = off.length
    ? once([...about, ghostRate], () => live(world, control, { ...settings, lr: ghostRate }))
    : null;
  const code = () => python({ world, rule, off, rate: state.lr, ghostRate, settings, steps: STEPS });
  return { rung, world, rule, off, control, settings, rate: state.lr, ghostRate, life, ghost, code };
}

/** What the page shows, as data: the paths, the rules as Python, and the program that makes them again. */
export function report() {
  const found = lives(false);
  const { path, losses } = found.life;
  return {
    state: { ...state },
    rule: found.rule.python,
    control: found.control.python,
    rate: found.rate,
    controlRate: found.ghostRate,
    path,
    losses,
    controlPath: found.ghost?.path ?? null,
    python: found.code(),
  };
}

/** All that is drawn. */
export function pictured() {
  const found = lives(true);
  const { settings, world, life, ghost } = found;
  const [c, s] = [Math.cos(world.tilt), Math.sin(world.tilt)];
  const [across, along] = [([[x, y]]) => c * y - s * x, ([[x, y]]) => c * x + s * y];
  const face = faces[state.rung];
  const chart = face.chart(state);
  const described = {
    ...chart,
    lines: chart.lines?.map((one) => ({ ...one, of: (entry) => one.of(entry, across, along) })),
    dots: (entry) => across(entry.u),
  };
  return {
    ...found,
    face,
    chart: described,
    path: life.path,
    losses: life.losses,
    trace: life.trace,
    ghost: ghost?.path,
    ghostLosses: ghost?.losses,
    settings,
  };
}
