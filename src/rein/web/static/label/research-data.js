/* Files in and out, and batches that change no more. A file goes up as it is; nothing of it is taken in before it was
   looked at, unless that is wanted. */

import { Refused, Unreachable } from "./api.js";
import { $, element, many, put, said, when } from "./text.js";
import { at, attempt, choice, empty, field, formEnd, get, input, offer, onSubmit, post, project, refill, table, tick } from "./research-page.js";

const ROLES = [["", "as the file says, else work"], "work", "calibration", "gold", "onboarding", "drift"];
const SPLITS = ["train", "valid1", "valid2", "test"]; // the ones of the papers; any name will do
const TIES = [["drop", "left out"], ["half", "kept, with one half"], ["both", "kept in both directions"]];

/* Sends or asks for a file; errors as those of api.js. */
const transfer = async (path, more) => {
  let answer;
  try {
    answer = await fetch(`/label/api${path}`, { cache: "no-store", ...more });
  } catch {
    throw new Unreachable("No connection to the server, or it stopped listening: the file may be too large for it.");
  }
  if (answer.ok) return answer;
  let told = {};
  try { told = await answer.json(); } catch { /* a proxy's page */ }
  throw new Refused(answer.status, told?.error?.code ?? "", told?.error?.text ?? `The server answered ${answer.status}.`);
};

/* ------------------------------------------------------------------------------------------------------------- in */

const showFound = (told, dry) => {
  const box = element("div", told.bad_total ? "note" : "panel");
  const items = `${many(told.added, "new item")}, ${told.known.toLocaleString("en")} known, ${many(told.answers, "answer")}, from ${many(told.lines, "line")} of ${told.format}`;
  box.append(element("p", "", dry ? `It would bring ${items}. Nothing was taken in.` : `It brought ${items}.`));
  if (told.unseen.length) box.append(said(`Kept, and not shown to labelers: ${told.unseen.join(", ")}.`));
  if (told.bad_total) {
    box.append(element("p", "trouble", `${many(told.bad_total, "line is", "lines are")} no good${dry ? "; the others can come in" : "; the others came in"}.`));
    box.append(table("Lines that are no good", [{ name: "Line", head: true, n: true }, { name: "Problem" }], told.bad.map(({ line, problem }) => [line.toLocaleString("en"), said(problem, "span")])));
    if (told.bad_total > told.bad.length) box.append(element("p", "quiet", `These are the first ${told.bad.length}.`));
  }
  refill($("found"), box);
};

const importForm = (formats, batches) => {
  const file = input("file", "", { required: "" });
  const format = choice([["", "as its first row tells"], ...formats.filter(({ reads }) => reads).map(({ name, says }) => [name, `${name}: ${says}`])]);
  const batch = input("text", "", { maxlength: 100, list: "batch-names", autocomplete: "off" });
  const names = element("datalist");
  names.id = "batch-names";
  names.append(...batches.map(({ name }) => { const made = element("option"); made.value = name; return made; }));
  const role = choice(ROLES);
  const box = element("div", "fields");
  box.append(field("File", file), field("Format", format), field("Batch", batch, "Empty: as the file says, else batch1."), names, field("Role", role));
  const [trouble, row] = formEnd("Take it in");
  const dry = element("button", "", "Look at it first");
  dry.type = "submit";
  dry.value = "dry";
  row.prepend(dry);
  $("import").append(box, trouble, row);
  onSubmit($("import"), async (by) => {
    const [one] = file.files;
    if (!one) { file.focus(); throw new Refused(422, "bad_value", "Choose a file."); }
    const looks = by.value === "dry";
    const query = new URLSearchParams({ format: format.value, batch: batch.value.trim(), role: role.value, dry: looks ? 1 : 0, file: one.name });
    refill($("found"), empty("It is on its way …"));
    try {
      const answer = await transfer(`${at}/import?${query}`, { method: "POST", body: one });
      showFound(await answer.json(), looks);
    } catch (error) {
      refill($("found"));
      throw error;
    }
    await showBatches();
    return "";
  });
};

