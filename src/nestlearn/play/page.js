// The page: what is drawn, and the hands on it.

import { adopt, fragment, placed, remember, rows, state, usual } from "./address.js";
import { createHolds, createTimeline } from "./charts.js";
import { createEquations } from "./equations.js";
import { valuesAt } from "./faces.js";
import { score, STEPS, tuned } from "./life.js";
import { createMap } from "./map.js";
import { createNesting } from "./nesting.js";
import { PARTS, rungOf, rungs, SETTINGS } from "./rungs.js";
import { pictured, report } from "./scene.js";
import { html, set, short, watch } from "./svg.js";
import { worlds } from "./worlds.js";

const STEPS_A_SECOND = 24;
const at = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const ICONS = { play: "M4 2.5v11L13 8z", pause: "M4 3h3v10H4zM9 3h3v10H9z" };

const SEARCHED = 8; // milliseconds of a frame in which a control's best rate is looked for

let scene = null;
let step = 0;
let playing = false;
let sized = false;
let answering = false;
let worded = "";

// ------------------------------------------------------------------------------------------------------------- drawing

const picture = {};

function draw() {
  // Words first: they decide how much room is left for pictures.
  drawLegend();
  const words = [state.rung, state.world, state.signs].join();
  if (words !== worded) picture.equations.draw(scene.face.equations, state.signs);
  worded = words;
  fillIn();
  drawPictures();
}

function drawPictures() {
  if (!sized) return; // they are drawn as soon as their sizes are known, within the same frame
  for (const one of pictures()) one.draw(scene);
  showPictures(false);
}

const pictures = () => [picture.nesting, picture.map, picture.timeline, picture.holds];
const fillIn = () => picture.equations.fill(step > 0 ? valuesAt(scene, step - 1, state.signs) : null);

function show(lively) {
  fillIn();
  showPictures(lively);
}

function showPictures(lively) {
  if (sized) for (const one of pictures()) one.show(step, lively);
  at("scrub").value = step;
  const loss = short(scene.losses[step], 2);
  at("now").textContent =
    `step ${step}, loss ${loss}${scene.ghost ? `, control ${short(scene.ghostLosses[step], 2)}` : ""}`;
}

/** The words above the map. What had the focus there has it again. */
function drawLegend() {
  const focused = document.activeElement?.closest("#legend button");
  writeLegend();
  if (!focused) return;
  const { id, dataset } = focused;
  at("legend").querySelector(id ? `#${id}` : `[data-part="${dataset.part}"]`)?.focus();
}

function writeLegend() {
  const { off, rule, losses, ghostLosses, ghostRate, search } = scene;
  const late = (some) => `loss late ${short(score(some), 2)}`;
  const chips = rule.parts().map((part) => {
    const chip = html(
      "button",
      {
        type: "button",
        class: "chip",
        "aria-pressed": String(off.includes(part)),
        "data-part": part,
        "aria-label": `Control without ${PARTS[part] ?? part}`,
      },
      PARTS[part] ?? part,
    );
    chip.addEventListener("click", () => {
      const left = off.includes(part) ? off.filter((one) => one !== part) : [...off, part];
      change({ off: left.join(",") });
    });
    return chip;
  });
  const best = html(
    "button",
    { type: "button", class: "chip", id: "best", title: "Set its learning rate to the best of a grid on this life" },
    "to its best rate",
  );
  best.addEventListener("click", () => {
    change({ lr: tuned(scene.world, rule, scene.settings) });
    showSettings();
  });
  const first = html(
    "p",
    {},
    html("i", { class: "swatch path" }),
    html("b", {}, "this rung"),
    ` ${late(losses)} `,
    best,
  );
  if (!chips.length) {
    at("legend").replaceChildren(
      first,
      html("p", { class: "soft" }, "no memory to switch off yet: from the next rung on, a control runs beside it"),
    );
    return;
  }
  const own = html(
    "button",
    {
      type: "button",
      class: "chip",
      id: "own",
      "aria-pressed": String(state.own),
      title: "Tune the control on this life",
    },
    "at its best rate",
  );
  own.addEventListener("click", () => change({ own: !state.own }));
  const second = html("p", {}, html("i", { class: "swatch ghost" }), html("b", {}, "control"), " without ", ...chips);
  if (ghostLosses) second.append(` ${late(ghostLosses)} `, own, state.own ? ` lr ${search ? "…" : short(ghostRate)}` : "");
  at("legend").replaceChildren(first, second);
}

