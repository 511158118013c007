/* Questions that are answered on a scale: which of two and how surely, which of several, how good each is, and how good
   each is along several axes. A question gives `stops`, the places that keys go to, one after the other; `parts`, what
   stands with each candidate, or a `node` for all of them; and its answer in the order of the screen. */

import { element, letter } from "./text.js";

let made = 0;

/* A row of radio buttons with their values printed on them: [{ value, text, says }]. `ready()`: whether one may be chosen. */
const row = (label, choices, chosen, name = "", ready = () => true) => {
  const node = element("div", `scale ${name}`);
  const group = `scale-${(made += 1)}`;
  node.setAttribute("role", "radiogroup");
  node.setAttribute("aria-label", label);
  const inputs = choices.map(({ value, text, says, off }) => {
    const box = element("label", "point");
    const input = element("input");
    input.type = "radio";
    input.name = group;
    input.value = value;
    input.disabled = Boolean(off);
    input.setAttribute("aria-label", says ?? String(text));
    if (says) box.title = says;
    input.addEventListener("click", (event) => { if (!ready()) event.preventDefault(); });
    input.addEventListener("change", () => chosen(value));
    box.append(input, element("span", "", text));
    node.append(box);
    return input;
  });
  const set = (value) => inputs.forEach((input) => { input.checked = value !== null && input.value === String(value); });
  const get = () => inputs.find((input) => input.checked)?.value ?? null;
  const focus = () => (inputs.find((input) => input.checked) ?? inputs.find((input) => !input.disabled)).focus({ preventScroll: false });
  return { node, get, set, focus, has: (value) => inputs.some((input) => input.value === String(value) && !input.disabled) };
};

/* A digit key chooses the point of that number. */
const byDigit = (scale, chosen, ready = () => true) => (event) => {
  if (!/^[1-9]$/.test(event.key) || !scale.has(event.key)) return false;
  if (!ready()) return true;
  scale.set(event.key);
  scale.focus();
  chosen(Number(event.key));
  return true;
};

export const heading = (question, words) => {
  const head = element("div", "ask");
  head.append(element("h2", "", question.text || words));
  const points = Object.entries(question.rubric ?? {});
  if (points.length) {
    const list = element("dl", "rubric");
    for (const [point, text] of points) {
      const pair = element("div");
      pair.append(element("dt", "", point), element("dd", "", text));
      list.append(pair);
    }
    head.append(list);
  }
  return head;
};

/* ------------------------------------------------------------------------------------ which of two, how surely */

const STRENGTH = ["slightly better", "better", "clearly better", "much better"];
/* What a point of a comparison's scale says: point 1 of 9 is "A is much better". */
const pointWords = (point, points) => {
  const from = point - (points + 1) / 2;
  if (from === 0) return "even";
  const steps = (points - 1) / 2;
  const grade = STRENGTH[Math.min(3, Math.ceil((Math.abs(from) / steps) * 4) - 1)];
  return `${from < 0 ? "A" : "B"} is ${grade}`;
};

const comparison = ({ question, changed, ready }) => {
  const { points } = question;
  const middle = (points + 1) / 2;
  const node = element("fieldset", "comparison");
  const read = element("p", "chosen");
  const say = (point) => { read.textContent = point === null ? "" : `${point}: ${pointWords(point, points)}`; };
  const chosen = (point) => { say(point); changed(); };
  const choices = Array.from({ length: points }, (_, i) => ({
    value: i + 1, text: i + 1, says: `${i + 1}, ${pointWords(i + 1, points)}`, off: !question.ties && i + 1 === middle,
  }));
  const scale = row(question.text || "Which is better?", choices, chosen, "two-sided", ready);
  const ends = element("div", "ends");
  ends.setAttribute("aria-hidden", "true");
  ends.append(element("span", "a", "A is much better"), element("span", "", question.ties ? "even" : ""), element("span", "b", "B is much better"));
  const head = heading(question, "Which is better?");
  head.append(read);
  node.append(head, ends, scale.node);
  const value = () => {
    const point = scale.get();
    if (point === null) return null;
    const n = Number(point);
    return { choice: n < middle ? 0 : n > middle ? 1 : null, points: n };
  };
  return {
    node, value, draft: value,
    set: (to) => { scale.set(to?.points ?? null); say(to?.points ?? null); },
    missing: () => (scale.get() === null ? `choose from 1 (A) to ${points} (B)` : ""),
    stops: [{ node: scale.node, focus: scale.focus, key: byDigit(scale, chosen, ready) }],
  };
};

