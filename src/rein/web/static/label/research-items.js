/* The table of a project's items: filters and the place in it are in the address, so that back and a link to a colleague
   work. A page holds what the server found in its time; `Further` goes on from there. */

import { $, element, many, put, said } from "./text.js";
import { at, attempt, choice, empty, field, get, input, link, offer, pageOf, table } from "./research-page.js";

const ROLES = ["work", "calibration", "gold", "onboarding", "drift"];
const STATES = [["", "any"], ["waiting", "no answer yet"], ["begun", "some answers"], ["done", "all answers"], ["closed", "closed"]];
const MOST_TRIES = 40; // pages of which none had an item: ten seconds of the server's looking

const form = $("filters");
const controls = {
  text: input("search", "", { maxlength: 200 }), batch: choice([["", "any"]]), role: choice([["", "any"], ...ROLES]), state: choice(STATES),
};
const go = element("button", "main", "Find");
go.type = "submit";
form.append(field("Holds the words", controls.text), field("Batch", controls.batch), field("Role", controls.role), field("State", controls.state), go);

const asked = () => new URLSearchParams(location.search);

const cellsOf = (one) => [
  link(`${one.id}`, pageOf(`/items/${one.id}`)),
  [said(one.head || one.key, "div", "said clip"), said(one.key, "small", "said")],
  [element("span", "", one.role), ...(one.gold ? [" ", element("span", "tag", "answer known")] : []), ...(one.closed ? [" ", element("span", "tag off", "closed")] : [])],
  said(one.batch, "span"), one.split,
  one.role === "work" ? `${one.done} of ${one.wanted}` : String(one.done),
  one.priority ? one.priority.toPrecision(3) : "0",
  said(one.policies.map((name) => name || "–").join(", "), "span"),
];
const COLUMNS = [{ name: "Item", head: true }, { name: "Source and key" }, { name: "Role" }, { name: "Batch" }, { name: "Split" }, { name: "Answers", n: true }, { name: "Priority", n: true }, { name: "Policies" }];

let turn = 0; // an older look is forgotten when there is a newer one
const look = () => attempt(async () => {
  const mine = ++turn;
  const wanted = asked();
  for (const [name, control] of Object.entries(controls)) control.value = wanted.get(name) ?? "";
  put($("count"), "Looking …");
  let found = [];
  let next = Number(wanted.get("after")) || 0;
  for (let tries = 0; tries < MOST_TRIES && next !== null && !found.length; tries++) {
    const query = new URLSearchParams([...wanted].filter(([name, value]) => name in controls && value));
    if (next) query.set("after", next);
    const page = await get(`${at}/items?${query}`);
    if (mine !== turn) return;
    ({ items: found, next } = page);
    if (!found.length && next) put($("count"), `Looking … at item ${next.toLocaleString("en")}`);
  }
  $("items").replaceChildren(found.length ? table("Items", COLUMNS, found.map(cellsOf), "dense") : empty(next ? `None so far, up to item ${next.toLocaleString("en")}.` : "No item is like that."));
  put($("count"), found.length ? `${many(found.length, "item")} on this page${next ? "; there may be more" : ""}` : "");
  const pages = [];
  const to = (text, after) => {
    const query = asked();
    if (after) query.set("after", after);
    else query.delete("after");
    const node = link(text, `?${query}`, "button");
    node.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      history.pushState(null, "", node.href);
      look().then(() => { $("count").scrollIntoView({ block: "nearest" }); $("main").focus(); });
    });
    pages.push(node);
  };
  if (wanted.get("after")) to("From the first", 0);
  if (next !== null) to("Further", next);
  $("pages").replaceChildren(...pages);
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const query = new URLSearchParams(Object.entries(controls).map(([name, control]) => [name, control.value.trim()]).filter(([, value]) => value));
  history.pushState(null, "", `?${query}`);
  look();
});
addEventListener("popstate", look);

await attempt(async () => {
  const { batches } = await get(`${at}/progress`);
  offer(controls.batch, [["", "any"], ...batches.map(({ name }) => name)]);
});
await look();
