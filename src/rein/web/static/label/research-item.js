/* Everything about one item: its source, candidates with their policies, all answers and how each was shown, what was
   revised, undone and skipped, labelers' questions; its right answer, priority and role. */

import { Refused } from "./api.js";
import { $, button, duration, element, letter, put, said, when } from "./text.js";
import { attempt, choice, empty, field, formEnd, get, input, onSubmit, post, project, table, textarea, tick } from "./research-page.js";
import { goldFields } from "./research-gold.js";
import { inWords } from "./answers.js";
import { threadNode } from "./research-threads.js";

const id = Number(document.body.dataset.item);
let questions = new Map(); // of the project, by name

/* A row's value in a few words, in the order of the candidates. */
const wordsOf = ({ kind, question, value, act }) => {
  if (act === "skip") return value.reason ?? "";
  if (kind === "notes") return value.notes.map((text, k) => `${letter(k)}: ${text || "nothing"}`).join("\n");
  const known = questions.get(question);
  if (!known || act === "event" || act === "undo") return Object.keys(value).length ? JSON.stringify(value) : "";
  try {
    const words = inWords({ ...known, kind, flags: {} }, value);
    return kind === "edit" ? `of ${letter(value.candidate)}: ${words}` : words;
  } catch { return JSON.stringify(value); } // an older version of the kind
};

const places = ({ order }) => (order ? order.map(letter).join(" ") : "");

/* On which side of the screen the chosen one of two was. */
const sideOf = ({ kind, value, shown }) => {
  if (kind !== "comparison" || value.choice === null || shown.order?.length !== 2) return "";
  return shown.order[0] === value.choice ? ", the left one" : ", the right one";
};

const howShown = ({ shown, late }) => [
  places(shown), shown.turn ? "mirrored repeat" : "", shown.diff ? "differences marked" : "", shown.instruction ? `instructions ${shown.instruction}` : "", late ? "late" : "",
].filter(Boolean).join(", ");

const secondsOf = ({ times }) => (times.active_ms === undefined || times.active_ms === null ? "" : duration(times.active_ms));
const personOf = ({ person, person_role }) => [said(person, "span"), ...(person_role === "labeler" ? [] : [element("small", "", person_role)])];

const showAnswers = (one) => {
  const stands = one.rows.filter((row) => row.stands);
  const columns = [{ name: "Person", head: true }, { name: "Question" }, { name: "Answer" }, { name: "Shown as" }, { name: "Time", n: true }, { name: "When" }];
  $("answers").replaceChildren(stands.length ? table("Answers that count", columns, stands.map((row) => [personOf(row), row.question, said(wordsOf(row) + sideOf(row), "span"), howShown(row), secondsOf(row), when(row.at_ms)]), "answers") : empty("None yet."));
};

const ACTS = { say: "answered", revise: "revised", undo: "took back", skip: "skipped", note: "noted before reading", event: "event" };

const showHistory = (one) => {
  const rows = [
    ...one.assignments.map((own) => ({ at_ms: own.claimed_ms, cells: [said(own.person, "span"), "was given it", `${own.state}${own.turn ? ", mirrored repeat" : ""}`, places(own), `revision ${own.revision}`] })),
    ...one.assignments.filter((own) => own.revealed_ms !== null).map((own) => ({ at_ms: own.revealed_ms, cells: [said(own.person, "span"), "was shown the source", "", "", ""] })),
    ...one.rows.map((row) => ({ at_ms: row.at_ms, cells: [personOf(row), ACTS[row.act] ?? row.act, said([row.question, wordsOf(row)].filter(Boolean).join(": "), "span"), howShown(row), `row ${row.seq}${row.of === null ? "" : `, of row ${row.of}`}${row.stands ? ", counts" : ""}`] })),
  ].sort((a, b) => a.at_ms - b.at_ms);
  const columns = [{ name: "When", head: true }, { name: "Person" }, { name: "What" }, { name: "Said" }, { name: "Shown as" }, { name: "Row" }];
  $("history").replaceChildren(rows.length ? table("Everything that was said and done", columns, rows.map(({ at_ms, cells }) => [when(at_ms), ...cells]), "answers") : empty("Nothing yet."));
};

const flat = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));

