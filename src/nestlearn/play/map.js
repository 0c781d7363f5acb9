// The map: lines of equal loss, the path of W step by step, the control behind it, and the start, which can be dragged.

import { fit, line, set, svg } from "./svg.js";

const CENTRE = [-0.45, 0];
const HALF = 2.35;
const LEVELS = [9, 5, 2.5, 1, 0.3, 0.05];
const FEWER = [1.5, 0.5, 0.1];

/** The map in an SVG element; `moved(row, point)` is told where the start of a row of W is dragged. */
export function createMap(root, moved) {
  const ground = svg("g", {});
  const pairLine = svg("path", { class: "pair" });
  const paths = svg("g", {});
  const words = svg("g", { class: "unseen" });
  const above = svg("g", {});
  root.replaceChildren(ground, pairLine, paths, words, above);
  let scene = null;
  let place = null;
  let unplace = null;
  let rows = [];
  let right = 0;

  function measure() {
    const [width, height] = fit(root);
    const scale = Math.max(width / (2 * HALF), Math.min(height / 3, width / 4));
    place = ([x, y]) => [width / 2 + (x - CENTRE[0]) * scale, height / 2 - (y - CENTRE[1]) * scale];
    unplace = ([x, y]) => [(x - width / 2) / scale + CENTRE[0], (height / 2 - y) / scale + CENTRE[1]];
    return { scale };
  }

  /** Everything that does not depend on the step. */
  function draw(given) {
    scene = given;
    const { scale } = measure();
    const { world, settings } = scene;
    const [, , width, high] = root.getAttribute("viewBox").split(" ").map(Number);
    right = width;
    const pairSays = svg(
      "text",
      { class: "word hot", x: 12, y: high - 12 },
      "line: every W that answers the present pair",
    );
    ground.replaceChildren(
      ...(scene.trace[0].keys.length === 1 ? [pairSays] : []),
      ...world.best.flatMap((best, row) =>
        (world.best.length > 1 ? FEWER : LEVELS).map((loss) => ring(best, loss, row, scale)),
      ),
      ...world.best.map(cross),
    );
    rows = world.best.map((_, row) => ({
      ghost: svg("path", { class: "ghost" }),
      ghostHead: svg("circle", { class: "ghosthead", r: 5 }),
      later: svg("path", { class: `later row${row}` }),
      path: svg("path", { class: `path row${row}` }),
      dots: svg("path", { class: `dots row${row}` }),
      head: svg("circle", { class: `head row${row}`, r: 6 }),
    }));
    paths.replaceChildren(
      ...rows.flatMap((row) => [row.ghost, row.later, row.path, row.dots, row.ghostHead, row.head]),
    );
    const several = world.best.length > 1;
    words.replaceChildren(
      ...world.best.map((best, row) => beside(best, several ? `best row ${row + 1}` : "best W")),
      ...settings.start.map((start, row) => beside(start, several ? `start ${row + 1}` : "start: drag me")),
    );
    const handles = [...above.querySelectorAll(".start")];
    if (handles.length !== settings.start.length) above.replaceChildren(...settings.start.map((_, row) => handle(row)));
    above.querySelectorAll(".start").forEach((one, row) => {
      const [x, y] = settings.start[row];
      const [left, top] = place(settings.start[row]);
      set(one, {
        transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})`,
        "aria-valuenow": x,
        "aria-valuetext": `${x}, ${y}`,
      });
    });
  }

  function ring(best, loss, row, scale) {
    const [x, y] = place(best);
    const along = Math.sqrt(6 * loss) * scale;
    const turn = (-scene.world.tilt * 180) / Math.PI;
    return svg("ellipse", {
      class: `ring row${row}`,
      rx: along.toFixed(1),
      ry: (along / scene.settings.steepness).toFixed(1),
      transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) rotate(${turn})`,
    });
  }

  function cross(best, row) {
    const [x, y] = place(best);
    return svg("path", { class: "best", d: `M${x - 7} ${y}h14M${x} ${y - 7}v14` });
  }

  /** A word beside a point, on the side where there is room. */
  function beside(point, text) {
    const [x, y] = place(point);
    const room = x + 14 + 7 * text.length < right;
    return svg("text", { class: room ? "word" : "word end", x: x + (room ? 12 : -12), y: y - 10 }, text);
  }

  /** What is seen after so many steps. */
  function show(step) {
    const { path, ghost, trace } = scene;
    rows.forEach((row, i) => {
      const points = path.map((W) => place(W[i]));
      const before = points.slice(0, step + 1);
      set(row.path, { d: line(before) });
      set(row.later, { d: line(points.slice(step)) });
      set(row.dots, { d: before.map(([x, y]) => speck(x, y)).join("") });
      put(row.head, points[step]);
      const others = ghost?.map((W) => place(W[i]));
      set(row.ghost, { d: others ? line(others.slice(0, step + 1)) : "" });
      put(row.ghostHead, others?.[step]);
    });
    const pair = trace[Math.min(step, trace.length - 1)];
    set(pairLine, { d: pair && pair.keys.length === 1 ? satisfied(pair.keys[0], pair.values[0][0]) : "" });
  }

  /** All W that answer the pair at hand as it wants: a line across the map. */
  function satisfied([a, b], value) {
    const size = a * a + b * b;
    const [x, y] = [(a * value) / size, (b * value) / size];
    const far = 20 / Math.sqrt(size);
    return line([place([x - b * far, y + a * far]), place([x + b * far, y - a * far])]);
  }

  function handle(row) {
    const one = svg(
      "g",
      {
        class: "start",
        tabindex: 0,
        role: "slider",
        "aria-label": `Start of ${scene.world.best.length > 1 ? `row ${row + 1} of ` : ""}W; arrow keys move it`,
        "aria-valuemin": -3,
        "aria-valuemax": 3,
      },
      svg("circle", { class: "grip", r: 16 }),
      svg("circle", { class: `knob row${row}`, r: 7 }),
    );
    const at = (event) => {
      const box = root.getBoundingClientRect();
      return unplace([event.clientX - box.left, event.clientY - box.top]);
    };
    one.addEventListener("pointerdown", (event) => {
      one.setPointerCapture(event.pointerId);
      event.preventDefault();
      one.focus();
    });
    one.addEventListener("pointermove", (event) => one.hasPointerCapture(event.pointerId) && moved(row, at(event)));
    one.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      moved(
        row,
        scene.settings.start[row].map((x, i) => x + 0.1 * way[i]),
      );
    });
    return one;
  }

  return { draw, show };
}

const inSight = (x, y) => Math.abs(x) < 1e4 && Math.abs(y) < 1e4;
const speck = (x, y) => (inSight(x, y) ? `M${x.toFixed(1)} ${y.toFixed(1)}h0` : "");

function put(circle, point) {
  const shown = point && inSight(...point);
  set(
    circle,
    shown ? { cx: point[0].toFixed(1), cy: point[1].toFixed(1), visibility: null } : { visibility: "hidden" },
  );
}
