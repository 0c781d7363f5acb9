// What a rung looks like: the cards of its memories in the order of their wirers, its equations in both notations, and
// the chart of what its memory holds or answers.
//
// In an equation M' is what M has become. In the line below it, words that the values of a step know are numbers; where
// that line is another equation it is `oursFilled` and `theirsFilled`.

import { multiply, norm, subtract, times, transpose } from "./matrix.js";

const card = (path, label, says, part = null) => ({ path, label, says, part });
const M = (says) => card("M", "M", says, "M");
const V_FOR_P = (part = null) => card("second_moment", "v", "a box: size of u, for P", part);

const W_BY_M = { wirer: 1, ours: "W' ← W − lr M'", theirs: "W' = W + M'" };
const W_BY_MAP = {
  wirer: 1,
  ours: "W' ← W − lr ( ū + M' ( ū ) )",
  theirs: "W' = W + M' ( ∇L )",
  oursFilled: "W' ← W − lr a",
  theirsFilled: "W' = W + a",
};
const LEARNS_P = {
  wirer: 2,
  ours: "M' ← α M − ζ ∇ L_2 , L_2 = ½ ‖ ū + M ( ū ) − P ‖^2",
  theirs: "M' = α M − η_2 ∇ L_2 ( M ( ∇L ) )",
  oursFilled: "L_2 = ½ ‖ asked − P ‖^2 / n = s",
  theirsFilled: "L_2 = ½ ‖ asked − P ‖^2 / n = s",
};
const P_BY_V = {
  wirer: 3,
  ours: "v' ← 0.99 v + 0.01 u^2 , P = u / √v'",
  theirs: "v' = 0.99 v + 0.01 ∇L^2 , P = ∇L / √v'",
  oursFilled: "P = u / √v'",
  theirsFilled: "P = ∇L / √v'",
};
// A memory of rows is shown P with rows of length one.
const P_BY_V_ROWS = Object.fromEntries(
  Object.entries(P_BY_V).map(([name, text]) => [name, typeof text === "string" ? text.replace("P =", "P ∝") : text]),
);

const told = (label, of) => ({ label, of });
const value = (entry, path) => entry.log.get(path).params.value;
const answer = (entry, path) => entry.log.get(path).answer;
const pairsSay = "What each pair says across (dots)";
const overTimeOf = (says, lines) => () => ({ over: "time", says, lines });
const overKeysOf = (memory) => () => ({
  over: "keys",
  memory,
  says: "What M answers to a gradient; dashed: the gradient itself, its skip path",
});
const faded =
  (path) =>
  ({ retention }) => ({
    over: "time",
    says: `${pairsSay}, and what M made of it`,
    lines: [told("(1 − α) M", (entry, across) => (1 - retention) * across(value(entry, path)))],
  });

