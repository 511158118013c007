/* The desk: shows an item, takes the answer into the outbox, and shows the next one, which is there already, in the
   same moment. The answers travel behind. Nothing here waits for the server, except the source of a staged item, the
   explanation of a practice item, and an undo, which are the server's to give. */

import { ask, askAsPerson, Refused, whoIsHere } from "./api.js";
import { say } from "../elements.js";
import { $, many, put } from "./text.js";
import { makeClock } from "./clock.js";
import { askWords, REASONS, showKeys } from "./dialogs.js";
import { makeDrafts } from "./drafts.js";
import { makeGuide } from "./guide.js";
import { acts, keysOf, listen, typing } from "./keys.js";
import { makeMarking } from "./marking.js";
import { nothingNode } from "./nothing.js";
import { newKey, openOutbox } from "./outbox.js";
import { makeStatus, showMessages } from "./status.js";
import { explain, left } from "./teach.js";
import { makeView } from "./card.js";

const project = document.body.dataset.project;
const HEARTBEAT_MS = 60_000;
const RETRY_MS = 3000;

const me = await whoIsHere($("sheet"));
const mine = () => me.projects.find(({ name }) => name === project);
const preferences = me.preferences;
const clock = makeClock();
const guide = makeGuide({ project });
const drafts = makeDrafts(me.name);
const marking = makeMarking({ person: me.name, project });

const hand = []; // views: the first is on the screen, the rest are built and wait
const past = []; // assignments answered on this page, for undo
const given = new Set(); // assignments that are answered, whether or not the server knows it yet
const expected = new Map(); // submission key → what to do with the server's answer
const undoKeys = new Map(); // assignment → the key of an undo that was not acknowledged
let told = null; // why there is nothing
let training = mine()?.training ?? null;
let asking = false;
let teaching = false;
let answered = mine()?.mine ?? 0; // practice apart, as the server counts
let draftTimer = null;

/* -------------------------------------------------------------------------------------------------------- the item */

const gentle = (text) => put($("gentle"), text);
const count = (more) => {
  answered = Math.max(0, answered + more);
  put($("where"), answered ? `${many(answered, "item")} answered` : "");
};

const taken = new Set(Object.values(keysOf(preferences)).map((key) => key.toLowerCase()));
const build = (card) => {
  const view = makeView(card, {
    taken, say, gentle, reveal: () => reveal(view),
    changed: () => {
      if (hand[0] !== view) return;
      if (!view.hidden() && view.started()) clock.answered();
      gentle("");
      clearTimeout(draftTimer);
      draftTimer = setTimeout(drafts.keep, 300, view);
    },
  });
  drafts.find(view);
  view.diff(marking.on(card));
  return view;
};

/* The keys that act where the focus is: hints of others step back, and Submit shows its own. */
const follow = (target) => {
  const view = hand[0];
  if (!view) return;
  document.body.classList.toggle("typing", typing(target));
  const enters = typing(target) ? view.isLastNote(target) : acts(target) ? target === $("send") : !view.entersOn(target);
  put($("send").querySelector("kbd"), enters ? "Enter" : "Ctrl Enter");
};
addEventListener("focusin", ({ target }) => follow(target));
addEventListener("focusout", ({ relatedTarget }) => { if (!relatedTarget) follow(document.body); });

let shown = null; // the view on the screen
const show = () => {
  const view = hand[0];
  shown = view ?? null;
  gentle("");
  put($("practice"), view?.card().practice ? left(training) || "Practice item." : "");
  $("practice").hidden = !$("practice").textContent;
  $("bar").hidden = !view;
  if (!view) {
    $("bar-ask").replaceChildren();
    return showNothing();
  }
  const card = view.card();
  $("sheet").replaceChildren(view.node);
  $("bar-ask").replaceChildren(view.ask);
  put($("send-word"), view.hidden() ? "Show the source" : "Submit");
  $("diff").hidden = !marking.offered(card);
  $("diff").setAttribute("aria-pressed", String(marking.on(card)));
  view.usedDiff ||= marking.on(card);
  guide.version(card.instructions);
  view.times = clock.begin(view.hidden() ? "notes" : "answers", view.times);
  scrollTo(0, 0);
  $("main").scrollTop = 0;
  view.focus();
  follow(document.activeElement);
};

