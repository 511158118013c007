/* What stands beside the task: its next version with a preview, the versions there were, what is pinned below. */

import { Refused } from "./api.js";
import { $, askedWords, element, many, put, said, when, written } from "./text.js";
import { at, attempt, empty, field, formEnd, get, onSubmit, post, project, refill, table, textarea } from "./research-page.js";

const MOST = 200_000;
const form = $("edit");
const text = textarea("", { maxlength: MOST, rows: 18, spellcheck: "true" });
form.append(field("Text", text, "Lines that begin with # are headings; all else is shown as it is written."), ...formEnd("Give it to everybody"));

/* As guide.js shows a line. */
const lineOf = (line) => {
  const hashes = /^(#{1,3})\s+(.*)$/.exec(line);
  const made = element(hashes ? "h3" : "p");
  made.dir = "auto";
  made.append(written(hashes ? hashes[2] : line));
  return made;
};
const read = (holder, words) => {
  const lines = words.split("\n").filter((line) => line.trim());
  holder.replaceChildren(...(lines.length ? lines.map(lineOf) : [empty("Nothing yet.")]));
};
text.addEventListener("input", () => read($("preview"), text.value));

let newest = null;
const address = (version) => `/instructions?project=${encodeURIComponent(project)}${version ? `&version=${version}` : ""}`;

const showOld = (version) => attempt(async () => {
  const told = await get(address(version));
  const box = element("div", "panel");
  const lines = element("div", "stack");
  read(lines, told.text);
  box.append(element("h3", "", `Version ${version}`), lines);
  refill($("old"), box);
});

const show = (told) => {
  newest = told;
  put($("facts"), told.version ? `version ${told.version}` : "there are none yet");
  const rows = told.versions.map(({ version, at_ms }) => {
    const button = element("button", "", "Read it");
    button.type = "button";
    button.dataset.key = `version-${version}`;
    button.setAttribute("aria-label", `Read version ${version}`);
    button.addEventListener("click", () => showOld(version));
    return [String(version), when(at_ms), button];
  });
  refill($("versions"), rows.length ? table("Versions", [{ name: "Version", head: true }, { name: "Written" }, { name: "Text" }], rows) : empty("None yet."));
  refill($("pinned"), ...(told.pinned.length ? told.pinned.map(({ text: asked, reply }) => {
    const item = element("li", "panel");
    item.append(said(askedWords(asked), "p", "said quiet"), said(reply));
    return item;
  }) : [empty("Nothing. A reply to a labeler's question can be pinned.", "li")]));
};

onSubmit(form, async () => {
  if (!text.value.trim()) throw new Refused(422, "bad_value", "Write something first.");
  if (text.value === newest.text) return "It is as it was.";
  const { version } = await post(`${at}/instructions`, { text: text.value });
  show(await get(address()));
  return `It is version ${version}. Labelers see what is new in it.`;
});

await attempt(async () => {
  const told = await get(address());
  text.value = told.text;
  text.dispatchEvent(new Event("input"));
  show(told);
  form.querySelector("small").append(` At most ${many(MOST, "character")}.`);
});
addEventListener("beforeunload", (event) => { if (newest && text.value !== newest.text) event.preventDefault(); });