export const faces = {
  wirer: {
    cards: [],
    equations: [{ wirer: 1, ours: "W' ← W − lr u", theirs: "W' = W − η ∇L" }],
    chart: overTimeOf(pairsSay, []),
  },
  box: {
    cards: [M("a box: the sum of u")],
    equations: [{ wirer: 2, ours: "M' ← α M + u", theirs: "M' = β M − η ∇L" }, W_BY_M],
    chart: faded("M"),
  },
  preconditioned: {
    cards: [M("a box: the sum of P"), V_FOR_P("precondition")],
    equations: [P_BY_V, { wirer: 2, ours: "M' ← α M + P", theirs: "M' = β M − η P" }, W_BY_M],
    chart: overTimeOf("The size of gradients that v knows: across, and along", [
      told("√v across", (entry, across, along) => rooted(entry, across)),
      told("√v along", (entry, across, along) => rooted(entry, along)),
    ]),
  },
  objective: {
    cards: [M("adds what is new in u")],
    equations: [
      {
        wirer: 2,
        ours: "M' ← α M − ζ M k^T k + u",
        theirs: "M' = β M − η_2 M k^T k − η ∇L",
        oursFilled: "M' ← α M − ζ known + u",
        theirsFilled: "M' = β M − η_2 known − η ∇L",
      },
      W_BY_M,
    ],
    chart: faded("M"),
  },
  matrix: {
    cards: [M("a matrix: u ↦ P"), V_FOR_P()],
    equations: [P_BY_V_ROWS, LEARNS_P, W_BY_MAP],
    chart: overKeysOf("M"),
  },
  brain: {
    cards: [M("an MLP: u ↦ P"), V_FOR_P()],
    equations: [P_BY_V_ROWS, LEARNS_P, W_BY_MAP],
    chart: overKeysOf("M"),
  },
  deeper: {
    cards: [
      card("M1", "M₁", "an MLP: u ↦ P"),
      V_FOR_P(),
      card("M1.inner.M2", "M₂", "for W_in", "M1.M2"),
      card("M1.inner.second_moment", "v", "for its P", "M1.M2"),
      card("M1.outer.M2", "M₂", "for W_out", "M1.M2"),
      card("M1.outer.second_moment", "v", "for its P", "M1.M2"),
    ],
    equations: [
      {
        wirer: 4,
        ours: "M₂' ← α M₂ − ζ ∇ L_3 , L_3 = ½ ‖ g + M₂ ( g ) − P ‖^2",
        theirs: "M₂' = α M₂ − η_2 ∇ L_3 ( M₂ ( g ) )",
        oursFilled: "L_3 = s_2",
        theirsFilled: "L_3 = s_2",
      },
      {
        wirer: 2,
        ours: "M₁' ← α M₁ − ζ ( g + M₂' ( g ) ) , g = ∇ L_2",
        theirs: "M₁' = α M₁ − η_2 M₂' ( ∇ L_2 ( M₁ ( ∇L ) ) )",
        oursFilled: "L_2 = s",
        theirsFilled: "L_2 = s",
      },
      { ...W_BY_MAP, ours: "W' ← W − lr ( ū + M₁' ( ū ) )", theirs: "W' = W + M₁' ( ∇L )" },
    ],
    chart: overKeysOf("M1"),
  },
  adam: {
    cards: [card("m", "m", "a box: average of u", "m"), card("v", "v", "a box: average of u²", "v")],
    equations: [
      {
        wirer: 2,
        ours: "m' ← α m + ( 1 − α ) u",
        theirs: "m' = β m + ( 1 − β ) ∇L",
        oursFilled: "m' ← α m + rest u",
        theirsFilled: "m' = β m + rest ∇L",
      },
      { wirer: 3, ours: "v' ← 0.999 v + 0.001 u^2", theirs: "v' = 0.999 v + 0.001 ∇L^2" },
      { wirer: 1, ours: "W' ← W − lr m̂ / √v̂", theirs: "W' = W − η m̂ / √v̂" },
    ],
    chart: overTimeOf(`${pairsSay}, and what both boxes make of it`, [
      told("m", (entry, across) => across(answer(entry, "m"))),
      told("√v", (entry, across) => Math.sqrt(Math.abs(across(answer(entry, "v"))))),
    ]),
  },
  "deep-adam": {
    cards: [
      card("deep_adam.momentum", "M", "next u", "deep_adam"),
      card("deep_adam.second_moment", "V", "next u²", "deep_adam"),
      card("deep_adam.m", "m", "a box"),
      card("deep_adam.v", "v", "a box"),
      card("deep_adam.previous", "u₋", "the last u", "deep_adam"),
    ],
    equations: [
      {
        wirer: 2,
        ours: "M' ← 0.999 M − ζ ∇ ½ ‖ √v M ( u₋ ) + m − u ‖^2",
        theirs: "M' = 0.999 M − η_2 ∇ ½ ‖ √v M ( ∇L₋ ) + m − ∇L ‖^2",
        oursFilled: "L_M = s",
        theirsFilled: "L_M = s",
      },
      {
        wirer: 3,
        ours: "V' ← 0.999 V − ζ ∇ ½ ‖ 1 + V ( u₋ ) − u^2 / v ‖^2",
        theirs: "V' = 0.999 V − η_2 ∇ ½ ‖ 1 + V ( ∇L₋ ) − ∇L^2 / v ‖^2",
        oursFilled: "L_V = s_2",
        theirsFilled: "L_V = s_2",
      },
      {
        wirer: 1,
        ours: "W' ← W − lr ( m + √v M' ( u ) ) / √( v ( 1 + V' ( u ) ) )",
        theirs: "W' = W − η ( m + √v M' ( ∇L ) ) / √( v ( 1 + V' ( ∇L ) ) )",
        oursFilled: "W' ← W − lr a",
        theirsFilled: "W' = W + a",
      },
    ],
    chart: overTimeOf(`${pairsSay}, and what both boxes hold`, [
      told("m", (entry, across) => across(answer(entry, "deep_adam.m"))),
      told("√v", (entry, across) => Math.sqrt(Math.abs(across(answer(entry, "deep_adam.v"))))),
    ]),
  },
  speeds: {
    cards: [card("fast", "F", "a box, every step", "fast"), card("slow", "S", "a box, every C steps", "slow")],
    equations: [
      {
        wirer: 2,
        ours: "F' ← α F + ( 1 − α ) u",
        theirs: "F' = β F + ( 1 − β ) ∇L",
        oursFilled: "F' ← α F + rest u",
        theirsFilled: "F' = β F + rest ∇L",
      },
      {
        wirer: 3,
        ours: "S' ← α S + ( 1 − α ) mean 'every C 'steps",
        theirs: "S' = β S + ( 1 − β ) mean 'every C 'steps",
        oursFilled: "S' = waits",
        theirsFilled: "S' = waits",
      },
      {
        wirer: 1,
        ours: "W' ← W − lr ( F' + S' )",
        theirs: "W' = W − η ( F' + S' )",
        oursFilled: "W' ← W − lr a",
        theirsFilled: "W' = W + a",
      },
    ],
    chart: overTimeOf(`${pairsSay}, and what both boxes hold`, [
      told("F", (entry, across) => across(value(entry, "fast"))),
      told("S", (entry, across) => across(value(entry, "slow"))),
    ]),
  },
  nested: {
    cards: [
      card("M", "M", "a box: average of u", "M"),
      card("whiten.inputs", "A", "frequent inputs", "whiten"),
      card("whiten.errors", "B", "frequent errors", "whiten"),
    ],
    equations: [
      {
        wirer: 2,
        ours: "M' ← α M + ( 1 − α ) u",
        theirs: "M' = β M + ( 1 − β ) ∇L",
        oursFilled: "M' ← α M + rest u",
        theirsFilled: "M' = β M + rest ∇L",
      },
      {
        wirer: 3,
        ours: "A' ← 0.97 A + 0.03 u^T u 'scaled",
        theirs: "A' = 0.97 A + 0.03 ∇L^T ∇L 'scaled",
        oursFilled: "A' = newA",
        theirsFilled: "A' = newA",
      },
      {
        wirer: 1,
        ours: "W' ← W − lr Z_B^T NS ( Z_B m̃ Z_A^T ) Z_A",
        theirs: "W' = W − η Z_B^T NS ( Z_B m̃ Z_A^T ) Z_A",
        oursFilled: "W' ← W − lr a",
        theirsFilled: "W' = W + a",
      },
    ],
    chart: overTimeOf(`${pairsSay}, and what M holds`, [told("M", (entry, across) => across(value(entry, "M")))]),
  },
};