const showNothing = () => {
  const box = nothingNode({ told, asking, training, project, again: () => { told = null; fetchMore(); } });
  $("sheet").replaceChildren(box);
  if (told) say(box.textContent);
};

/* --------------------------------------------------------------------------------------------------- asking for work */

let retry = null;
const fetchMore = async () => {
  if (asking || (told && !hand.length)) return;
  clearTimeout(retry);
  asking = true;
  try {
    const found = await askAsPerson("POST", "/claim", { project, count: 2 });
    const waiting = new Set(outbox.state.waiting.map(({ body }) => body.assignment));
    for (const card of found.items) {
      if (given.has(card.assignment) || waiting.has(card.assignment) || hand.some((view) => view.card().assignment === card.assignment)) continue;
      hand.push(build(card));
    }
    told = hand.length ? null : found.nothing === "all done" && mine()?.empty && !answered ? "nothing yet" : found.nothing;
    // What was claimed is all on its way back to the server: look again once it is there.
    if (!hand.length && !told && !outbox.state.waiting.length) retry = setTimeout(fetchMore, RETRY_MS);
  } catch (error) {
    if (error instanceof Refused) told = error.code === "unknown" ? "no member" : null;
    retry = setTimeout(fetchMore, RETRY_MS);
  }
  asking = false;
  if (!teaching && (!hand.length || shown !== hand[0])) show();
};

/* Says that somebody is still there. What is not on the screen and is no longer held goes: others have it. */
const holdOn = async () => {
  if (!hand.length) return;
  const asked = hand.map((view) => view.card().assignment);
  try {
    const { leases } = await ask("POST", "/heartbeat", { assignments: asked });
    const gone = asked.filter((assignment) => !(assignment in leases));
    for (const view of hand.slice(1)) if (gone.includes(view.card().assignment)) hand.splice(hand.indexOf(view), 1);
    if (hand.length && gone.includes(hand[0].card().assignment)) gentle("Others may have this item by now. If you submit it, it is kept and marked as late.");
  } catch { /* the outbox says when there is no connection */ }
};

/* ------------------------------------------------------------------------------------------------------ its commands */

const title = (view) => {
  const { context, candidates } = view.card();
  const text = Object.values(context ?? {}).find((value) => typeof value === "string" && value) ?? candidates[0]?.text ?? "";
  return text.slice(0, 80).replace(/\s+/g, " ");
};

/* Into the outbox, and on to the next item. */
const leave = async (view, path, body) => {
  const { assignment } = view.card();
  given.add(assignment);
  past.push(assignment);
  hand.shift();
  clearTimeout(draftTimer);
  const counts = path === "/submit" && !view.card().practice;
  const stored = outbox.add({ path, body: { key: newKey(), assignment, ...body }, title: title(view), project, counts });
  if (counts) count(1);
  if (view.card().practice && path === "/submit") {
    teaching = true;
    $("bar").hidden = true;
    view.node.inert = true; // it stays to be read beside the explanation
    put($("practice"), "Looking up the researchers' answer …");
  } else show();
  await stored;
  drafts.drop(assignment);
  await outbox.drain();
};

const submit = () => {
  const view = hand[0];
  if (!view || view.busy || teaching) return;
  if (view.hidden()) return reveal(view);
  const missing = view.missing();
  if (missing) return gentle(`Not yet: ${missing}.`);
  const answers = view.answers();
  const { revision, practice, assignment } = view.card();
  if (practice) expected.set(assignment, { view, answers });
  say("Submitted.");
  leave(view, "/submit", { revision, answers, diff: view.usedDiff, times: clock.read() });
};

const reveal = async (view) => {
  clearTimeout(view.again);
  const missing = view.missingNote();
  if (missing) return gentle(missing);
  if (view.busy) return;
  view.busy = true;
  view.revealKey ??= newKey();
  try {
    const card = await askAsPerson("POST", "/reveal", { key: view.revealKey, assignment: view.card().assignment, notes: view.notes() });
    clock.enter("answers");
    view.update(card);
    view.diff(marking.on(card));
    drafts.drop(card.assignment);
    if (hand[0] === view) {
      show();
      say("The source is shown.");
    }
  } catch (error) {
    if (error instanceof Refused) {
      view.revealKey = null; // another body must have another key
      gentle(error.message);
    } else {
      gentle(`${error.message} The source is shown as soon as there is one.`);
      view.again = setTimeout(lookAgain, RETRY_MS);
    }
  }
  view.busy = false;
};

