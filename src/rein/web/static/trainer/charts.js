/* Two figures: what the model of the trainer expects of each action (with Q beside it where there is a Q), and the
   return of each episode, taught and untaught, over the band of SARSA alone. */

import { $, actionColour, colour, element, number, onTheme, signed, signsOf } from "./words.js";

/* --------------------------------------------------------------------------------------------------- bars */

export const bars = (act) => {
  const holder = $("bars");
  let rows = [];
  let top = 0.1; // the scale only grows, or bars of nearly nothing would fill the box
  let least = Infinity;
  let most = -Infinity;
  let held = null;

  const build = (task, demonstrating, withQ) => {
    const signs = signsOf(task.actions);
    rows = task.actions.map((name, i) => {
      const label = element(demonstrating ? "button" : "div", "name");
      const glyph = element("i", "glyph", signs[i]);
      glyph.style.setProperty("--line", `var(${actionColour(i, task.actions.length)})`);
      label.append(glyph, element("span", "", name));
      if (demonstrating) {
        label.type = "button";
        if (i < 9) label.append(element("kbd", "", String(i + 1)));
        label.addEventListener("click", () => act(i));
      }
      const [h, q] = [element("div", "bar"), element("div", "bar from-left")];
      h.append(element("i"));
      q.append(element("i"));
      const made = { label, h, q, value: element("span", "value", "–"), qValue: element("span", "value q") };
      return made;
    });
    holder.replaceChildren(...rows.flatMap(({ label, h, q, value, qValue }) => (withQ ? [label, h, value, element("span", "q", "RL's own value (Q)"), q, qValue] : [label, h, value])));
  };

  let made = "";
  return {
    reset: () => { made = ""; top = 0.1; least = Infinity; most = -Infinity; held = null; },
    hold: (action) => { held = action; rows.forEach(({ label }, i) => label.setAttribute("aria-pressed", String(i === action))); },
    draw: (task, step, demonstrating) => {
      const withQ = Boolean(step?.q);
      const key = `${task.actions.join()}|${demonstrating}|${withQ}`;
      if (key !== made) {
        build(task, demonstrating, withQ);
        made = key;
        if (demonstrating && held !== null) rows[held]?.label.setAttribute("aria-pressed", "true");
      }
      $("bars-title").textContent = demonstrating ? "You act: choose an action" : "What it expects from you";
      const weight = step?.h_weight;
      $("weight").textContent = weight === null || weight === undefined ? "predicted feedback per action" : `weight of your word in the choice: ${number(weight)}`;
      if (!step) return;
      top = Math.max(top, ...step.h.map(Math.abs));
      if (withQ) [least, most] = [Math.min(least, ...step.q), Math.max(most, ...step.q)];
      rows.forEach(({ label, h, q, value, qValue }, i) => {
        const size = step.h[i] / top;
        const fill = h.firstChild;
        fill.className = size < 0 ? "minus" : "";
        fill.style.left = `${50 + Math.min(0, size) * 50}%`;
        fill.style.width = `${Math.abs(size) * 50}%`;
        value.textContent = signed(Number(step.h[i].toFixed(3)));
        label.classList.toggle("chosen", i === step.action);
        value.classList.toggle("chosen", i === step.action);
        if (!withQ) return;
        q.firstChild.style.width = `${(100 * (step.q[i] - least)) / (most - least || 1)}%`;
        qValue.textContent = number(step.q[i], 4);
      });
    },
  };
};

/* -------------------------------------------------------------------------------------------------- chart */

export const chart = () => {
  const holder = $("chart");
  let plot = null;
  let taught = new Map(); // episode → return
  let plain = new Map();
  let band = null;

  const names = () => [["taught", "--on", ""], ...(plain.size ? [["plain RL", "--a4", "dash"]] : []), ...(band ? [[band.label, "--a3", "band"]] : [])];

  const table = () => {
    const last = Math.max(10, ...taught.keys(), ...plain.keys());
    const shown = Math.ceil((last + 2) / 5) * 5;
    const xs = Array.from({ length: shown }, (_, i) => i + 1);
    const of = (list) => xs.map((x) => list?.[x - 1] ?? null);
    return [xs, of(band?.low), of(band?.high), of(band?.mean), xs.map((x) => plain.get(x) ?? null), xs.map((x) => taught.get(x) ?? null)];
  };

  const read = (u) => {
    const at = u.cursor.left >= 0 && u.cursor.idx !== null && u.cursor.idx !== undefined ? u.cursor.idx : null;
    $("chart-where").textContent = at === null ? "" : `episode ${u.data[0][at]}`;
    const last = (map) => map.get(Math.max(...map.keys()));
    const values = at === null ? [last(taught), last(plain), null] : [u.data[5][at], u.data[4][at], u.data[3][at]];
    keyDrawn(names().map(([name]) => values[name === "taught" ? 0 : name === "plain RL" ? 1 : 2]));
  };
  const keyDrawn = (values) =>
    $("chart-key").replaceChildren(...names().map(([name, tone, kind], i) => {
      const item = element("li");
      const swatch = element("span", `swatch ${kind}`);
      swatch.style.setProperty("--line", `var(${tone})`);
      item.append(swatch, name);
      if (values[i] !== null && values[i] !== undefined) item.append(element("b", "", number(values[i])));
      return item;
    }));

  const axis = (more) => ({
    font: "11px system-ui, sans-serif",
    stroke: () => colour("--soft"),
    grid: { stroke: () => colour("--grid"), width: 1 },
    ticks: { show: false },
    values: (u, splits) => splits.map((v) => (v === null ? "" : number(v))),
    ...more,
  });
  const points = (tone) => ({ show: true, size: 6, width: 0, fill: () => colour(tone) });
  const build = () => {
    plot?.destroy();
    plot = null;
    const empty = !taught.size && !plain.size && !band;
    $("chart-empty").hidden = !empty;
    holder.hidden = empty;
    keyDrawn([]);
    if (empty) return;
    const faint = () => `color-mix(in srgb, ${colour("--a3")} 26%, transparent)`;
    plot = new uPlot({
      width: holder.clientWidth,
      height: holder.clientHeight,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 9 } },
      scales: { x: { time: false, range: (u, low, high) => [low, high] } },
      axes: [axis({ size: 26, space: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] }), axis({ size: 48, space: 32 })],
      bands: [{ series: [2, 1], fill: faint }],
      series: [
        {},
        { stroke: "transparent", points: { show: false } },
        { stroke: "transparent", points: { show: false } },
        { stroke: () => colour("--a3"), width: 1.25, points: { show: false } },
        { stroke: () => colour("--a4"), width: 1.5, dash: [3, 4], spanGaps: true, points: points("--a4") },
        { stroke: () => colour("--on"), width: 2.25, spanGaps: true, points: points("--on") },
      ],
      hooks: { setCursor: [read] },
    }, table(), holder);
    read(plot);
  };

  new ResizeObserver(() => {
    if (plot && holder.clientWidth && (plot.width !== holder.clientWidth || plot.height !== holder.clientHeight)) plot.setSize({ width: holder.clientWidth, height: holder.clientHeight });
  }).observe(holder);
  onTheme(() => build());

  return {
    reset: (welcome) => {
      const mapped = (list) => new Map(list.map((one) => [one.n, one.return]));
      taught = mapped(welcome.episodes);
      plain = mapped(welcome.plain_episodes);
      band = welcome.band;
      build();
    },
    take: (found) => {
      band = found;
      build();
    },
    add: (episode) => {
      (episode.plain ? plain : taught).set(episode.n, episode.return);
      if (!plot) return build();
      plot.setData(table());
      read(plot);
    },
  };
};
