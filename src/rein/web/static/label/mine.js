/* One's own page in a project: how much and how fast, how near to the researchers and how sure that is, where they see
   it differently, one's questions, and what was done last. Nobody else is on it. */

import { askAsPerson, whoIsHere } from "./api.js";
import { inWords } from "./answers.js";
import { $, askedWords, duration, element, many, percent, put, said, when } from "./text.js";
import { result } from "./teach.js";

const project = document.body.dataset.project;
const at = encodeURIComponent(project);

const show = (error) => {
  put($("trouble"), error.message);
  $("trouble").hidden = false;
};

/* -------------------------------------------------------------------------------------------------------- numbers */

const tile = (name, value, below, how) => {
  const box = element("div");
  const dd = element("dd");
  dd.append(element("strong", "", value), element("span", "", below));
  if (how) {
    const more = element("details", "quiet");
    more.append(element("summary", "", "how computed"), element("p", "", how));
    dd.append(more);
  }
  box.append(element("dt", "", name), dd);
  return box;
};

const agreementTile = ({ question, agreement }, questions) => {
  const name = questions.length > 1 ? `agree with the researchers, ${question}` : "agree with the researchers";
  if (agreement.value === null) return tile(name, "–", agreement.why);
  return tile(name, percent(agreement.value), `between ${percent(agreement.low)} and ${percent(agreement.high)}, from ${many(agreement.n, "pair")} of answers`, agreement.how);
};

const showNumbers = (told) => {
  const { median_s: median } = told;
  $("tiles").replaceChildren(
    tile("items", told.answers.toLocaleString("en"), own?.training ? "without practice" : ""),
    tile("active time", duration(told.active_ms), `as the work page measured it${own?.training ? ", with practice" : ""}`),
    median.value === null ? tile("for an item", "–", median.why) : tile("for an item", `${Math.round(median.value)} s`, "half of them took less", median.how),
    ...told.with_researchers.map((one) => agreementTile(one, told.with_researchers)),
  );
};

/* ------------------------------------------------------------------------------------------------------ the chart */

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const DAY_S = 86_400;

const showPace = (days) => {
  $("pace").hidden = days.length === 0;
  if (!days.length) return;
  $("pace-rows").replaceChildren(...[...days].reverse().map(({ day, answers, active_ms }) => {
    const row = element("tr");
    row.append(element("td", "", day), element("td", "n", answers.toLocaleString("en")), element("td", "n", duration(active_ms)));
    return row;
  }));
  // A day without work is a day too.
  const done = new Map(days.map((one) => [Date.parse(one.day) / 1000, one]));
  const last = Date.parse(days[days.length - 1].day) / 1000;
  const first = Math.min(Date.parse(days[0].day) / 1000, last - 6 * DAY_S);
  const xs = Array.from({ length: (last - first) / DAY_S + 1 }, (_, i) => first + i * DAY_S);
  const ys = xs.map((x) => done.get(x)?.answers ?? 0);
  const perHour = days.reduce((sum, one) => sum + one.answers, 0) / (days.reduce((sum, one) => sum + one.active_ms, 0) / 3_600_000);
  const usual = Number.isFinite(perHour) ? `${perHour.toFixed(perHour < 10 ? 1 : 0)} items an hour of active time` : "";
  put($("pace-read"), usual);
  const holder = $("chart");
  let plot = null;
  const axis = (more) => ({ font: "12px system-ui, sans-serif", stroke: colour("--soft"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, ...more });
  const draw = () => {
    plot?.destroy();
    plot = new uPlot({
      width: holder.clientWidth, height: 190, padding: [10, 8, 0, 0], legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1000), "Etc/UTC"),
      scales: { x: { range: [first - DAY_S * 0.6, last + DAY_S * 0.6] }, y: { range: (u, low, high) => [0, Math.max(4, high)] } },
      axes: [
        axis({
          size: 30, space: 60, grid: { show: false }, incrs: [1, 2, 3, 7, 14, 28, 91].map((days) => days * DAY_S),
          values: (u, splits) => splits.map((s) => new Date(s * 1000).toLocaleDateString("en", { day: "numeric", month: "short", timeZone: "UTC" })),
        }),
        axis({ size: 44, space: 34, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }),
      ],
      series: [{}, { stroke: colour("--c0"), fill: colour("--c0"), width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.6, 42], radius: 0.1 }) }],
      hooks: {
        setCursor: [(u) => {
          const i = u.cursor.idx;
          const one = u.cursor.left >= 0 && i !== null && i !== undefined ? done.get(xs[i]) : null;
          put($("pace-read"), one ? `${one.day}: ${many(one.answers, "item")}, ${duration(one.active_ms)}` : usual);
        }],
      },
    }, [xs, ys], holder);
  };
  draw();
  let wide = holder.clientWidth;
  new ResizeObserver(() => { if (holder.clientWidth && holder.clientWidth !== wide) { wide = holder.clientWidth; draw(); } }).observe(holder);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
};

