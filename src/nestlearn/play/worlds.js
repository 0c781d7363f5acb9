// Worlds: streams of pairs (keys, values) that the weights W are shown, one write a step. W is a linear memory with the
// mean l2 objective, so lines of equal loss are ellipses around the best W.

import { filled } from "./matrix.js";

const TILT = Math.PI / 6;
const COS = Math.cos(TILT);
const SIN = Math.sin(TILT);
const REACH = Math.sqrt(2 / 3);

/**
 * Each world: `best` and `start` are rows of W, `pairs(draw, steepness)` is one step's keys, `python` the same as lines
 * of Python; noise and steepness are what it begins with, `tilt` is the angle of its flat direction.
 */
export const worlds = {
  ravine: {
    title: "Ravine",
    says: "one noisy pair at a time",
    best: [[1, 0]],
    start: [[-2, 1]],
    noise: 1,
    steepness: 5,
    tilt: 0,
    pairs: (draw, steepness) => [[draw.uniform(-1, 1), steepness * draw.uniform(-1, 1)]],
    python: ["keys = [[life.uniform(-1, 1), steepness * life.uniform(-1, 1)]]"],
  },
  quadratic: {
    title: "Quadratic",
    says: "the whole loss at every step, a little noise",
    best: [[0.6, 0.3]],
    start: [[-2, 0.4]],
    noise: 0.3,
    steepness: 5,
    tilt: TILT,
    pairs: (draw, steepness) => [
      [REACH * COS, REACH * SIN],
      [-steepness * REACH * SIN, steepness * REACH * COS],
    ],
    python: [
      "c, s, size = math.cos(math.pi / 6), math.sin(math.pi / 6), math.sqrt(2 / 3)",
      "keys = [[size * c, size * s], [-steepness * size * s, steepness * size * c]]",
    ],
  },
  regression: {
    title: "Regression",
    says: "four pairs a step, two outputs: each row of W is a point",
    best: [
      [1, 0.4],
      [-0.4, -0.5],
    ],
    start: [
      [-1.8, 0.9],
      [1.4, -1.1],
    ],
    noise: 1,
    steepness: 3,
    tilt: TILT,
    pairs: (draw, steepness) =>
      filled(4, 1, () => {
        const along = draw.uniform(-1, 1);
        const across = steepness * draw.uniform(-1, 1);
        return [COS * along - SIN * across, SIN * along + COS * across];
      }).map(([key]) => key),
    python: [
      "c, s, keys = math.cos(math.pi / 6), math.sin(math.pi / 6), []",
      "for _ in range(4):",
      "    along, across = life.uniform(-1, 1), steepness * life.uniform(-1, 1)",
      "    keys.append([c * along - s * across, s * along + c * across])",
    ],
  },
};

/** The pairs of a step: keys are drawn first, then the noise of values, as the Python has it. */
export function pairs(world, draw, { steepness, noise }) {
  const keys = world.pairs(draw, steepness);
  const values = keys.map(([x, y]) => world.best.map(([a, b]) => a * x + b * y + noise * draw.gauss()));
  return { keys, values };
}

/** The loss on average, without the noise of values: one half of (W - best) H (W - best)^T. */
export function expected(world, W, steepness) {
  const c = Math.cos(world.tilt);
  const s = Math.sin(world.tilt);
  return W.reduce((total, [x, y], i) => {
    const [dx, dy] = [x - world.best[i][0], y - world.best[i][1]];
    const [along, across] = [c * dx + s * dy, steepness * (c * dy - s * dx)];
    return total + (along * along + across * across) / 6;
  }, 0);
}
