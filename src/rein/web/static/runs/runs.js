/* The table of runs: asks the server every few seconds what is new, changes what is other, and keeps focus, choice,
   order and filter where they are. */

import { $, element } from "../elements.js";

const EVERY_MS = 3000;
const COMPARED = 24; // runs on one page of curves; the server says the same
const ORDER = ["running", "stopped", "interrupted", "ended", "done", "damaged"];
const UPWARD = new Set(["name", "state", "loss", "bits"]); // what is sorted with the least on top at first
const store = "rein-runs";

const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };

/* What a person set on this page outlives a look at a report and back. */
const kept = { chosen: [], filter: "", sort: "started", down: true };
try { Object.assign(kept, JSON.parse(sessionStorage.getItem(store))); } catch { /* storage is off, or another's */ }
const chosen = new Set(kept.chosen);
const keep = () => {
  kept.chosen = [...chosen];
  try { sessionStorage.setItem(store, JSON.stringify(kept)); } catch { /* storage is off */ }
};

/* 8 s, 1 min 35 s, 2 h 3 min, 3 d 0 h; like `duration` in progress.py. */
const duration = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
};
const ago = (iso) => (iso === null ? "–" : `${duration((Date.now() - Date.parse(iso)) / 1000)} ago`);

/* -------------------------------------------------------------------------------------------------- one row */

const SVG = "http://www.w3.org/2000/svg";

/* The curve over the run's own tokens. A loss starts so high that the rest would look flat, so what is above the
   highest of the last 96% leaves the frame. */
const path = (curve) => {
  if (curve.length < 2) return "";
  const [first, last] = [curve[0][0], curve[curve.length - 1][0]];
  const later = curve.filter(([x]) => x > first + (last - first) * 0.04).map(([, y]) => y);
  const high = Math.max(...later);
  const low = Math.min(...curve.map(([, y]) => y));
  const at = ([x, y]) => `${(100 * (x - first)) / (last - first || 1)} ${24 * (1 - Math.min(1, (y - low) / (high - low || 1))) + 1}`;
  return `M${curve.map(at).join("L")}`;
};

const pageOf = (kind, id) => `/runs/page/${encodeURIComponent(kind)}/${encodeURIComponent(id)}`;

const makeRow = (id) => {
  const tr = element("tr");
  const box = element("input");
  box.type = "checkbox";
  const label = element("label");
  label.append(box);
  const link = element("a");
  link.dir = "auto";
  const name = element("th");
  name.scope = "row";
  [tr.role, name.role] = ["row", "rowheader"];
  const parts = {
    pages: element("small", "pages"), model: element("small"), why: element("small", "why"), notes: element("small"), word: element("span"),
    state: element("span", "state"), tokens: element("span"), progress: element("progress"), left: element("small"),
    loss: element("span", "strong"), bits: element("span", "strong"), best: element("small"), speed: element("span"), started: element("time"),
  };
  name.append(link, parts.model, parts.pages, parts.why, parts.notes);
  parts.state.append(element("span", "bulb"), parts.word);
  parts.progress.max = 1;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 26");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const line = document.createElementNS(SVG, "path");
  svg.append(line);
  const curve = element("div");
  curve.append(svg, parts.loss);
  const cell = (kind, title, ...inside) => {
    const td = element("td", kind);
    if (title) td.dataset.name = title;
    td.append(...inside);
    td.role = "cell"; // said once more, because as a card on a telephone it is laid out as none
    return td;
  };
  tr.append(
    cell("", "", label), name, cell("", "", parts.state), cell("tokens", "tokens", parts.tokens, parts.progress, parts.left),
    cell("loss n", "training loss", curve), cell("bits n", "held-out bits/byte", parts.bits, parts.best),
    cell("n", "tokens/s", parts.speed), cell("started n", "started", parts.started),
  );
  const row = { id, tr, run: null };
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(id); else chosen.delete(id);
    keep();
    choice();
  });
  row.tick = () => say(parts.started, ago(row.run.started));
  row.chosen = (yes) => { box.checked = yes; tr.classList.toggle("chosen", yes); };
  row.show = (run) => {
    row.run = run;
    say(link, run.name);
    link.href = run.first ? pageOf(run.first, id) : `/runs/report/${encodeURIComponent(id)}`;
    if (parts.pages.dataset.kinds !== run.pages.join()) {
      parts.pages.dataset.kinds = run.pages.join();
      parts.pages.replaceChildren(...run.pages.map((kind) => {
        const one = element("a", "", kind);
        one.href = pageOf(kind, id);
        return one;
      }));
    }
    for (const one of parts.pages.children) one.setAttribute("aria-label", `${one.textContent} of ${run.name}`);
    box.setAttribute("aria-label", `choose ${run.name}`);
    say(parts.model, run.model);
    say(parts.why, run.why);
    say(parts.notes, run.notes.join(" "));
    say(parts.word, run.state);
    parts.state.className = `state ${run.state}`;
    say(parts.tokens, run.tokens);
    parts.progress.hidden = run.done_frac === null;
    parts.progress.value = run.done_frac ?? 0;
    parts.progress.setAttribute("aria-label", `tokens seen by ${run.name}`);
    say(parts.left, run.time_left_s === null ? "" : `${duration(run.time_left_s)} left`);
    say(parts.loss, run.loss);
    line.setAttribute("d", path(run.curve));
    svg.setAttribute("aria-label", run.curve_said);
    say(parts.bits, run.bits);
    say(parts.best, run.best === run.bits ? "" : `best ${run.best}`);
    say(parts.speed, run.speed);
    if (run.started !== null) {
      parts.started.dateTime = run.started;
      parts.started.title = new Date(run.started).toLocaleString();
    }
    for (const small of [parts.model, parts.pages, parts.why, parts.notes, parts.left, parts.best]) small.hidden = small.textContent === "";
    row.tick();
  };
  return row;
};

