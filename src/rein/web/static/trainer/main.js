/* The trainer page: one session as the server tells it, drawn by the parts, and what the person does, sent back.
   `welcome` says everything anew, so that a reconnect is a fresh start that forgets nothing and doubles nothing. */

import { bars, chart } from "./charts.js";
import { connection } from "./connection.js";
import { guide } from "./guide.js";
import { keys } from "./keys.js";
import { maps } from "./maps.js";
import { ribbon } from "./ribbon.js";
import { stage } from "./stage.js";
import { say } from "../elements.js";
import { $, element, number, onTheme, signsOf, touch } from "./words.js";

let session = null; // the newest welcome, kept current by status messages
let role = "watcher";
let newest = null; // the newest step heard, painted or not
let counted = { given: 0, late: 0 };
let wanted = null; // {training, until}: what was asked of the server, until it says the same
let lastStatus = null;
let held = null; // the action held while demonstrating
let finished = false;
let told = null; // the reason that the server gave last for a stop
const credited = new Set();
const sentAt = new Map(); // id → when its key went down
const latencies = [];

const world = stage($("world"));
const plain = stage($("plain"), { small: true });
const strip = ribbon();
const curve = chart();
const heat = maps();
const act = (action) => {
  held = action;
  expected.hold(action);
  line.send({ type: "action", action });
};
const expected = bars(act);

/* ------------------------------------------------------------------------------------------ what is heard */

const hear = (message) => {
  if (!session && !["welcome", "notice"].includes(message.type)) return;
  const known = { welcome, step, credit, episode, status, role: (it) => roled(it.role), maps: (it) => { heat.take(it); }, band: (it) => curve.take(it), notice, finished: ended };
  known[message.type]?.(message);
};

const welcome = (it) => {
  const first = session === null;
  session = it;
  lastStatus = null;
  wanted = null;
  role = it.role;
  held = null;
  counted = { ...it.presses };
  credited.clear();
  for (const one of it.credits) credited.add(one.id);
  newest = it.steps.at(-1) ?? null;
  $("title").textContent = it.task.title;
  document.title = `${it.task.title} · Rein trainer`;
  $("goal").textContent = it.task.goal;
  $("technique").textContent = it.technique;
  for (const one of [world, plain]) one.reset(it.task);
  strip.reset(it, line.outbox());
  expected.reset();
  curve.reset(it);
  heat.reset(it.task, it.maps);
  if (newest) show(newest);
  if (newest) world.offer(newest, it.step_s);
  else if (it.state.length) world.offer({ k: -1, i: 0, episode: 0, state: it.state }, it.step_s); // as it stands before the first step
  $("beside").hidden = !newest?.plain && it.plain_episodes.length === 0;
  $("world").setAttribute("aria-label", `${it.task.title}: ${it.task.goal}`);
  state();
  if (!first) say("Connected again.");
  if (first && role === "controller") teach.firstTour();
};

const step = (it) => {
  newest = it;
  strip.add(it);
  world.offer(it, session.step_s);
};

/* Everything beside the stage that belongs to one step; called for the steps that are painted, not for all. */
const show = (it) => {
  $("episode").textContent = it.episode;
  $("step").textContent = it.i;
  $("return").textContent = number(it.return, 5);
  const did = $("did");
  const by = { rl: session.technique === "sarsa" || session.technique === "control-sharing" ? "RL" : "RL, with your feedback", explore: "chance", shared: "TAMER, sharing control", demonstration: "you", tamer: "TAMER" }[it.source] ?? it.source;
  did.replaceChildren("it chose ", element("b", "", `${signsOf(session.task.actions)[it.action]} ${session.task.actions[it.action]}`), ` (${by})`);
  expected.draw(session.task, it, session.demonstrating && role === "controller");
  heat.at(it.state);
  if (it.plain) {
    $("beside").hidden = false;
    $("plain-return").textContent = number(it.plain.return, 5);
    plain.offer({ ...it.plain, k: it.k }, session.step_s);
  }
  overlay();
};

