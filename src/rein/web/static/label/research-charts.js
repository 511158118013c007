/* Figures of the researcher's pages, as SVG drawn here: dots with their intervals, bars, spans of time. Colours come from
   classes, so that a figure follows the theme. Each is drawn anew when its width changes, and a table says the same. */

import { element } from "./text.js";

const NS = "http://www.w3.org/2000/svg";
const make = (tag, given, ...inside) => {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, typeof value === "number" ? value.toFixed(1) : value);
  made.append(...inside);
  return made;
};

/* `draw(width)` gives an SVG; it is asked again for another width. */
const figure = (label, draw) => {
  const holder = element("div", "figure");
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.floor(holder.clientWidth);
    if (!now || now === width) return;
    width = now;
    const svg = draw(width);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    holder.replaceChildren(svg);
  }).observe(holder);
  return holder;
};

/* Round steps that divide `from` to `to` into about `count` parts. */
export const steps = (from, to, count) => {
  const rough = (to - from) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(from / step - 1e-9) * step; at <= to + step * 1e-9; at += step) found.push(Number(at.toFixed(10)));
  return found;
};

export const legend = (series) => {
  const made = element("ul", "legend");
  made.append(...series.map(({ name, tone }) => {
    const item = element("li");
    item.append(element("i", `swatch ${tone}`), name);
    return item;
  }));
  return made;
};

const EDGE = { left: 46, right: 14, top: 12, bottom: 40 };

/* Dots with whiskers, with a line through those of a series that has `line`, and names beside those that have one.
   x and y are {from, to, ticks, says, name}; `rules` are {y, says}. */
