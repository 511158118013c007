/* The instructions beside the task: their version, a search, the answers that were pinned, and what is new since this
   person last read them. */

import { askAsPerson } from "./api.js";
import { $, askedWords, element, many, put, said, when, written } from "./text.js";

const store = (project) => `rein-label-guide-${project}`;

export const makeGuide = ({ project }) => {
  let told = null; // the instructions as they are
  let before = null; // the version and lines that were read last, on this device
  try { before = JSON.parse(localStorage.getItem(store(project))); } catch { /* storage is off */ }

  const isNew = (line) => before !== null && before.version !== told.version && line.trim() !== "" && !before.lines.includes(line);

  /* A line of the instructions, with every place where it says what is looked for. */
  const lineOf = (line, wanted) => {
    const hashes = /^(#{1,3})\s+(.*)$/.exec(line);
    const made = element(hashes ? "h3" : "p", isNew(line) ? "fresh" : "");
    made.dir = "auto";
    const text = hashes ? hashes[2] : line;
    if (isNew(line)) made.append(element("span", "unseen", "new: "));
    const low = text.toLowerCase();
    let at = 0;
    for (let found = wanted ? low.indexOf(wanted) : -1; found >= 0; found = low.indexOf(wanted, at)) {
      const mark = element("mark");
      mark.append(written(text.slice(found, found + wanted.length)));
      made.append(written(text.slice(at, found)), mark);
      at = found + wanted.length;
    }
    made.append(written(text.slice(at)));
    return made;
  };

  const draw = () => {
    const wanted = $("guide-search").value.trim().toLowerCase();
    const lines = (told.text || "There are no instructions yet.").split("\n");
    $("guide-text").replaceChildren(...lines.filter((line) => line.trim()).map((line) => lineOf(line, wanted)));
    const found = $("guide-text").querySelectorAll("mark");
    put($("guide-found"), wanted ? (found.length ? many(found.length, "place") : "not there") : "");
    found[0]?.scrollIntoView({ block: "nearest" });
    $("guide-pinned").hidden = told.pinned.length === 0;
    $("guide-answers").replaceChildren(...told.pinned.map(({ text, reply }) => {
      const item = element("li");
      item.append(said(askedWords(text), "p", "said question"), said(reply));
      return item;
    }));
  };

  const read = () => {
    if (!told || $("guide").hidden) return;
    try { localStorage.setItem(store(project), JSON.stringify({ version: told.version, lines: told.text.split("\n") })); } catch { /* storage is off */ }
    $("guide-new").hidden = true;
  };

  const load = async () => {
    told = await askAsPerson("GET", `/instructions?project=${encodeURIComponent(project)}`);
    const at = told.versions.find(({ version }) => version === told.version);
    $("guide-version").replaceChildren(told.version ? `version ${told.version}` : "", ...(at ? [", ", when(at.at_ms)] : []));
    const changed = told.version > 0 && before?.version !== told.version;
    $("guide-new").hidden = !changed || before === null;
    $("guide-changed").hidden = !changed || before === null;
    draw();
    return changed; // unread, or changed since
  };

  const show = (open) => {
    $("guide").hidden = !open;
    $("guide-open").setAttribute("aria-expanded", String(open));
    document.body.classList.toggle("guided", open);
    if (open) read();
  };

  $("guide-search").addEventListener("input", draw);
  return {
    load,
    show,
    toggle: () => {
      show($("guide").hidden);
      if (!$("guide").hidden) $("guide-head").focus();
    },
    /* A card was made with another version than the one that is shown. */
    version: (version) => {
      if (!told || version <= told.version) return;
      before = { version: told.version, lines: told.text.split("\n") };
      load();
    },
  };
};
