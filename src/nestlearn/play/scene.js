// What the page shows for its state: both lives, and what is drawn of them.

import { rows, state } from "./address.js";
import { without } from "./combine.js";
import { faces } from "./faces.js";
import { live, STEPS, tuned, tuning } from "./life.js";
import { python } from "./python.js";
import { rungOf } from "./rungs.js";
import { worlds } from "./worlds.js";

const remembered = new Map();

function keep(about, found) {
  if (remembered.size > 100) remembered.clear();
  remembered.set(JSON.stringify(about), found);
  return found;
}

/** What was computed for the same things before: a control does not depend on every slider. */
const once = (about, compute) => remembered.get(JSON.stringify(about)) ?? keep(about, compute());

let latest = null;

/**
 * A control's best rate. That is many lives, longer than a hand waits: `patient` has them all lived now, otherwise the
 * rate is the latest that was found, and `search` one that goes on for some milliseconds, until it returns true.
 */
function bestRate(about, patient, world, control, settings) {
  const rate = patient ? once(about, () => tuned(world, control, settings)) : remembered.get(JSON.stringify(about));
  if (rate !== undefined) return { rate: (latest = rate), search: null };
  const lived = tuning(world, control, settings);
  function search(milliseconds) {
    const until = performance.now() + milliseconds;
    do {
      const { value, done } = lived.next();
      if (done) {
        keep(about, value);
        return true;
      }
    } while (performance.now() < until);
    return false;
  }
  return { rate: latest ?? settings.lr, search };
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
  const own = state.own && off.length > 0;
  const { rate: ghostRate, search } = own
    ? bestRate(about, !traced, world, control, settings)
    : { rate: state.lr, search: null };
  const life = live(world, rule, settings, { traced });
  const ghost = off.length
    ? once([...about, ghostRate], () => live(world, control, { ...settings, lr: ghostRate }))
    : null;
  const code = () => python({ world, rule, off, rate: state.lr, ghostRate, settings, steps: STEPS });
  return { rung, world, rule, off, control, settings, rate: state.lr, ghostRate, search, life, ghost, code };
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

/** All that is drawn; where the control's best rate is not known yet, `search` looks for it. */
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