const credit = (it) => {
  if (sentAt.has(it.id)) {
    latencies.push(performance.now() - sentAt.get(it.id));
    if (latencies.length > 1000) latencies.shift();
    sentAt.delete(it.id);
  }
  if (credited.has(it.id)) return;
  credited.add(it.id);
  counted.given += 1;
  counted.late += it.late ? 1 : 0;
  strip.settle(it);
  if (it.by && it.by !== "person") flash(it.value);
  counts();
};

const episode = (it) => {
  curve.add(it);
  if (!it.plain) say(`Episode ${it.n} is over: return ${number(it.return, 5)} after ${it.steps} steps.`);
};

const status = (it) => {
  lastStatus = it;
  const settled = !wanted || wanted.training === it.training || performance.now() > wanted.until;
  if (settled) wanted = null;
  const training = settled ? it.training : session.training;
  if (training !== session.training) say(training ? "Training is on." : "Training is off.");
  Object.assign(session, it, { training, type: "welcome" });
  if (it.why !== told) {
    told = it.why;
    banner(it.why); // a reason that holds no longer goes, too
  }
  state();
};

const roled = (is) => {
  if (role === "controller" && is === "watcher") banner("Somebody else teaches now. You are watching.", "warning");
  role = is;
  state();
};

const notice = ({ level, text }) => {
  banner(text, level);
  say(text);
};

const ended = (it) => {
  finished = true;
  session.training = false;
  line.close();
  banner(null);
  state();
  teach.finished(it);
  say("The session is finished.");
};

/* ------------------------------------------------------------------------------------------ what is shown */

const banner = (text, level = "info") => {
  $("banner").hidden = !text;
  $("banner").className = `banner ${level}`;
  $("banner-text").textContent = text ?? "";
};
$("banner-close").addEventListener("click", () => banner(null));

const can = () => role === "controller" && !finished;

let hinting = null;
const usual = () => {
  if (!session) return "";
  if (finished) return "This session is finished.";
  if (role !== "controller") return session.controller === false ? "Nobody teaches at the moment." : session.trainer === "person" ? "You are watching. Somebody else teaches." : `You are watching. The teacher is a ${session.trainer}.`;
  if (session.demonstrating) return touch() ? "You act: choose an action in the list below." : "You act. Choose with the number keys or ← →; press D to hand back.";
  if (!session.training) return `Watch for a moment. To teach, switch training on${touch() ? "" : " with Space"}.`;
  return touch() ? "Say whether what it just did was good or bad." : "Good? Press /. Bad? Press Z. With Shift it counts ten times.";
};
const hint = (text) => {
  clearTimeout(hinting);
  $("hint").textContent = text ?? usual();
  $("hint").classList.toggle("warn", Boolean(text));
  if (text) hinting = setTimeout(() => hint(), 2600);
};

const overlay = () => {
  const it = newest;
  const over = $("over");
  const lost = !finished && line.line.state !== "connected";
  $("stage").classList.toggle("lost", lost);
  const text = lost ? "The connection is lost. This is an old picture." : finished ? "Finished." : !session.started ? (can() && !touch() ? "Press Space to begin." : "Not begun.") : session.paused ? (can() && !touch() ? "Paused. Press P to go on." : "Paused.") : it?.ended ? `Episode ${it.episode} over: return ${number(it.return, 5)}${can() && session.training ? ". Its last moves can still be judged." : ""}` : "";
  over.hidden = !text;
  over.textContent = text;
};

const state = () => {
  if (!session) return;
  const up = line.line.state === "connected" || finished;
  const on = session.training && up;
  for (const id of ["stage", "lamp"]) {
    $(id).classList.toggle("on", on);
    $(id).classList.toggle("off", !on);
  }
  $("lamp-word").textContent = !up ? "Not connected" : on ? "Training on" : "Training off";
  $("lamp-why").textContent = on ? "every press teaches" : "presses teach nothing";
  $("training").setAttribute("aria-pressed", String(on));
  $("training-word").textContent = on ? "Stop training" : "Start training";
  for (const button of document.querySelectorAll("[data-control]")) button.disabled = !can() || !up;
  for (const id of ["praise", "blame"]) $(id).disabled = !can() || !on;
  $("finish").disabled = !(can() && up) && !finished;
  $("finish").textContent = finished ? "Summary" : "Finish";
  $("one-step").disabled = !can() || !up || !session.paused;
  $("pause-word").textContent = session.paused ? "Go on" : "Pause";
  $("speed").textContent = `${number(1 / session.step_s)} steps/s`;
  $("tamer").setAttribute("aria-pressed", String(session.tamer_control));
  $("demonstrate").setAttribute("aria-pressed", String(session.demonstrating));
  $("pause-after").checked = session.pause_after_episode;
  $("take-over").hidden = !(session.can_control && role === "watcher") || finished;
  if (on && $("banner").classList.contains("hidden-tab")) banner(null);
  strip.stand(performance.now(), session.paused || finished || !up);
  expected.draw(session.task, newest, session.demonstrating && can());
  hint();
  overlay();
  counts();
};

