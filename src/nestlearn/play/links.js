// Links: one step from the gradient u to the update, as nestlearn.rules has them. A link is given u and the answer a of
// the link before it, consults memories, and answers; everything points uphill. `python` is the expression that makes
// the same link there.

import {
  add,
  asLongAs,
  asRows,
  fromRows,
  lerp,
  map,
  multiply,
  newtonSchulz,
  norm,
  times,
  transpose,
  unit,
  zip,
} from "./matrix.js";
import { box, consult, dotProduct, l2 } from "./memory.js";

/** A link from what it does; `left` is what stays when it is taken away, `inside` are links behind its memory. */
export function link(kind, settings, answer, more = {}) {
  const { name = null } = settings;
  const label = name || kind;
  const made = {
    kind,
    label,
    settings,
    answer,
    python: called(kind, settings),
    parts: () => [label],
    without: (path) => (path === label ? (more.left ?? null) : made),
    ...more,
  };
  return made;
}

/** `kind(0.9, name="m")`: the first setting is what a link is about, the others say their name. */
export function called(kind, settings, { inPlace = 1 } = {}) {
  const told = Object.entries(settings).map(([name, value], i) =>
    i < inPlace ? said(value) : `${name}=${said(value)}`,
  );
  return `${kind}(${told.join(", ")})`;
}

function said(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return JSON.stringify(value);
  return value?.python ?? String(value);
}

const sizeOf = (a) => [a.length, a[0].length];
const received = (retention, time) => 1 - retention ** (time + 1);

/** M <- retention M + value. */
export function sumBox(scene, name, retention, value, more = {}) {
  return consult(
    scene,
    { name, model: box(...sizeOf(value)), objective: dotProduct, lr: 1, retention, ...more },
    null,
    value,
  );
}

/** M <- M - (1 - retention) (M - value), read divided by the weight received so far if `corrected`. */
export function averageBox(scene, name, retention, value, { corrected = false, period = 1, ...more } = {}) {
  const lr = (1 - retention) / period;
  const readout = corrected ? (answer) => times(answer, 1 / received(retention, scene.time)) : null;
  return consult(
    scene,
    { name, model: box(...sizeOf(value)), objective: l2, lr, period, readout, ...more },
    null,
    value,
  );
}

/** No memory (O1). */
export const gradient = () => link("gradient", {}, (scene, u, a) => a, { parts: () => [], without: () => gradient() });

/** Momentum as a sum (O2). */
export function sum({ retention, ...more }) {
  const settings = { retention, ...more };
  return link("sum", settings, (scene, u, a) => sumBox(scene, more.name ?? "sum", retention, a));
}

/** Momentum as an average (O7). */
export function average({ retention, ...more }) {
  const { name = "average", nesterov = false, period = 1, corrected = false } = more;
  return link("average", { retention, ...more }, (scene, u, a) => {
    const held = averageBox(scene, name, retention, a, { period, corrected });
    return nesterov ? lerp(a, held, retention) : held;
  });
}

const divided = (a, squares, eps) => zip(a, squares, (x, v) => x / (Math.sqrt(v) + eps));

/** a over the root of the average of u^2 (O7). */
export function second_moment({ retention, eps = 1e-8, ...more }) {
  return link("second_moment", { retention, ...more }, (scene, u, a) => {
    const name = more.name ?? "second_moment";
    return divided(
      a,
      averageBox(
        scene,
        name,
        retention,
        map(u, (x) => x * x),
        { corrected: true },
      ),
      eps,
    );
  });
}

/** The target P = u / sqrt(v), v the average of u^2 (O3). */
export const target = (scene) =>
  divided(
    scene.u,
    averageBox(
      scene,
      "second_moment",
      0.99,
      map(scene.u, (x) => x * x),
      { corrected: true },
    ),
    1e-8,
  );

/** P u, the gradient divided by its usual size (O3). */
export const precondition = () => link("precondition", {}, target);

/** M <- M (retention I - inner_lr k^T k) + a with k = u / ||u|| (O4). */
export function delta({ retention, inner_lr, ...more }) {
  return link("delta", { retention, inner_lr, ...more }, (scene, u, a) => {
    const length = norm(u);
    const key = length > 0 ? times(u, 1 / length) : u;
    const update = (held, step) => add(step, times(multiply(multiply(held, transpose(key)), key), inner_lr));
    return sumBox(scene, more.name ?? "delta", retention, a, { update, forgets: true });
  });
}

/** Links without a memory that change the size of an answer. */
export const unit_rows = () =>
  link("unit_rows", {}, (scene, u, a) => fromRows(unit(asRows(a)), a), { parts: () => [] });
export const keep_length = () => link("keep_length", {}, (scene, u, a) => asLongAs(a, norm(u)), { parts: () => [] });

/** The orthogonal matrix next to a, entries of a root mean square of 0.2 (O10). */
export function orthogonal() {
  const settings = { steps: 4, coefficients: "fitted" };
  return link("orthogonal", settings, (scene, u, a) => times(newtonSchulz(a), orthogonalScale(a)), {
    parts: () => [],
    length: (a) => orthogonalScale(a) * Math.sqrt(Math.min(...sizeOf(a))),
  });
}

const orthogonalScale = (a) => 0.2 * Math.sqrt(Math.max(...sizeOf(a)));
