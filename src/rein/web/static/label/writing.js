/* Questions that are answered in words: a demonstration, and an edit of a candidate with its changes marked. */

import { element, letter, many, put, words, written } from "./text.js";
import { heading } from "./scales.js";
import { changes } from "./diff.js";

const MOST = 20_000; // characters; the server says the same

const field = (label, changed) => {
  const box = element("textarea", "writing");
  box.rows = 8;
  box.dir = "auto";
  box.maxLength = MOST;
  box.setAttribute("aria-label", label);
  const count = element("p", "quiet count");
  const below = element("div", "below");
  below.append(element("p", "quiet typing-hint", "Esc leaves the box for the keys; Ctrl Enter hands in."), count);
  const show = () => put(count, `${many(words(box.value), "word")}${box.value.length > 0.9 * MOST ? `, ${(MOST - box.value.length).toLocaleString("en")} characters left` : ""}`);
  box.addEventListener("input", () => { show(); changed(); });
  return { box, below, show };
};

const stopOf = (box) => ({ node: box, focus: () => box.focus(), key: () => false, writes: true });

const demonstration = ({ question, changed }) => {
  const node = element("fieldset", "demonstration");
  const { box, below, show } = field(question.text || "Write the answer yourself", changed);
  node.append(heading(question, "Write the answer yourself"), box, below);
  show();
  return {
    node,
    value: () => (box.value.trim() ? { text: box.value } : null),
    draft: () => (box.value ? { text: box.value } : null),
    set: (to) => { box.value = to?.text ?? ""; show(); },
    missing: () => (box.value.trim() ? "" : "nothing is written yet"),
    stops: [stopOf(box)],
  };
};

const edit = ({ question, card, changed }) => {
  const node = element("fieldset", "edit");
  let which = 0;
  const original = () => card.candidates[which]?.text ?? "";
  const marks = element("p", "said marks");
  marks.dir = "auto";
  const mark = () => {
    const runs = changes(original(), box.value);
    marks.hidden = box.value === original();
    if (marks.hidden) return;
    marks.replaceChildren(...(runs ?? [{ text: "too long to mark the changes", act: "same" }]).map(({ text, act }) => {
      const piece = element({ same: "span", gone: "del", new: "ins" }[act]);
      piece.append(written(text));
      return piece;
    }));
  };
  const { box, below, show } = field(question.text || "Make it better", () => { mark(); changed(); });
  const fill = (text) => { box.value = text; show(); mark(); };
  node.append(heading(question, "Make it better"));
  let pick = null;
  if (card.candidates.length > 1) {
    pick = element("select");
    card.candidates.forEach((_, place) => pick.append(new Option(letter(place), place)));
    const label = element("label", "row");
    label.append(element("span", "", "Edit"), pick);
    pick.addEventListener("change", () => { which = Number(pick.value); fill(original()); changed(); });
    node.append(label);
  }
  node.append(box, below, element("h3", "unseen", "Changes"), marks);
  fill(original());
  const draft = () => (box.value === original() && which === 0 ? null : { candidate: which, text: box.value });
  return {
    node, draft,
    value: () => (box.value.trim() && box.value !== original() ? { candidate: which, text: box.value } : null),
    set: (to) => {
      which = to?.candidate ?? 0;
      if (pick) pick.value = which;
      fill(to?.text ?? original());
    },
    missing: () => (box.value.trim() ? (box.value === original() ? "nothing is changed yet" : "") : "nothing is written"),
    stops: [stopOf(box)],
  };
};

export const WRITING = { demonstration, edit };
