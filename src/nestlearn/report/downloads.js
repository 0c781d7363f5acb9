// Unpack a file on its way to the disk; without this script its link saves the packed one.
if ("DecompressionStream" in self) {
  document.getElementById("packed").hidden = true;
  for (const link of document.querySelectorAll("a[data-name]")) {
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      const packed = Uint8Array.from(atob(link.href.split(",")[1]), (character) => character.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      const content = new Blob([await new Response(stream).arrayBuffer()], { type: link.dataset.kind });
      const saved = document.createElement("a");
      saved.href = URL.createObjectURL(content);
      saved.download = link.dataset.name;
      saved.click();
      setTimeout(() => URL.revokeObjectURL(saved.href), 60000);
    });
  }
}
