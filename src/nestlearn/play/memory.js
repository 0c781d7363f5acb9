// Associative memories: a model holds a map from keys to values, an objective scores its answers, a rule writes it.
//
//   theta <- retention theta - lr update                                                                         (M3)
//
// A rule may consult memories, which have rules again. A memory is a plain description; what it holds is kept apart, in
// `held`, one entry a memory. Keys and values are rows of numbers; a box ignores its key. What a model has computed to
// answer, its pullback of an error onto the parameters is given again.

import {
  add,
  apart,
  dot,
  filled,
  mixed,
  multiply,
  subtract,
  times,
  timesTransposed,
  transposedTimes,
  zeros,
} from "./matrix.js";

/** The box: it answers with what it holds. Its one parameter is a matrix of this form. */
export const box = (rows, columns) => ({
  kind: "box",
  init: () => ({ value: zeros(rows, columns) }),
  read: (held) => ({ answer: held.value }),
  pullback: (held, key, error) => ({ value: error }),
  averages: false,
});

/** The linear memory M(k) = W k, from W = 0. */
export const linear = (into, out) => ({
  kind: "matrix",
  init: () => ({ weight: zeros(out, into) }),
  read: (held, key) => ({ answer: timesTransposed(key, held.weight) }),
  pullback: (held, key, error) => ({ weight: transposedTimes(error, key) }),
  averages: true,
});

/** The brain: M(k) = W_outer silu(W_inner k) / sqrt(hidden). W_outer starts at zero, W_inner is drawn (O5). */
export function mlp(width, hidden) {
  const gain = 1 / Math.sqrt(hidden);
  return {
    kind: "mlp",
    init: (draw) => ({ inner: filled(hidden, width, () => draw.gauss()), outer: zeros(width, hidden) }),
    read(held, key) {
      const before = timesTransposed(key, held.inner);
      const [gates, units] = [zeros(key.length, hidden), zeros(key.length, hidden)];
      for (let i = 0; i < key.length; i++)
        for (let h = 0; h < hidden; h++) {
          gates[i][h] = 1 / (1 + Math.exp(-before[i][h]));
          units[i][h] = before[i][h] * gates[i][h] * gain; // silu(x) = x sigmoid(x)
        }
      return { answer: timesTransposed(units, held.outer), before, gates, units };
    },
    pullback(held, key, error, { before, gates, units }) {
      const back = multiply(error, held.outer);
      for (let i = 0; i < key.length; i++)
        for (let h = 0; h < hidden; h++)
          back[i][h] *= gates[i][h] * (1 + before[i][h] * (1 - gates[i][h])) * gain; // the slope of silu
      return { inner: transposedTimes(back, key), outer: transposedTimes(error, units) };
    },
    averages: true,
  };
}

/** Objectives: what an answer costs, and the error dL/d(answer) (M2). */
export const dotProduct = {
  name: "dot product",
  loss: (answer, value) => -dot(answer, value),
  error: (_, value) => times(value, -1),
};
export const l2 = {
  name: "l2",
  loss: (answer, value) => 0.5 * apart(answer, value),
  error: subtract,
};

/** What a memory holds before its first write; numbers for an MLP come from `draw`. */
const begin = (memory, draw) => ({ memory, params: memory.model.init(draw), behind: {}, pending: null });

/** One write of `held`, in place of what it held; returns the surprise before it, if there is a log, and whether it is done now. */
export function write(held, key, value, scene) {
  const { model, objective, lr, retention = 1, period = 1, rule = null, update = null } = held.memory;
  const keys = model.averages ? key.length : 1;
  const seen = model.read(held.params, key);
  const surprise = scene.log ? objective.loss(seen.answer, value) / keys : null;
  let found = model.pullback(held.params, key, objective.error(seen.answer, value), seen);
  if (keys > 1) found = each(found, (gradient) => times(gradient, 1 / keys));
  if (period > 1) {
    held.pending = held.pending ? each(found, (gradient, name) => add(held.pending[name], gradient)) : found;
    if ((scene.time + 1) % period) return { surprise, written: false };
    found = held.pending;
    held.pending = null;
  }
  const time = Math.floor(scene.time / period);
  held.params = each(held.params, (theta, name) => {
    let step = found[name];
    if (update) step = update(theta, step, key);
    if (rule)
      step = answered(rule, step, {
        ...scene,
        time,
        held: (held.behind[name] ??= {}),
        path: scene.path === null ? "" : `${scene.path}${name}.`,
      });
    return mixed(theta, retention, step, -lr);
  });
  return { surprise, written: true };
}

function each(named, f) {
  const made = {};
  for (const name in named) made[name] = f(named[name], name);
  return made;
}

/** The update that a rule makes of a gradient: the rule's memories are those in `scene.held`. */
export const answered = (rule, gradient, scene) => rule.answer({ ...scene, u: gradient }, gradient, gradient);

/**
 * Show a memory its pair, ask it, and return its answer.
 *
 * `memory` has a name, a model, an objective, lr, and of the rest what differs from the usual: `fresh: false` is asked
 * before its write, `query` asks another key, `readout(answer)` is made of the answer, once in `refresh` writes, `lr`
 * and `retention` write it.
 */
export function consult(scene, memory, key, value, query = key) {
  const held = (scene.held[memory.name] ??= begin(memory, scene.draw));
  held.memory = memory; // what a link closes over is new at every step
  const path = scene.path + memory.name;
  const before = held.params;
  const done = write(held, key, value, { ...scene, path: `${path}.` });
  const { model, fresh = true, readout = null, refresh = 1 } = memory;
  let answer;
  if (refresh > 1 && scene.time % refresh) ({ answer } = held);
  else {
    ({ answer } = model.read(fresh ? held.params : before, query));
    if (readout) answer = readout(answer);
    if (refresh > 1) held.answer = answer;
  }
  scene.log?.set(path, { path, memory, key, value, query, answer, before, params: held.params, ...done });
  return answer;
}
