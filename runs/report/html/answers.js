"use strict";
// Two candidates question by question. Text from the data is only ever set as text.

const FLIPS = 20; // questions that are shown at first
const WORDS = new Map([[1, "only A is right"], [-1, "only B is right"], [0, "both are level"]]);
const parts = Object.fromEntries(
  ["a", "b", "split", "task", "show", "find", "table", "count", "list", "more", "command", "left"]
    .map((name) => [name, document.getElementById("answers-" + name)]),
);
let flips = FLIPS;
let book;

function options(select, pairs) {
  select.append(...pairs.map(([value, text]) => element("option", text, { value })));
}

// Every question that both answered: who is better, and whether there is only right and wrong.

function compared(a, b) {
  const held = Number(parts.split.value);
  const found = book.questions.flatMap(([task, heldOut], at) => {
    const [x, y] = [a.values[at], b.values[at]];
    if (heldOut !== held || x === null || y === null) return [];
    return [{ at, task, x, y, better: Math.sign(x - y) * (book.tasks[task][1] ? 1 : -1) }];
  });
  return found;
}

function counts(rows, task) {
  const [name, higher] = book.tasks[task];
  const mine = rows.filter((row) => row.task === task);
  const plain = mine.every((row) => [row.x, row.y].every((value) => value === 0 || value === 1));
  const level = mine.filter((row) => row.better === 0);
  const right = level.filter((row) => row.x === Number(higher)).length;
  const better = (who) => mine.filter((row) => row.better === who).length;
  const mean = mine.reduce((sum, row) => sum + (row.x - row.y) * (higher ? 1 : -1), 0) / mine.length;
  const both = plain ? [right, level.length - right] : ["", ""];
  return [name, mine.length, both[0], better(1), better(-1), both[1], (mean < 0 ? "−" : "+") + Math.abs(mean).toFixed(3)];
}

function cells(tag, values) {
  const made = element("tr");
  made.append(...values.map((value, at) => element(tag, value, { className: at ? "number" : "" })));
  return made;
}

function wanted(row) {
  const show = parts.show.value;
  return show === "flipped" ? row.better : show === "a" ? row.better > 0 : show !== "b" || row.better < 0;
}

function holds(row, a, b, words) {
  const [, , prompt, expected] = book.questions[row.at];
  const text = [prompt, expected, a.texts[row.at], b.texts[row.at]].join("\n").toLowerCase();
  return text.includes(words.toLowerCase());
}

function shownAnswer(value, text, task) {
  const higher = book.tasks[task][1];
  const judged = value === 0 || value === 1;
  const right = value === Number(higher);
  const mark = judged ? (right ? "✓ " : "✗ ") : "";
  const made = element("dd", mark + (text === null ? `(no text was kept; value ${value})` : text));
  if (judged) made.className = right ? "right" : "wrong";
  return made;
}

function item(row, a, b) {
  const [task, , prompt, expected, choices] = book.questions[row.at];
  const box = element("article", undefined, { className: "answer card" });
  const list = element("dl", undefined, { className: "list" });
  for (const [name, text] of [["prompt", prompt], ["choices", choices.join("\n")], ["expected", expected]]) {
    if (text) list.append(element("dt", name), element("dd", text));
  }
  list.append(element("dt", "A"), shownAnswer(row.x, a.texts[row.at], task));
  list.append(element("dt", "B"), shownAnswer(row.y, b.texts[row.at], task));
  box.append(element("h3", `${book.tasks[task][0]}: ${WORDS.get(row.better)}`), list);
  return box;
}

function showAnswers() {
  const [a, b] = [book.sheets[parts.a.value], book.sheets[parts.b.value]];
  const rows = compared(a, b);
  const asked = [...new Set(rows.map((row) => row.task))];
  parts.table.tHead.replaceChildren(
    cells("th", ["task", "questions", "both right", "only A", "only B", "both wrong", "A − B"]),
  );
  parts.table.tBodies[0].replaceChildren(...asked.map((task) => cells("td", counts(rows, task))));
  const order = (row) => (row.better === 0 ? 2 : row.better); // what A lost comes first
  const task = parts.task.value;
  const asking = task === "" ? rows : rows.filter((row) => row.task === Number(task));
  const [words, shown] = [parts.find.value, asking.filter(wanted)];
  const list = shown.filter((row) => holds(row, a, b, words)).sort((x, y) => order(x) - order(y));
  parts.list.replaceChildren(...list.slice(0, flips).map((row) => item(row, a, b)));
  parts.count.textContent = shown.length && !list.length
    ? `none of ${shown.length} contains '${words}'`
    : `${list.length} of the ${asking.length} questions that both answered`;
  parts.more.hidden = list.length <= flips;
  parts.command.textContent = `search compare ${data.study} ${a.candidate} ${b.candidate}` +
    (parts.split.value === "1" ? "" : " --questions search");
  markMore(parts.table.parentElement);
}

async function startAnswers() {
  try {
    book = await unpack("packed-answers");
  } catch {
    document.getElementById("answers").hidden = true; // a browser that cannot decompress
    return;
  }
  const names = book.sheets.map((sheet, at) => [at, sheet.name]);
  options(parts.a, names);
  options(parts.b, names);
  parts.b.value = Math.max(1, book.sheets.findIndex((sheet) => sheet.name.startsWith("parent ")));
  const held = book.questions.some(([, heldOut]) => heldOut);
  options(parts.split, held ? [[1, "held-out"], [0, "search"]] : [[0, "search"]]);
  options(parts.task, book.tasks.map(([name], at) => [at, name]));
  const left = book.left === 1 ? "1 more candidate is" : `${book.left} more candidates are`;
  if (book.left) parts.left.textContent = `The answers of ${left} kept in the study, not in this page.`;
  for (const part of [parts.a, parts.b, parts.split, parts.task, parts.show]) part.addEventListener("change", again);
  parts.find.addEventListener("input", again);
  parts.more.addEventListener("click", () => {
    flips += 100;
    showAnswers();
  });
  showAnswers();
}

function again() {
  flips = FLIPS;
  showAnswers();
}

startAnswers();
