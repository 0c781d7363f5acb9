// The legend of a task: what is chosen in it stays, what is of other contenders steps back, in all tasks of the page.
{
  const chosen = new Set();
  let pointed = null;
  const sheet = document.createElement("style");
  document.head.append(sheet);
  const named = (name) => `[data-of="${CSS.escape(name)}"]`;
  const sections = [...document.querySelectorAll("section")].filter((one) => one.querySelector(".legend"));

  const show = () => {
    const rest = [...chosen].map((name) => `:not(${named(name)})`).join("");
    sheet.textContent =
      (chosen.size ? `.some [data-of]${rest} { opacity: .13; }` : "") +
      (pointed === null ? "" : `.many ${named(pointed)} { .l { stroke-width: 3.5; } .b { fill-opacity: .3; } }`);
    for (const section of sections) {
      const buttons = [...section.querySelectorAll(".legend [aria-pressed]")];
      for (const button of buttons) button.ariaPressed = String(chosen.has(button.value));
      section.classList.toggle("some", buttons.some((button) => chosen.has(button.value)));
      section.querySelector(".legend .all").disabled = !chosen.size;
    }
  };
  const choose = (name) => {
    if (!chosen.delete(name)) chosen.add(name);
    show();
  };

  for (const section of sections) {
    const legend = section.querySelector(".legend");
    legend.hidden = false;
    for (const button of legend.querySelectorAll("[aria-pressed]")) {
      button.addEventListener("click", () => choose(button.value));
    }
    legend.querySelector(".all").addEventListener("click", () => (chosen.clear(), show()));
    const own = ({ target }) =>
      target.closest(".many [data-of], .ends [data-of]")?.dataset.of ??
      target.closest(".legend [aria-pressed]")?.value ??
      null;
    section.addEventListener("pointerover", (event) => {
      if (own(event) !== pointed) (pointed = own(event)), show();
    });
    section.addEventListener("click", (event) => {
      const name = event.target.closest(".ends [data-of]")?.dataset.of;
      if (name !== undefined) choose(name);
    });
  }
}
