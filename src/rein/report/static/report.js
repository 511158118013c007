/* The report's hands: draws each figure anew with uPlot, so that it can be hovered and zoomed, and steps
   through the samples. What it shows is on the page without it. Text goes in as text, never as HTML. */
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /* 1234567 → 1.23M; like `number` in legible.py. */
  const number = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e15) return value.toExponential(2);
    for (const [unit, name] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
      if (size >= 1e4 && size >= unit * 0.9995) return String(Number((value / unit).toPrecision(3))) + name;
    if (size >= 1000) return Math.round(value).toLocaleString("en");
    if (size > 0 && size < 1e-4) return value.toExponential(2).replace(/\.?0+e/, "e");
    return String(Number(value.toPrecision(4)));
  };

  /* ------------------------------------------------------------------------------------------ figures */

  const figures = JSON.parse($("data").textContent);
  const xs = figures.flatMap((figure) => figure.lines.flatMap((line) => line.x));
  let ends = [Infinity, -Infinity, Infinity]; // the least, the greatest, and the least above 0
  for (const x of xs) ends = [Math.min(ends[0], x), Math.max(ends[1], x), x > 0 ? Math.min(ends[2], x) : ends[2]];
  const canLog = ends[2] < ends[1];
  let log = false;
  let whole = false;
  let plots = [];

  /* One table of all lines over the union of their tokens, with the ends that every figure shares. */
  const table = (lines) => {
    const tables = lines.map((line) => {
      const keep = line.x.map((_, i) => i).filter((i) => !log || line.x[i] > 0);
      return [keep.map((i) => line.x[i]), keep.map((i) => line.y[i])];
    });
    const both = [log ? ends[2] : ends[0], ends[1]];
    tables.push([both[0] === both[1] ? [both[0]] : both, both[0] === both[1] ? [undefined] : [undefined, undefined]]);
    return uPlot.join(tables).slice(0, -1);
  };

  /* The index nearest to the cursor where this line has a value, inside what is shown. */
  const nearest = (u, series, index, x) => {
    if (series === 0) return index;
    const at = u.data[0];
    const values = u.data[series];
    let best = null;
    for (const step of [-1, 1]) {
      let i = index;
      while (i >= 0 && i < values.length && (values[i] === undefined || values[i] === null)) i += step;
      const inside = i >= 0 && i < values.length && at[i] >= u.scales.x.min && at[i] <= u.scales.x.max;
      if (inside && (best === null || Math.abs(at[i] - x) < Math.abs(at[best] - x))) best = i;
    }
    return best;
  };

  const series = (line) => {
    const points = line.style === "points" && line.x.length <= 60;
    return {
      label: line.label,
      stroke: () => colour(`--c${line.colour % 6}`) + (line.style === "raw" ? "59" : ""),
      width: { raw: 1, mean: 2, line: 1.25, points: 2 }[line.style],
      dash: line.colour > 5 ? [6, 4] : undefined,
      points: points ? { show: true, size: 7, width: 0, fill: () => colour(`--c${line.colour % 6}`) } : { show: false },
    };
  };

  const widest = (u, values) => Math.ceil(Math.max(20, ...(values || []).map((v) => String(v ?? "").length * 7)) + 14);
  const font = "12px system-ui, sans-serif";
  const axis = (more) => ({
    font,
    stroke: () => colour("--soft"),
    grid: { stroke: () => colour("--grid"), width: 1 },
    ticks: { show: false },
    values: (u, splits) => splits.map((v) => (v === null ? "" : number(v))),
    ...more,
  });

  /* uPlot's own range, or the frame that leaves a steep start out. */
  const frame = (figure) => (u, low, high) => {
    if (low === null) return [0, 1];
    const top = whole || log || figure.top === null || low >= figure.top ? high : Math.min(high, figure.top);
    const range = uPlot.rangeNum(low, top, 0.08, true);
    return top < high ? [range[0], top] : range;
  };

  const decade = (v) => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9;
  const decades = { stroke: () => colour("--grid"), width: 1, filter: (u, splits) => splits.map((v) => (decade(v) ? v : null)) };

  const draw = (figure, key, holder) => {
    const small = !figure.large;
    const hold = figure.hidden || (figure.hidden = new Set());
    const options = {
      width: holder.clientWidth,
      height: holder.clientHeight,
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: "rein", scales: ["x", null] },
        drag: { x: true, y: false, dist: 4 },
        dataIdx: nearest,
        y: false,
        points: { size: 11, width: 2, stroke: () => colour("--sheet"), fill: (u, i) => colour(`--c${figure.lines[i - 1].colour % 6}`) },
      },
      scales: { x: { time: false, distr: log ? 3 : 1, ...(log && { range: (u, low, high) => [low, high] }) }, y: { range: frame(figure) } },
      axes: [axis({ space: small ? 60 : 90, size: 30, ...(log && { grid: decades }) }), axis({ size: widest, space: small ? 36 : 44 })],
      series: [{}, ...figure.lines.map((line, i) => ({ ...series(line), show: !hold.has(i) }))],
      hooks: { setCursor: [(u) => read(u, key, figure)] },
    };
    const made = new uPlot(options, table(figure.lines), holder);
    made.figure = figure;
    made.holder = holder;
    read(made, key, figure);
    return made;
  };

  /* The values under the cursor, or the last ones. */
  const read = (u, key, figure) => {
    const over = u.cursor.idx !== null && u.cursor.idx !== undefined && u.cursor.left >= 0;
    figure.lines.forEach((line, i) => {
      const index = over ? u.cursor.idxs[i + 1] : null;
      const last = () => line.y.findLast((value) => value !== null);
      key.values[i].textContent = number(over ? (index === null ? null : u.data[i + 1][index]) : last());
    });
    key.where.textContent = over ? `at ${number(u.data[0][u.cursor.idx])} tokens` : "";
  };

  /* The key becomes buttons that hide a line, with its value beside each. */
  const keyOf = (figure, list) => {
    list.classList.add("live");
    const values = figure.lines.map((line, i) => {
      const item = list.children[i];
      const value = element("span", "value");
      if (figure.lines.length === 1) {
        item.append(value);
        return value;
      }
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(...item.childNodes, value);
      item.append(button);
      button.addEventListener("click", () => {
        const shown = figure.hidden.has(i);
        figure.hidden[shown ? "delete" : "add"](i);
        button.setAttribute("aria-pressed", String(shown));
        figure.plot.setSeries(i + 1, { show: shown });
      });
      return value;
    });
    const where = element("li", "where");
    list.append(where);
    return { values, where };
  };

  const redraw = () => {
    $("curves").classList.toggle("whole", whole || log);
    for (const plot of plots) plot.destroy();
    plots = figures.map((figure) => (figure.plot = draw(figure, figure.keyed, figure.holder)));
  };

  for (const figure of figures) {
    const place = $(`figure-${figure.key}`);
    figure.holder = place.querySelector(".plot");
    figure.keyed = keyOf(figure, place.querySelector(".key"));
    figure.holder.classList.add("drawn");
  }
  redraw();
  if (figures.length) {
    $("curves").classList.add("live");
    const tools = document.querySelector("#curves .tools");
    tools.hidden = false;
    $("log-x").disabled = !canLog;
    $("log-x").checked = false;
    $("log-x").addEventListener("change", (event) => { log = event.target.checked; redraw(); });
    if ($("whole")) {
      $("whole").checked = false;
      $("whole").addEventListener("change", (event) => { whole = event.target.checked; redraw(); });
    }
    $("reset").addEventListener("click", redraw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    const watch = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        const plot = plots.find((one) => one.holder === target);
        if (plot && target.clientWidth && (plot.width !== target.clientWidth || plot.height !== target.clientHeight))
          plot.setSize({ width: target.clientWidth, height: target.clientHeight });
      }
    });
    for (const figure of figures) watch.observe(figure.holder);
  }

  /* ------------------------------------------------------------------------------------------ samples */

  const slider = $("evaluation");
  if (slider) {
    const section = $("samples");
    const groups = [...section.querySelectorAll(".evaluation")];
    const show = (index) => {
      slider.value = String(index);
      groups.forEach((group, i) => group.classList.toggle("current", i === index));
      const words = `${groups[index].querySelector("h3").textContent} (${index + 1} of ${groups.length})`;
      slider.setAttribute("aria-valuetext", words);
      $("which").textContent = words;
      $("earlier").disabled = index === 0;
      $("later").disabled = index === groups.length - 1;
    };
    slider.addEventListener("input", () => show(Number(slider.value)));
    $("earlier").addEventListener("click", () => show(Number(slider.value) - 1));
    $("later").addEventListener("click", () => show(Number(slider.value) + 1));
    $("all-samples").checked = false;
    $("all-samples").addEventListener("change", (event) => {
      section.classList.toggle("stepped", !event.target.checked);
      section.querySelector(".stepper").hidden = event.target.checked;
    });
    section.classList.add("stepped");
    section.querySelector(".stepper").hidden = false;
    section.querySelector(".tools").hidden = false;
    show(groups.length - 1);
  }
})();
