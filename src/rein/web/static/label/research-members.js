/* The people of a project: where each stands, how practice went, from where on their answers count as confident; who else
   comes in; what is written to them. */

import { Refused } from "./api.js";
import { $, element, many, percent, put, said, when } from "./text.js";
import { at, attempt, choice, empty, field, formEnd, get, link, offer, onSubmit, post, project, refill, table, textarea } from "./research-page.js";
import { inviteForm } from "./research-invites.js";

const COLUMNS = [{ name: "Person", head: true }, { name: "State" }, { name: "Practice" }, { name: "Confident from" }, { name: "Answered", n: true }, { name: "Last answer" }];
const STATES = [["training", "in practice"], ["working", "at work"], ["stopped", "stopped"]];
const CONFIDENT = [["", "not set"], ["0", "any point"], ["1", "1 from even"], ["2", "2 from even"], ["3", "3 from even"], ["4", "4 from even"]];

const practice = ({ training }) => {
  if (!training) return "–";
  const parts = [`${training.of} items`];
  if (training.agreed !== null) parts.push(`${percent(training.agreed)} agreed`);
  if (training.median_s !== null) parts.push(`${Math.round(training.median_s)} s`);
  return parts.join(", ");
};

const cellsOf = (one) => {
  const state = choice(STATES, one.state);
  state.setAttribute("aria-label", `state of ${one.name}`);
  state.dataset.key = `state-${one.id}`;
  const confident = choice(CONFIDENT, one.confident === null ? "" : String(one.confident));
  confident.setAttribute("aria-label", `${one.name} counts as confident from`);
  confident.dataset.key = `confident-${one.id}`;
  const keep = async (control, changes) => {
    const done = await attempt(async () => {
      await post(`${at}/members`, { person: one.id, state: state.value, ...changes });
      await look();
      return true;
    });
    if (!done) control.value = control === state ? one.state : one.confident ?? "";
  };
  state.addEventListener("change", () => keep(state, {}));
  confident.addEventListener("change", () => keep(confident, { confident: confident.value === "" ? null : Number(confident.value) }));
  return [
    [said(one.name, "span"), element("small", "", [one.role === "labeler" ? "" : one.role, one.active ? "" : "deactivated"].filter(Boolean).join(", "))],
    state, practice(one), confident, one.submitted.toLocaleString("en"), one.last_ms === null ? "–" : when(one.last_ms),
  ];
};

const to = choice([["", "all labelers of the project"]]);
let members = [];
const look = async () => {
  ({ people: members } = await get(`${at}/people`));
  put($("facts"), many(members.length, "member"));
  refill($("members"), members.length ? table("Members", COLUMNS, members.map(cellsOf)) : empty("Nobody yet."));
  offer(to, [["", "all labelers of the project"], ...members.map(({ id, name }) => [String(id), name])]);
};

/* -------------------------------------------------------------------------------------------------- who comes in */

const addForm = async () => {
  const { people } = await get("/research/people");
  const form = $("add");
  const others = () => people.filter(({ id, active }) => active && !members.some((one) => one.id === id));
  const who = element("select");
  const fill = () => offer(who, others().map(({ id, name, role }) => [String(id), `${name}, ${role}`]));
  fill();
  const state = choice(STATES.slice(0, 2), "working");
  const box = element("div", "fields");
  box.append(field("Person", who), field("State", state));
  form.append(box, ...formEnd("Add"));
  if (!others().length) form.replaceChildren(element("p", "quiet", "Everybody on this server is a member. "), link("All people", "/label/research/people"));
  else {
    onSubmit(form, async () => {
      if (!who.value) throw new Refused(422, "bad_value", "Everybody is a member.");
      await post(`${at}/members`, { person: Number(who.value), state: state.value });
      await look();
      fill();
      return "Added.";
    });
  }
};

/* ------------------------------------------------------------------------------------------------------ messages */

const showMessages = async () => {
  const { messages } = await get(`${at}/messages`);
  refill($("messages"), ...(messages.length ? messages.map((one) => {
    const item = element("li", "panel");
    const head = element("p", "quiet");
    head.append(said(one.author, "span"), " to ", said(one.to ?? "all", "span"), ", ", when(one.at_ms), `, read by ${many(one.read, "person", "people")}`);
    item.append(head, said(one.text));
    return item;
  }) : [empty("None yet.", "li")]));
};

const writeForm = () => {
  const text = textarea("", { maxlength: 20_000, rows: 3, required: "" });
  $("write").append(field("To", to), field("Message", text), ...formEnd("Send"));
  onSubmit($("write"), async () => {
    if (!text.value.trim()) throw new Refused(422, "bad_value", "Write something first.");
    await post(`${at}/messages`, { to: to.value ? Number(to.value) : null, text: text.value });
    text.value = "";
    await showMessages();
    return "Sent.";
  });
};

writeForm();
inviteForm(project);
await attempt(async () => {
  await look();
  await addForm();
  await showMessages();
});
