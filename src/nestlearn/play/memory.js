// Associative memories: a model holds a map from keys to values, an objective scores its answers, a rule writes it.
//
//   theta <- retention theta - lr update                                                                         (M3)
//
// A rule may consult memories, which have rules again. A memory is a plain description; what it holds is kept apart, in
// `held`, one entry a memory. Keys and values are rows of numbers; a box ignores its key. What a model has computed to
// answer, its pullback of an error onto the parameters is given again.

import { add, dot, filled, map, multiply, subtract, times, transpose, zeros, zip } from "./matrix.js";

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
  read: (held, key) => ({ answer: multiply(key, transpose(held.weight)) }),
  pullback: (held, key, error) => ({ weight: multiply(transpose(error), key) }),
  averages: true,
});

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const silu = (x) => x * sigmoid(x);

function slope(x) {
  const gate = sigmoid(x);
  return gate * (1 + x * (1 - gate));
}

/** The brain: M(k) = W_outer silu(W_inner k) / sqrt(hidden). W_outer starts at zero, W_inner is drawn (O5). */
export function mlp(width, hidden) {
  const gain = 1 / Math.sqrt(hidden);
  return {
    kind: "mlp",
    init: (draw) => ({ inner: filled(hidden, width, () => draw.gauss()), outer: zeros(width, hidden) }),
    read(held, key) {
      const before = multiply(key, transpose(held.inner));
      const units = map(before, (x) => silu(x) * gain);
      return { answer: multiply(units, transpose(held.outer)), before, units };
    },
    pullback(held, key, error, { before, units }) {
      const back = zip(multiply(error, held.outer), before, (x, y) => x * slope(y) * gain);
      return { inner: multiply(transpose(back), key), outer: multiply(transpose(error), units) };
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
  loss: (answer, value) => 0.5 * dot(subtract(answer, value), subtract(answer, value)),
  error: subtract,
};

/** What a memory holds before its first write; numbers for an MLP come from `draw`. */
const begin = (memory, draw) => ({ memory, params: memory.model.init(draw), behind: {}, pending: null });

/** One write of `held`, in place of what it held; returns the surprise before it, and whether the write is done now. */
export function write(held, key, value, scene) {
  const { model, objective, lr, retention = 1, period = 1, rule = null, update = null } = held.memory;
  const keys = model.averages ? key.length : 1;
  const seen = model.read(held.params, key);
  const surprise = objective.loss(seen.answer, value) / keys;
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
    return zip(theta, step, (x, y) => retention * x - lr * y);
  });
  return { surprise, written: true };
}

const each = (named, f) => Object.fromEntries(Object.entries(named).map(([name, value]) => [name, f(value, name)]));

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
