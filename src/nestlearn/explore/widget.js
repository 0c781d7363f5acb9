// The page in a cell of a notebook: a frame of its own, so that neither changes how the other looks, told what its model holds.

function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.title = "nestlearn explore";
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.srcdoc = PAGE;
  Object.assign(frame.style, { width: "100%", height: `${model.get("height")}px`, border: "0" });
  const tell = () => frame.contentWindow?.postMessage({ held: model.get("held") }, "*");
  const hear = ({ source, data }) => {
    if (source === frame.contentWindow && data?.ready) tell();
  };
  addEventListener("message", hear);
  model.on("change:held", tell);
  el.append(frame);
  return () => {
    removeEventListener("message", hear);
    model.off("change:held", tell);
  };
}

export default { render };
