/* Who did what to people, projects, items and files, newest first. */

import { $, button, element, said, when } from "./text.js";
import { attempt, empty, get, table } from "./research-page.js";

const COLUMNS = [{ name: "When", head: true }, { name: "Who" }, { name: "What" }, { name: "About" }, { name: "From" }];
const inWords = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/* The few facts of a line; a long one, such as all settings, opens. */
const aboutOf = (about) => {
  const facts = Object.entries(about).filter(([, value]) => value !== null);
  const text = facts.map(([name, value]) => `${name}: ${inWords(value)}`).join(", ");
  if (text.length <= 160) return said(text, "span");
  const made = element("details");
  made.append(said(`${text.slice(0, 120)}…`, "summary"), said(JSON.stringify(about, null, 1), "div", "said code"));
  return made;
};

const cellsOf = ({ at_ms, person, act, about, address }) => [when(at_ms), said(person ?? "the command line", "span"), act, aboutOf(about), address];

const rows = [];
const more = (after) => attempt(async () => {
  const page = await get(`/research/audit${after ? `?after=${after}` : ""}`);
  const first = rows.length;
  rows.push(...page.rows);
  const made = rows.length ? table("Who did what", COLUMNS, rows.map(cellsOf)) : empty("Nothing yet.");
  $("rows").replaceChildren(made);
  $("pages").replaceChildren(...(page.next ? [button("Earlier ones", "", () => more(page.next))] : []));
  if (!first) return;
  const row = made.tBodies[0].rows[first];
  row.tabIndex = -1;
  row.focus();
});
await more(0);