const rooted = (entry, direction) => {
  return Math.sqrt(Math.abs(direction(answer(entry, "second_moment"))));
};

/** The values of all words of a rung's equations at a step. `signs` are "ours" or "theirs", where M holds steps. */
export function valuesAt({ rung, trace, path, settings, rate }, step, signs) {
  const entry = trace[step];
  const held = (at) => entry.log.get(at).params.value;
  const start = (at) => entry.log.get(at).before.value;
  const sign = signs === "theirs" ? -rate : 1;
  const [W, after] = [path[step], path[step + 1]];
  const a = times(subtract(W, after), 1 / rate);
  const found = { W, "W'": after, u: entry.u, "∇L": entry.u, a: times(a, sign) };
  Object.assign(found, {
    lr: rate,
    η: rate,
    α: settings.retention,
    β: settings.retention,
    ζ: settings.inner_lr,
    η_2: settings.inner_lr,
    C: settings.period,
    rest: 1 - settings.retention,
  });
  const main = entry.log.get("M") ?? entry.log.get("M1") ?? entry.log.get("deep_adam.momentum");
  const second = entry.log.get("M1.outer.M2") ?? entry.log.get("deep_adam.second_moment");
  if (main?.memory.model.kind === "box") {
    // In the article M holds steps, here it holds gradients; averages are no steps in either.
    const scale = rung.id === "nested" ? 1 : sign;
    found["M'"] = times(main.params.value, scale);
    found.M = times(start("M"), scale);
  } else if (main) {
    const flat = (rows) => (rows[0].length === 1 ? [rows.map(([x]) => x)] : rows);
    found.asked = flat(zipped(main.key, main.memory.model.read(main.before, main.key).answer));
    found.P = flat(zipped(main.key, main.value));
    found.n = main.key.length;
    found.s = main.surprise;
  }
  if (second) found["s_2"] = second.surprise;
  if (rung.id === "preconditioned") found.P = scaledBy(entry.u, answer(entry, "second_moment"));
  if (entry.log.has("second_moment")) found["v'"] = answer(entry, "second_moment");
  if (rung.id === "objective") {
    const k = times(entry.u, 1 / (norm(entry.u) || 1));
    found.known = multiply(multiply(found.M, transpose(k)), k);
  }
  for (const [word, at] of [
    ["m", "m"],
    ["v", "v"],
    ["F", "fast"],
    ["S", "slow"],
  ]) {
    if (!entry.log.has(at)) continue;
    found[word] = start(at);
    found[`${word}'`] = held(at);
    found[`${word}̂`] = answer(entry, at);
  }
  if (rung.id === "speeds") found.waits = held("slow");
  if (rung.id === "nested") found.newA = held("whiten.inputs");
  return found;
}

const zipped = (a, b) => a.map((row, i) => row.map((x, j) => x + b[i][j]));
const scaledBy = (u, v) => u.map((row, i) => row.map((x, j) => x / (Math.sqrt(v[i][j]) + 1e-8)));
