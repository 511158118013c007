/* The dialogs of the desk: words for a skip, a flag or a question, and the list of keys. */

import { $, element, put } from "./text.js";
import { COMMANDS, FIXED, keysOf } from "./keys.js";

/* Of a skip: what is said most often, by a digit. */
export const REASONS = ["I do not understand it", "It is broken or cut off", "I cannot judge this subject", "I would rather not read this"];

let answer = null; // what the open dialog is for

const close = () => {
  answer = null;
  $("words").close();
};

/* Asks for words; `ready` are offered as buttons. Resolves with the text, or null. */
export const askWords = ({ head, says, send, ready = [] }) => new Promise((good) => {
  put($("words-head"), head);
  put($("words-says"), says);
  put($("words-yes"), send);
  put($("words-trouble"), "");
  $("words-text").value = "";
  const finish = (text) => { close(); good(text); };
  $("words-ready").replaceChildren(...ready.map((text, i) => {
    const made = element("button");
    made.type = "button";
    made.append(`${text} `, element("kbd", "", String(i + 1)));
    made.addEventListener("click", () => finish(text));
    return made;
  }));
  answer = (text) => finish(text);
  $("words").onclose = () => { if (answer) { answer = null; good(null); } };
  $("words").onkeydown = (event) => {
    const at = Number(event.key) - 1;
    if (document.activeElement === $("words-text") || document.body.classList.contains("keyless") || !ready[at]) return;
    event.preventDefault();
    finish(ready[at]);
  };
  $("words").showModal();
  (ready.length ? $("words-ready").firstChild : $("words-text")).focus();
});

const sent = () => {
  const text = $("words-text").value.trim();
  if (!text) {
    put($("words-trouble"), "Say it in a few words.");
    $("words-text").focus();
  } else answer?.(text);
};
$("words-form").addEventListener("submit", (event) => { event.preventDefault(); sent(); });
$("words-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  sent();
});
$("words-no").addEventListener("click", () => $("words").close());

export const showKeys = (preferences) => {
  const keys = keysOf(preferences);
  const off = preferences.shortcuts === false;
  put($("help-off"), off ? "Single keys are switched off on your account page; Enter, Esc and the arrows still act." : "While you type, or are on a button beside the item, letters and digits are no keys: Esc comes first. Enter and Esc act everywhere.");
  const row = (key, says) => {
    const tr = element("tr");
    const th = element("th");
    th.scope = "row";
    th.append(element("kbd", "", key));
    tr.append(th, element("td", "", says));
    return tr;
  };
  $("help-rows").replaceChildren(
    ...FIXED.map(([key, says]) => row(key, says)),
    ...(off ? [] : COMMANDS.map(({ name, says }) => row(keys[name].toUpperCase(), says))),
  );
  $("help").showModal();
  $("help-close").focus();
};
$("help-close").addEventListener("click", () => $("help").close());