export const dots = ({ label, x, y, series, rules = [], height = 260 }) => figure(label, (width) => {
  const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  const px = (value) => EDGE.left + ((value - x.from) / (x.to - x.from || 1)) * (width - EDGE.left - EDGE.right);
  const py = (value) => height - EDGE.bottom - ((value - y.from) / (y.to - y.from || 1)) * (height - EDGE.top - EDGE.bottom);
  for (const tick of y.ticks) {
    svg.append(make("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: py(tick), y2: py(tick) }));
    svg.append(make("text", { class: "axis end", x: EDGE.left - 7, y: py(tick) + 4 }, y.says(tick)));
  }
  const every = Math.max(1, Math.ceil(x.ticks.length / Math.max(2, Math.floor((width - 60) / 64))));
  x.ticks.forEach((tick, i) => {
    if (i % every === 0) svg.append(make("text", { class: "axis middle", x: px(tick), y: height - EDGE.bottom + 18 }, x.says(tick)));
  });
  svg.append(make("text", { class: "axis middle", x: (EDGE.left + width - EDGE.right) / 2, y: height - 4 }, x.name));
  for (const rule of rules) {
    svg.append(make("line", { class: "rule", x1: EDGE.left, x2: width - EDGE.right, y1: py(rule.y), y2: py(rule.y) }));
    svg.append(make("text", { class: "axis end", x: width - EDGE.right, y: py(rule.y) - 4 }, rule.says));
  }
  const names = [];
  for (const { points, tone, line } of series) {
    const there = points.filter((one) => one.y !== null);
    if (line && there.length > 1) svg.append(make("polyline", { class: `line ${tone}`, points: there.map((one) => `${px(one.x).toFixed(1)},${py(one.y).toFixed(1)}`).join(" ") }));
    for (const one of there) {
      const [cx, cy] = [px(one.x), py(one.y)];
      if (one.low !== undefined) svg.append(make("line", { class: `whisker ${tone}`, x1: cx, x2: cx, y1: py(Math.max(one.low, y.from)), y2: py(Math.min(one.high, y.to)) }));
      svg.append(make("circle", { class: `dot ${tone}`, cx, cy, r: 4.5 }, make("title", {}, one.says)));
      if (one.name) names.push({ text: one.name, x: cx, y: cy + 4 });
    }
  }
  // A name never lies on another one: the lower of two moves down.
  names.sort((a, b) => a.y - b.y);
  names.forEach((one, i) => {
    for (const other of names.slice(0, i)) if (Math.abs(other.x - one.x) < 90 && one.y - other.y < 13) one.y = other.y + 13;
    const left = one.x > width * 0.7;
    svg.append(make("text", { class: left ? "name end" : "name", x: one.x + (left ? -9 : 9), y: one.y }, one.text.length > 18 ? `${one.text.slice(0, 17)}…` : one.text));
  });
  return svg;
});

/* One bar for each value; `says(i)` is its text. */
export const bars = ({ label, values, says, under, height = 150 }) => figure(label, (width) => {
  const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  const most = Math.max(4, ...values);
  const [bottom, right] = [26, 8];
  const wide = (width - EDGE.left - right) / values.length;
  const py = (value) => height - bottom - (value / most) * (height - bottom - EDGE.top);
  for (const tick of steps(0, most, 3)) {
    svg.append(make("line", { class: "grid", x1: EDGE.left, x2: width - right, y1: py(tick), y2: py(tick) }));
    svg.append(make("text", { class: "axis end", x: EDGE.left - 7, y: py(tick) + 4 }, tick.toLocaleString("en")));
  }
  values.forEach((value, i) => {
    svg.append(make("rect", { class: "bar", x: EDGE.left + i * wide + wide * 0.15, width: wide * 0.7, y: py(value), height: Math.max(0, height - bottom - py(value)) }, make("title", {}, says(i))));
  });
  for (const [i, text] of under) {
    svg.append(make("text", { class: i === 0 ? "axis" : "axis end", x: EDGE.left + (i === 0 ? 0 : (i + 1) * wide), y: height - 7 }, text));
  }
  return svg;
});

/* Spans from one time to another, one below the other: {name, from, to, says, ended, done}; `done` fills that share. */
export const spans = ({ label, rows, from, to, says }) => figure(label, (width) => {
  const [row, top, left] = [40, 6, 4];
  const height = top + rows.length * row + 24;
  const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  const px = (ms) => left + ((ms - from) / (to - from || 1)) * (width - 2 * left);
  rows.forEach((one, i) => {
    const y = top + i * row;
    const long = Math.max(6, px(one.to) - px(one.from));
    const x = Math.min(px(one.from), width - left - long);
    svg.append(make("rect", { class: "span", x, y: y + 20, width: long, height: 10, rx: 3 }, make("title", {}, one.says)));
    svg.append(make("rect", { class: one.ended ? "span ended" : "span full", x, y: y + 20, width: long * one.done, height: 10, rx: 3 }));
    const late = x > width * 0.5;
    svg.append(make("text", { class: late ? "name end" : "name", x: late ? width - left : x, y: y + 14 }, `${one.name.length > 24 ? `${one.name.slice(0, 23)}…` : one.name}, ${one.says}`));
  });
  svg.append(make("line", { class: "grid", x1: left, x2: width - left, y1: height - 20, y2: height - 20 }));
  svg.append(make("text", { class: "axis", x: left, y: height - 5 }, says(from)), make("text", { class: "axis end", x: width - left, y: height - 5 }, says(to)));
  return svg;
});

/* A share with its interval on a line from 0 to 1, as wide as a word; the cell beside it has the numbers. */
export const whisker = (one) => {
  const svg = make("svg", { class: "spark", width: 96, height: 16, viewBox: "0 0 96 16", "aria-hidden": "true" });
  const px = (value) => 4 + value * 88;
  svg.append(make("line", { class: "grid", x1: 4, x2: 92, y1: 8, y2: 8 }), make("line", { class: "rule", x1: 48, x2: 48, y1: 2, y2: 14 }));
  if (one?.value !== null && one?.value !== undefined) {
    svg.append(make("line", { class: "whisker c0", x1: px(one.low), x2: px(one.high), y1: 8, y2: 8 }), make("circle", { class: "dot c0", cx: px(one.value), cy: 8, r: 4 }));
  }
  return svg;
};
