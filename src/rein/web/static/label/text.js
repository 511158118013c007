/* Texts that somebody else wrote, as they may be shown: always as text, with what cannot be seen in a box that says
   what it is, and with its direction kept to itself. Numbers, times and lengths in words. */

import { $, element } from "../elements.js";

export { $, element };

/* Controls, marks that turn the direction of text, characters without a width, tags, halves of a pair. A joiner
   between two pictures or letters belongs to them (👩‍🚀, می‌خواهم) and stays as it is. */
const UNSEEN = new RegExp([
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]",
  "[\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb]",
  "[\\u{e0000}-\\u{e0fff}]",
  "[\\ud800-\\udfff]", // by itself: the two of a pair are one character here
  "(?<![\\p{L}\\p{M}\\p{Extended_Pictographic}\\p{Emoji_Modifier}\\ufe0f])[\\u200c\\u200d]",
  "[\\u200c\\u200d](?![\\p{L}\\p{M}\\p{Extended_Pictographic}])",
].join("|"), "gu");
const NAMES = { "\u0000": "NUL", "\u001b": "ESC", "\r": "CR", "\u200b": "ZWSP", "\u200c": "ZWNJ", "\u200d": "ZWJ", "\ufeff": "BOM", "\u00ad": "SHY" };

const nameOf = (found) => NAMES[found] ?? `U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

/* `text` as nodes: text nodes, and a box for each character that would not be seen. */
export const written = (text) => {
  const made = document.createDocumentFragment();
  const whole = String(text).replaceAll("\r\n", "\n");
  let at = 0;
  for (const found of whole.matchAll(UNSEEN)) {
    if (found.index > at) made.append(whole.slice(at, found.index));
    const box = element("span", "boxed", nameOf(found[0]));
    box.title = `an invisible character, ${nameOf(found[0])}`;
    made.append(box);
    at = found.index + found[0].length;
  }
  if (at < whole.length) made.append(whole.slice(at));
  return made;
};

/* What a labeler asked, or flagged, as others read it. */
export const askedWords = (text) => text.replace(/^Flag: /, "Flagged: ");

/* A paragraph of somebody's text. */
export const said = (text, tag = "p", name = "said") => {
  const made = element(tag, name);
  made.dir = "auto";
  made.append(written(text));
  return made;
};

export const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };

export const words = (text) => text.match(/\S+/gu)?.length ?? 0;

export const many = (n, one, more = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;

export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}%`;

/* 8 s, 1 min 35 s, 2 h 3 min, 3 d 0 h; like `duration` in progress.py. */
export const duration = (ms) => {
  const whole = Math.max(0, Math.floor(ms / 1000));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
};

export const when = (ms) => {
  const made = element("time", "", new Date(ms).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }));
  made.dateTime = new Date(ms).toISOString();
  return made;
};

/* How far a candidate's place is in the alphabet: A, B, … I. */
export const letter = (place) => String.fromCharCode(65 + place);

/* A button with its key printed on it. */
export const button = (text, key, press, name = "") => {
  const made = element("button", name);
  made.type = "button";
  made.append(element("span", "", text));
  if (key) made.append(" ", element("kbd", "", key));
  made.addEventListener("click", press);
  return made;
};
