/* The fields of a project's settings, one table for a new project and for a change of one. Questions are JSON, since
   each kind has settings of its own. */

import { Refused } from "./api.js";
import { element } from "./text.js";
import { choice, field, input, textarea, tick } from "./research-page.js";

/* name, what it says, kind, hint; a share is shown in percent. */
const FIELDS = [
  ["title", "Title that labelers read", "text", ""],
  ["overlap", "People for each item", "whole", ""],
  ["staged", "Staged reading", "yes", "Labelers note what each candidate says before they see the source."],
  ["order", "Order of the items", ["seeded", "given"], ""],
  ["calibration_share", "Shared with everybody", "share", "Of a person's items. The papers: 10 to 20%."],
  ["gold_share", "With a known answer", "share", "They look like all others."],
  ["repeat_share", "Their own again", "share", "With the sides mirrored."],
  ["drift_share", "From the fixed pairs", "share", "By which a change over weeks is seen."],
  ["uniform_share", "Whatever the priority", "share", "Of the work: the part whose numbers are numbers of all."],
  ["onboarding", "Practice items", "whole", "Before work; 0 for none."],
  ["pass_agreement", "Agreement to pass", "share", "With the right answers, in practice."],
  ["pass_median_s", "Median seconds to pass", "number", "At most, for an item; 0 for no limit."],
  ["lease_s", "Seconds on a screen", "whole", "Then an item goes back to the queue."],
  ["ahead", "Items held at once", "whole", ""],
  ["diff", "Marking of differences", [["off", "off at first"], ["on", "on at first"], ["never", "not offered"]], ""],
  ["show_length", "Words are counted", "yes", "Beside each candidate."],
];

const readers = {
  text: (control) => control.value,
  whole: (control) => Number(control.value),
  number: (control) => Number(control.value),
  share: (control) => Number(control.value) / 100,
  yes: (control) => control.checked,
};

const controlOf = (kind, value) => {
  if (Array.isArray(kind)) return choice(kind, value);
  if (kind === "yes") return input("checkbox", value);
  if (kind === "text") return input("text", value, { maxlength: 200 });
  if (kind === "share") return input("number", Number((100 * value).toFixed(4)), { min: 0, max: 100, step: "any" });
  return input("number", value, { min: 0, step: kind === "whole" ? 1 : "any" });
};

const parsed = (control) => {
  try {
    return JSON.parse(control.value);
  } catch (error) {
    control.focus();
    throw new Refused(422, "bad_value", `The questions are not JSON: ${error.message}.`);
  }
};

/* `node` with the fields of `settings`; `read()` gives all of them back, or raises Refused as the server would. */
export const settingFields = (settings) => {
  const node = element("div", "fields");
  const controls = FIELDS.map(([name, text, kind, hint]) => {
    const control = controlOf(kind, settings[name]);
    node.append(kind === "yes" ? tick(text, control, hint) : field(kind === "share" ? `${text}, %` : text, control, hint));
    return [name, readers[kind] ?? ((one) => one.value), control];
  });
  const shown = input("text", settings.fields.join(", "), { spellcheck: "false" });
  node.append(field("Fields of the source", shown, "Shown from top to bottom, with commas between; empty for all."));
  const questions = textarea(JSON.stringify(settings.questions, null, 1), { class: "code", spellcheck: "false", rows: 10 });
  const last = field("Questions, as JSON", questions, "name, kind (comparison, best_of, ranking, rating, likert, flags, demonstration, edit), text, points, axes, flags, ties, required, rubric.");
  last.classList.add("whole");
  node.append(last);
  return {
    node,
    read: () => ({
      ...Object.fromEntries(controls.map(([name, read, control]) => [name, read(control)])),
      fields: shown.value.split(",").map((one) => one.trim()).filter(Boolean),
      questions: parsed(questions),
    }),
  };
};
