// Draws what the page's data holds. All text goes in as text, never as HTML.
"use strict";
(async () => {
  const { byId, element, legend, notes, options } = page;
  const data = await page.data();
  const draw = (id, figure) => page.draw(id, figure, { gap: 0.25, lines: [2, 5] });

  // a value is its text, or its text and how it is stressed
  function table(grid) {
    const word = (column) => (grid.words.includes(column) ? "word" : "");
    return page.table(grid, word, (value, row, column) => {
      const [text, stress] = Array.isArray(value) ? value : [value, ""];
      return [text, `${word(column)} ${stress}`.trim()];
    });
  }

  // ---- what is chosen

  const chooser = { metric: byId("metric"), mean: byId("mean"), workload: byId("workload") };
  const metric = () => data.metrics[chooser.metric.value];

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
    legend("legend", figure.legend);
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
  page.ready();
})();
