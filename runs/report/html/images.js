"use strict";
// Draws every figure into an image and leaves them all in the page, for whoever reads it.

async function images() {
  const place = document.getElementById("place");
  const found = {};
  for (const figure of figures.values()) {
    const size = { width: data.width, height: figure.height + 54 };
    const { data: traces, layout } = specified(figure, data.width);
    layout.paper_bgcolor = colour("paper");
    layout.margin.t = 80;
    layout.annotations = [{
      text: figure.title.replace(/&/g, "&amp;").replace(/</g, "&lt;"), showarrow: false, font: { size: 16 },
      x: 0, xref: "paper", xanchor: "left", y: 1, yref: "paper", yanchor: "bottom", yshift: 40,
    }];
    layout.legend.y = 1;
    await Plotly.newPlot(place, traces, { ...layout, ...size }, { staticPlot: true });
    found[figure.name] = await Plotly.toImage(place, { ...size, format: data.format, scale: data.scale });
  }
  const result = document.createElement("pre");
  result.id = "images";
  result.textContent = JSON.stringify(found);
  document.body.replaceChildren(result);
}

images();