/* ------------------------------------------------------------------------------------------------- which of all */

const bestOf = ({ question, card, changed, ready }) => {
  const node = element("fieldset", "best");
  const choices = card.candidates.map((_, place) => ({ value: place + 1, text: `${place + 1} · ${letter(place)}`, says: `${place + 1}, ${letter(place)} is the best` }));
  const scale = row(question.text || "Which is the best?", choices, changed, "", ready);
  node.append(heading(question, "Which is the best?"), scale.node);
  const value = () => (scale.get() === null ? null : { best: Number(scale.get()) - 1 });
  return {
    node, value, draft: value,
    set: (to) => scale.set(to ? to.best + 1 : null),
    missing: () => (scale.get() === null ? "choose the best one" : ""),
    stops: [{ node: scale.node, focus: scale.focus, key: byDigit(scale, changed, ready) }],
  };
};

/* --------------------------------------------------------------------------------- how good each is, on any axes */

const SHORT = 40; // characters that still fit at the end of a scale

/* `axes` of each candidate, each a scale; after a digit the next one has its turn. */
const rows = ({ question, card, changed, next }, axes, words) => {
  const { points } = question;
  const meant = { 1: "worst", [points]: "best", ...question.rubric };
  const choices = Array.from({ length: points }, (_, i) => {
    const says = meant[i + 1];
    return { value: i + 1, text: i + 1, says: says ? `${i + 1}, ${says}` : undefined };
  });
  // Where the scale is, beside each candidate, not only at the head of them all.
  const endsNode = () => {
    const node = element("div", "ends");
    node.setAttribute("aria-hidden", "true"); // each point says it by itself
    node.append(...[[1, "worst"], [points, "best"]].map(([point, plain]) => element("span", "", `${point} ${meant[point].length > SHORT ? plain : meant[point]}`)));
    return node;
  };
  const scales = card.candidates.map((_, place) => axes.map((axis) => row(`${axis ?? words}, ${letter(place)}`, choices, () => changed())));
  const stops = [];
  const parts = scales.map((own, place) => {
    const part = element("div", "axes");
    part.append(endsNode());
    own.forEach((scale, i) => {
      const line = element("div", "axis");
      if (axes[i] !== null) line.append(element("span", "name", axes[i]));
      else line.append(element("span", "name", question.text ? "rating" : words));
      line.append(scale.node);
      part.append(line);
      const stop = { node: line, focus: scale.focus, place };
      const digit = byDigit(scale, () => { changed(); next(stop); });
      stop.key = digit;
      stops.push(stop);
    });
    return part;
  });
  const numbers = () => scales.map((own) => own.map((scale) => (scale.get() === null ? null : Number(scale.get()))));
  return { scales, stops, parts, numbers, head: heading(question, words) };
};

const missingOf = (numbers, axes) => {
  for (const [place, own] of numbers.entries()) {
    const at = own.indexOf(null);
    if (at >= 0) return axes[at] === null ? `rate ${letter(place)}` : `${axes[at]} of ${letter(place)} is not said`;
  }
  return "";
};

const rating = (given) => {
  const made = rows(given, [null], "How good is each output?");
  const flat = () => made.numbers().map(([n]) => n);
  return {
    head: made.head, parts: made.parts, stops: made.stops,
    value: () => (flat().includes(null) ? null : { ratings: flat() }),
    draft: () => ({ ratings: flat() }),
    ratings: flat,
    set: (to) => made.scales.forEach(([scale], place) => scale.set(to?.ratings[place] ?? null)),
    missing: () => missingOf(made.numbers(), [null]),
  };
};

const likert = (given) => {
  const { axes } = given.question;
  const made = rows(given, axes, "How good is each, along each axis?");
  const said = () => made.numbers().map((own) => Object.fromEntries(axes.map((axis, i) => [axis, own[i]])));
  return {
    head: made.head, parts: made.parts, stops: made.stops,
    value: () => (made.numbers().flat().includes(null) ? null : { axes: said() }),
    draft: () => ({ axes: said() }),
    ratings: () => made.numbers().map((own) => own[Math.max(0, axes.indexOf("overall"))]),
    set: (to) => made.scales.forEach((own, place) => own.forEach((scale, i) => scale.set(to?.axes[place]?.[axes[i]] ?? null))),
    missing: () => missingOf(made.numbers(), axes),
  };
};

export const SCALES = { comparison, best_of: bestOf, rating, likert };