const counts = () => {
  const open = line?.outbox().length ?? 0;
  $("counts").textContent = `${counted.given} ${counted.given === 1 ? "press" : "presses"} given, ${open} unacknowledged, ${counted.late} late`;
  $("counts").classList.toggle("warn", open > 3);
  if (!session) return;
  const others = session.watchers ?? 0;
  const who = finished ? "finished" : role === "controller" ? "you teach" : session.controller === false ? "nobody teaches" : session.trainer === "person" ? "somebody else teaches" : `a ${session.trainer} teaches`;
  $("people").textContent = `${who}${others ? `, ${others} ${others === 1 ? "watches" : "watch"}` : ""}`;
};

let wasUp = null;
const linked = () => {
  const { state: is, retry_at, rtt_ms, jitter_ms, offset_ms, error_ms } = line.line;
  const up = is === "connected";
  $("link").className = `link ${up ? "up" : is === "waiting" ? "down" : "wait"}`;
  $("link-word").textContent = up ? "connected" : is === "waiting" ? `connection lost, next try in ${Math.max(0, Math.ceil((retry_at - performance.now()) / 1000))} s` : is === "closed" ? "closed" : "connecting …";
  $("retry").hidden = is !== "waiting";
  const unsteady = up && jitter_ms > 150;
  $("clock").textContent = !up || rtt_ms === null ? "" : `round trip ${Math.round(rtt_ms)} ms, jitter ${jitter_ms === null ? "–" : Math.round(jitter_ms)} ms, clock offset ${(offset_ms / 1000).toFixed(2).replace("-", "−")} s ± ${Math.max(1, Math.ceil(error_ms))} ms${unsteady ? ": the line is unsteady, watch the threads" : ""}`;
  $("clock").classList.toggle("warn", Boolean(unsteady));
  if (session && wasUp !== null && wasUp !== up) {
    state();
    if (!up && !finished) say("The connection is lost.");
  }
  wasUp = up;
  counts();
};

/* A coloured frame and the sign for 100 ms, as in the original; each press starts it anew. */
let flashing = null;
const flash = (value) => {
  clearTimeout(flashing);
  $("flash").hidden = false;
  $("flash").classList.toggle("blame", value < 0);
  $("flash-sign").textContent = (value > 0 ? "+" : "−") + (Math.abs(value) > 1 ? Math.abs(value) : "");
  for (const [id, on] of [["praise", value > 0], ["blame", value < 0]]) $(id).classList.toggle("down", on);
  flashing = setTimeout(() => {
    $("flash").hidden = true;
    for (const id of ["praise", "blame"]) $(id).classList.remove("down");
  }, 100);
};

/* --------------------------------------------------------------------------------------- what is answered */

const give = (value, event, key) => {
  if (!can()) return hint();
  if (!session.training) return hint("Training is off, so this taught nothing. Space switches it on.");
  const seen = world.at(event.timeStamp);
  if (!seen) return hint("There is no step to judge yet.");
  // without a line the picture stands still: the last step can be judged for a moment, and then nothing can
  if (line.line.lost_at !== null && event.timeStamp - line.line.lost_at > 2000) return hint("No connection: the picture stands still, so there is nothing to judge.");
  const press = line.press({ value, k: seen[0], t_key: event.timeStamp, t_shown: seen[1], key });
  sentAt.set(press.id, event.timeStamp);
  strip.press(press);
  flash(value);
  counts();
};

const command = (name, more) => line.send({ type: "command", name, ...more });

