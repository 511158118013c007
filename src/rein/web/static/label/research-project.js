/* One project at a glance: how far it is and when it would be done, what is to be done next, its batches, who works on it
   now, and its settings. */

import { $, duration, element, many, percent, put, said, when } from "./text.js";
import { at, attempt, empty, formEnd, get, link, live, onSubmit, pageOf, post, project, refill, table } from "./research-page.js";
import { askAsPerson } from "./api.js";
import { bars, spans } from "./research-charts.js";
import { settingFields } from "./research-settings.js";
import { standing } from "./research-standing.js";

const EVERY_MS = 10_000;
let settings = null;
let closed = false;

/* ---------------------------------------------------------------------------------------------------------- tiles */

const tile = (name, value, below) => {
  const box = element("div");
  const dd = element("dd");
  dd.append(element("strong", "", value), element("span", "", below));
  box.append(element("dt", "", name), dd);
  return box;
};

const day = (ms) => new Date(ms).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

const showTiles = (told, { done, wanted }) => {
  const { pace } = told;
  refill($("tiles"),
    tile("answers", done.toLocaleString("en"), wanted ? `of ${wanted.toLocaleString("en")} wanted, ${percent(done / wanted)}` : "nothing is wanted yet"),
    tile("left", told.left.toLocaleString("en"), "answers, those on screens with them"),
    tile("an hour", pace.per_hour === null ? "–" : pace.per_hour.toFixed(pace.per_hour < 10 ? 1 : 0), pace.per_hour === null ? told.why ?? "there were no answers in the last 24 hours" : `items; ${pace.last_day.toLocaleString("en")} in the last 24 hours`),
    told.end_ms ? tile("done in about", duration(told.end_ms - told.server_ms), day(told.end_ms)) : tile("done in about", "–", told.why ?? "nothing is left"),
  );
};

/* ------------------------------------------------------------------------------------------------------ what next */

/* Each is [words, address] when it is due. */
const dueNow = ({ told, stand, people, threads, instructions }) => {
  const labelers = people.filter(({ role, active }) => role === "labeler" && active);
  const states = (state) => labelers.filter((one) => one.state === state);
  const failed = states("stopped").filter(({ training }) => training && training.agreed !== null && training.agreed < settings.pass_agreement);
  const waiting = threads.filter(({ reply }) => reply === null);
  const full = told.batches.filter(({ frozen_ms, roles }) => frozen_ms === null && roles.work && roles.work.done === roles.work.items);
  const has = (role) => told.batches.some(({ roles }) => roles[role]);
  const experts = people.filter(({ role, submitted }) => role !== "labeler" && submitted > 0);
  return [
    [closed, "It is closed and hands out nothing. Open it below when work goes on.", "#settings-head"],
    [stand.items === 0, "Take in what is to be judged.", pageOf("/data")],
    [instructions.version === 0, "Write the instructions: nothing helps agreement as much.", pageOf("/instructions")],
    [labelers.length === 0, "Invite labelers.", pageOf("/people")],
    [waiting.length > 0, `${many(waiting.length, "question")} of labelers ${waiting.length === 1 ? "waits" : "wait"} for a reply.`, pageOf("/questions")],
    [failed.length > 0, `${many(failed.length, "labeler")} did not pass the practice round: ${failed.map(({ name }) => name).join(", ")}.`, pageOf("/people")],
    [settings.onboarding > 0 && !has("onboarding"), `The practice round has ${settings.onboarding} items, but there are none of role onboarding.`, pageOf("/items?role=onboarding")],
    [settings.gold_share > 0 && stand.items > 0 && !has("gold"), "There are no items with a known answer. Set the right answer of some, and their role to gold.", pageOf("/items")],
    [settings.calibration_share > 0 && stand.items > 0 && !has("calibration"), "There are no items that everybody gets: give some the role calibration.", pageOf("/items")],
    [stand.done > 0 && experts.length === 0, "No researcher has answered yet, so nobody knows how labelers agree with you. Answer some yourself.", `/label/desk/${encodeURIComponent(project)}`],
    [full.length > 0, `${full.map(({ name }) => name).join(", ")}: every item has its answers. Look at the agreement, then freeze.`, pageOf("/data")],
    [stand.wanted > 0 && told.left === 0, "Nothing is left to do. Export the answers.", pageOf("/data")],
  ].filter(([due]) => due);
};

const showNext = (found) => {
  const due = dueNow(found);
  refill($("next"), ...(due.length ? due.map(([, words, address], i) => {
    const item = element("li");
    const node = link(said(words, "span"), address);
    node.dataset.key = `next-${i}`;
    item.append(element("i", "bulb"), node);
    return item;
  }) : [empty("Nothing: it goes on by itself.", "li")]));
};

/* -------------------------------------------------------------------------------------------------------- batches */

const dayOf = (ms) => new Date(ms).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });

