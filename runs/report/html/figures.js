"use strict";
// Turns the figures' data into what Plotly draws, in the colours of the page's theme.

const data = JSON.parse(document.getElementById("data").textContent);
const figures = new Map(data.figures.map((one) => [one.name, one]));
const chosen = new Map(); // number of the view of each figure

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function coloured(value) {
  if (typeof value === "string") return value.startsWith("$") ? colour(value.slice(1)) : value;
  if (Array.isArray(value)) {
    const told = value.length && value.some((one) => typeof one === "object" || typeof one === "string");
    return told ? value.map(coloured) : value;
  }
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one)]));
}

function merged(base, more) {
  const result = { ...base };
  for (const [key, value] of Object.entries(more)) {
    const both = value && result[key] && [value, result[key]].every((one) => typeof one === "object" && !Array.isArray(one));
    result[key] = both ? merged(result[key], value) : value;
  }
  return result;
}

function nested(dotted) {
  let result = {};
  for (const [path, value] of Object.entries(dotted)) {
    result = merged(result, path.split(".").reduceRight((inner, key) => ({ [key]: inner }), value));
  }
  return result;
}

function axis(width) {
  return {
    gridcolor: "$line", zerolinecolor: "$line", linecolor: "$line", automargin: true,
    title: { standoff: 10, font: { size: 12.5 } }, tickfont: { size: width < 520 ? 11 : 12 },
  };
}

function style(width) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
    font: { family: "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif", size: 12.5, color: "$ink" },
    margin: { l: 54, r: 14, t: 26, b: 48 }, hovermode: "closest",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: axis(width), yaxis: axis(width), yaxis2: axis(width),
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "$soft", activecolor: "$accent" },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: "$card", bordercolor: "$line", font: { color: "$ink" } },
  };
}

// Long labels beside bars leave no room for the bars on a telephone: the number goes below.
function narrowed(layout, width) {
  if (width >= 520) return layout;
  for (const key of ["yaxis", "yaxis2"]) {
    const labels = layout[key] && layout[key].ticktext;
    if (labels) {
      layout[key].ticktext = labels.map((label) => {
        const at = label.lastIndexOf("  ");
        const [name, number] = at < 0 ? [label, ""] : [label.slice(0, at), label.slice(at + 2)];
        const short = name.replace("winner: ", "★ ").replace("default recipe ", "");
        return (short.length > 21 ? short.slice(0, 20) + "…" : short) + (number ? "<br>" + number : "");
      });
    }
  }
  return layout;
}

function specified(figure, width, number = chosen.get(figure.name) || 0) {
  const view = figure.views[number];
  let layout = merged(style(width), figure.layout);
  let traces = figure.data;
  if (view) {
    layout = merged(layout, nested(view.layout));
    traces = traces.map((trace, at) => ({ ...trace, ...(view.data[at] || {}) }));
  }
  layout = { ...layout, height: figure.height };
  if (!("yaxis2" in figure.layout)) delete layout.yaxis2;
  return { data: coloured(traces), layout: narrowed(coloured(layout), width) };
}