/* A long one scrolls in its box, also by keyboard. */
const LONG = 4_000; // characters
const sourceNode = (name, text) => {
  const made = said(text, "div");
  if (text.length > LONG) {
    made.className = "said long";
    made.tabIndex = 0;
    made.role = "region";
    made.setAttribute("aria-label", name);
  }
  return made;
};

const showTexts = (one) => {
  $("source").replaceChildren(...Object.entries(one.context).flatMap(([name, value]) => [said(name.replaceAll("_", " "), "h3"), sourceNode(name, flat(value))]));
  if (!Object.keys(one.context).length) $("source").append(empty("It has none."));
  const right = one.gold?.answers ?? {};
  $("candidates").replaceChildren(...one.candidates.map(({ text, policy, extra }, k) => {
    const item = element("li", "panel");
    const head = element("h3", "", `${letter(k)} `);
    head.append(said(policy ? `· ${policy}` : "· no policy named", "span", "quiet said"));
    item.append(head, said(text));
    if (extra && Object.keys(extra).length) item.append(said(JSON.stringify(extra), "p", "quiet said"));
    return item;
  }));
  if (!one.candidates.length) $("candidates").append(empty("None: labelers write one.", "li"));
  const known = Object.entries(right).map(([question, value]) => `${question}: ${wordsOf({ kind: questions.get(question)?.kind, question, value })}`);
  put($("gold-now"), "");
  $("gold-now").append(said(known.length ? `Known: ${known.join("; ")}.${one.gold.why ? ` Because: ${one.gold.why}` : ""}` : "It is not known.", "span"));
};

const showForms = (one) => {
  const form = $("gold");
  const fields = goldFields([...questions.values()], one.candidates.length, one.gold?.answers);
  const why = textarea(one.gold?.why ?? "", { maxlength: 2000, rows: 2 });
  const unset = one.gold ? [button("It is not known", "", () => attempt(async () => show(await post(`/research/items/${id}`, { gold: null }))))] : [];
  form.replaceChildren(...(fields.any ? [fields.node, field("Why, as it is explained after practice", why), ...formEnd("This is right"), ...unset] : [empty("Answers of this project's kinds are not compared with a right one.")]));
  if (fields.any) {
    onSubmit(form, async () => {
      const answers = fields.read();
      if (typeof answers === "string") throw new Refused(422, "bad_value", answers);
      show(await post(`/research/items/${id}`, { gold: { answers, why: why.value } }));
      return "Kept.";
    });
  }
  const role = choice([["work", "work"], ["calibration", "calibration: everybody gets it"], ["gold", "gold: the right answer is known"], ["onboarding", "onboarding: for practice"], ["drift", "drift: a fixed pair"]], one.role);
  const priority = input("number", one.priority, { step: "any" });
  const closed = input("checkbox", one.closed);
  const box = element("div", "fields");
  box.append(field("Role", role), field("Priority", priority, "Higher first."), tick("Closed: nobody is given it any more", closed));
  $("queue").replaceChildren(box, ...formEnd("Keep it"));
  onSubmit($("queue"), async () => {
    const given = { role: role.value, priority: Number(priority.value), closed: closed.checked };
    const changed = Object.fromEntries(Object.entries(given).filter(([name, value]) => value !== shown[name]));
    if (!Object.keys(changed).length) return "Nothing was changed.";
    show(await post(`/research/items/${id}`, changed));
    return "Kept.";
  });
};

let shown = null;
const show = (one) => {
  shown = one;
  put($("facts"), `item ${one.id} · ${one.key} · ${one.batch}${one.frozen_ms === null ? "" : ", frozen"} · ${one.split} · ${one.role}${one.closed ? ", closed" : ""} · ${one.role === "work" ? `${one.done} of ${one.wanted} answers` : `${one.done} answers`}`);
  showTexts(one);
  showAnswers(one);
  showHistory(one);
  $("threads").replaceChildren(...(one.threads.length ? one.threads.map((each) => threadNode(each, async () => show(await get(`/research/items/${id}`)))) : [empty("None.", "li")]));
};

await attempt(async () => {
  const [one, { projects }] = await Promise.all([get(`/research/items/${id}`), get("/research/projects")]);
  if (one.project !== project) throw new Refused(404, "unknown", `Item ${id} is of another project.`);
  questions = new Map(projects.find(({ name }) => name === project).settings.questions.map((question) => [question.name, question]));
  show(one);
  showForms(one);
});
