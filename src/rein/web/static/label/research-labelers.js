/* Parts of the agreement page that are about single people, and about time: each labeler's numbers, speed beside
   quality, agreement by confidence, drift over weeks. */

import { element, said } from "./text.js";
import { table } from "./research-page.js";
import { cells, told } from "./research-numbers.js";
import { dots, legend, steps, whisker } from "./research-charts.js";

const part = (head, ...nodes) => {
  const made = element("div", "sub");
  made.append(element("h3", "", head), ...nodes);
  return made;
};

const byId = (rows, id) => rows?.find((one) => (one.person?.id ?? one.id) === id);

/* Everybody whose answers are measured, labelers first. */
const everybody = (question, report) => {
  const found = new Map();
  for (const { person } of question.with_researchers) found.set(person.id, person.name);
  for (const { id, name } of [...(question.bias?.people ?? []), ...question.repeats.people, ...question.gold.people, ...report.speed.people]) if (!found.has(id)) found.set(id, name);
  return [...found].map(([id, name]) => ({ id, name }));
};

export const peoplePart = (question, report) => {
  const shown = cells(`${question.name}-people`);
  const people = everybody(question, report);
  if (!people.length) return null;
  const columns = [{ name: "Person", head: true }, { name: "With researchers", n: true }, { name: "Known answers", n: true }, { name: "The same again", n: true }];
  if (question.bias) columns.push({ name: "Left", n: true }, { name: "Longer", n: true });
  columns.push({ name: "Median time", n: true }, { name: "Words a minute", n: true });
  if (question.confidence) columns.push({ name: "Confident from", n: true });
  const ask = [];
  const rows = people.map(({ id, name }) => {
    const agreement = byId(question.with_researchers, id)?.agreement;
    const pace = byId(report.speed.people, id);
    const bias = byId(question.bias?.people, id);
    const sure = byId(question.confidence?.people, id);
    if (pace?.question) ask.push(`${name}: ${pace.question}`);
    const row = [
      said(name, "span"),
      agreement?.value === null || !agreement ? shown.of("With researchers", agreement) : [whisker(agreement), shown.of("With researchers", agreement)],
      shown.of("Known answers", byId(question.gold.people, id)?.accuracy),
      shown.of("The same again", byId(question.repeats.people, id)?.same),
    ];
    if (question.bias) row.push(shown.of("Left", bias?.left), shown.of("Longer", bias?.longer));
    row.push(shown.of("Median time", pace?.median_s, "seconds", { n: false }), shown.of("Words a minute", pace?.words_per_minute, "whole", { n: false }));
    if (question.confidence) row.push(sure?.from ? [`${sure.from} from even`, element("small", "", told(sure.agreement))] : shown.of("Confident from", sure?.agreement));
    return row;
  });
  const nodes = [table(`Each person's numbers, ${question.name}`, columns, rows, "people"), shown.notes()];
  if (ask.length) {
    const list = element("ul", "note stack");
    list.append(...ask.map((text) => said(text, "li")));
    nodes.push(list);
  }
  return part("Each person", ...nodes);
};

const asPercent = (value) => `${Math.round(100 * value)}%`;
/* From the round share below the lowest end to the one above the highest. */
const shares = (numbers) => {
  const lows = numbers.map(({ low }) => low);
  const highs = numbers.map(({ high }) => high);
  const from = Math.max(0, Math.floor(10 * Math.min(0.5, ...lows)) / 10);
  const to = Math.min(1, Math.ceil(10 * Math.max(...highs)) / 10);
  return { from, to, ticks: steps(from, to, 5), says: asPercent };
};