/* The source that was asked for in vain: once more, when there may be a connection. */
const lookAgain = () => {
  const view = hand[0];
  if (view?.again && view.hidden() && view.noted()) reveal(view);
};
addEventListener("online", () => { lookAgain(); fetchMore(); });

const skip = async () => {
  const view = hand[0];
  if (!view || teaching) return;
  const reason = await askWords({ head: "Skip this item", says: "It goes to somebody else, and does not come back to you. Why?", send: "Skip", ready: REASONS });
  if (reason === null || hand[0] !== view) return;
  say("Skipped.");
  await leave(view, "/skip", { reason });
};

const askResearchers = (flag) => async () => {
  const view = hand[0];
  if (!view) return;
  const text = await askWords(flag
    ? { head: "Flag this item", says: "What is wrong with it? The researchers see this; you can still answer or skip it.", send: "Flag" }
    : { head: "Ask the researchers", says: "About this item. The reply comes to your page of this project; you can go on meanwhile.", send: "Ask" });
  if (text === null) return;
  await outbox.add({ path: "/ask", body: { key: newKey(), assignment: view.card().assignment, text: flag ? `Flag: ${text}` : text }, title: title(view) });
  say(flag ? "Flagged." : "Asked.");
  await outbox.drain();
};

/* Takes back what was answered or skipped last: on this page, or before it was opened. */
let undone = Promise.resolve();
const undo = (wanted) => {
  undone = undone.then(() => takeBack(wanted)); // one after the other: each is of what is the last then
  return undone;
};
const takeBack = async (wanted) => {
  if (teaching) return;
  await outbox.drain();
  if (outbox.state.waiting.length) return gentle("An answer can be taken back once it has reached the server.");
  let assignment = wanted ?? past[past.length - 1];
  try {
    if (assignment === undefined) {
      const { items } = await askAsPerson("GET", `/history?project=${encodeURIComponent(project)}`);
      assignment = items.find(({ state }) => state === "submitted")?.assignment;
    }
    if (assignment === undefined) return gentle("There is nothing to take back.");
    if (!undoKeys.has(assignment)) undoKeys.set(assignment, newKey());
    const card = await askAsPerson("POST", "/undo", { key: undoKeys.get(assignment), assignment });
    undoKeys.delete(assignment);
    given.delete(assignment);
    if (past.includes(assignment)) past.splice(past.lastIndexOf(assignment), 1);
    if (hand[0]) drafts.keep(hand[0]);
    const at = hand.findIndex((view) => view.card().assignment === assignment);
    if (at >= 0) hand.splice(at, 1);
    drafts.drop(assignment);
    hand.unshift(build(card));
    told = null;
    if (card.answers && !card.practice) count(-1); // what was skipped did not count
    show();
    say("It is taken back. Change it and submit again.");
    await holdOn(); // the server may have given back what was held beside it
  } catch (error) {
    if (error instanceof Refused) {
      undoKeys.delete(assignment);
      if (past.includes(assignment)) past.splice(past.lastIndexOf(assignment), 1);
    }
    gentle(error.message);
  }
};

const toggleDiff = () => {
  const view = hand[0];
  if (!view || $("diff").hidden) return;
  const on = !marking.on(view.card());
  marking.choose(view.card(), on);
  const marked = hand.map((one) => one.diff(marking.on(one.card())));
  $("diff").setAttribute("aria-pressed", String(on));
  view.usedDiff ||= on; // once is enough: it was seen with the marks
  if (!marked[0]) gentle("These texts are too long to be compared word by word.");
  say(on ? "Differences are marked." : "Differences are no longer marked.");
};

/* ---------------------------------------------------------------------------------------------------- the outbox */

/* Another tab has answered what this one holds too. */
const elsewhere = (assignment) => {
  given.add(assignment);
  const at = hand.findIndex((view) => view.card().assignment === assignment);
  if (at < 0) return;
  hand.splice(at, 1);
  if (at > 0) return;
  show();
  gentle("That item was answered in another tab.");
};

