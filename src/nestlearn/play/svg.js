// Elements of pictures, and the numbers in them.

const SPACE = "http://www.w3.org/2000/svg";

/** An SVG element with attributes and children; children may be strings. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SPACE, name);
  set(made, attributes);
  made.append(...children);
  return made;
}

/** The same for HTML. */
export function html(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  set(made, attributes);
  made.append(...children);
  return made;
}

/** Set attributes; null takes one away. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : value);
  }
}

const sizes = new WeakMap();

/** Call back whenever one of the pictures has another size, and know their sizes: to ask for one lays the page out. */
export function watch(pictures, changed) {
  const watcher = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) sizes.set(target, [contentRect.width, contentRect.height]);
    changed();
  });
  for (const one of pictures) watcher.observe(one);
}

/** The size of an element in pixels, which its viewBox is made equal to, so that letters keep their size. */
export function fit(picture) {
  const size = (sizes.get(picture) ?? [600, 300]).map((x) => Math.max(20, x));
  picture.setAttribute("viewBox", `0 0 ${size.map((x) => x.toFixed(1)).join(" ")}`);
  return size;
}

/** A number in few signs: three digits, a true minus. */
export function short(x, digits = 3) {
  if (!Number.isFinite(x)) return "∞";
  const text =
    Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(1) : String(Number(x.toPrecision(digits)));
  return text.replace("-", "−");
}

/** Points as the path of a line; what is not finite, or far out of sight, breaks it off. */
export function line(points) {
  const shown = [];
  for (const [x, y] of points) {
    if (!(Math.abs(x) < 1e5 && Math.abs(y) < 1e5)) break;
    shown.push(`${x.toFixed(1)},${y.toFixed(1)}`);
  }
  return shown.length ? `M${shown.join("L")}` : "";
}
