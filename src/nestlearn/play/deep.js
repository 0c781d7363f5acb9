// Memories with weights in the place of a box: maps from rows of the gradient to rows of a target (O5, O6, O8).

import { asRows, fromRows, map, add, subtract, times, unit, zip } from "./matrix.js";
import { consult, l2, linear, mlp } from "./memory.js";
import { average, averageBox, called, gradient, link, second_moment, sumBox, target } from "./links.js";
import { chain } from "./combine.js";

const made = (kind, width, hidden) => (kind === "matrix" ? linear(width, width) : mlp(width, hidden));
const width = (a) => Math.min(a.length, a[0].length);

/**
 * Answers skip + M(u), rows of unit length: M is trained to answer P - skip when it is shown u, and then asked.
 *
 * Settings: hidden, inner_lr, retention, model ("mlp" or "matrix"), written_by (a rule for M's own gradients), name.
 */
export function deep(settings) {
  const { hidden, inner_lr: lr, retention, model = "mlp", written_by: rule = null, name = "deep" } = settings;
  function answer(scene, u, a) {
    const key = unit(asRows(u));
    const skip = a === u ? key : unit(asRows(a));
    const value = subtract(unit(asRows(target(scene))), skip);
    const memory = { name, model: made(model, width(u), hidden), objective: l2, lr, retention, rule };
    return fromRows(add(skip, consult(scene, memory, key, value)), u);
  }
  const rest = (part) => (part === null ? undefined : part);
  return link("deep", settings, answer, {
    python: called("deep", settings),
    parts: () => [name, ...(rule ? rule.parts().map((path) => `${name}.${path}`) : [])],
    without(path) {
      if (path === name) return null;
      if (!rule || !path.startsWith(`${name}.`)) return this;
      return deep({ ...settings, written_by: rest(rule.without(path.slice(name.length + 1))) ?? gradient() });
    },
  });
}

const positive = (v) => (v > 0 ? v : 1);

/** Adam whose two boxes have a brain on top: each is asked for the gradient, or the square, that comes next (O8). */
export function deep_adam(settings) {
  const { hidden, inner_lr: lr, retention, first, second, eps = 1e-8 } = settings;
  function answer(scene, u) {
    const length = Math.sqrt(width(u));
    const own = (part) => `deep_adam.${part}`;
    const m = averageBox(scene, own("m"), first, u, { corrected: true });
    const v = averageBox(
      scene,
      own("v"),
      second,
      map(u, (x) => x * x),
      { corrected: true },
    );
    const previous = unit(asRows(sumBox(scene, own("previous"), 0, u, { fresh: false })));
    const roots = map(v, (x) => Math.sqrt(positive(x)));
    const deviation = zip(subtract(u, m), roots, (x, root) => x / root / length);
    const relative = zip(u, v, (x, square) => (Math.min((x * x) / positive(square), 10) - 1) / length);
    function learned(part, value) {
      const memory = { name: own(part), model: mlp(width(u), hidden), objective: l2, lr, retention };
      const found = consult({ ...scene }, memory, previous, asRows(value), unit(asRows(u)));
      return fromRows(times(found, length), u);
    }
    const momentum = learned("momentum", deviation);
    const moment = learned("second_moment", relative);
    const above = zip(
      zip(momentum, v, (x, square) => x * Math.sqrt(square)),
      m,
      (x, y) => x + y,
    );
    const below = zip(v, moment, (square, x) => Math.sqrt(square * Math.max(x + 1, 0.1)) + eps);
    return zip(above, below, (x, y) => x / y);
  }
  const boxes = () =>
    chain(
      average({ retention: first, corrected: true, name: "deep_adam.m" }),
      second_moment({ retention: second, name: "deep_adam.v" }),
    );
  return link("deep_adam", settings, answer, { left: boxes() });
}
