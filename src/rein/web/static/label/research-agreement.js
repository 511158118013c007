/* How people agree, live: the papers' three percentages, agreement beyond chance, each labeler, confidence, sides and
   lengths, repeats and known answers, weeks. Each number has its interval and says how it was computed. */

import { $, element, many, put, said } from "./text.js";
import { at, attempt, choice, empty, field, get, live, offer, refill, table } from "./research-page.js";
import { cells, told, tile } from "./research-numbers.js";
import { confidencePart, driftPart, peoplePart, speedPart } from "./research-labelers.js";
import { matrixPart } from "./research-matrix.js";

const EVERY_MS = 10_000;
const GROUPS = [["labeler_labeler", "labelers with each other"], ["labeler_researcher", "labelers with researchers"], ["researcher_researcher", "researchers with each other"]];

const part = (head, ...nodes) => {
  const made = element("div", "sub");
  made.append(element("h3", "", head), ...nodes);
  return made;
};

/* The sentence of the papers, in their form. */
const sentence = ({ agreement }) => {
  const known = GROUPS.map(([name, words]) => [agreement[name], words]).filter(([one]) => one.value !== null);
  const made = element("p", "lead");
  made.textContent = known.length
    ? `${known.map(([one, words], i) => `${i ? words : words[0].toUpperCase() + words.slice(1)} agree in ${told(one)}`).join(", ")}.`
    : "No two people have answered the same item yet.";
  return made;
};

const PAPERS = "In the papers: labelers with researchers 77 ± 2%, researchers with each other 73 ± 4% (Stiennon 2020, whose ties are left out); labelers with each other 72.6 ± 1.5% (Ouyang 2022). ± is one standard error.";

/* A side or a length that is preferred beyond chance. */
const leaning = (one) => (one.value === null || (one.low <= 0.5 && one.high >= 0.5) ? "" : `the interval leaves out 50%`);

/* What of it can be told, for a block that has nothing to say otherwise. */
const known = (numbers) => numbers.filter((one) => one !== null && one !== undefined && one.value !== null);

const tilesOf = (question) => {
  const key = (name) => `${question.name}-${name}`;
  const first = question.aspects[0];
  const made = element("dl", "tiles");
  made.append(...GROUPS.map(([name, words]) => tile(key(name), words, first.agreement[name])));
  if (first.majority) {
    made.append(tile(key("one"), "one labeler with a researcher", first.majority.one_labeler), tile(key("three"), "most of three with a researcher", first.majority.mode_of_three), tile(key("leave"), "a labeler with most others", first.majority.leave_one_out, { counted: "answer" }));
  }
  if (question.bias) {
    const { left, longer, ties } = question.bias;
    made.append(tile(key("left"), "choose the left one", left, { counted: "choice", note: leaning(left) }), tile(key("longer"), "choose the longer one", longer, { counted: "choice", note: leaning(longer) }), tile(key("ties"), "prefer neither", ties, { counted: "answer" }));
    const slope = question.bias.length_slope;
    made.append(tile(key("slope"), "pull of length, logits", slope, { form: "plain", counted: "choice", note: slope.value !== null && (slope.low > 0 || slope.high < 0) ? "the interval leaves out 0" : "" }));
  }
  made.append(tile(key("repeats"), "say the same again", question.repeats.same), tile(key("flips"), "stay on their side when mirrored", question.repeats.flips, { counted: "repeat" }), tile(key("gold"), "say what is known to be right", question.gold.accuracy, { counted: "answer" }));
  return made.querySelector("strong:not(.none)") ? made : null;
};

const aspectsPart = (question) => {
  if (!known(question.aspects.flatMap((one) => GROUPS.map(([name]) => one.agreement[name]))).length) return null;
  const shown = cells(`${question.name}-aspects`);
  const rows = [];
  for (const aspect of question.aspects) {
    const row = (words, numbers) => rows.push([said(words, "span"), ...GROUPS.map(([name, column]) => shown.of(column, numbers[name]))]);
    row(aspect.shape === "scale" ? `${aspect.name}, the same value` : aspect.name, aspect.agreement);
    if (aspect.with_ties) row(`${aspect.name}, ties counted`, aspect.with_ties);
    if (aspect.within_one) row(`${aspect.name}, within one`, aspect.within_one);
  }
  const columns = [{ name: "What is compared", head: true }, ...GROUPS.map(([, name]) => ({ name: name[0].toUpperCase() + name.slice(1), n: true }))];
  return part("Agreement", table(`Agreement of ${question.name}`, columns, rows), shown.notes());
};

