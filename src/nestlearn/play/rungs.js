// The rungs, from a wirer alone to the composition that the library recommends: what each rule is, in the words of the
// article, which settings it has, and which memory its control is without.

import {
  average,
  delta,
  gradient,
  keep_length,
  orthogonal,
  precondition,
  second_moment,
  sum,
  unit_rows,
} from "./links.js";
import { chain, parallel, whiten, within } from "./combine.js";
import { deep, deep_adam } from "./deep.js";

const HIDDEN = 8;

const brain = ({ inner_lr, retention }, more = {}) =>
  deep({ hidden: HIDDEN, inner_lr, retention, ...more, name: more.name ?? "M" });

/** Settings a rung may have: range, scale ("log" or "flat"), the sign in our notation and in the article's. */
export const SETTINGS = {
  lr: { words: "learning rate", low: 0.0005, high: 2, scale: "log", ours: "lr", theirs: "η" },
  retention: { words: "retention", low: 0, high: 0.999, scale: "flat", step: 0.01, ours: "α", theirs: "β", brain: "α" },
  inner_lr: { words: "inner rate", low: 0.001, high: 4, scale: "log", ours: "ζ", theirs: "η₂" },
  period: { words: "slow period", low: 2, high: 40, scale: "flat", step: 1, ours: "C", theirs: "C" },
  noise: { words: "noise", low: 0, high: 3, scale: "flat", step: 0.05, world: true },
  steepness: { words: "steepness", low: 1, high: 10, scale: "flat", step: 0.1, world: true },
};

/** Each rung: `rule(settings)`, the settings it starts with, and `off`, the parts that its control is without. */
export const rungs = [
  {
    id: "wirer",
    title: "The wirer alone",
    says: `One memory, the weights W, and an agent that rewires it: gradient descent. It looks at the present pair
      only, so it forgets what the pairs before asked for.`,
    settings: { lr: 0.05 },
    rule: () => gradient(),
    off: [],
  },
  {
    id: "box",
    title: "A wirer and a box",
    says: `Momentum is a second memory: a box that stores one value a weight, the fading sum of all gradients. Wirer
      2 opens the box and updates it; wirer 1 reads it and rewires with care.`,
    settings: { lr: 0.005, retention: 0.9 },
    rule: ({ retention }) => sum({ retention, name: "M" }),
    off: ["M"],
  },
  {
    id: "preconditioned",
    title: "A better value: P",
    says: `First way to a better momentum: put something more useful into the box than the gradient. P is the
      gradient divided by its usual size, which a box of its own knows, so both directions speak equally loud.`,
    settings: { lr: 0.008, retention: 0.9 },
    rule: ({ retention }) => chain(precondition(), sum({ retention, name: "M" })),
    off: ["precondition"],
  },
  {
    id: "objective",
    title: "A better objective",
    says: `Second way: a better objective. The box only ever adds. With the l2 objective the memory first takes out
      what it already answers for this key, and then puts the new value in.`,
    settings: { lr: 0.01, retention: 0.9, inner_lr: 0.5 },
    rule: ({ retention, inner_lr }) => delta({ retention, inner_lr, name: "M" }),
    off: ["M"],
  },
  {
    id: "matrix",
    title: "A memory that maps",
    says: `Third way: a better memory. No box any more but an associative memory: shown the gradient it is trained
      to answer P. As a matrix its answer is proportional to the key.`,
    settings: { lr: 0.1, inner_lr: 0.1, retention: 0.999 },
    rule: (settings) => chain(unit_rows(), brain(settings, { model: "matrix" })),
    off: ["M"],
  },
  {
    id: "brain",
    title: "Momentum with a brain",
    says: `Give momentum synapses: an MLP, written by wirer 2 on ||M(u) − P||². It can answer large gradients and
      small ones differently. Figure 1 of the article: what was in the box is now baked into weights.`,
    settings: { lr: 0.1, inner_lr: 0.5, retention: 0.999 },
    rule: (settings) => chain(unit_rows(), brain(settings)),
    off: ["M"],
  },
  {
    id: "deeper",
    title: "A brain behind the brain",
    says: `The wirer of the brain may have a brain too: M₂ learns how to write M₁. “This process can continue
      indefinitely.”`,
    settings: { lr: 0.1, inner_lr: 0.5, retention: 0.999 },
    rule: (settings) =>
      chain(
        unit_rows(),
        brain(settings, { written_by: chain(brain(settings, { name: "M2" }), keep_length()), name: "M1" }),
      ),
    off: ["M1.M2"],
  },
  {
    id: "adam",
    title: "Adam’s three memories",
    says: `Velocity is one more box, on the same level as momentum: both learn in parallel and wirer 1 asks both.
      Three memories on two levels.`,
    settings: { lr: 0.05, retention: 0.9 },
    rule: ({ retention }) =>
      chain(average({ retention, corrected: true, name: "m" }), second_moment({ retention: 0.999, name: "v" })),
    off: ["m", "v"],
  },
  {
    id: "deep-adam",
    title: "Deep Adam",
    says: `Figure 2 of the article: momentum and velocity both get a brain. Each is asked for what its box cannot
      know: the gradient that comes next, and its square.`,
    settings: { lr: 0.05, retention: 0.9, inner_lr: 0.5 },
    rule: ({ retention, inner_lr }) =>
      deep_adam({ hidden: HIDDEN, inner_lr, retention: 0.999, first: retention, second: 0.999 }),
    off: ["deep_adam"],
  },
  {
    id: "speeds",
    title: "Several speeds",
    says: `Memories with a pace of their own: the fast box is written at every step, the slow one once in C steps
      with all that came since, and it stands still in between.`,
    settings: { lr: 0.03, retention: 0.8, period: 10 },
    rule: ({ retention, period }) =>
      parallel([average({ retention, name: "fast" }), average({ retention, period, name: "slow" })], [1, 1]),
    off: ["slow"],
  },
  {
    id: "nested",
    title: "What we recommend",
    says: `Three memories: what came lately (M), and which directions come often on either side of W (A and B). The
      step is the steepest one in their geometry, moved to equal lengths by Newton–Schulz (NS).`,
    settings: { lr: 0.2, retention: 0.7 },
    rule: ({ retention }) => {
      const momentum = average({ retention, nesterov: true, name: "M" });
      return chain(momentum, within(whiten({ retention: 0.97, damping: 1, refresh: 5 }), orthogonal()));
    },
    off: ["whiten"],
  },
];

/** What parts of rules are called on the page, where that is not their name. */
export const PARTS = {
  precondition: "P",
  whiten: "A and B",
  deep_adam: "M and V",
  M1: "M₁",
  "M1.M2": "M₂",
  fast: "F",
  slow: "S",
};

export const rungOf = (id) => rungs.find((rung) => rung.id === id);
