// Draws one figure a series. All text goes in as text, never as HTML.
"use strict";
(async () => {
  const letters = atob(document.getElementById("data").textContent);
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const figures = await new Response(stream).json();
  const home = document.getElementById("figures");
  const nodes = figures.map((figure, position) => {
    const heading = document.createElement("h3");
    heading.textContent = figure.title;
    const node = document.createElement("div");
    node.className = "plot";
    node.id = `series${position}`;
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", figure.title);
    const frame = document.createElement("figure");
    frame.append(node);
    home.append(heading, frame);
    return node;
  });

  function resolve(value, colours) {
    if (typeof value === "string") {
      return value.startsWith("--") ? colours.getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, colours));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, resolve(item, colours)]));
  }

  function draw() {
    const colours = getComputedStyle(document.documentElement);
    const ink = colours.getPropertyValue("--ink").trim();
    figures.forEach((figure, position) => {
      const layout = resolve(figure.layout, colours);
      Plotly.react(nodes[position], resolve(figure.data, colours), {
        ...layout, margin: { l: 70, r: 20, t: 10, b: 45 }, height: 320,
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: ink, size: 12 }, showlegend: false, hovermode: "closest",
      }, { responsive: true, displayModeBar: false });
    });
    document.documentElement.dataset.drawn = String(figures.length);
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