const showBatches = (told) => {
  if (!told.batches.length) {
    refill($("timeline"));
    return refill($("batches"), empty("There are no items yet."));
  }
  const rows = told.batches.map(({ name, created_ms, frozen_ms, roles }) => {
    const { items = 0, done = 0 } = roles.work ?? {};
    const end = frozen_ms ?? told.server_ms;
    return { name, from: Math.min(created_ms, end), to: end, ended: frozen_ms !== null, done: items ? done / items : 0, says: `${items ? `${percent(done / items)} done` : "no work"}${frozen_ms === null ? "" : ", frozen"}` };
  });
  const from = Math.min(...rows.map((one) => one.from));
  const to = Math.max(...rows.map((one) => one.to));
  refill($("timeline"), spans({ label: `From when to when the batches were open: ${rows.map(({ name, says }) => `${name} ${says}`).join("; ")}`, rows: rows.slice(-30), from, to: Math.max(to, from + 1), says: dayOf }));
  const cells = told.batches.flatMap(({ name, frozen_ms, roles }) => Object.entries(roles).map(([role, one]) => [
    said(name, "span"), role, one.items.toLocaleString("en"), ...["waiting", "begun", "done"].map((name) => (role === "work" ? one[name].toLocaleString("en") : "")),
    role === "work" ? `${one.answers.toLocaleString("en")} of ${one.wanted.toLocaleString("en")}` : one.answers.toLocaleString("en"), frozen_ms === null ? "open" : [document.createTextNode("frozen "), when(frozen_ms)],
  ]));
  return refill($("batches"), table("Batches by role", [{ name: "Batch", head: true }, { name: "Role" }, { name: "Items", n: true }, { name: "Waiting", n: true }, { name: "Begun", n: true }, { name: "Done", n: true }, { name: "Answers", n: true }, { name: "State" }], cells, "dense"));
};

const showLeases = ({ leases, server_ms }) => {
  if (!leases.length) return refill($("leases"), empty("Nobody holds an item."));
  return refill($("leases"), table("Who holds items", [{ name: "Person", head: true }, { name: "Items", n: true }, { name: "The first goes back in", n: true }], leases.map(({ name, held, lease_ms }) => [said(name, "span"), String(held), duration(lease_ms - server_ms)])));
};

let drawn = "";
const showPace = ({ pace }) => {
  const key = JSON.stringify(pace.hours);
  if (key === drawn) return;
  drawn = key;
  const hours = [...pace.hours].reverse();
  const ago = (i) => hours.length - 1 - i;
  refill($("pace"), pace.last_day ? bars({ label: `Items answered in each of the last 24 hours, ${pace.last_day} in all`, values: hours, says: (i) => `${many(hours[i], "item")}, ${ago(i) ? `${ago(i)} to ${ago(i) + 1} hours ago` : "in the last hour"}`, under: [[0, "24 hours ago"], [hours.length - 1, "now"]] }) : empty("No answers."));
};

/* ------------------------------------------------------------------------------------------------------- settings */

const showSettings = () => {
  put($("close"), closed ? "Open it again" : "Close it");
  $("close").hidden = false;
  const form = $("settings");
  const fields = settingFields(settings);
  form.replaceChildren(fields.node, ...formEnd("Keep these settings"));
  onSubmit(form, async () => {
    const given = fields.read();
    const changed = Object.fromEntries(Object.entries(given).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(settings[name])));
    if (!Object.keys(changed).length) return "Nothing was changed.";
    await askAsPerson("PATCH", at, { settings: changed });
    settings = { ...settings, ...given };
    return `Kept: ${Object.keys(changed).join(", ")}.`;
  });
};
$("close").addEventListener("click", () => attempt(async () => {
  await post(`${at}/close`, { closed: !closed });
  closed = !closed;
  put($("close"), closed ? "Open it again" : "Close it");
  await look();
}));

const look = () => attempt(async () => {
  const [told, { people }, { threads }, instructions] = await Promise.all([
    get(`${at}/progress`), get(`${at}/people`), get(`${at}/threads`), get(`/instructions?project=${encodeURIComponent(project)}`),
  ]);
  const stand = standing(told);
  put($("facts"), [settings.title, settings.questions.map(({ kind }) => kind.replaceAll("_", " ")).join(", "), closed ? "closed" : ""].filter(Boolean).join(" · "));
  showTiles(told, stand);
  showNext({ told, stand, people, threads, instructions });
  showBatches(told);
  showLeases(told);
  showPace(told);
});

await attempt(async () => {
  const { projects } = await get("/research/projects");
  const own = projects.find(({ name }) => name === project);
  if (!own) return $("main").replaceChildren(empty(`There is no project ${project}.`));
  ({ settings, closed } = own);
  showSettings();
  await live(look, EVERY_MS);
  return undefined;
});
