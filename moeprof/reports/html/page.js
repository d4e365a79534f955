// Draws what the page's data holds. All text goes in as text, never as HTML.
"use strict";
(async () => {
  const data = await unpack(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 600px)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const drawn = new Map(); // id of a plot -> its figure, to draw again in other colours
  let share = false; // stages as a share of each span rather than in us
  let oneScale = false; // both timelines over the same time

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
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
    if (narrow.matches && own.ticktext) {
      own.ticktext = own.ticktext.map((text) => text.replace(": ", "<br>"));
    }
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
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", bargap: 0.3,
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 12.5,
              color: colours.getPropertyValue("--ink").trim() },
      margin: { l: 8, r: 16, t: 8, b: 40 }, showlegend: false, dragmode: touch ? false : "zoom",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: { namelength: -1, align: "left" }, hovermode: "closest", ...own,
      xaxis: axis(own.xaxis, colours), yaxis: axis(own.yaxis, colours),
    };
    if (layout.showlegend) layout.height += 24 * (narrow.matches ? 3 : 1);
    Plotly.react(node, resolve(figure.data, colours), layout,
      { responsive: true, displaylogo: false, displayModeBar: false, showTips: false });
  }

  // ---- tables and words

  function table(grid, marks) {
    const box = element("div", undefined, "scroll");
    box.tabIndex = 0;
    const made = element("table");
    made.setAttribute("aria-label", grid.title);
    if (grid.headings.some((heading) => heading)) {
      const head = made.createTHead().insertRow();
      grid.headings.forEach((heading, column) => {
        const cell = element("th", heading, column < grid.left ? "word" : "");
        cell.scope = "col";
        head.append(cell);
      });
    }
    const body = made.createTBody();
    grid.rows.forEach((cells, row) => {
      const line = body.insertRow();
      if (cells[0] === "sum") line.className = "sum";
      cells.forEach((text, column) => {
        let className = column < grid.left ? "word" : "";
        if (grid.left > 1 && column === grid.left - 1) className += " text";
        if (marks && marks[row] === column) className += " best";
        line.append(element("td", text, className));
      });
    });
    box.append(made);
    const whole = element("div");
    whole.append(element("p", grid.title, "note"), box);
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

  function list(sentences) {
    const made = element("ul");
    made.append(...sentences.map((sentence) => element("li", sentence)));
    return made;
  }

  function notes(pairs) {
    const made = element("dl", undefined, "notes");
    for (const [label, text] of pairs) made.append(element("dt", label), element("dd", text));
    return made;
  }

  // ---- one workload

  const chooser = { workload: byId("workload"), first: byId("first"), second: byId("second") };
  const options = (names) => names.map((name, position) => new Option(name, position));
  const workload = () => data.workloads[chooser.workload.value];
  const chosen = () => [chooser.first, chooser.second].map((one) => data.solutions[one.value]);

  function showStages() {
    const figure = workload().stages;
    const layout = { ...figure.layout };
    if (share) {
      layout.barnorm = "percent";
      layout.xaxis = { title: { text: "% of the span" }, range: [0, 100] };
    }
    byId("share").setAttribute("aria-pressed", share);
    draw("stages", { data: figure.data, layout });
  }

  function showPair() {
    const [first, second] = chosen();
    const pair = workload().pairs.find(
      (one) => (one.before === first && one.after === second)
        || (one.before === second && one.after === first));
    const verdict = byId("verdict");
    verdict.replaceChildren();
    byId("between").textContent = pair
      ? `From ${pair.before} to ${pair.after}` : "From one to the other";
    draw("waterfall", pair ? pair.waterfall : null);
    if (!pair) {
      const why = first === second ? "Choose two solutions." : "Not both have a record here.";
      verdict.append(element("p", data.solutions.length > 1 ? why : "There is one solution only."));
      return;
    }
    if (pair.refused.length) {
      verdict.append(element("p", "These two cannot be compared:", "lead"), list(pair.refused));
      return;
    }
    verdict.append(element("p", pair.headline, "lead"));
    if (pair.doubt) verdict.append(element("p", pair.doubt, "caution"));
    if (pair.largest) verdict.append(element("p", pair.largest));
    verdict.append(list(pair.sentences));
    pair.cautions.forEach((text) => verdict.append(element("p", text, "caution")));
  }

  function showEntries() {
    const details = byId("details");
    details.replaceChildren();
    [...new Set(chosen())].forEach((label) => {
      const entry = workload().entries.find((one) => one.label === label);
      if (!entry) return;
      details.append(element("h4", label));
      if (entry.problem) details.append(element("p", entry.problem, "caution"));
      else details.append(table(entry.stages), table(entry.ledger));
      if (entry.kernels) details.append(table(entry.kernels));
      for (const grid of entry.parity) details.append(table(grid));
      details.append(notes(entry.notes));
    });
  }

  function showTimelines() {
    const [first, second] = chosen();
    const entries = (first === second ? [first] : [first, second]).map(
      (label) => workload().entries.find((one) => one.label === label));
    const longest = Math.max(...entries.map((entry) => entry?.timeline?.end ?? 0));
    [0, 1].forEach((side) => {
      const timeline = entries[side]?.timeline;
      const figure = timeline && { data: timeline.data, layout: { ...timeline.layout } };
      if (figure && oneScale) {
        figure.layout.xaxis = { ...figure.layout.xaxis, range: [0, longest] };
      }
      draw(`timeline${side}`, figure);
      byId(`timelinecaption${side}`).textContent = entries[side]?.caption ?? "";
    });
    byId("scale").setAttribute("aria-pressed", oneScale);
  }

  function showWorkload() {
    const shown = workload();
    showStages();
    for (const id of ["distribution", "roofline", "bandwidth"]) draw(id, shown[id]);
    byId("samples").replaceChildren(table(shown.samples));
    showSides();
  }

  function showSides() {
    showPair();
    showTimelines();
    showEntries();
  }

  // ---- the page

  chooser.workload.append(...options(data.workloads.map((one) => one.name)));
  chooser.first.append(...options(data.solutions));
  chooser.second.append(...options(data.solutions));
  chooser.workload.value = data.chosen.workload;
  chooser.first.value = data.chosen.first;
  chooser.second.value = data.chosen.second;
  legend("legend", [...data.legend, ...data.causes.map(([name, c]) => [`idle: ${name}`, c])]);
  legend("causes", data.causes);
  byId("latencies").append(table(data.latencies, data.fastest));
  byId("environment").append(table(data.environment));
  draw("latency", data.latency);
  showWorkload();
  chooser.workload.addEventListener("change", showWorkload);
  chooser.first.addEventListener("change", showSides);
  chooser.second.addEventListener("change", showSides);
  document.documentElement.dataset.ready = "yes";
  byId("share").addEventListener("click", () => {
    share = !share;
    showStages();
  });
  byId("scale").addEventListener("click", () => {
    oneScale = !oneScale;
    showTimelines();
  });
  const again = () => drawn.forEach((figure, id) => draw(id, figure));
  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
})();
