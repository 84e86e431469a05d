"use strict";
// The page's behaviour: theme, figures, leaderboard, drawer. Text from the data is only ever set as
// text, never as markup.

const root = document.documentElement;
root.classList.add("js");

// Theme: the reader's system decides until the button is pressed.

function dark() {
  const set = root.dataset.theme;
  return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function kept(value) {
  try {
    if (value) localStorage.setItem("merge-search-theme", value);
    return localStorage.getItem("merge-search-theme");
  } catch {
    return null; // a page from a file may have no storage
  }
}

const before = kept();
if (before === "dark" || before === "light") root.dataset.theme = before;
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  kept(root.dataset.theme);
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());

// Figures.

const CONFIG = { responsive: true, displayModeBar: "hover", displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };

function draw(place, paper = 0, view = undefined) {
  const figure = figures.get(place.dataset.plot);
  const { data: traces, layout } = specified(figure, paper || place.clientWidth, view);
  const config = { ...CONFIG, toImageButtonOptions: { format: "svg", filename: figure.name } };
  place.removeAttribute("role");
  if (!paper) return Plotly.react(place, traces, layout, config);
  const small = paper < PAPER ? { height: Math.round(layout.height * 0.72), showlegend: false } : {};
  return Plotly.react(place, traces, { ...layout, width: paper, autosize: false, ...small }, { staticPlot: true });
}

const places = [...document.querySelectorAll("[data-plot]")];

function drawAll() {
  return Promise.all(places.map((place) => draw(place)));
}

async function drawInTurn() {
  for (const place of places) {
    await draw(place);
    await new Promise((next) => setTimeout(next, 0)); // the page stays usable meanwhile
  }
  root.dataset.ready = "yes";
}

for (const group of document.querySelectorAll(".views")) {
  const buttons = [...group.querySelectorAll("button")];
  buttons.forEach((button, at) =>
    button.addEventListener("click", () => {
      buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
      chosen.set(group.dataset.figure, at);
      draw(places.find((place) => place.dataset.plot === group.dataset.figure));
    }),
  );
}

// On paper: light colours, figures as wide as the sheet whatever the window is, and what is behind
// buttons on the screen. All of it is drawn before the browser lays out the pages.

const PAPER = 656; // CSS pixels inside a card on A4; on Letter a little is left over
const HALF = 320;

function otherViews(place) {
  const figure = figures.get(place.dataset.plot);
  if (!figure.views.some((view) => view.data.length)) return; // the same points, only nearer
  const box = element("div", undefined, { className: "paper" });
  place.after(box);
  figure.views.forEach((view, at) => {
    if (at === (chosen.get(figure.name) || 0)) return;
    const cell = box.appendChild(element("div"));
    const half = element("div", undefined, { className: "plot" });
    half.dataset.plot = figure.name;
    cell.append(element("p", view.label), half);
    draw(half, HALF, at);
  });
}

let theme;
addEventListener("beforeprint", () => {
  theme = root.dataset.theme;
  root.dataset.theme = "light";
  for (const cell of document.querySelectorAll("th")) {
    cell.classList.toggle("long", cell.textContent.split(/\s+/).some((word) => word.length > 12));
  }
  for (const place of places) {
    draw(place, PAPER);
    otherViews(place);
  }
});
addEventListener("afterprint", () => {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  document.querySelectorAll(".paper").forEach((box) => box.remove());
  drawAll();
});
let width = innerWidth;
addEventListener("resize", () => {
  if ((width < 700) !== (innerWidth < 700)) drawAll(); // labels change with the room there is
  width = innerWidth;
});

// Small parts.

function element(tag, text, more) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, more || {});
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.body.appendChild(element("textarea", text));
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = label), 1500);
}

function code(text) {
  const box = element("div", undefined, { className: "code" });
  const button = element("button", "Copy", { type: "button", className: "copy" });
  button.addEventListener("click", () => copy(button, text));
  const pre = element("pre");
  pre.append(element("code", text));
  box.append(button, pre);
  return box;
}

for (const box of document.querySelectorAll("main .code")) {
  const button = box.querySelector("button");
  button.addEventListener("click", () => copy(button, box.querySelector("code").textContent));
}

// What is wider than its box says on which side it goes on.

function markMore(box) {
  const hidden = box.scrollWidth - box.clientWidth;
  const [before, after] = [box.scrollLeft > 1, hidden - box.scrollLeft > 1];
  box.dataset.more = before && after ? "both" : before ? "left" : after ? "right" : "";
}

const sizes = new ResizeObserver((changed) => changed.forEach((one) => markMore(one.target)));
for (const box of document.querySelectorAll(".scroll, pre, nav")) {
  box.addEventListener("scroll", () => markMore(box), { passive: true });
  sizes.observe(box);
}

// Leaderboard.

const PAGE = 25;
const board = data.board;
const table = document.getElementById("board");
const find = document.getElementById("find");
const selects = ["method", "kind", "state"].map((name) => [name, document.getElementById("by-" + name)]);
const left = new Set(); // columns that the reader does without
let sorted = { column: -1, down: false };
let shown = PAGE;

function fill(select, values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    select.append(element("option", `${value} (${count})`, { value }));
  }
}