/* ------------------------------------------------------------------------------------------------------- the lists */

const empty = (text) => element("li", "empty", text);

const differNode = (one, questions) => {
  const question = questions.find(({ name }) => name === one.question);
  const item = element("li", "panel differ");
  const verdict = element("dl", "verdict");
  for (const [who, value] of [["you", one.said], [one.by === "known" ? "the right answer" : "a researcher", one.right]]) {
    const pair = element("div");
    pair.append(element("dt", "", who), said(question ? inWords(question, value) : JSON.stringify(value), "dd"));
    verdict.append(pair);
  }
  item.append(verdict);
  if (one.why) item.append(said(`Because: ${one.why}`, "p", "said why"));
  if (one.reply) item.append(said(`${one.asked.startsWith("Flag: ") ? askedWords(one.asked) : `Asked: ${one.asked}`}\nReply: ${one.reply}`));
  const texts = element("div", "differ-texts");
  one.candidates.forEach(({ text }, place) => {
    const box = element("div");
    box.append(element("h3", "", String.fromCharCode(65 + place)), said(text));
    texts.append(box);
  });
  item.append(texts);
  const source = element("details");
  source.append(element("summary", "quiet", "the source"));
  for (const [name, value] of Object.entries(one.context)) {
    source.append(element("h3", "", name.replaceAll("_", " ")), said(typeof value === "string" ? value : JSON.stringify(value, null, 1)));
  }
  const foot = element("p", "quiet");
  foot.append(when(one.at_ms));
  item.append(source, foot);
  return item;
};

const threadNode = ({ text, reply, head, at_ms, pinned }) => {
  const item = element("li", "panel");
  const about = element("p", "quiet");
  about.append(when(at_ms), ", about: ");
  about.append(said(head, "span"));
  item.append(about, said(askedWords(text)));
  item.append(reply ? said(reply, "p", "said note") : element("p", "quiet", "No reply yet."));
  if (pinned) item.append(element("p", "quiet", "The reply stands below the instructions, for everybody."));
  return item;
};

const historyNode = ({ assignment, at_ms, state, head }) => {
  const item = element("li", "panel history");
  const link = element("a", "button", "Take back");
  link.href = `/label/desk/${at}#undo=${assignment}`;
  link.setAttribute("aria-label", `Take back: ${head.slice(0, 60)}`);
  const line = element("p", "quiet", `${state === "skipped" ? "skipped" : "answered"}, `);
  line.append(when(at_ms));
  const text = element("div");
  text.append(said(head), line);
  item.append(text, link);
  return item;
};

const me = await whoIsHere($("main"));
const own = me.projects.find(({ name }) => name === project);
const questions = own?.questions ?? [];
put($("title"), own?.title ?? project);
document.title = `${own?.title ?? project} · Rein`;
$("work").href = `/label/desk/${at}`;
if (own?.training) {
  $("practice").hidden = false;
  $("practice-text").replaceChildren(result(own.training));
}

const part = async (path, then) => {
  try { then(await askAsPerson("GET", `${path}?project=${at}`)); } catch (error) { show(error); }
};
await Promise.all([
  part("/mine", (told) => {
    showNumbers(told);
    showPace(told.days);
    $("differ").replaceChildren(...(told.disagreements.length ? told.disagreements.map((one) => differNode(one, questions)) : [empty("None so far.")]));
  }),
  part("/threads", ({ threads }) => $("threads").replaceChildren(...(threads.length ? threads.map(threadNode) : [empty("None so far. On the work page, Q asks about the item on the screen.")]))),
  part("/history", ({ items }) => $("history").replaceChildren(...(items.length ? items.map(historyNode) : [empty("Nothing yet.")]))),
]);