// --------------------------------------------------------------------------------------------------------------- hands

/** Change the state; the answer is on the page when this returns. `again` begins at the first step. */
function change(some, { again = false } = {}) {
  Object.assign(state, some, { step: null });
  scene = pictured();
  answering = true;
  if (again) restart();
  draw();
  remember();
}

function restart() {
  step = still.matches ? STEPS : 0;
  play(!still.matches);
}

function play(on) {
  playing = on;
  if (on && step >= STEPS) step = 0;
  set(at("play"), { "aria-label": on ? "Pause" : "Play" });
  at("play")
    .querySelector("path")
    .setAttribute("d", on ? ICONS.pause : ICONS.play);
}

/** Go to a step and stay there. */
function go(to) {
  play(false);
  step = Math.max(0, Math.min(STEPS, to));
  state.step = step;
  show(!still.matches);
  remember();
}

let due = 0;

function frame(now) {
  if (playing && now >= due) {
    due = now - due > 200 ? now + 1000 / STEPS_A_SECOND : due + 1000 / STEPS_A_SECOND;
    step += 1;
    if (step >= STEPS) play(false);
    show(true);
  }
  // A search waits until the answer to the hand is on the page.
  if (answering) answering = false;
  else if (scene.search?.(SEARCHED)) {
    scene = pictured();
    draw();
  }
  requestAnimationFrame(frame);
}

/** Radio buttons, one of which is chosen. */
function choices(root, name, options, chosen) {
  options.forEach(([value, text, title]) => {
    const input = html("input", { type: "radio", name, value });
    input.addEventListener("change", () => chosen(value));
    const number = text.includes("  ") ? [html("i", {}, text.split("  ")[0])] : [];
    root.append(html("label", title ? { title } : {}, input, ...number, html("span", {}, text.split("  ").at(-1))));
  });
}

/** A place on a slider for a number, and back. */
const scales = {
  log: ({ low, high }) => ({
    min: 0,
    max: 120,
    step: 1,
    place: (x) => Math.round((120 * Math.log(x / low)) / Math.log(high / low)),
    number: (i) => Number((low * (high / low) ** (i / 120)).toPrecision(3)),
  }),
  flat: ({ low, high, step: every }) => ({ min: low, max: high, step: every, place: (x) => x, number: (x) => x }),
};

function createSliders() {
  for (const [name, one] of Object.entries(SETTINGS)) {
    const scale = scales[one.scale](one);
    const input = html("input", { type: "range", min: scale.min, max: scale.max, step: scale.step, id: `set-${name}` });
    const told = html("span", { class: "number", "aria-hidden": "true" });
    const label = html("label", { for: input.id }, one.words);
    const row = html("div", { class: "slider", "data-name": name }, label, input, told);
    input.addEventListener("input", () => {
      change({ [name]: scale.number(Number(input.value)) });
      showSettings();
    });
    at("sliders").append(row);
    one.shown = () => {
      row.hidden = state[name] === null;
      if (row.hidden) return;
      input.value = scale.place(state[name]);
      told.textContent = short(state[name]);
      set(input, { "aria-valuetext": short(state[name]) });
      // The article has another letter for the retention of a brain.
      const sign = (scene.chart.over === "keys" && one.brain) || one[state.signs];
      label.textContent = sign ? `${one.words} ${sign}` : one.words;
    };
  }
}

function showSettings() {
  for (const one of Object.values(SETTINGS)) one.shown();
}

