/* The first page: the researchers' messages, and one's projects with where one stands in each. */

import { ask, askAsPerson } from "./api.js";
import { openOutbox } from "./outbox.js";
import { $, element, many, percent, put, said, when } from "./text.js";

const show = (error) => {
  put($("trouble"), error.message);
  $("trouble").hidden = false;
};

const KINDS = {
  comparison: "comparing two", best_of: "choosing the best", ranking: "ranking", rating: "rating", likert: "rating along axes",
  flags: "flagging", demonstration: "writing", edit: "editing",
};

const stateOf = ({ state, closed, empty, training }) => {
  if (closed) return "closed";
  if (empty) return "nothing here yet";
  if (state === "stopped") return training ? "practice not passed" : "paused by the researchers";
  if (state === "training") return training ? `practice, ${training.done} of ${training.of} done` : "practice first";
  return "";
};

const projectNode = (one) => {
  const item = element("li", "panel project");
  const head = element("h3");
  head.dir = "auto";
  head.append(one.title);
  const facts = element("p", "quiet", [
    [...new Set(one.questions.map(({ kind }) => KINDS[kind] ?? kind))].join(", "), one.staged ? "staged reading" : "", `${many(one.mine, "item")} answered`, stateOf(one),
  ].filter(Boolean).join(" · "));
  item.append(head, facts);
  if (one.training && one.state === "training") {
    const bar = element("progress");
    bar.max = one.training.of;
    bar.value = one.training.done;
    bar.setAttribute("aria-label", `practice in ${one.title}`);
    item.append(bar);
    if (one.training.agreed !== null) item.append(element("p", "quiet", `so far you agreed with ${percent(one.training.agreed)}`));
  }
  const row = element("p", "row");
  const link = (words, address, name) => {
    const made = element("a", `button ${name}`, words);
    made.href = `${address}/${encodeURIComponent(one.name)}`;
    made.setAttribute("aria-label", `${words}: ${one.title}`);
    row.append(made);
  };
  if (!one.closed && !one.empty && one.state !== "stopped") link(one.mine || one.training?.done ? "Continue" : "Begin", "/label/desk", "main");
  link("Your work", "/label/mine", "");
  item.append(row);
  return item;
};

const showMessages = (messages) => {
  const unread = messages.filter(({ seen }) => !seen);
  $("news").hidden = messages.length === 0;
  $("read").hidden = unread.length === 0;
  const nodeOf = (one) => {
    const item = element("li", one.seen ? "panel" : "note");
    const head = element("p", "quiet", `${one.author}, ${one.project}, `);
    head.append(when(one.at_ms));
    item.append(head, said(one.text));
    return item;
  };
  const old = messages.filter(({ seen }) => seen);
  const nodes = unread.map(nodeOf);
  if (old.length) {
    const item = element("li");
    const box = element("details");
    const list = element("ul", "stack");
    list.append(...old.map(nodeOf));
    box.append(element("summary", "quiet", `${many(old.length, "message")} that you have read`), list);
    item.append(box);
    nodes.push(item);
  }
  $("messages").replaceChildren(...nodes);
};

$("read").addEventListener("click", async () => {
  try {
    await askAsPerson("POST", "/seen", { messages: me.messages.filter(({ seen }) => !seen).map(({ id }) => id) });
    for (const one of me.messages) one.seen = true;
    showMessages(me.messages);
  } catch (error) { show(error); }
});
$("leave").addEventListener("click", async () => {
  try {
    await ask("POST", "/logout", {});
    location.replace("/label/login");
  } catch (error) { show(error); }
});

let me = null;
try {
  me = await askAsPerson("GET", "/me");
  put($("who"), me.role === "labeler" ? me.name : `${me.name}, ${me.role}`);
  $("research").hidden = me.role === "labeler";
  showMessages(me.messages);
  const nodes = me.projects.map(projectNode);
  $("projects").replaceChildren(...nodes);
  $("empty").hidden = nodes.length > 0;
  put($("empty"), "You are in no project yet. A researcher adds you; then it appears here.");
  // Answers that a work page left on this device are sent from here too.
  const changed = ({ waiting, refused }) => {
    put($("waiting"), [
      waiting.length ? `${many(waiting.length, "answer")} on this device, not sent yet.` : "",
      refused.length ? `${many(refused.length, "answer was", "answers were")} not accepted; the work page shows ${refused.length === 1 ? "it" : "them"}.` : "",
    ].filter(Boolean).join(" "));
    $("waiting").hidden = !$("waiting").textContent;
  };
  openOutbox({ person: me.name, answered: () => {}, refused: () => {}, changed }).then((outbox) => outbox.drain());
} catch (error) {
  show(error);
  $("empty").hidden = true;
}
