/* Fields for the right answer to an item, in the order of its candidates: one set for each kind that is compared. */

import { element, letter, said } from "./text.js";
import { choice, field, input, tick } from "./research-page.js";

const optional = (options) => [["", "not set"], ...options];
const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => [String(from + i), String(from + i)]);
const each = (count, make) => Array.from({ length: count }, (_, k) => make(k));
const all = (controls) => controls.every(({ value }) => value !== "");
const some = (controls) => controls.some(({ value }) => value !== "");

/* Choices of numbers, one each candidate. `of(values)` is the value once all are chosen. */
const perCandidate = (count, words, options, old, of) => {
  const controls = each(count, (k) => choice(optional(options), old ? String(old[k]) : ""));
  return {
    nodes: controls.map((control, k) => field(`${words} ${letter(k)}`, control)),
    read: () => (all(controls) ? of(controls.map(({ value }) => Number(value))) : null),
    partly: () => some(controls) && !all(controls),
  };
};

const comparisonWords = (point, points) => {
  const middle = (points + 1) / 2;
  if (point === middle) return `${point}: even`;
  return `${point}: ${point < middle ? "A" : "B"} is better${Math.abs(point - middle) === middle - 1 ? ", by far" : ""}`;
};

const MAKERS = {
  comparison: ({ points }, _, old) => {
    const middle = (points + 1) / 2;
    const control = choice(optional(each(points, (i) => [String(i + 1), comparisonWords(i + 1, points)])), old?.points ? String(old.points) : "");
    const read = () => {
      const point = Number(control.value);
      return point ? { choice: point === middle ? null : Number(point > middle), points: point } : null;
    };
    return { nodes: [field("Which is better", control)], read };
  },
  best_of: (_, count, old) => {
    const control = choice(optional(each(count, (k) => [String(k), letter(k)])), old ? String(old.best) : "");
    return { nodes: [field("The best", control)], read: () => (control.value === "" ? null : { best: Number(control.value) }) };
  },
  ranking: (_, count, old) => perCandidate(count, "Rank of", numbers(1, count), old?.ranks, (ranks) => ({ ranks })),
  rating: ({ points }, count, old) => perCandidate(count, "Rating of", numbers(1, points), old?.ratings, (ratings) => ({ ratings })),
  likert: ({ axes, points }, count, old) => {
    const rows = each(count, (k) => axes.map((axis) => [axis, choice(optional(numbers(1, points)), old ? String(old.axes[k][axis] ?? "") : "")]));
    const controls = rows.flat().map(([, control]) => control);
    return {
      nodes: rows.flatMap((own, k) => own.map(([axis, control]) => field(`${letter(k)}, ${axis}`, control))),
      read: () => (all(controls) ? { axes: rows.map((own) => Object.fromEntries(own.map(([axis, { value }]) => [axis, Number(value)]))) } : null),
      partly: () => some(controls) && !all(controls),
    };
  },
  flags: ({ flags }, count, old) => {
    const set = input("checkbox", Boolean(old));
    const line = tick("The right flags are known", set);
    const rows = each(count, (k) => flags.map((name) => [name, input("checkbox", old?.flags[k].includes(name))]));
    const boxes = rows.map((own, k) => {
      const box = element("fieldset", "whole");
      const inside = element("div", "fields tight");
      inside.append(...own.map(([name, control]) => tick(name.replaceAll("_", " "), control)));
      box.append(element("legend", "", letter(k)), inside);
      return box;
    });
    line.classList.add("whole");
    const fold = () => boxes.forEach((box) => { box.hidden = !set.checked; });
    set.addEventListener("change", fold);
    fold();
    return { nodes: [line, ...boxes], read: () => (set.checked ? { flags: rows.map((own) => own.filter(([, { checked }]) => checked).map(([name]) => name)) } : null) };
  },
};

/* `node`, and `read()`: the answers by question, or a text that says what is missing. */
export const goldFields = (questions, count, old) => {
  const node = element("div", "stack");
  const made = questions.filter(({ kind }) => MAKERS[kind]).map((question) => {
    const own = MAKERS[question.kind](question, count, old?.[question.name]);
    const box = element("fieldset");
    const fields = element("div", "fields");
    fields.append(...own.nodes);
    const legend = element("legend");
    legend.append(said(question.text || question.name, "span"));
    box.append(legend, fields);
    node.append(box);
    return [question.name, own];
  });
  return {
    node,
    any: made.length > 0,
    read: () => {
      const half = made.find(([, own]) => own.partly?.());
      if (half) return `${half[0]}: a value for each, or for none.`;
      const answers = Object.fromEntries(made.map(([name, own]) => [name, own.read()]).filter(([, value]) => value !== null));
      return Object.keys(answers).length ? answers : "Say what is right first.";
    },
  };
};