/** Bring every control to what the state says. */
function showState() {
  for (const name of ["rung", "world", "signs"])
    document.querySelector(`input[name=${name}][value=${state[name]}]`).checked = true;
  document
    .querySelector("input[name=rung]:checked")
    .closest("label")
    .scrollIntoView({ block: "nearest", inline: "center" });
  at("says").textContent = rungOf(state.rung).says;
  showSettings();
}

function tell(text) {
  at("told").textContent = text;
  at("told").classList.add("shown");
  clearTimeout(tell.later);
  tell.later = setTimeout(() => at("told").classList.remove("shown"), 2500);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page that was opened as a file may have no clipboard of this kind.
    const area = html("textarea", {}, text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  tell(what);
}

function createHands() {
  choices(
    at("rungs"),
    "rung",
    rungs.map(({ id, title }, i) => [id, `${i + 1}  ${title}`]),
    (rung) => {
      const { world, signs, seed, noise, steepness, start } = state;
      change({ ...usual(rung, world), signs, seed, noise, steepness, start }, { again: true });
      showState();
    },
  );
  choices(
    at("worlds"),
    "world",
    Object.entries(worlds).map(([id, { title, says }]) => [id, title, says]),
    (world) => {
      const { noise, steepness, start } = usual(state.rung, world);
      change({ world, noise, steepness, start }, { again: true });
      showState();
    },
  );
  choices(
    at("signs"),
    "signs",
    [
      ["theirs", "the article’s", "M holds steps: W ← W + M"],
      ["ours", "nestlearn’s", "M holds gradients: W ← W − lr M"],
    ],
    (signs) => {
      change({ signs });
      showSettings();
    },
  );
  createSliders();
  at("play").addEventListener("click", () => (play(!playing), playing || go(step)));
  at("rewind").addEventListener("click", () => go(0));
  at("step").addEventListener("click", () => go(step + 1));
  at("scrub").max = STEPS;
  at("scrub").addEventListener("input", () => go(Number(at("scrub").value)));
  at("again").addEventListener("click", () => change({ seed: state.seed + 2 }, { again: true }));
  at("link").addEventListener("click", () =>
    copy(location.href.split("#")[0] + fragment(), "The link is copied: it holds all that you have set"),
  );
  at("code").addEventListener("click", () =>
    copy(scene.code(), "Python is copied: it makes this picture with nestlearn"),
  );
  document.addEventListener("keydown", (event) => {
    // Arrows belong to whatever has the focus; space is of use to buttons alone.
    const own = event.key === " " ? "button" : "input, button, [tabindex]";
    if (event.target.closest(own) || event.ctrlKey || event.metaKey || event.altKey) return;
    const done = {
      " ": () => at("play").click(),
      ArrowRight: () => go(step + 1),
      ArrowLeft: () => go(step - 1),
      Home: () => go(0),
      End: () => go(STEPS),
    }[event.key];
    if (!done) return;
    event.preventDefault();
    done();
  });
  // Sizes of pictures follow the window, and the words around them.
  watch(["map", "timeline", "nesting", "holds"].map(at), () => {
    sized = true;
    drawPictures();
  });
  addEventListener("hashchange", () => open(location.hash));
}

/** Show what an address says. */
function open(hash) {
  adopt(hash);
  worded = "";
  scene = pictured();
  showState();
  if (state.step === null) restart();
  else {
    play(false);
    step = state.step;
  }
  draw();
}

const moved = (row, point) => {
  const start = rows(state.start);
  start[row] = point;
  change({ start: placed(start.flat()) });
};

picture.map = createMap(at("map"), moved);
picture.timeline = createTimeline(at("timeline"));
picture.nesting = createNesting(at("nesting"));
picture.holds = createHolds(at("holds"), at("holdsays"));
picture.equations = createEquations(at("equations"));
createHands();
open(location.hash);
requestAnimationFrame(frame);

// For programs: a state in, what the page shows for it out.
globalThis.playground = { open, report, rungs: rungs.map(({ id }) => id), worlds: Object.keys(worlds) };
