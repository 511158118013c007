/* The flags of each candidate: a box for each, and a letter that switches it where the candidate has its turn. */

import { element, letter } from "./text.js";
import { heading } from "./scales.js";

/* A letter for each flag: the first of its words' letters that is free, else any that is. */
const lettersOf = (labels, taken) => {
  const free = new Set([..."abcdefghijklmnopqrstuvwxyz"].filter((one) => !taken.has(one)));
  return labels.map((label) => {
    const words = label.toLowerCase().split(/[^a-z]+/).filter(Boolean);
    const found = [...words.map((word) => word[0]), ...words.join("")].find((one) => free.has(one)) ?? [...free][0] ?? "";
    free.delete(found);
    return found;
  });
};

const flags = ({ question, card, changed, next, taken }) => {
  const names = Object.keys(question.flags);
  const letters = lettersOf(Object.values(question.flags), taken);
  const boxes = card.candidates.map(() => []);
  const stops = [];
  const parts = card.candidates.map((_, place) => {
    const part = element("fieldset", "flags");
    part.append(element("legend", "unseen", `Flags of ${letter(place)}`));
    names.forEach((name, i) => {
      const label = element("label", "flag");
      const input = element("input");
      input.type = "checkbox";
      input.addEventListener("change", changed);
      label.append(input, element("span", "", question.flags[name]));
      if (letters[i]) label.append(element("kbd", "", letters[i].toUpperCase()));
      part.append(label);
      boxes[place].push(input);
    });
    const stop = { node: part, place, focus: () => boxes[place][0]?.focus() };
    stop.key = (event) => {
      const at = letters.indexOf(event.key.toLowerCase());
      if (at < 0 || !letters[at]) return false;
      boxes[place][at].checked = !boxes[place][at].checked;
      boxes[place][at].focus();
      changed();
      return true;
    };
    stop.enter = () => next(stop);
    stops.push(stop);
    return part;
  });
  const value = () => ({ flags: boxes.map((own) => names.filter((_, i) => own[i].checked)) });
  return {
    head: heading(question, "What is true of each output?"), parts, stops, value, draft: value,
    set: (to) => boxes.forEach((own, place) => own.forEach((box, i) => { box.checked = to?.flags[place]?.includes(names[i]) ?? false; })),
    missing: () => "",
  };
};

export const FLAGS = { flags };