/* ------------------------------------------------------------------------------------------------------------ out */

const exportForm = (formats, settings) => {
  const kinds = new Set(settings.questions.map(({ kind }) => kind));
  const fits = formats.filter(({ writes, kinds: own }) => writes && (!own.length || own.some((kind) => kinds.has(kind))));
  const format = choice(fits.map(({ name }) => name), "rein");
  const ties = choice(TIES);
  const split = input("text", "", { maxlength: 100, list: "split-names", autocomplete: "off" });
  const known = element("datalist");
  known.id = "split-names";
  known.append(...SPLITS.map((name) => { const made = element("option"); made.value = name; return made; }));
  const batch = choice([["", "all"]]);
  const question = choice([["", "the first that fits"], ...settings.questions.map(({ name }) => name)]);
  const boxes = [["names", "Names of people, in place of pseudonyms"], ["implicit", "TRL: the prompt inside both texts"], ["margin", "TRL: with a margin"]].map(([name, text]) => {
    const control = input("checkbox");
    return { name, control, label: tick(text, control) };
  });
  const fields = element("div", "fields");
  fields.append(field("Format", format), field("Ties", ties), field("Split", split, "Empty: all of them."), known, field("Batch", batch), field("Question", question), ...boxes.map(({ label }) => label));
  $("export").append(fields, ...formEnd("Download"));
  const says = () => put($("says"), `${format.value}: ${fits.find(({ name }) => name === format.value)?.says ?? ""}. A program with a key asks for /label/api${at}/export?${address()}`);
  const address = () => new URLSearchParams([
    ...Object.entries({ format: format.value, ties: ties.value, split: split.value.trim(), batch: batch.value, question: question.value }),
    ...boxes.filter(({ control }) => control.checked).map(({ name }) => [name, "true"]),
  ].filter(([, value]) => value)).toString();
  $("export").addEventListener("change", says);
  says();
  onSubmit($("export"), async () => {
    const answer = await transfer(`${at}/export?${address()}`, {});
    const name = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? `${project}.jsonl`;
    const blob = await answer.blob(); // Chromium and Firefox keep a large one on disk
    const link = element("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    return `${name}: ${blob.size.toLocaleString("en")} bytes.`;
  });
  return batch;
};

/* -------------------------------------------------------------------------------------------------------- batches */

let chosen = null; // the export's batch
const showBatches = async () => {
  const { batches } = await get(`${at}/progress`);
  const rows = batches.map(({ name, frozen_ms, created_ms, roles }) => {
    const count = Object.values(roles).reduce((sum, one) => sum + one.items, 0);
    const made = element("button", "", frozen_ms === null ? "Freeze" : "Thaw");
    made.type = "button";
    made.dataset.key = `freeze-${name}`;
    made.setAttribute("aria-label", `${frozen_ms === null ? "Freeze" : "Thaw"} ${name}`);
    made.addEventListener("click", () => attempt(async () => {
      await post(`${at}/batches/${encodeURIComponent(name)}`, { frozen: frozen_ms === null });
      await showBatches();
    }));
    return [said(name, "span"), count.toLocaleString("en"), when(created_ms), frozen_ms === null ? "open" : [document.createTextNode("frozen "), when(frozen_ms)], made];
  });
  refill($("batches"), rows.length ? table("Batches", [{ name: "Batch", head: true }, { name: "Items", n: true }, { name: "Came" }, { name: "State" }, { name: "Change" }], rows) : empty("There is none yet."));
  if (chosen) offer(chosen, [["", "all"], ...batches.map(({ name }) => name)]);
  return batches;
};

await attempt(async () => {
  const [{ formats }, { projects }, batches] = await Promise.all([get("/research/formats"), get("/research/projects"), showBatches()]);
  const own = projects.find(({ name }) => name === project);
  if (!own) throw new Refused(404, "unknown", `There is no project ${project}.`);
  importForm(formats, batches);
  chosen = exportForm(formats, own.settings);
  offer(chosen, [["", "all"], ...batches.map(({ name }) => name)]);
});
