// How well a page can be read: the contrast of every word and every line with what lies behind it, and the size on the
// screen of the smallest word in a plot.
() => {
  const read = (colour) => {
    const parts = colour.match(/[\d.]+/g).map(Number);
    const whole = colour.startsWith("color(srgb") ? 255 : 1; // what is mixed is told in shares
    return { rgb: parts.slice(0, 3).map((part) => part * whole), alpha: parts.length > 3 ? parts[3] : 1 };
  };
  const over = (top, below) => top.rgb.map((value, i) => top.alpha * value + (1 - top.alpha) * below[i]);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (colour, below) => {
    const pair = [luminance(over(read(colour), below)), luminance(below)];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  };
  const paper = read(getComputedStyle(document.body).backgroundColor).rgb;
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(read(getComputedStyle(at).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), paper);
  };
  const shown = (element) => element.getClientRects().length > 0;
  const named = (element, value) => [element.outerHTML.slice(0, 80), value];

  const words = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const outside = element.closest("svg, script, style, noscript");
    if (outside || !walker.currentNode.textContent.trim() || !shown(element)) continue;
    words.push(named(element, contrast(getComputedStyle(element).color, behind(element))));
  }
  const plotted = [...document.querySelectorAll("svg.plot text")].filter(shown);
  for (const element of plotted) words.push(named(element, contrast(getComputedStyle(element).fill, paper)));
  const drawn = [...document.querySelectorAll("svg.plot path.l, svg.plot .lead")];
  const size = (element) => parseFloat(getComputedStyle(element).fontSize) * element.getScreenCTM().a;
  return {
    paper: luminance(paper),
    words,
    lines: drawn.map((element) => named(element, contrast(getComputedStyle(element).stroke, paper))),
    smallest: Math.min(...plotted.map(size)),
  };
}
