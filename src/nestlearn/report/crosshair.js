// A crosshair: the values of all lines where the pointer is, or the slider below the pictures, which arrow keys move.
{
  const MOST = 240; // places of a slider
  const shape = (name, attributes, words = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = words;
    return made;
  };
  const scaled = ([start, end, low, high, log], value) => {
    const [v, l, h] = log ? [Math.log(value), Math.log(low), Math.log(high)] : [value, low, high];
    return start + ((v - l) / (h - l)) * (end - start);
  };
  const digits = { maximumSignificantDigits: 4 }; // as many as the page holds
  const number = (value) =>
    value && Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toLocaleString("en", digits);

  // What a line says at x: its point there, or what lies between two of them along the line as it is drawn.
  const valueAt = ({ x, y }, at, log) => {
    if (at < x[0] || at > x.at(-1)) return null;
    const next = x.findIndex((value) => value >= at);
    if (x[next] === at) return { value: y[next] ?? undefined, exact: true };
    if (y[next - 1] === null || y[next] === null) return null;
    const share = (at - x[next - 1]) / (x[next] - x[next - 1]);
    const value = log && y[next - 1] > 0 && y[next] > 0
      ? y[next - 1] * (y[next] / y[next - 1]) ** share
      : y[next - 1] + share * (y[next] - y[next - 1]);
    return { value, exact: false };
  };

  const readable = (svg) => {
    const [x, y, lines] = JSON.parse(svg.dataset.read);
    const known = lines.map(([name, colour, dash, xs, ys]) => ({ name, colour, dash, x: xs || lines[0][3], y: ys }));
    return { svg, x, y, lines: known, cross: null };
  };

  const values = (plot, at) =>
    plot.lines
      .map((line) => ({ ...line, ...valueAt(line, at, plot.y[4]) }))
      .filter((line) => line.value !== undefined)
      .sort((one, other) => one.value - other.value);
  const said = ({ value, exact }) => (exact ? "" : "≈ ") + number(value);

  const sample = (line, x, y) => {
    const dash = line.dash ? { "stroke-dasharray": line.dash } : {};
    return shape("path", { class: "l", d: `M${x} ${y - 4}h14`, stroke: line.colour, "stroke-width": 2, ...dash });
  };

  const draw = (plot, at, heading) => {
    plot.cross?.remove();
    const found = values(plot, at), place = scaled(plot.x, at);
    const [bottom, top] = plot.y;
    const cross = (plot.cross = shape("g", { class: "cross" }));
    cross.append(shape("path", { class: "at", d: `M${place} ${top}V${bottom}` }));
    for (const { name, value, colour } of found) {
      const y = scaled(plot.y, value), whose = plot.svg.dataset.of ? {} : { "data-of": name };
      if (y < top - 3 || y > bottom + 3) continue;
      cross.append(shape("circle", { cx: place, cy: y, r: 3, fill: colour, ...whose }));
    }
    plot.svg.append(cross);
    if (plot.svg.dataset.of) beside(plot, cross, found, place, heading);
    else boxed(plot, cross, found, place, heading);
  };

  // In a small picture: each value beside its line, apart from the others, and the step below.
  const beside = (plot, cross, found, place, heading) => {
    const [left, right] = plot.x, [bottom, top] = plot.y;
    const back = place > (left + right) / 2;
    let above = bottom - 2;
    for (const line of found) {
      above = Math.min(Math.max(scaled(plot.y, line.value) + 4, top + 12), above) - 14;
      const y = above + 14;
      const value = shape("text", { class: back ? "e" : "", x: back ? place - 26 : place + 26, y }, said(line));
      cross.append(sample(line, back ? place - 21 : place + 7, y), value);
    }
    cross.append(shape("text", { class: "at m", x: place, y: bottom + 15 }, heading));
  };

  // In a large one: all values in a box, the lowest first, over the names beside the lines or, near those, before it.
  const boxed = (plot, cross, found, place, heading) => {
    const box = shape("g", { class: "box" });
    box.append(shape("text", { class: "n", x: 0, y: 12 }, heading));
    found.forEach((line, i) => {
      const y = 28 + 15 * i, row = shape("g", { "data-of": line.name });
      row.append(sample(line, 0, y), shape("text", { x: 20, y }, line.name));
      row.append(shape("text", { class: "e", y }, said(line)));
      box.append(row);
    });
    cross.append(box);
    const wide = (kind) => Math.max(0, ...[...box.querySelectorAll(kind)].map((one) => one.getComputedTextLength()));
    const width = Math.max(20 + wide("g text:not(.e)") + 12 + wide(".e"), wide(".n"));
    for (const end of box.querySelectorAll(".e")) end.setAttribute("x", width);
    const height = 20 + 15 * found.length;
    box.prepend(shape("rect", { x: -8, y: -4, width: width + 16, height: height + 6, rx: 4 }));
    const end = plot.svg.viewBox.baseVal.width - width - 8;
    const x = place < end - 14 ? end : Math.max(place - width - 20, 8);
    box.setAttribute("transform", `translate(${x} ${plot.y[1] + 4})`);
  };

  const within = (group, after) => {
    const plots = [...group.querySelectorAll("svg[data-read]")].map(readable);
    if (!plots.length) return;
    const all = [...new Set(plots.flatMap((plot) => plot.lines.flatMap((line) => line.x)))].sort((a, b) => a - b);
    const every = Math.ceil(all.length / MOST);
    const places = all.filter((_, i) => (all.length - 1 - i) % every === 0);
    const unit = group.dataset.unit;
    const label = document.createElement("label");
    const slider = document.createElement("input"), last = places.length - 1;
    Object.assign(slider, { type: "range", min: 0, max: last, value: last });
    const output = document.createElement("output");
    label.className = "read";
    label.append("Read at ", slider, output);
    after.after(label);

    const heading = () => {
      const place = places[slider.value];
      return unit === "seconds" ? `${number(place)} s` : `${unit} ${place.toLocaleString("en")}`;
    };
    const spoken = () => {
      const told = plots.map((plot) => values(plot, places[slider.value]).map((line) => `${line.name} ${said(line)}`));
      return [heading(), ...new Set(told.flat())].join(", ");
    };
    const show = () => {
      slider.ariaValueText = spoken();
      output.value = heading();
      for (const plot of plots) draw(plot, places[slider.value], heading());
    };
    const hide = () => {
      output.value = "";
      for (const plot of plots) plot.cross?.remove();
    };
    slider.ariaLabel = `${group.ariaLabel}: read the values at a ${unit === "seconds" ? "second" : unit}`;
    slider.ariaValueText = spoken();
    slider.addEventListener("input", show);
    slider.addEventListener("focus", show);
    slider.addEventListener("blur", hide);
    slider.addEventListener("keydown", (event) => event.key === "Escape" && hide());

    let waiting = false;
    const point = (plot, event) => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        const [start, end, low, high] = plot.x;
        const { x } = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.svg.getScreenCTM().inverse());
        if (x < start - 8 || x > end + 8) return;
        const at = low + ((x - start) / (end - start)) * (high - low);
        const far = (place) => Math.abs(places[place] - at);
        slider.value = places.reduce((best, _, place) => (far(place) < far(best) ? place : best), 0);
        show();
      });
    };
    for (const plot of plots) {
      for (const kind of ["pointermove", "pointerdown"]) plot.svg.addEventListener(kind, (event) => point(plot, event));
      plot.svg.addEventListener("pointerleave", (event) => {
        if (event.pointerType === "mouse" && document.activeElement !== slider) requestAnimationFrame(hide);
      });
    }
  };

  for (const group of document.querySelectorAll("[data-unit]")) within(group, group.closest(".frame") ?? group);
}
