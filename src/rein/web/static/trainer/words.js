/* Small things that every part needs: elements, numbers, colours, canvases, and the sign of an action. */

import { $, element } from "../elements.js";

export { $, element };

/* Read once per theme: drawings ask for colours some hundred times a frame. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const colours = new Map();
dark.addEventListener("change", () => colours.clear());
export const colour = (name) => {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return colours.get(name);
};
export const onTheme = (then) => dark.addEventListener("change", then);

const calm = matchMedia("(prefers-reduced-motion: reduce)");
export const still = () => calm.matches;
const coarse = matchMedia("(pointer: coarse)");
export const touch = () => coarse.matches; // a finger, and probably no keys: the words say buttons instead

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/* -0.12345 → −0.123: four digits at most, and a minus that is one. */
export const number = (value, digits = 3) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
};

export const signed = (value, digits) => (value > 0 ? "+" : "") + number(value, digits);

/* Actions keep away from blue and orange, which are praise and blame; the middle one of three is grey. */
export const actionColour = (action, count) => `--a${count === 2 ? [0, 2][action] : action % 6}`;

/* An arrow where the name has a direction, else a first letter, else a number: one sign for each action. */
const arrows = [[/\b(left|west)\b/i, "←"], [/\b(right|east)\b/i, "→"], [/\b(up|north)\b/i, "↑"], [/\b(down|south)\b/i, "↓"],
  [/\b(coast|stay|nothing|noop|no-op|none|no torque|idle|wait)\b/i, "·"], [/[-−]\s*\d/, "−"], [/\+\s*\d/, "+"]];
export const signsOf = (names) => {
  const signs = names.map((name) => (arrows.find(([pattern]) => pattern.test(name)) || [null, name[0].toUpperCase()])[1]);
  return new Set(signs).size === signs.length ? signs : names.map((_, i) => String(i + 1));
};

/* A canvas in CSS pixels on a screen of any density; `changed` is called when its size or the colours are others. */
export const paper = (canvas, changed) => {
  const g = canvas.getContext("2d");
  const made = { g, canvas, width: 0, height: 0, ready: false };
  const fit = () => {
    const density = devicePixelRatio || 1;
    made.width = canvas.clientWidth;
    made.height = canvas.clientHeight;
    made.ready = made.width > 0 && made.height > 0;
    canvas.width = Math.round(made.width * density);
    canvas.height = Math.round(made.height * density);
    g.setTransform(density, 0, 0, density, 0, 0);
    changed();
  };
  new ResizeObserver(fit).observe(canvas);
  const watch = () => matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => { fit(); watch(); }, { once: true });
  watch();
  onTheme(() => changed());
  return made;
};
