/* What every page of a researcher begins with: who is here, which project it is, the way to the server, tables that turn
   into cards on a small screen, and where trouble is said. */

import { Refused, Unreachable, askAsPerson, whoIsHere } from "./api.js";
import { $, element, put } from "./text.js";

export const project = document.body.dataset.project;
export const at = `/research/projects/${encodeURIComponent(project)}`;
export const pageOf = (rest = "", name = project) => `/label/research/${encodeURIComponent(name)}${rest}`;

export const me = await whoIsHere($("main"));
const ways = document.querySelectorAll(".nav");
if (me.role === "labeler") {
  const back = element("a", "button", "Your projects");
  back.href = "/label";
  for (const one of ways) one.remove();
  $("main").replaceChildren(element("p", "empty", "This page is for researchers."), back);
  await new Promise(() => {});
}
for (const one of ways) one.classList.remove("later");
if (project) document.title = `${document.title.split(" · ")[0]} of ${project} · Rein`;

export const get = (path) => askAsPerson("GET", path);
export const post = (path, body) => askAsPerson("POST", path, body);

const show = (node, text) => {
  put(node, text);
  node.hidden = !text;
};

/* Does `work`; what goes wrong is said in `node`, and undefined comes back. */
export const attempt = async (work, node = $("trouble")) => {
  show(node, "");
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    show(node, error.message);
    return undefined;
  }
};

/* A form whose button rests while it is at work; `work` returns what to say when it is done. */
export const onSubmit = (form, work) => {
  const trouble = form.querySelector(".trouble");
  const done = form.querySelector(".done");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter ?? form.querySelector("[type=submit]");
    put(done, "");
    button.disabled = true;
    const word = await attempt(() => work(button), trouble);
    button.disabled = false;
    if (word === undefined) trouble.focus();
    else put(done, word);
  });
};

/* What stands at the end of such a form. */
export const formEnd = (text) => {
  const trouble = element("p", "trouble");
  trouble.role = "alert";
  trouble.tabIndex = -1;
  trouble.hidden = true;
  const row = element("p", "row");
  const button = element("button", "main", text);
  button.type = "submit";
  const done = element("span", "quiet done");
  done.role = "status";
  row.append(button, done);
  return [trouble, row];
};

export const link = (text, address, name = "") => {
  const made = element("a", name);
  made.append(text);
  made.href = address;
  return made;
};

/* `node` with a hint below it, which describes `control` without becoming part of its name. */
let hints = 0;
export const hinted = (node, control, hint) => {
  const made = element("div", "field");
  made.append(node);
  if (hint) {
    const small = element("small", "", hint);
    small.id = `hint-${++hints}`;
    control.setAttribute("aria-describedby", small.id);
    made.append(small);
  }
  return made;
};

/* A labelled field: `control` is an input, a select or a textarea. */
export const field = (text, control, hint = "") => {
  const label = element("label");
  label.append(element("span", "", text), control);
  return hinted(label, control, hint);
};

/* A box to tick. */
export const tick = (text, control, hint = "") => {
  const label = element("label", "check");
  label.append(control, text);
  return hinted(label, control, hint);
};

/* What a select offers, each a value or [value, text]; what was chosen stays chosen where it is still there. */
export const offer = (select, options, value = select.value) => {
  select.replaceChildren(...options.map((one) => {
    const [own, text] = Array.isArray(one) ? one : [one, one];
    const option = element("option", "", text);
    option.value = own;
    return option;
  }));
  select.value = value;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
};

export const choice = (options, value) => {
  const made = element("select");
  offer(made, options, value ?? "");
  return made;
};

export const input = (type, value = "", more = {}) => {
  const made = element("input");
  made.type = type;
  if (type === "checkbox") made.checked = Boolean(value);
  else made.value = value;
  for (const [name, own] of Object.entries(more)) made.setAttribute(name, own);
  return made;
};

export const textarea = (value = "", more = {}) => {
  const made = element("textarea");
  made.value = value;
  for (const [name, own] of Object.entries(more)) made.setAttribute(name, own);
  return made;
};

/* A table. Each column is {name, n: numbers, head: the row's name}, each row a list of nodes or texts. On a small screen
   a row is a card, each cell with its column's name before it; the roles keep it a table for those who hear it. */
export const table = (label, columns, rows, name = "") => {
  const made = element("table", `cards ${name}`);
  const role = (node, text) => { node.setAttribute("role", text); return node; };
  role(made, "table").setAttribute("aria-label", label);
  const row = (cells) => { const tr = role(element("tr"), "row"); tr.append(...cells); return tr; };
  const heads = columns.map((column) => {
    const th = role(element("th", column.n ? "n" : "", column.name), "columnheader");
    th.scope = "col";
    return th;
  });
  const head = role(element("thead"), "rowgroup");
  head.append(row(heads));
  const body = role(element("tbody"), "rowgroup");
  body.append(...rows.map((cells) => row(cells.map((cell, i) => {
    const column = columns[i];
    const made = role(element(column.head ? "th" : "td", column.n ? "n" : ""), column.head ? "rowheader" : "cell");
    if (column.head) made.scope = "row";
    made.dataset.name = column.name;
    const inside = element("div", "cell");
    inside.append(...(Array.isArray(cell) ? cell : [cell]));
    made.append(inside);
    return made;
  }))));
  made.append(head, body);
  return made;
};

/* A box that scrolls sideways, also by keyboard. */
export const wide = (label, node) => {
  const made = element("div", "wide");
  made.tabIndex = 0;
  made.role = "region";
  made.setAttribute("aria-label", label);
  made.append(node);
  return made;
};

export const empty = (text, tag = "p") => element(tag, "empty", text);

/* New content in `holder`; what was open stays open, and the focus where it was, by data-key. */
export const refill = (holder, ...nodes) => {
  const opened = new Set([...holder.querySelectorAll("details[open]")].map((one) => one.dataset.key));
  const focused = holder.contains(document.activeElement) ? document.activeElement.closest("[data-key]") : null;
  const inner = focused && focused !== document.activeElement ? document.activeElement.tagName : null;
  const key = focused?.dataset.key;
  holder.replaceChildren(...nodes);
  for (const one of holder.querySelectorAll("details[data-key]")) one.open = opened.has(one.dataset.key);
  if (!key) return;
  const again = [...holder.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  (inner ? again?.querySelector(inner) : again)?.focus({ preventScroll: true });
};

/* Asks again and again while the page is seen, one round at a time. */
export const live = (work, every_ms) => {
  let timer = null;
  let busy = false;
  const round = async () => {
    clearTimeout(timer);
    if (busy) return;
    busy = true;
    try { await work(); } finally { busy = false; }
    if (!document.hidden) timer = setTimeout(round, every_ms);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) round(); });
  return round();
};
