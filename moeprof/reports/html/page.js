// Draws what the page's data holds. All text goes in as text, never as HTML.
"use strict";
(async () => {
  const { byId, element, draw, legend, notes, options } = page;
  const data = await page.data();
  let share = false; // stages as a share of each span rather than in us
  let oneScale = false; // both timelines over the same time

  // marks: for each row the column of its best value
  function table(grid, marks) {
    const word = (column) => (column < grid.left ? "word" : "");
    return page.table(grid, word, (text, row, column) => {
      const wide = grid.left > 1 && column === grid.left - 1 ? " text" : "";
      return [text, word(column) + wide + (marks && marks[row] === column ? " best" : "")];
    });
  }

  function list(sentences) {
    const made = element("ul");
    made.append(...sentences.map((sentence) => element("li", sentence)));
    return made;
  }

  // ---- one workload

  const chooser = { workload: byId("workload"), first: byId("first"), second: byId("second") };
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
  byId("share").addEventListener("click", () => {
    share = !share;
    showStages();
  });
  byId("scale").addEventListener("click", () => {
    oneScale = !oneScale;
    showTimelines();
  });
  page.ready();
})();