/* ------------------------------------------------------------------------------------------------ the table */

const rows = new Map();

const value = ({ run }) => {
  if (kept.sort === "name") return run.name;
  if (kept.sort === "state") return ORDER.indexOf(run.state);
  if (kept.sort === "started") return run.started === null ? null : Date.parse(run.started);
  return run.sort[kept.sort] ?? null;
};

/* What is not known comes last, whichever way the rest is sorted; equals by name. */
const ordered = () => [...rows.values()].sort((a, b) => {
  const [x, y] = [value(a), value(b)];
  if (x === null || y === null) return (x === null) - (y === null) || a.run.name.localeCompare(b.run.name);
  const way = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
  return (kept.down ? -way : way) || a.run.name.localeCompare(b.run.name, "en", { numeric: true });
});

const fits = ({ run }) => `${run.name} ${run.state} ${run.model}`.toLowerCase().includes(kept.filter.trim().toLowerCase());

const arrange = () => {
  const shown = ordered().filter(fits);
  const now = [...$("rows").children];
  if (shown.length !== now.length || shown.some(({ tr }, i) => tr !== now[i])) {
    const focused = document.activeElement;
    $("rows").replaceChildren(...shown.map(({ tr }) => tr));
    if (focused !== document.activeElement && document.contains(focused)) focused.focus({ preventScroll: true });
  }
  $("table").hidden = rows.size === 0;
  $("bar").hidden = rows.size === 0;
  $("empty").hidden = shown.length > 0;
  say($("empty"), rows.size === 0 ? "No runs here yet. They appear when one begins." : "No run is like that.");
  for (const button of document.querySelectorAll("[data-sort]")) {
    const th = button.closest("th");
    if (button.dataset.sort === kept.sort) th.setAttribute("aria-sort", kept.down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
};

const choice = () => {
  for (const row of rows.values()) row.chosen(chosen.has(row.id));
  const n = chosen.size;
  say($("chosen"), n === 0 ? "" : n > COMPARED ? `${n} chosen; ${COMPARED} at most` : n === 1 ? "1 chosen; one more to compare" : `${n} chosen`);
  $("none").hidden = n === 0;
  $("compare").disabled = n < 2 || n > COMPARED;
};

const count = () => {
  const states = ORDER.map((state) => [state, [...rows.values()].filter(({ run }) => run.state === state).length]);
  say($("counts"), states.filter(([, n]) => n > 0).map(([state, n]) => `${n} ${state}`).join(" · "));
};

const hear = (runs) => {
  const there = new Set(runs.map(({ id }) => id));
  for (const id of rows.keys()) if (!there.has(id)) { rows.delete(id); chosen.delete(id); }
  for (const id of chosen) if (!there.has(id)) chosen.delete(id);
  for (const run of runs) {
    if (!rows.has(run.id)) rows.set(run.id, makeRow(run.id));
    rows.get(run.id).show(run);
  }
  arrange();
  choice();
  count();
};

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    kept.down = kept.sort === button.dataset.sort ? !kept.down : !UPWARD.has(button.dataset.sort);
    kept.sort = button.dataset.sort;
    keep();
    arrange();
  });
}
$("filter").value = kept.filter;
$("filter").addEventListener("input", () => { kept.filter = $("filter").value; keep(); arrange(); });
$("none").addEventListener("click", () => { chosen.clear(); keep(); choice(); $("filter").focus(); });
$("compare").addEventListener("click", () => {
  const ids = ordered().filter(({ id }) => chosen.has(id)).map(({ id }) => `run=${encodeURIComponent(id)}`);
  location.assign(`/runs/compare?${ids.join("&")}`);
});

/* --------------------------------------------------------------------------------------- asking the server */

let tag = null;
let tries = 0;
let timer = null;

const ask = async () => {
  timer = null;
  let trouble = "";
  try {
    const answer = await fetch("/runs/data", { headers: tag ? { "if-none-match": tag } : {}, cache: "no-store", signal: AbortSignal.timeout(20_000) });
    if (answer.status !== 304) {
      const told = await answer.json();
      if (answer.ok) { tag = answer.headers.get("etag"); hear(told.runs); } else trouble = told.trouble;
    }
  } catch {
    trouble = "no connection to rein runs watch";
  }
  tries = trouble ? tries + 1 : 0;
  $("line").className = `line ${trouble ? "down" : "up"}`;
  say($("line-word"), trouble ? `${trouble}; trying again` : "follows the runs");
  for (const row of rows.values()) row.tick();
  timer = setTimeout(ask, document.hidden ? 10 * EVERY_MS : Math.min(10, 1 + tries) * EVERY_MS);
};
document.addEventListener("visibilitychange", () => {
  if (document.hidden || timer === null) return;
  clearTimeout(timer);
  ask();
});
ask();
