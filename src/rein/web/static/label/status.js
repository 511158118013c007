/* What the work page says besides the work: how many answers wait for the server, which ones were not accepted, and what
   the researchers write. */

import { $, button, element, many, put, said, when } from "./text.js";
import { ask, loginAddress } from "./api.js";

const lineWord = ({ waiting, trouble, login, lasting }) => {
  const n = waiting.length;
  if (login) return `${n} waiting; log in again to send`;
  const loose = n && !lasting ? ". Do not close this page: this browser could not keep what you said" : "";
  if (trouble) return `${n} waiting. ${trouble}${loose}`;
  return n ? `${n} waiting${loose}` : "";
};

export const makeStatus = ({ again, discard, login }) => {
  let shown = "";
  return (state) => {
    document.body.dataset.waiting = state.waiting.length;
    const word = lineWord(state);
    // The last answer on its way is no news.
    const busy = state.waiting.length > 1 || state.trouble || state.login || !state.lasting;
    $("line").hidden = !busy || !word;
    $("line").className = `line ${state.trouble || state.login ? "down" : "up"}`;
    put($("line-word"), busy ? word : "");
    if (state.login && !$("line").querySelector("a")) {
      const link = element("a", "", "Log in");
      link.href = loginAddress();
      link.addEventListener("click", login);
      $("line").append(link);
    } else if (!state.login) $("line").querySelector("a")?.remove();

    const key = state.refused.map(({ n }) => n).join();
    $("refused").hidden = state.refused.length === 0;
    if (key === shown) return;
    shown = key;
    put($("refused-head"), `${many(state.refused.length, "answer was", "answers were")} not accepted`);
    $("refused-list").replaceChildren(...state.refused.map((row) => {
      const item = element("li");
      const head = element("p");
      head.append(when(row.at_ms), element("span", "quiet", ` · ${row.title}`));
      const body = element("details");
      body.append(element("summary", "", "what you said"), said(JSON.stringify(row.body.answers ?? row.body.reason ?? row.body.text, null, 1), "p", "said code"));
      const tools = element("div", "row");
      tools.append(button("Try again", "", () => again(row)), button("Put away", "", () => discard(row)));
      item.append(head, said(row.text, "p", "said trouble"), body, tools);
      return item;
    }));
  };
};

export const showMessages = (unread) => $("messages").replaceChildren(...unread.map((one) => {
  const box = element("div", "note message");
  const head = element("p", "quiet", `${one.author}, `);
  head.append(when(one.at_ms));
  const read = button("Read", "", async () => {
    box.remove();
    await ask("POST", "/seen", { messages: [one.id] }).catch(() => { /* it is shown again next time */ });
  });
  box.append(head, said(one.text), read);
  return box;
}));
