"use strict";
// A page that a server sends: where the run stands, asked again and again. New results are shown by
// loading the page anew, which keeps its place, unless the reader is looking at something.

const ASK_MS = 3000;
const RELOAD_MS = 20000;

const strip = document.getElementById("live");
const part = (name) => strip.querySelector(`[data-live="${name}"]`);
const loaded = Date.now();

function busyReading() {
  const at = document.activeElement;
  const typing = at && ["INPUT", "SELECT", "TEXTAREA"].includes(at.tagName) && !strip.contains(at);
  return typing || document.querySelector("dialog[open]") || !getSelection().isCollapsed;
}

function show(now) {
  const bar = strip.querySelector("progress");
  if (now.share === null) bar.removeAttribute("value");
  else bar.value = now.share;
  part("phase").textContent = now.over ? "finished" : now.driven ? now.phase : "nobody is at work on it";
  const words = [now.done, now.best, now.workers, now.failures, now.time, now.notice];
  part("words").textContent = words.filter(Boolean).join(" · ");
  strip.dataset.state = now.over ? "over" : now.driven ? "running" : "stopped";
  const newer = String(now.results) !== strip.dataset.results;
  part("reload").hidden = !newer;
  const due = now.over || Date.now() - loaded > RELOAD_MS;
  if (newer && due && part("follow").checked && !busyReading()) location.reload();
}

async function ask() {
  try {
    const answer = await fetch("standing.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json());
  } catch (error) {
    strip.dataset.state = "lost";
    part("phase").textContent = "no answer";
    part("words").textContent = `${error.message}; asking again`;
  }
  setTimeout(ask, ASK_MS);
}

part("reload").addEventListener("click", () => location.reload());
ask();