export const speedPart = (question, report) => {
  const head = "Speed and quality";
  const points = question.with_researchers.flatMap(({ person, agreement }) => {
    const pace = byId(report.speed.people, person.id)?.median_s;
    if (agreement.value === null || !pace || pace.value === null) return [];
    return [{ x: pace.value, y: agreement.value, low: agreement.low, high: agreement.high, name: person.name, says: `${person.name}: ${told(agreement)} with researchers, ${told(pace, "seconds")} for an item` }];
  });
  if (!points.length) return null; // it takes measured times, and items that a researcher has answered too
  const to = Math.max(...points.map(({ x }) => x)) * 1.25;
  const chart = dots({
    label: `Agreement with researchers by median seconds for an item: ${points.map(({ says }) => says).join("; ")}`, height: 300,
    x: { from: 0, to, ticks: steps(0, to, 6), says: (value) => `${value} s`, name: "median time for an item" },
    y: shares(points), series: [{ tone: "c0", points }],
  });
  return part(head, element("p", "quiet", "Agreement with researchers, with its 95% interval, by the median time for an item."), chart);
};

export const confidencePart = (question) => {
  const own = question.confidence;
  if (!own) return null;
  const tones = [["labeler_labeler", "with other labelers", "c0"], ["labeler_researcher", "with researchers", "c1"]];
  const series = tones.map(([name, words, tone], i) => ({
    name: words, tone, line: true,
    points: own.steps.map((one) => ({ x: one.distance + (i ? 0.05 : -0.05), y: one[name].value, low: one[name].low, high: one[name].high, says: one[name].value === null ? "" : `${one.distance} from even, ${words}: ${told(one[name])}` })),
  }));
  const known = series.flatMap(({ points }) => points.filter(({ y }) => y !== null));
  if (!known.length) return null;
  const shown = cells(`${question.name}-confidence`);
  const rows = own.steps.map((one) => [`${one.distance} from even`, ...tones.map(([name, words]) => shown.of(words, one[name]))]);
  const columns = [{ name: "Confidence", head: true }, { name: "With other labelers", n: true }, { name: "With researchers", n: true }];
  const chart = dots({
    label: `Agreement by confidence: ${known.map(({ says }) => says).join("; ")}`,
    x: { from: 0.6, to: own.steps.length + 0.4, ticks: own.steps.map(({ distance }) => distance), says: String, name: "points from even" },
    y: shares(known), series, rules: [{ y: own.aim, says: asPercent(own.aim) }],
  });
  return part(
    "Confidence",
    element("p", "quiet", `How far an answer is from even on the scale, and how often it then agrees. A labeler counts as confident from where ${asPercent(own.aim)} agree with researchers.`),
    legend(series), chart, table(`Agreement by confidence, ${question.name}`, columns, rows, "dense"), shown.notes(),
  );
};

export const driftPart = (question) => {
  if (!question.drift.length) return null;
  const nodes = question.drift.map((one, at) => {
    const box = element("div", "sub");
    const [first, second] = one.policies.map((name) => name || "the unnamed policy");
    const shown = cells(`${question.name}-drift-${at}`);
    const points = one.weeks.map(({ preferred, week }, i) => ({ x: i, y: preferred.value, low: preferred.low, high: preferred.high, says: `${week}: ${told(preferred)}` }));
    const { trend } = one;
    const head = element("p");
    head.append(said(`${first} over ${second}, a change by the week: `, "span"), shown.of("Change by the week", trend, "change"));
    if (trend.value !== null) head.append(element("small", "", `, p ${trend.p_value < 0.001 ? "< 0.001" : `= ${trend.p_value.toFixed(3)}`}`));
    box.append(head, dots({
      label: `How often ${first} is preferred to ${second}, by week: ${points.map(({ says }) => says).join("; ")}`, height: 220,
      x: { from: -0.5, to: points.length - 0.5, ticks: points.map(({ x }) => x), says: (i) => one.weeks[i].week.slice(2), name: "week" },
      y: shares(points), series: [{ tone: "c0", line: true, points }], rules: [{ y: 0.5, says: "even" }],
    }));
    const rows = one.weeks.map(({ week, preferred }) => [week, shown.of("Preferred", preferred)]);
    box.append(table(`${first} over ${second} by week`, [{ name: "Week", head: true }, { name: `${first} preferred`, n: true }], rows, "dense"), shown.notes());
    return box;
  });
  return part("Weeks, on the fixed pairs", ...nodes);
};