for (const [name, select] of selects) {
  fill(select, board[name]);
  select.addEventListener("change", refresh);
}
if (board.state.includes("failed")) {
  selects[2][1].prepend(element("option", "not failed", { value: "!failed" }));
  selects[2][1].value = "!failed";
}
find.addEventListener("input", refresh);

const searchable = board.candidate.map((_, row) =>
  [...board.columns.filter((one) => !one.numeric).map((one) => one.cells[row]),
    "candidate " + board.candidate[row], ...Object.values(board.more).map((cells) => cells[row])]
    .join(" ").toLowerCase(),
);

function matching() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = board.candidate.map((_, row) => row).filter((row) =>
    words.every((word) => searchable[row].includes(word)) &&
    selects.every(([name, select]) =>
      select.value === "" || (select.value === "!failed" ? board[name][row] !== "failed" : board[name][row] === select.value)),
  );
  if (sorted.column < 0) return rows;
  const column = board.columns[sorted.column];
  const keys = column.keys || column.cells;
  const sign = sorted.down ? -1 : 1;
  return rows.sort((a, b) => {
    const [x, y] = [keys[a], keys[b]];
    if (x === null || y === null) return (x === null) - (y === null) || a - b; // without a value: last
    return (x < y ? -sign : x > y ? sign : 0) || a - b;
  });
}

function row(number) {
  const made = element("tr", undefined, { tabIndex: 0 });
  made.dataset.row = number;
  if (board.rank[number] === 1) made.className = "best";
  else if (board.state[number] === "failed") made.className = "failed";
  else if (["parent", "average"].includes(board.kind[number])) made.className = "baseline";
  for (const column of board.columns) {
    if (left.has(column)) continue;
    made.append(element("td", column.cells[number], { className: column.numeric ? "number" : "" }));
  }
  made.addEventListener("click", () => open(number));
  made.addEventListener("keydown", (event) => event.key === "Enter" && open(number));
  return made;
}

function refresh() {
  const rows = matching();
  table.tBodies[0].replaceChildren(...rows.slice(0, shown).map(row));
  const more = document.getElementById("more");
  more.hidden = rows.length <= shown;
  more.textContent = `Show ${Math.min(100, rows.length - shown)} more`;
  document.getElementById("count").textContent = `${rows.length} of ${board.candidate.length} candidates`;
  [...table.tHead.rows[0].cells].forEach((cell, at) => {
    cell.hidden = left.has(board.columns[at]);
    cell.setAttribute("aria-sort", at !== sorted.column ? "none" : sorted.down ? "descending" : "ascending");
  });
  markMore(table.parentElement);
}

function heading(column, at) {
  const cell = element("th", undefined, { scope: "col", className: column.numeric ? "number" : "" });
  const button = element("button", column.name, { type: "button", title: column.help });
  button.addEventListener("click", () => {
    const rank = column.name === "#" || !column.numeric || column.name === "id";
    sorted = { column: at, down: sorted.column === at ? !sorted.down : !rank };
    refresh();
  });
  cell.append(button);
  return cell;
}

function picker(column) {
  const label = element("label");
  const box = element("input", undefined, { type: "checkbox", checked: true });
  box.addEventListener("change", () => {
    if (box.checked) left.delete(column);
    else left.add(column);
    refresh();
  });
  label.append(box, " " + column.name);
  return label;
}

table.tHead.rows[0].replaceChildren(...board.columns.map(heading));
document.getElementById("columns").append(...board.columns.slice(1).map(picker));
document.getElementById("more").addEventListener("click", () => {
  shown += 100;
  refresh();
});

// The drawer: one candidate with its recipe.

const drawer = document.getElementById("drawer");
const unpacked = new Map();

async function unpack(id) {
  if (!unpacked.has(id)) {
    const text = document.getElementById(id).textContent.trim();
    if (!text) return {};
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(id, JSON.parse(await new Response(stream).text()));
  }
  return unpacked.get(id);
}

function listing(pairs) {
  const list = element("dl", undefined, { className: "list" });
  for (const [name, value] of pairs) if (value) list.append(element("dt", name), element("dd", value));
  return list;
}

function commands(number) {
  const rank = board.rank[number];
  if (rank === null || !data.study) return [];
  const file = rank === 1 ? "best.yaml" : `rank-${rank}.yaml`;
  const text = `search export ${data.study} --rank ${rank} --out ${file}\nsearch build ${file} merged-${rank}`;
  return [element("h3", "Build it"), code(text)];
}

async function open(number) {
  const body = document.getElementById("drawer-body");
  document.getElementById("drawer-title").textContent = `Candidate ${board.candidate[number]}`;
  const facts = board.columns.map((column) => [column.name, column.cells[number]]);
  for (const [name, cells] of Object.entries(board.more)) facts.push([name, cells[number]]);
  const place = element("p", "…");
  body.replaceChildren(...commands(number), element("h3", "Recipe"), place, element("h3", "What is known"), listing(facts));
  body.parentElement.scrollTop = 0;
  if (!drawer.open) drawer.showModal();
  let text;
  try {
    text = (await unpack("recipes"))[board.candidate[number]];
  } catch {
    text = undefined; // a browser that cannot decompress
  }
  const rank = board.rank[number] === null ? "." : ": the first command above writes it.";
  place.replaceWith(text ? code(text) : element("p", "Not in this page" + rank));
}

drawer.addEventListener("click", (event) => event.target === drawer && drawer.close());

refresh();
drawInTurn();
