/* One item on the screen: its source, its candidates, the notes of a staged reading, and its questions. It is built
   before it is shown, so that the next item is there at once. It knows the order of the screen and no other. */

import { element, letter, many, said, words, written } from "./text.js";
import { onlyOnes } from "./diff.js";
import { SCALES } from "./scales.js";
import { FLAGS } from "./flags.js";
import { RANKING } from "./ranking.js";
import { WRITING } from "./writing.js";
import { begun, bring } from "./sight.js";

const QUESTIONS = { ...SCALES, ...FLAGS, ...RANKING, ...WRITING };
const IN_BAR = new Set(["comparison", "best_of"]); // small enough to be in view all the time, when asked alone
const MOST_NOTE = 2000;
const BELOW = "0px 0px -160px 0px"; // what has come this far up is above the bar, on any screen

/* `taken`: letters that are keys already; `changed()` after each change; `reveal()` when the notes are complete;
   `gentle(text)` says what stands in the way. */
export const makeView = (first, { taken, changed, reveal, say, gentle }) => {
  let card = first;
  const node = element("div", "item");
  node.tabIndex = -1;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", "The item");
  const ask = element("div", "bar-question");
  const view = { node, ask, times: null, usedDiff: false, busy: false };
  let asked = []; // [question, its part of the page]
  let stops = [];
  let at = 0;
  let notes = [];
  let texts = [];
  let marked = false;
  const unread = new Set(card.candidates.keys()); // candidates that were never on the screen
  const watch = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => { if (isIntersecting) unread.delete(Number(target.dataset.place)); }), { rootMargin: BELOW });
  let led = false;
  /* Whether a choice among the candidates may be made. The scale is in view before they are, on a small screen: once,
     it leads to the one that was not. */
  const ready = () => {
    const missed = led || card.answers ? undefined : [...node.querySelectorAll(".candidate")].find((box, place) => unread.has(place) && !begun(box));
    if (!missed) return true;
    led = true;
    gentle(`${letter(Number(missed.dataset.place))} was not on the screen yet, so nothing was chosen. Here it is.`);
    bring(missed); // last: the sentence takes room of its own
    return false;
  };

  /* ------------------------------------------------------------------------------------------- what is shown */

  const contextNode = () => {
    const box = element("section", "context");
    box.tabIndex = 0; // it scrolls on its own where there is room beside the candidates
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Source");
    box.append(element("h2", "unseen", "Source"));
    for (const name of card.fields) {
      const value = card.context[name];
      if (value === "" || value === null) continue;
      const text = typeof value === "string" ? value : JSON.stringify(value, null, 1);
      if (card.fields.length > 1) box.append(element("h3", "name", name.replaceAll("_", " ")));
      box.append(said(text, "p", "said long"));
    }
    return box;
  };

  const candidateNode = ({ text }, place) => {
    const box = element("article", `candidate side-${letter(place).toLowerCase()}`);
    box.dataset.place = place;
    watch.observe(box);
    const head = element("h2", "letter", letter(place));
    head.id = `candidate-${card.assignment}-${place}`;
    box.setAttribute("aria-labelledby", head.id);
    const line = element("div", "candidate-head");
    line.append(head);
    if (card.show_length) line.append(element("span", "quiet", many(words(text), "word")));
    const body = said(text, "p", "said long");
    texts.push(body);
    box.append(line, body);
    return box;
  };

  /* Before the source is shown: what one makes of each candidate. */
  const noteNode = (place) => {
    const label = element("label", "naive");
    label.append(element("span", "", `What do you take ${letter(place)} to say?`));
    const box = element("textarea");
    box.rows = 3;
    box.dir = "auto";
    box.maxLength = MOST_NOTE;
    box.addEventListener("input", changed);
    label.append(box);
    notes.push(box);
    return label;
  };

  const point = (places) => node.querySelectorAll(".candidate").forEach((box, place) => box.classList.toggle("asked", places.includes(place)));
  const next = (stop) => {
    const i = stops.indexOf(stop);
    if (i + 1 < stops.length) turn(i + 1, true);
  };
  /* The first question of the item that says how good each one is. */
  const ratings = () => {
    const found = asked.find(([, part]) => part.ratings);
    return found ? found[1].ratings() : null;
  };
  const touched = () => {
    asked.forEach(([, part]) => part.refresh?.());
    changed();
  };

  const build = () => {
    [asked, stops, notes, texts, at] = [[], [], [], [], 0];
    const hidden = card.staged && !card.revealed;
    node.classList.toggle("sourced", Boolean(card.context && Object.keys(card.context).length));
    const sides = element("div", "candidates");
    const heads = element("div", "heads");
    const whole = element("div", "whole");
    const candidates = card.candidates.map(candidateNode);
    sides.append(...candidates);
    sides.classList.toggle("pair", candidates.length === 2);
    ask.replaceChildren();
    if (hidden) {
      candidates.forEach((box, place) => box.append(noteNode(place)));
      const words_ = element("div", "ask");
      words_.append(element("h2", "", "First, without the source"), element("p", "quiet", "Say what each one tells you, as you understand it. Then the source is shown."), element("p", "quiet typing-hint", "Enter goes on; Esc leaves the box for the keys."));
      heads.append(words_);
    } else {
      card.questions.forEach((question) => {
        const part = QUESTIONS[question.kind]({ question, card, changed: touched, next, taken, ratings, say, point, ready });
        asked.push([question, part]);
        stops.push(...part.stops);
        if (part.head) heads.append(part.head);
        part.parts?.forEach((one, place) => candidates[place].append(one));
        if (part.node) (card.questions.length === 1 && IN_BAR.has(question.kind) ? ask : whole).append(part.node);
      });
      // Candidate by candidate, then what is asked of all of them.
      stops = [...card.candidates.flatMap((_, place) => stops.filter((stop) => stop.place === place)), ...stops.filter((stop) => stop.place === undefined)];
      card.notes?.forEach((text, place) => {
        const line = element("div", "noted");
        line.append(element("h3", "", "You took it to say"), said(text));
        candidates[place].append(line);
      });
    }
    const work = element("div", "work");
    work.append(heads, sides, whole);
    node.replaceChildren(...(node.classList.contains("sourced") ? [contextNode(), work] : [work]));
    for (const [question, part] of asked) if (card.answers?.[question.name]) part.set(card.answers[question.name]);
    if (card.notes && hidden) notes.forEach((box, place) => { box.value = card.notes[place] ?? ""; });
    if (marked) mark();
    stops.forEach((stop, i) => stop.node.addEventListener("focusin", () => turn(i, false)));
    turn(0, false);
  };

  /* ----------------------------------------------------------------------------------------------- its turns */

  const turn = (i, focus) => {
    stops[at]?.node.classList.remove("here");
    at = i;
    if (stops.length > 1) stops[at]?.node.classList.add("here");
    if (focus && stops[at]) {
      stops[at].focus();
      stops[at].node.scrollIntoView({ block: "nearest" });
    }
  };

  /* ------------------------------------------------------------------------------------------------ the marks */

  const mark = () => {
    const runs = marked && card.candidates.length > 1 ? onlyOnes(card.candidates.map(({ text }) => text)) : null;
    texts.forEach((body, place) => {
      if (!runs) return body.replaceChildren(written(card.candidates[place].text));
      body.replaceChildren(...runs[place].map(({ text, only }) => {
        const piece = element(only ? "mark" : "span", only ? "only" : "shared");
        piece.append(written(text));
        return piece;
      }));
    });
    return !marked || card.candidates.length < 2 || runs !== null;
  };

  build();
  return Object.assign(view, {
    card: () => card,
    hidden: () => card.staged && !card.revealed,
    /* The server's card of the same assignment, further on: its source is shown, or it is open again. */
    update: (to) => { card = to; build(); },
    diff: (on) => { marked = on; return mark(); },
    turns: () => stops.length,
    focus: () => {
      if (notes.length) notes[0].focus({ preventScroll: true });
      else if (stops.length && stops.every((stop) => stop.writes)) stops[0].focus();
      else node.focus({ preventScroll: true });
      // A ranking that is asked alone, or first, begins without being asked to.
      if (asked.length && !stops[0]?.writes) asked.find(([, part]) => part.stops.includes(stops[0]))?.[1].start?.();
    },
    key: (event) => {
      if (stops[at]?.key(event)) return true;
      if (stops.length < 2 || (event.key !== "ArrowDown" && event.key !== "ArrowUp")) return false;
      const to = at + (event.key === "ArrowDown" ? 1 : -1);
      const within = stops[at]?.node.contains(document.activeElement);
      if (to >= 0 && to < stops.length) turn(within ? to : at, true);
      return true;
    },
    /* Enter where a question still has something to say to it; else false. */
    enter: () => {
      if (!stops[at]?.enter || !stops[at].node.contains(document.activeElement)) return false;
      const before = at;
      stops[at].enter();
      return at !== before;
    },
    /* What Enter does at `target`, as `enter` and `noteEnter` below would: whether it is for the next question or note. */
    entersOn: (target) => Boolean(stops[at]?.enter) && at + 1 < stops.length && stops[at].node.contains(target),
    isLastNote: (target) => notes.length > 0 && target === notes[notes.length - 1],
    /* Enter in a note: the next note, and after the last one the source. */
    noteEnter: (target, at_once) => {
      const i = notes.indexOf(target);
      if (i < 0) return false;
      if (!at_once && i + 1 < notes.length) notes[i + 1].focus();
      else reveal();
      return true;
    },
    notes: () => notes.map((box) => box.value.trim()),
    noted: () => notes.every((box) => box.value.trim()),
    missingNote: () => {
      const i = notes.findIndex((box) => !box.value.trim());
      if (i < 0) return "";
      notes[i].focus();
      return `Say first what you take ${letter(i)} to say.`;
    },
    /* The first question without an answer gets the focus; "" when there is none. */
    missing: () => {
      for (const [question, part] of asked) {
        const text = part.missing();
        if (!text || (!question.required && part.draft() === null)) continue;
        const i = stops.findIndex((stop) => part.stops.includes(stop) && (stop.place === undefined || part.parts[stop.place].querySelector(".scale:not(:has(:checked))")));
        const own = i < 0 ? stops.indexOf(part.stops[0]) : i;
        turn(own, true);
        return text;
      }
      return "";
    },
    answers: () => Object.fromEntries(asked.map(([question, part]) => [question.name, part.value()]).filter(([, value]) => value !== null)),
    started: () => asked.some(([, part]) => part.draft() !== null),
    /* What would be lost by a reload. */
    draft: () => ({ notes: notes.map((box) => box.value), answers: Object.fromEntries(asked.map(([question, part]) => [question.name, part.draft()]).filter(([, value]) => value !== null)) }),
    restore: (kept) => {
      notes.forEach((box, place) => { box.value = kept.notes?.[place] ?? box.value; });
      for (const [question, part] of asked) if (kept.answers?.[question.name]) part.set(kept.answers[question.name]);
    },
  });
};
