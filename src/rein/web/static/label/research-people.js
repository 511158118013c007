/* Everybody on this server: roles, who may come in, a way in again for those who forgot their password; keys for programs. */

import { $, button, element, many, put, said, when } from "./text.js";
import { attempt, choice, field, formEnd, get, input, link, me, onSubmit, pageOf, post, refill, table } from "./research-page.js";
import { inviteForm, roles, shownOnce } from "./research-invites.js";

const COLUMNS = [{ name: "Person", head: true }, { name: "Role" }, { name: "Projects" }, { name: "Last seen" }, { name: "Active" }, { name: "Change" }];

const change = (one, changes) => attempt(async () => {
  await post(`/research/people/${one.id}`, changes);
  await look();
});

const letIn = (one) => attempt(async () => {
  const told = await post("/research/invites", { role: one.role, person: one.id, uses: 1, hours: 72 });
  refill($("again"), shownOnce(`Send this to ${one.name}. It lets them in once, within three days.`, told.link));
  $("again").querySelector("button").focus();
});

const cellsOf = (one) => {
  const self = one.name === me.name;
  const role = choice([...new Set([...roles(), one.role])], one.role);
  role.setAttribute("aria-label", `role of ${one.name}`);
  role.dataset.key = `role-${one.id}`;
  role.disabled = self;
  role.addEventListener("change", async () => { if (!(await change(one, { role: role.value }))) role.value = one.role; });
  const active = button(one.active ? "Deactivate" : "Activate", "", () => change(one, { active: !one.active }));
  active.dataset.key = `active-${one.id}`;
  active.setAttribute("aria-label", `${one.active ? "Deactivate" : "Activate"} ${one.name}`);
  active.disabled = self;
  const again = button("New link", "", () => letIn(one));
  again.setAttribute("aria-label", `New link for ${one.name}`);
  again.dataset.key = `again-${one.id}`;
  const facts = [one.simulated ? "simulated" : "", one.password ? "" : "no password"].filter(Boolean).join(", ");
  const projects = one.projects.flatMap(({ name, state }, i) => [i ? ", " : "", link(said(name, "span"), pageOf("/people", name)), state === "working" ? "" : ` (${state})`]);
  return [
    [said(one.name, "span"), element("small", "", self ? "you" : facts)], role, projects.length ? projects : "–",
    one.seen_ms === null ? "never" : when(one.seen_ms), element("span", one.active ? "tag on" : "tag off", one.active ? "yes" : "no"),
    [active, " ", again],
  ];
};

const look = async () => {
  const { people } = await get("/research/people");
  put($("facts"), many(people.length, "person", "people"));
  refill($("people"), table("Everybody", COLUMNS, people.map(cellsOf)));
};

const keyForm = () => {
  const form = $("keys");
  const label = input("text", "", { maxlength: 200, required: "" });
  const hours = input("number", 720, { min: 1, max: 8784, step: "any" });
  const box = element("div", "fields");
  box.append(field("What it is for", label), field("Good for, hours", hours));
  form.append(element("p", "quiet", "It may do what you may. Your account page ends it."), box, ...formEnd("Make a key"));
  onSubmit(form, async () => {
    const { key } = await post("/research/keys", { label: label.value.trim() || "key", hours: Number(hours.value) });
    $("key").replaceChildren(shownOnce("Sent as `Authorization: Bearer …`. It is shown this once.", key));
    return "";
  });
};

await attempt(look);
inviteForm(null);
keyForm();
