// What the pages share: their data, figures in the colours of the theme, tables and words.
// All text goes in as text, never as HTML.
"use strict";
const page = (() => {
  const byId = (id) => document.getElementById(id);
  const narrow = window.matchMedia("(max-width: 600px)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const drawn = new Map(); // id of a plot -> its figure and look, to draw again in other colours

  async function data() {
    const bytes = Uint8Array.from(atob(byId("data").textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // ---- figures

  function resolve(value, colours) {
    if (typeof value === "string") {
      return value.startsWith("--") ? colours.getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, colours));
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value.dict) && Array.isArray(value.index)) {
      const found = resolve(value.dict, colours);
      return value.index.map((position) => found[position]);
    }
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, resolve(item, colours)]));
  }

  function axis(own, colours) {
    const line = colours.getPropertyValue("--grid").trim();
    if (narrow.matches && own?.ticktext) {
      own.ticktext = own.ticktext.map((text) => text.replace(": ", "<br>"));
    }
    return {
      automargin: true, gridcolor: line, zerolinecolor: line, linecolor: line,
      exponentformat: "none", separatethousands: true, ...own,
      title: { ...own?.title, font: { size: 12 }, standoff: 8 },
    };
  }

  // look: gap between bars; lines of a legend where the page is wide and where it is narrow
  function draw(id, figure, look = { gap: 0.3, lines: [1, 3] }) {
    drawn.set(id, [figure, look]);
    const node = byId(id);
    node.closest("figure").hidden = !figure || figure.data.length === 0;
    if (node.closest("figure").hidden) {
      Plotly.purge(node);
      return;
    }
    const colours = getComputedStyle(document.documentElement);
    const own = resolve(figure.layout, colours);
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", bargap: look.gap,
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 12.5,
              color: colours.getPropertyValue("--ink").trim() },
      margin: { l: 8, r: 16, t: 8, b: 40 }, showlegend: false, dragmode: touch ? false : "zoom",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: { namelength: -1, align: "left" }, hovermode: "closest", ...own,
      xaxis: axis(own.xaxis, colours), yaxis: axis(own.yaxis, colours),
    };
    if (layout.showlegend) layout.height += 24 * look.lines[narrow.matches ? 1 : 0];
    Plotly.react(node, resolve(figure.data, colours), layout,
      { responsive: true, displaylogo: false, displayModeBar: false, showTips: false });
  }

  // The page is complete: tests wait for it, and other colours or widths draw it again.
  function ready() {
    const again = () => drawn.forEach(([figure, look], id) => draw(id, figure, look));
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    narrow.addEventListener("change", again);
    document.documentElement.dataset.ready = "yes";
  }

  // ---- tables and words

  // headClass(column): of a heading. cell(value, row, column): its text and its class
  function table(grid, headClass, cell) {
    const box = element("div", undefined, "scroll");
    box.tabIndex = 0;
    const made = element("table");
    made.setAttribute("aria-label", grid.title);
    if (grid.headings.some((heading) => heading)) {
      const head = made.createTHead().insertRow();
      grid.headings.forEach((heading, column) => {
        const item = element("th", heading, headClass(column));
        item.scope = "col";
        head.append(item);
      });
    }
    const body = made.createTBody();
    grid.rows.forEach((cells, row) => {
      const line = body.insertRow();
      if (cells[0] === "sum") line.className = "sum";
      cells.forEach((value, column) => line.append(element("td", ...cell(value, row, column))));
    });
    box.append(made);
    const whole = element("div");
    whole.append(element("p", grid.title, "note"), box);
    if (grid.caption) whole.append(element("p", grid.caption, "note"));
    return whole;
  }

  function legend(id, entries) {
    byId(id).replaceChildren(...entries.map(([name, variable]) => {
      const item = element("li");
      const swatch = element("i");
      swatch.style.background = `var(${variable})`;
      item.append(swatch, document.createTextNode(name));
      return item;
    }));
  }

  function notes(pairs) {
    const made = element("dl", undefined, "notes");
    for (const [label, text] of pairs) made.append(element("dt", label), element("dd", text));
    return made;
  }

  const options = (names) => names.map((name, position) => new Option(name, position));

  return { byId, data, element, draw, ready, table, legend, notes, options };
})();
