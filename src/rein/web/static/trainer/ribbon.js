/* The ribbon: the last steps as cells, each press as a mark at its time, and threads from the press to the steps it
   credited. The bracket is the credit window: where a press made now would land. Time here is the session's clock as
   the trainer saw it, so a mark stands over the step that was on the screen. */

import { $, actionColour, clamp, colour, element, number, paper, signed, signsOf, still } from "./words.js";

const rows = { mark: 13, thread: 24, cell: 62, cellHeight: 26, credit: 103, creditHeight: 12, label: 126 };
const sources = { tamer: "TAMER", rl: "the RL agent", explore: "chance (exploring)", shared: "TAMER (control shared)", demonstration: "you" };

export const ribbon = () => {
  const box = $("ribbon-box");
  const sheet = paper($("ribbon-canvas"), () => { dirty = true; });
  let dirty = true;
  let task = null;
  let signs = [];
  let credit = {};
  let pause_s = 1;
  let steps = []; // in order: {step, credit, presses}
  let byK = new Map();
  let presses = new Map(); // id → {id, value, t, shares, given, …}, or with `waiting` until its credit came
  let now = { t: 0, at: null }; // the session's clock when the newest step was painted; `at` is null while it stands
  let step_s = 0.2;
  let chosen = null; // {step} or {press}: what the line below reads out
  let drawn = []; // where presses stand, for the pointer
  let place = { now: 0, x: 0, width: 20 };

  const clock = (at) => now.t + (now.at === null ? 0 : Math.max(0, at - now.at) / 1000);

  /* Session clock → number of the cell and how far in it; cells are equally wide however long a step was. */
  const cellAt = (t) => {
    if (!steps.length) return 0;
    let low = 0;
    let high = steps.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (steps[middle].step.t <= t) low = middle;
      else high = middle - 1;
    }
    const { step } = steps[low];
    const lasts_s = low + 1 < steps.length ? steps[low + 1].step.t - step.t : step_s + (step.ended ? pause_s : 0);
    return low + Math.min(1, (t - step.t) / (lasts_s || step_s));
  };

  const add = (step) => {
    if (byK.has(step.k)) return;
    const cell = { step, credit: 0, presses: 0 };
    steps.push(cell);
    byK.set(step.k, cell);
    if (steps.length > 300) for (const old of steps.splice(0, 60)) byK.delete(old.step.k);
    for (const press of presses.values()) for (const [k, share] of press.shares || []) if (k === step.k) give(cell, press, share);
    dirty = true;
  };

  const give = (cell, press, share) => {
    cell.credit += press.value * share;
    cell.presses += 1;
  };

  const settle = (press) => {
    const old = presses.get(press.id);
    if (old && !old.waiting) return false;
    presses.set(press.id, press);
    for (const [k, share] of press.shares) if (byK.has(k)) give(byK.get(k), press, share);
    if (presses.size > 200) presses.delete(presses.keys().next().value);
    if (chosen?.press?.id === press.id) chosen = { press };
    dirty = true;
    return true;
  };

  /* ------------------------------------------------------------------------------------- reading it out */

  const wordsOf = ({ step, press }) => {
    if (press) {
      const who = press.by && press.by !== "person" ? `by the ${press.by}` : "by key press";
      if (press.waiting) return `${signed(press.value)} ${who}, on its way to the server`;
      const parts = press.shares.filter(([, share]) => share >= 0.005).map(([k, share]) => `step ${k} ${Math.round(share * 100)} %`).join(", ");
      const outside = press.given < 0.995 ? `; ${Math.round((1 - press.given) * 100)} % fell on no step` : "";
      const seen = Number.isFinite(press.seen_ms) ? `, ${Math.round(press.seen_ms)} ms after the picture` : "";
      return `${signed(press.value)} ${who} at ${press.t.toFixed(2)} s${seen}: ${parts || "no step"}${outside}${press.late ? "; came late" : ""}`;
    }
    const { step: it, credit: sum, presses: count } = step;
    const got = count ? `credit so far ${signed(sum)} from ${count} ${count === 1 ? "press" : "presses"}` : "no credit yet";
    return `Step ${it.k} (episode ${it.episode}): ${task.actions[it.action]}, chosen by ${sources[it.source] || it.source}; task reward ${number(it.reward)}; ${got}`;
  };

  const read = () => {
    $("ribbon-read").textContent = chosen ? wordsOf(chosen) : "Point at a step or a press to read its numbers.";
    if (!chosen) return;
    box.setAttribute("aria-valuetext", wordsOf(chosen));
    box.setAttribute("aria-valuenow", chosen.press ? chosen.press.shares?.at(-1)?.[0] ?? 0 : chosen.step.step.k);
  };
  const choose = (item) => { chosen = item; dirty = true; read(); };

  box.addEventListener("pointermove", (event) => {
    const { left, top } = box.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const near = drawn.filter((one) => Math.abs(one.x - x) < 11).sort((a, b) => Math.abs(a.x - x) - Math.abs(b.x - x))[0];
    const cell = steps[Math.floor(place.now + (x - place.x) / place.width)];
    if (y < rows.cell - 14 && near) choose({ press: near.press });
    else if (cell) choose({ step: cell });
  });
  box.addEventListener("pointerleave", () => { if (document.activeElement !== box) choose(null); });
  box.addEventListener("blur", () => choose(null));
  box.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey || !steps.length) return;
    event.preventDefault();
    event.stopPropagation(); // while demonstrating these keys are actions elsewhere
    const items = [...steps.map((step) => ({ step, t: step.step.t })), ...[...presses.values()].map((press) => ({ press, t: press.t }))].sort((a, b) => a.t - b.t);
    const at = items.findIndex((item) => (chosen?.press ? item.press?.id === chosen.press.id : item.step && item.step === chosen?.step));
    choose(items[clamp(at < 0 ? items.length - 1 : at + way, 0, items.length - 1)]);
  });

  /* -------------------------------------------------------------------------------------------- drawing */

  const valence = (value) => colour(value > 0 ? "--c0" : "--c1");
  const cellsDrawn = (g, from, to, x, width) => {
    const count = task.actions.length;
    g.textAlign = "center";
    g.textBaseline = "middle";
    for (let i = from; i <= to; i++) {
      const { step, credit: sum } = steps[i];
      const left = x(i);
      g.globalAlpha = i + 1 <= place.now ? 1 : 0.55; // the step that is being lived
      g.fillStyle = colour(actionColour(step.action, count));
      g.beginPath();
      g.roundRect(left + 1, rows.cell, width - 2, rows.cellHeight, 3);
      g.fill();
      g.fillStyle = colour("--sheet");
      g.font = "700 13px system-ui, sans-serif";
      g.fillText(signs[step.action], left + width / 2, rows.cell + rows.cellHeight / 2 + 0.5);
      if (step.source === "demonstration") g.fillRect(left + 4, rows.cell + rows.cellHeight - 4, width - 8, 1.5);
      g.globalAlpha = 1;
      if (Math.abs(sum) > 1e-6) { // half of the lane is a credit of 1
        const tall = Math.max(2, Math.min(1, Math.abs(sum)) * rows.creditHeight);
        g.fillStyle = valence(sum);
        g.globalAlpha = 0.18;
        g.fillRect(left + 1, rows.cell - 4, width - 2, 3);
        g.fillRect(left + 1, rows.credit - rows.creditHeight, width - 2, 2 * rows.creditHeight);
        g.globalAlpha = 1;
        g.fillRect(left + 2, sum > 0 ? rows.credit - tall : rows.credit, width - 4, tall);
      }
      if (chosen?.step === steps[i]) {
        Object.assign(g, { strokeStyle: colour("--ink"), lineWidth: 2 });
        g.strokeRect(left, rows.cell - 1, width, rows.cellHeight + 2);
      }
      g.font = "10px system-ui, sans-serif";
      g.fillStyle = colour("--soft");
      if (step.ended) {
        g.fillRect(left + width - 0.75, rows.cell - 10, 1.5, rows.credit - rows.cell + rows.creditHeight + 16);
        g.textAlign = "right";
        g.fillText(`end of episode ${step.episode}`, left + width - 5, rows.label);
        g.textAlign = "center";
      } else if (step.k % 10 === 0 && Math.abs(left + width / 2 - place.x) > 28 && !steps.slice(i + 1, i + 6).some((one) => one.step.ended)) g.fillText(step.k, left + width / 2, rows.label);
    }
  };

  const pressesDrawn = (g, x, width) => {
    drawn = [];
    for (const press of presses.values()) {
      const at = x(cellAt(press.t));
      if (at < -30 || at > sheet.width + 30) continue;
      drawn.push({ press, x: at });
      const tone = valence(press.value);
      const picked = chosen?.press?.id === press.id;
      Object.assign(g, { strokeStyle: tone, fillStyle: tone });
      for (const [k, share] of press.shares || []) {
        const cell = steps.indexOf(byK.get(k));
        if (cell < 0) continue;
        const to = x(cell) + width / 2;
        g.globalAlpha = picked ? 1 : clamp(0.12 + share * 1.3, 0.12, 0.85);
        g.lineWidth = (picked ? 1.5 : 0.75) + 3 * share;
        g.beginPath();
        g.moveTo(at, rows.thread);
        g.bezierCurveTo(at, rows.thread + 16, to, rows.thread + 14, to, rows.cell - 5);
        g.stroke();
      }
      g.globalAlpha = 1;
      const text = (press.value > 0 ? "+" : "−") + (Math.abs(press.value) === 1 ? "" : Math.abs(press.value));
      const half = text.length > 1 ? 15 : 9;
      g.beginPath();
      g.roundRect(at - half, rows.mark - 9, 2 * half, 18, 9);
      if (press.waiting) { g.lineWidth = 1.5; g.setLineDash([3, 2]); g.stroke(); g.setLineDash([]); }
      else g.fill();
      if (picked) { g.lineWidth = 2; g.strokeStyle = colour("--ink"); g.stroke(); }
      g.fillStyle = press.waiting ? tone : colour("--sheet");
      g.font = "700 13px system-ui, sans-serif";
      g.fillText(text, at, rows.mark + 0.5);
    }
  };

  return {
    reset: (welcome, waiting) => {
      ({ task, credit, pause_s, step_s } = welcome);
      signs = signsOf(task.actions);
      steps = [];
      byK = new Map();
      presses = new Map();
      chosen = null;
      for (const step of welcome.steps) add(step);
      for (const one of welcome.credits) settle(one);
      for (const press of waiting) if (byK.has(press.k)) presses.set(press.id, { ...press, waiting: true, t: byK.get(press.k).step.t + (press.t_key - press.t_shown) / 1000 });
      now = { t: steps.at(-1)?.step.t ?? 0, at: null };
      $("ribbon-key").replaceChildren(...task.actions.map((name, i) => {
        const item = element("span");
        const glyph = element("i", "glyph", signs[i]);
        glyph.style.setProperty("--line", `var(${actionColour(i, task.actions.length)})`);
        item.append(glyph, name);
        return item;
      }));
      read();
    },
    add,
    settle,
    press: (press) => {
      const cell = byK.get(press.k);
      presses.set(press.id, { ...press, waiting: true, by: "person", t: (cell ? cell.step.t : now.t) + (press.t_key - press.t_shown) / 1000 });
      dirty = true;
    },
    /* Step `step` has begun to be shown at `at`; the clock goes on from there unless it `stands`. */
    shown: (step, at, its_step_s, stands) => {
      step_s = its_step_s;
      now = { t: step.t, at: stands ? null : at };
      dirty = true;
      box.setAttribute("aria-valuemin", steps[0]?.step.k ?? 0);
      box.setAttribute("aria-valuemax", step.k);
      if (!chosen) box.setAttribute("aria-valuenow", step.k);
    },
    stand: (at, stands) => {
      if (stands === (now.at === null)) return;
      now = { t: clock(at), at: stands ? null : at };
      dirty = true;
    },

    paint: (at) => {
      if (!task || !sheet.ready || ((now.at === null || still()) && !dirty)) return;
      dirty = false;
      const { g, width: w, height: h } = sheet;
      const t = still() ? now.t : clock(at); // without motion the ribbon moves on by whole steps
      const width = Math.max(16, w / 42);
      const here = cellAt(t);
      place = { now: here, x: w - 2.2 * width, width };
      const x = (cell) => place.x + (cell - place.now) * width;
      g.clearRect(0, 0, w, h);
      g.fillStyle = colour("--rule");
      g.fillRect(w > 560 ? 52 : 0, rows.credit - 0.5, w, 1);
      if (!steps.length) return;
      const gutter = w > 560 ? 52 : 0; // room for the names of the lanes
      if (gutter) {
        Object.assign(g, { font: "11px system-ui, sans-serif", fillStyle: colour("--soft"), textAlign: "left", textBaseline: "middle" });
        for (const [name, y] of [["presses", rows.mark], ["steps", rows.cell + rows.cellHeight / 2], ["credit", rows.credit]]) g.fillText(name, 0, y);
      }
      g.save();
      g.beginPath();
      g.rect(gutter, 0, w - gutter, h);
      g.clip();
      if (Number.isFinite(credit?.low_s) && Number.isFinite(credit?.high_s)) {
        const [from, to] = [x(cellAt(t - credit.high_s)), x(cellAt(t - credit.low_s))];
        const base = rows.cell - 8;
        g.fillStyle = colour("--ink");
        g.globalAlpha = 0.07;
        g.fillRect(from, base, to - from, rows.cellHeight + 16);
        g.globalAlpha = 1;
        Object.assign(g, { strokeStyle: colour("--ink"), lineWidth: 1.75 });
        for (const [a, b] of [[from, 1], [to, -1]]) {
          g.beginPath();
          g.moveTo(a + 5 * b, base);
          g.lineTo(a, base);
          g.lineTo(a, base + rows.cellHeight + 16);
          g.lineTo(a + 5 * b, base + rows.cellHeight + 16);
          g.stroke();
        }
      }
      cellsDrawn(g, Math.max(0, Math.floor(here - place.x / width) - 1), steps.length - 1, x, width);
      pressesDrawn(g, x, width);
      const line = x(here);
      g.fillStyle = colour("--ink");
      g.fillRect(line - 0.75, 24, 1.5, rows.credit + rows.creditHeight - 24);
      g.font = "600 10px system-ui, sans-serif";
      g.textAlign = "center";
      g.fillText("now", Math.min(line, w - 12), rows.label);
      g.restore();
    },
  };
};
