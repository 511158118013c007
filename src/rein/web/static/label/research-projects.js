/* All projects with how far they are, and the making of a new one from a paper's preset. */

import { Refused } from "./api.js";
import { $, element, many, put, said, when } from "./text.js";
import { attempt, choice, empty, field, formEnd, get, input, link, onSubmit, pageOf, post } from "./research-page.js";
import { settingFields } from "./research-settings.js";
import { standing } from "./research-standing.js";

const projectNode = ({ name, settings, closed }) => {
  const item = element("li", "panel project");
  const head = element("h3");
  head.append(link(said(settings.title || name, "span"), pageOf("", name)));
  const asked = settings.questions.map(({ kind }) => kind.replaceAll("_", " "));
  const facts = element("p", "quiet");
  facts.append(said([settings.title ? name : "", [...new Set(asked)].join(", "), settings.staged ? "staged reading" : "", `${many(settings.overlap, "person", "people")} for each item`, closed ? "closed" : ""].filter(Boolean).join(" · "), "span"));
  const how = element("div", "");
  item.append(head, facts, how);
  attempt(async () => {
    const told = await get(`/research/projects/${encodeURIComponent(name)}/progress`);
    const { done, wanted, items } = standing(told);
    if (!wanted) return how.append(empty(items ? "It has no items of role work." : "It has no items yet."));
    const bar = element("progress");
    bar.max = wanted;
    bar.value = done;
    bar.setAttribute("aria-label", `answers of ${name}`);
    const line = element("p", "quiet", `${done.toLocaleString("en")} of ${many(wanted, "answer")}`);
    if (told.pace.per_hour) line.append(` · ${told.pace.per_hour.toFixed(1)} items an hour`);
    if (told.end_ms) line.append(" · done about ", when(told.end_ms));
    how.append(bar, line);
    return undefined;
  });
  return item;
};

const showForm = (presets) => {
  const form = $("new");
  const preset = choice(Object.keys(presets).map((name) => [name, `${name}: ${presets[name].questions.map(({ kind }) => kind.replaceAll("_", " ")).join(", ")}`]));
  const name = input("text", "", { maxlength: 100, required: "", autocomplete: "off", spellcheck: "false" });
  const box = element("details");
  box.append(element("summary", "", "Its settings"));
  let fields = null;
  const fill = () => {
    fields?.node.remove();
    fields = settingFields({ ...presets[preset.value], title: "" });
    box.append(fields.node);
  };
  preset.addEventListener("change", fill);
  fill();
  const head = element("div", "fields");
  head.append(field("Preset", preset), field("Name", name, "Stands in addresses and files."));
  form.append(head, box, ...formEnd("Make it"));
  onSubmit(form, async () => {
    if (!name.value.trim()) { name.focus(); throw new Refused(422, "bad_value", "Give it a name."); }
    const made = await post("/research/projects", { preset: preset.value, settings: { ...fields.read(), name: name.value.trim() } });
    location.assign(pageOf("", made.name));
    return "It is made.";
  });
};

await attempt(async () => {
  const { projects, presets } = await get("/research/projects");
  put($("facts"), many(projects.length, "project"));
  $("projects").replaceChildren(...projects.map(projectNode));
  $("empty").hidden = projects.length > 0;
  put($("empty"), "There is none yet.");
  showForm(presets);
});
