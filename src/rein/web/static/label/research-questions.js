/* What labelers ask about items, with a reply to each; a pinned one stands below the instructions for everybody. */

import { $, many, put } from "./text.js";
import { at, attempt, empty, get, live, refill } from "./research-page.js";
import { threadNode } from "./research-threads.js";

const EVERY_MS = 30_000;
let before = "";

const look = (again = false) => attempt(async () => {
  const { threads } = await get(`${at}/threads`);
  const waiting = threads.filter(({ reply }) => reply === null);
  put($("facts"), threads.length ? `${many(threads.length, "question")}, ${waiting.length.toLocaleString("en")} without a reply` : "");
  // What somebody is writing stays: the list is only drawn anew when it is another one and nobody is at it.
  const key = JSON.stringify([threads, $("open").checked]);
  const writing = [...$("threads").querySelectorAll("textarea")].some((one) => one.value !== one.defaultValue && one.value !== one.dataset.old);
  if (key === before || (writing && !again)) return;
  before = key;
  const shown = $("open").checked ? waiting : threads;
  refill($("threads"), ...(shown.length ? shown.map((one) => threadNode(one, () => look(true), { withItem: true })) : [empty(threads.length ? "All of them have a reply." : "Nobody has asked anything yet.", "li")]));
  for (const one of $("threads").querySelectorAll("textarea")) one.dataset.old = one.value;
});

$("open").addEventListener("change", () => look(true));
await live(look, EVERY_MS);