const train = (value, why) => {
  if (!can() || session.training === value) return;
  if (!command("training", { value, ...(why && { why }) })) return hint("No connection: training cannot be switched now.");
  // shown at once, because presses count from here; the server has the last word
  wanted = { training: value, until: performance.now() + 1500 };
  setTimeout(() => { if (wanted && lastStatus && performance.now() >= wanted.until) status(lastStatus); }, 1550);
  session.training = value;
  say(value ? "Training is on." : "Training is off.");
  state();
};

const away = (text) => {
  if (!session || !can() || !session.training) return;
  train(false, "hidden");
  banner(text);
  $("banner").classList.add("hidden-tab");
};
document.addEventListener("visibilitychange", () => { if (document.hidden) away("Training was switched off while this tab was hidden. Space switches it on again."); });
addEventListener("blur", () => away("Training was switched off, because the keys went to another window. Space switches it on again."));

const commands = {
  p: () => command(session.paused ? "resume" : "pause"),
  pause: () => command("pause"),
  resume: () => command("resume"),
  step: () => session.paused && command("step"),
  faster: () => command("speed", { value: 2 ** (1 / 3) }),
  slower: () => command("speed", { value: 2 ** (-1 / 3) }),
  tamer: () => command("tamer_control", { value: !session.tamer_control }),
  demonstrate: () => command("demonstrate", { value: !session.demonstrating }),
};
const ask = (name) => {
  if (!session) return;
  if (!can()) return hint();
  commands[name]();
};

/* While demonstrating: a number is an action; an arrow is the action of that direction, or else the neighbour. */
const choose = (event) => {
  const { actions } = session.task;
  const digit = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
  const signs = signsOf(actions);
  const arrow = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" }[event.key];
  const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  let action = digit >= 0 && digit < actions.length ? digit : arrow ? signs.indexOf(arrow) : -1;
  if (action < 0 && way) action = Math.max(0, Math.min(actions.length - 1, (held ?? newest?.action ?? 0) + way));
  if (action < 0) return false;
  if (!event.repeat) act(action);
  return true;
};

/* "0.2 to 0.8 seconds", where the credit has such a window. */
const reach = () => {
  const { low_s, high_s } = session?.credit ?? {};
  return Number.isFinite(low_s) && Number.isFinite(high_s) ? `${number(low_s)} to ${number(high_s)} seconds` : "a moment";
};

const teach = guide({
  reach,
  opened: () => {
    if (!session || !can() || !session.training) return;
    train(false);
    banner("Training was switched off while you read. Space switches it on again.");
    $("banner").classList.add("hidden-tab");
  },
  finish: () => command("finish"),
});

const line = connection({
  hear,
  changed: () => linked(),
  painted: () => world.newest(),
  frame: (k, blob) => createImageBitmap(blob).then((bitmap) => world.picture(k, bitmap), () => {}), // a torn picture: the next one is near
});

keys({
  give,
  toggle: () => (can() ? train(!session.training) : hint()),
  command: ask,
  demonstrating: () => Boolean(session?.demonstrating && can()),
  choose,
  help: teach.help,
  teaching: () => Boolean(session && can() && session.training),
});

const click = (id, then) => $(id).addEventListener("click", then);
click("training", () => session && train(!session.training));
click("pause", () => ask("p"));
click("one-step", () => ask("step"));
for (const id of ["faster", "slower", "tamer", "demonstrate"]) click(id, () => ask(id));
click("take-over", () => command("take_over"));
click("retry", () => line.retry());
$("pause-after").addEventListener("change", (event) => command("pause_after_episode", { value: event.target.checked }));
onTheme(() => { if (newest && session) show(newest); });

const frame = (at) => {
  const begun = world.paint(at);
  if (begun && begun.k >= 0) {
    show(begun);
    strip.shown(begun, at, session.step_s, session.paused || line.line.state !== "connected");
  }
  plain.paint(at);
  strip.paint(at);
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
linked();

/* For tests and for whoever measures: read only. */
window.reinTrainer = Object.freeze({
  get lastStep() { return newest ? newest.k : null; },
  get outboxSize() { return line.outbox().length; },
  get latencies() { return [...latencies]; },
});