/* A refused answer that is put away: its item may be asked for again. */
const putAway = async (row) => {
  await outbox.discard(row);
  given.delete(row.body.assignment);
  fetchMore();
};
const sendAgain = (row) => {
  if (row.counts && row.project === project) count(1);
  return outbox.again(row);
};
const status = makeStatus({ again: sendAgain, discard: putAway, login: () => hand[0] && drafts.keep(hand[0]) });
const outbox = await openOutbox({
  person: me.name,
  changed: status,
  answered: async (row, told_) => {
    const { assignment } = row.body;
    const own = expected.get(assignment);
    expected.delete(assignment);
    if (row.path !== "/ask" && !given.has(assignment)) {
      if (row.counts && row.project === project) count(1);
      elsewhere(assignment);
    }
    if (row.path === "/submit" && told_.late) gentle("The answer before came after its time was over; it is kept, and marked as late.");
    if (told_.training) training = told_.training;
    if (own) {
      fetchMore();
      $("practice").hidden = true;
      $("main").scrollTop = 0;
      await explain({ view: own.view, said: own.answers, told: told_ });
      teaching = false;
      show();
    } else if (hand.length < 2) fetchMore();
  },
  refused: (row) => {
    if (expected.delete(row.body.assignment)) teaching = false;
    if (row.counts && row.project === project) count(-1);
    say(`An answer was not accepted: ${row.text}`);
    if (!teaching && $("bar").hidden) show();
    fetchMore();
  },
});

// What an earlier page left here counts as answered too.
for (const { path, body, counts, project: of } of outbox.state.waiting) {
  if (of !== project || path === "/ask") continue;
  given.add(body.assignment);
  if (counts) count(1);
}
count(0);

/* ------------------------------------------------------------------------------------------------------- the page */

const commands = {
  skip, undo: () => undo(), flag: askResearchers(true), ask: askResearchers(false),
  guide: () => guide.toggle(), diff: toggleDiff, help: () => showKeys(preferences),
};
for (const name of ["skip", "undo", "flag", "ask", "diff"]) {
  $(name).addEventListener("click", commands[name]);
  put($(name).querySelector("kbd"), keysOf(preferences)[name].toUpperCase());
}
for (const [id, name] of [["guide-open", "guide"], ["help-open", "help"]]) {
  $(id).addEventListener("click", commands[name]);
  put($(id).querySelector("kbd"), keysOf(preferences)[name].toUpperCase());
}
$("guide-close").addEventListener("click", () => { guide.show(false); $("guide-open").focus(); });
$("send").addEventListener("click", submit);
$("stop").addEventListener("click", async () => {
  if (hand[0]) drafts.keep(hand[0]);
  const unseen = hand.slice(1).map((view) => view.card().assignment);
  if (unseen.length) await ask("POST", "/release", { assignments: unseen }).catch(() => { /* their time will end */ });
  location.assign("/label");
});
// A click leaves the focus where it was: the keys act after it as before.
for (const tools of document.querySelectorAll(".actions, .top-tools")) {
  tools.addEventListener("mousedown", (event) => { if (event.target.closest("button")) event.preventDefault(); });
}
document.body.classList.toggle("keyless", preferences.shortcuts === false);

listen({
  preferences,
  commands,
  key: (event) => !teaching && Boolean(hand[0]?.key(event)),
  enter: (event, chord) => {
    if (teaching) {
      if (!$("teach").hidden) $("teach-next").click();
      return true;
    }
    const view = hand[0];
    if (!view) return false;
    if (view.hidden() && !event.shiftKey && view.noteEnter(event.target, chord)) return true;
    if (typing(event.target) && !chord) return false;
    if (!chord && view.enter()) return true;
    submit();
    return true;
  },
  escape: ({ target }) => { if (typing(target) || acts(target)) hand[0]?.node.focus({ preventScroll: true }); },
});

setInterval(() => { if (!document.hidden) holdOn(); }, HEARTBEAT_MS);

put($("title"), mine()?.title || project);
document.title = `${mine()?.title || project} · Rein`;
showMessages(me.messages.filter((one) => !one.seen && one.project === project));
drafts.dropOld();
outbox.drain();
const [unread] = await Promise.all([guide.load().catch(() => false), fetchMore()]);
guide.show(unread && innerWidth >= 1000);
const again = /^#undo=(\d{1,15})$/.exec(location.hash);
if (again) {
  history.replaceState(null, "", location.pathname);
  await undo(Number(again[1]));
} else if (hand[0]) hand[0].focus();
