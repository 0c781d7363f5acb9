// Links made of links: in a row, side by side, inside a basis. They are no parts of their own.

import { add, asLongAs, identity, lerp, multiply, norm, times, trace, transpose, whitener } from "./matrix.js";
import { averageBox, called, gradient, link } from "./links.js";

/** One link after the other. */
export function chain(...links) {
  const answer = (scene, u, a) => links.reduce((given, each) => each.answer(scene, u, given), a);
  const without = (path) => chain(...links.map((each) => each.without(path)).filter(Boolean));
  return link("chain", {}, answer, {
    links,
    python: `chain(${links.map((each) => each.python).join(", ")})`,
    parts: () => links.flatMap((each) => each.parts()),
    without,
  });
}

/** Side by side: the sum of the answers, each times its weight. */
export function parallel(rules, weights) {
  const answer = (scene, u, a) => rules.map((each, i) => times(each.answer(scene, u, a), weights[i])).reduce(add);
  function without(path) {
    const left = rules.map((each, i) => [each.without(path), weights[i]]).filter(([each]) => each);
    return left.length
      ? parallel(
          left.map(([each]) => each),
          left.map(([, weight]) => weight),
        )
      : null;
  }
  const told = rules.map((each) => each.python);
  return link("parallel", {}, answer, {
    links: rules,
    python: `parallel(${told.join(", ")}, weights=(${weights.join(", ")}${weights.length === 1 ? "," : ""}))`,
    parts: () => rules.flatMap((each) => each.parts()),
    without,
  });
}

/** Z_B^T rule(Z_B a Z_A^T) Z_A, Z_A and Z_B read from the covariances A and B of the gradient's two sides (O20). */
export function within(basis, rule) {
  function answer(scene, u, a) {
    const { into, back } = basis.ways(scene, u);
    const inside = rule.answer({ ...scene, u: into(u) }, into(u), into(a));
    return asLongAs(back(inside), rule.length ? rule.length(a) : norm(inside));
  }
  return link("within", {}, answer, {
    links: [basis, rule],
    python: `within(${basis.python}, ${rule.python})`,
    parts: () => [...basis.parts(), ...rule.parts()],
    without: (path) => (basis.without(path) ? within(basis, rule.without(path) ?? chain()) : rule),
  });
}

const evened = (covariance) => {
  const mean = trace(covariance) / covariance.length;
  return mean > 0 ? times(covariance, 1 / mean) : covariance;
};

/** The basis in which directions that come often weigh less: two boxes of covariances. */
export function whiten({ retention, damping, refresh }) {
  const settings = { retention, damping, refresh };
  function side(scene, name, covariance) {
    const readout = (held) => whitener(held, damping);
    return averageBox(scene, `whiten.${name}`, retention, evened(covariance), { readout, refresh });
  }
  function ways(scene, u) {
    const inputs = side(scene, "inputs", multiply(transpose(u), u));
    const errors = side(scene, "errors", multiply(u, transpose(u)));
    return {
      into: (a) => multiply(errors, multiply(a, transpose(inputs))),
      back: (a) => multiply(transpose(errors), multiply(a, inputs)),
    };
  }
  const answer = (scene, u, a) => ways(scene, u).into(a);
  return link("whiten", settings, answer, { ways, python: called("whiten", settings, { inPlace: 0 }) });
}

/** What is left when parts are taken away one after the other; the gradient if that is nothing. */
export const without = (rule, paths) => paths.reduce((left, path) => left.without(path) ?? gradient(), rule);
