// Draws one figure a series. All text goes in as text, never as HTML.
"use strict";
(async () => {
  const figures = await page.data();
  figures.forEach((figure, position) => {
    const plot = page.element("div", undefined, "plot");
    plot.id = `series${position}`;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", figure.title);
    const frame = page.element("figure");
    frame.append(plot);
    page.byId("figures").append(page.element("h3", figure.title), frame);
    page.draw(plot.id, { data: figure.data, layout: { height: 320, ...figure.layout } });
  });
  page.ready();
})();
