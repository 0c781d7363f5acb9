// Equations as MathML, from words with blanks between them, and the same with the numbers of a step in their places.

import { short } from "./svg.js";

const OPERATORS = new Set([..."+−=←/·()‖,↦½∝"]);
const STATE = /^(W|M|M₁|M₂|V|m|v|F|S|A|B)$/;

const BREAKS = new Set([..."+−=←∝"]);

/** Equations with commas between them. */
const mathml = (text, options) =>
  text
    .split(" , ")
    .map((one) => `<span class="formula">${formula(one, options)}</span>`)
    .join(" ");

/**
 * MathML of an equation; words that `values` know become numbers. In the article's notation states have a time.
 *
 * A formula does not break at the end of a line. So it is several, one behind the other, each beginning with a sign that
 * stands outside of brackets.
 */
function formula(text, { theirs, values = null }) {
  const words = text.split(" ");
  const pieces = [[]];
  let depth = 0;
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    if (!depth && i && BREAKS.has(word)) pieces.push([]);
    // The root of a bracket takes all up to the bracket that closes it.
    if (word === "√(") {
      let open = 1;
      const start = ++i;
      while (open) open += { "(": 1, "√(": 1, ")": -1 }[words[i++]] ?? 0;
      pieces.at(-1).push(`<msqrt>${row(words.slice(start, --i), theirs, values)}</msqrt>`);
      continue;
    }
    if (word === "(") depth += 1;
    else if (word === ")") depth -= 1;
    else if (word.startsWith("‖")) depth += depth ? -1 : 1;
    pieces.at(-1).push(term(word, theirs, values));
  }
  return pieces.map((piece) => `<math displaystyle="true"><mrow>${piece.join("")}</mrow></math>`).join("<wbr>");
}

const row = (words, theirs, values) => `<mrow>${words.map((word) => term(word, theirs, values)).join("")}</mrow>`;

function term(word, theirs, values) {
  if (word.startsWith("'")) return `<mtext>&nbsp;${word.slice(1)}&nbsp;</mtext>`;
  if (BREAKS.has(word)) return `<mo form="infix">${word}</mo>`;
  if (OPERATORS.has(word)) return `<mo${"()‖".includes(word) ? ' stretchy="false"' : ""}>${word}</mo>`;
  if (word.startsWith("√")) return `<msqrt>${term(word.slice(1), theirs, values)}</msqrt>`;
  const [base, up] = word.split("^");
  if (up && base.includes("_")) {
    const [plain, below] = base.split("_");
    return `<msubsup>${symbol(plain)}${symbol(below)}${symbol(up)}</msubsup>`;
  }
  const raised = (inner) => (up ? `<msup>${inner}${symbol(up)}</msup>` : inner);
  const known = values?.[base];
  if (known !== undefined && known !== null) return raised(`<mrow class="filled">${number(known)}</mrow>`);
  return raised(named(base, theirs));
}

function named(base, theirs) {
  const [plain, below] = base.replace("'", "").split("_");
  const time = theirs && STATE.test(plain) && !below ? `t${base.includes("'") ? "+1" : ""}` : "";
  const under = below ?? time;
  return under ? `<msub>${symbol(plain)}<mrow>${symbol(under)}</mrow></msub>` : symbol(plain);
}

function symbol(text) {
  if (text === "t+1") return '<mi>t</mi><mo lspace="0" rspace="0">+</mo><mn>1</mn>';
  if (/^[\d.]+$/.test(text)) return `<mn>${text}</mn>`;
  return text.length > 1 && !/[₀-₉₋̂∇]/u.test(text) ? `<mi mathvariant="normal">${text}</mi>` : `<mi>${text}</mi>`;
}

function number(value) {
  if (!Array.isArray(value)) return `<mn>${short(value)}</mn>`;
  const cells = value.map((line) => line.map((x) => `<mn>${short(x, 2)}</mn>`));
  if (cells.length === 1) return `<mo stretchy="false">(</mo>${cells[0].join("<mo>,</mo>")}<mo stretchy="false">)</mo>`;
  const lines = cells.map((line) => `<mtr>${line.map((cell) => `<mtd>${cell}</mtd>`).join("")}</mtr>`);
  return `<mo>(</mo><mtable>${lines.join("")}</mtable><mo>)</mo>`;
}

/** The equations of a rung: their words, and lines for numbers, which `fill(values)` writes. */
export function createEquations(root) {
  let lines = [];
  let theirs = false;
  // Numbers that break into more lines than those of the step before would make the page jump.
  const tallest = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) target.style.setProperty("min-height", `${contentRect.height}px`);
  });

  function draw(equations, signs) {
    theirs = signs === "theirs";
    lines = equations.map((one) => ({
      filled: one[`${signs}Filled`] ?? one[signs],
      said: mathml(one[signs], { theirs }),
      wirer: one.wirer,
    }));
    root.innerHTML = lines
      .map(
        ({ said, wirer }) =>
          `<div class="equation"><b title="Wirer ${wirer}">${wirer}</b><div>${said}<div class="numbers"></div></div></div>`,
      )
      .join("");
    tallest.disconnect();
    root.querySelectorAll(".numbers").forEach((one) => tallest.observe(one));
  }

  function fill(values) {
    root.querySelectorAll(".numbers").forEach((one, i) => {
      one.innerHTML = values ? mathml(lines[i].filled, { theirs, values }) : "";
    });
  }

  return { draw, fill };
}
