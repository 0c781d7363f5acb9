// Tables: a heading is a button that sorts, and a shadow says where more lies beside what is seen.
{
  const words = (row, column) => {
    const cell = row.cells[column];
    return ((column ? cell.firstChild : cell)?.textContent ?? "").trim(); // a figure without the note below it
  };
  const starts = /^[-+]?\d/;
  const figure = (text) => parseFloat(text.replaceAll(",", ""));

  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells];
    const given = [...table.tBodies[0].rows];
    const numbers = heads.map((_, column) => column > 0 && given.some((row) => starts.test(words(row, column))));

    const sort = (column, sign) => {
      const order = (one, other) => {
        const [a, b] = [words(one, column), words(other, column)];
        if (!numbers[column]) return sign * a.localeCompare(b, "en");
        // Where there is no number, be it a dash or "diverged", there is nothing to compare: last, whichever way.
        const [first, second] = [starts.test(a), starts.test(b)];
        return first && second ? sign * (figure(a) - figure(b)) : second - first;
      };
      table.tBodies[0].append(...(sign ? given.toSorted(order) : given));
    };

    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[head.ariaSort] ?? "ascending";
        for (const other of heads) other.ariaSort = null;
        head.ariaSort = next || null;
        sort(column, { ascending: 1, descending: -1 }[next] ?? 0);
      });
    });
  }

  const look = (scroll) => {
    const { clientWidth, scrollLeft, scrollWidth } = scroll;
    const more = [scrollLeft > 1 && "left", scrollLeft + clientWidth < scrollWidth - 1 && "right"];
    if (scroll.parentElement.matches(".frame")) scroll.parentElement.dataset.more = more.filter(Boolean).join(" ");
    scroll.tabIndex = scrollWidth > clientWidth ? 0 : -1; // what does not scroll needs no stop of the keyboard
  };
  const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => look(target)));
  for (const scroll of document.querySelectorAll(".scroll, .grid")) {
    scroll.addEventListener("scroll", () => look(scroll), { passive: true });
    watch.observe(scroll);
  }
}
