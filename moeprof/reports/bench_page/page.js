// Draws what the page's data holds. All text goes in as text, never as HTML.
"use strict";
(async () => {
  const byId = (id) => document.getElementById(id);
  const letters = atob(byId("data").textContent);
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = await new Response(stream).json();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 600px)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const drawn = new Map(); // id of a plot -> its figure, to draw again in other colours

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
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, resolve(item, colours)]));
  }

  function axis(own, colours) {
    const line = colours.getPropertyValue("--grid").trim();
    return {
      automargin: true, gridcolor: line, zerolinecolor: line, linecolor: line,
      exponentformat: "none", separatethousands: true, ...own,
      title: { ...own.title, font: { size: 12 }, standoff: 8 },
    };
  }

  function draw(id, figure) {
    drawn.set(id, figure);
    const node = byId(id);
    node.closest("figure").hidden = !figure || figure.data.length === 0;
    if (node.closest("figure").hidden) {
      Plotly.purge(node);
      return;
    }
    const colours = getComputedStyle(document.documentElement);
    const own = resolve(figure.layout, colours);
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", bargap: 0.25,
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 12.5,
              color: colours.getPropertyValue("--ink").trim() },
      margin: { l: 8, r: 16, t: 8, b: 40 }, showlegend: false, dragmode: touch ? false : "zoom",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: { namelength: -1, align: "left" }, hovermode: "closest", ...own,
      xaxis: axis(own.xaxis, colours), yaxis: axis(own.yaxis, colours),
    };
    if (layout.showlegend) layout.height += 24 * (narrow.matches ? 5 : 2);
    Plotly.react(node, resolve(figure.data, colours), layout,
      { responsive: true, displaylogo: false, displayModeBar: false, showTips: false });
  }

  // ---- tables and words

  function table(grid) {
    const box = element("div", undefined, "scroll");
    box.tabIndex = 0;
    const made = element("table");
    made.setAttribute("aria-label", grid.title);
    const head = made.createTHead().insertRow();
    grid.headings.forEach((heading, column) => {
      const cell = element("th", heading, grid.words.includes(column) ? "word" : "");
      cell.scope = "col";
      head.append(cell);
    });
    const body = made.createTBody();
    grid.rows.forEach((cells) => {
      const line = body.insertRow();
      if (cells[0] === "sum") line.className = "sum";
      cells.forEach((value, column) => {
        const [text, stress] = Array.isArray(value) ? value : [value, ""];
        const word = grid.words.includes(column) ? "word" : "";
        line.append(element("td", text, `${word} ${stress}`.trim()));
      });
    });
    box.append(made);
    const whole = element("div");
    whole.append(element("p", grid.title, "note"), box);
    if (grid.caption) whole.append(element("p", grid.caption, "note"));
    return whole;
  }

  function legend(entries) {
    byId("legend").replaceChildren(...entries.map(([name, variable]) => {
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

  // ---- what is chosen

  const chooser = { metric: byId("metric"), mean: byId("mean"), workload: byId("workload") };
  const metric = () => data.metrics[chooser.metric.value];
  const options = (names) => names.map((name, position) => new Option(name, position));

  function showMetric() {
    const chosen = metric();
    if (chosen) {
      draw("latency", chosen.latency);
      byId("tables").replaceChildren(table(chosen.summary), ...chosen.grids.map(table));
    }
    showMean();
    showWorkload();
  }

  function showMean() {
    if (metric()) draw("regime", metric()[chooser.mean.value]);
  }

  function showWorkload() {
    const shown = data.workloads[chooser.workload.value];
    if (!shown || !metric()) return;
    const figure = shown.stages[metric().name];
    draw("stages", figure);
    legend(figure.legend);
    byId("details").replaceChildren(table(shown.account), table(shown.busy[metric().name]),
      ...shown.missing.map((sentence) => element("p", sentence, "caution")));
  }

  chooser.metric.append(...options(data.metrics.map((one) => one.name)));
  chooser.workload.append(...options(data.workloads.map((one) => one.name)));
  chooser.metric.value = 0;
  chooser.workload.value = data.workloads.length - 1;
  byId("one").hidden = data.workloads.length === 0;
  byId("regimes").append(...data.regimes.map(table));
  byId("cells").append(table(data.cells));
  byId("notes").append(notes(data.notes));
  showMetric();
  chooser.metric.addEventListener("change", showMetric);
  chooser.mean.addEventListener("change", showMean);
  chooser.workload.addEventListener("change", showWorkload);
  const again = () => drawn.forEach((figure, id) => draw(id, figure));
  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
  document.documentElement.dataset.ready = "yes";
})();