const BEYOND = [["fleiss", "Fleiss' κ"], ["alpha_nominal", "Krippendorff's α, nominal"], ["alpha_ordinal", "Krippendorff's α, ordinal"], ["rank_correlation", "Spearman's ρ"]];

const beyondPart = (question) => {
  const shown = cells(`${question.name}-beyond`);
  const there = BEYOND.filter(([name]) => question.aspects.some(({ beyond_chance: own }) => own[name]));
  if (!known(question.aspects.flatMap((one) => [...there.map(([name]) => one.beyond_chance[name]), one.flagged])).length) return null;
  const flagged = question.aspects.some((aspect) => aspect.flagged);
  const rows = question.aspects.map((aspect) => [
    said(aspect.name, "span"), ...there.map(([name, words]) => shown.of(words, aspect.beyond_chance[name], "plain")), ...(flagged ? [shown.of("Flagged", aspect.flagged)] : []),
  ]);
  const columns = [{ name: "What is compared", head: true }, ...there.map(([, name]) => ({ name, n: true })), ...(flagged ? [{ name: "Flagged", n: true }] : [])];
  return part("Beyond chance, between labelers", table(`Agreement beyond chance of ${question.name}`, columns, rows), shown.notes());
};

const costPart = (question, cost) => {
  const own = cost.filter((one) => one.question === question.name);
  if (!known(own.flatMap(({ pairs, hours }) => [pairs, hours])).length) return null;
  const shown = cells(`${question.name}-cost`);
  const words = Object.fromEntries(GROUPS);
  const rows = own.map((one) => [words[one.groups], `± ${(100 * one.half_width).toFixed(0)}%`, shown.of("More pairs", one.pairs, "whole"), shown.of("Hours of people", one.hours, "hours")]);
  return part("What a narrower interval takes", table(`Cost of narrower intervals of ${question.name}`, [{ name: "Agreement of", head: true }, { name: "95% interval", n: true }, { name: "More pairs", n: true }, { name: "Hours of people", n: true }], rows, "dense"), shown.notes());
};

const questionPart = (question, report) => {
  const made = element("section");
  const head = element("h2");
  head.append(said(question.name, "span"), element("span", "quiet", ` ${question.kind.replaceAll("_", " ")}`));
  made.append(head);
  if (!question.aspects.length) {
    made.append(empty("Answers of this kind are texts, which are not compared."));
    const people = peoplePart(question, report);
    if (people) made.append(people);
    return made;
  }
  made.append(sentence(question.aspects[0]));
  if (question.kind === "comparison") made.append(element("p", "quiet", PAPERS));
  const tiles = tilesOf(question);
  if (tiles) made.append(tiles);
  const parts = [
    ["agreement", aspectsPart(question)], ["beyond chance", beyondPart(question)], ["each person", peoplePart(question, report)], ["speed and quality", speedPart(question, report)],
    ...(question.confidence ? [["confidence", confidencePart(question)]] : []), ["everyone with everyone", matrixPart(question)],
    ...(question.drift.length ? [["weeks", driftPart(question)]] : []), ["narrower intervals", costPart(question, report.cost)],
  ];
  made.append(...parts.flatMap(([, node]) => (node ? [node] : [])));
  const empties = parts.filter(([, node]) => !node).map(([name]) => name);
  if (empties.length) made.append(element("p", "quiet sub", `Nothing to compare yet: ${empties.join(", ")}.`));
  return made;
};

const batch = choice([["", "all of them"]]);
$("filters").append(field("Batch", batch));
$("filters").addEventListener("submit", (event) => event.preventDefault());

const wanted = () => new URLSearchParams(location.search).get("batch") ?? "";
let before = "";
const look = () => attempt(async () => {
  const name = batch.value;
  const report = await get(`${at}/agreement${name ? `?batch=${encodeURIComponent(name)}` : ""}`);
  if (name !== batch.value) return;
  const { labelers, researchers } = report.people;
  put($("facts"), `${many(report.answers, "answer")} to ${many(report.items, "item")} by ${many(labelers, "labeler")} and ${many(researchers, "researcher")}${report.not_compared ? ` (${many(report.not_compared, "answer")} for practice or with a known right answer, not compared)` : ""}, at ${new Date().toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hour12: false })}`);
  const key = JSON.stringify(report);
  if (key === before) return;
  before = key;
  refill($("report"), ...report.questions.map((question) => questionPart(question, report)));
});
batch.addEventListener("change", () => {
  history.replaceState(null, "", batch.value ? `?batch=${encodeURIComponent(batch.value)}` : location.pathname);
  look();
});

await attempt(async () => {
  const { batches } = await get(`${at}/progress`);
  offer(batch, [["", "all of them"], ...batches.map(({ name }) => name)], wanted());
});
await live(look, EVERY_MS);
