/* Everyone with everyone: agreement of each two people, and Cohen's kappa of those who share enough items. */

import { element, said } from "./text.js";
import { empty, table, wide } from "./research-page.js";
import { between, cells, told } from "./research-numbers.js";

const heatOf = (value) => (value < 0.5 ? "heat-0" : value < 0.6 ? "heat-1" : value < 0.7 ? "heat-2" : value < 0.8 ? "heat-3" : "heat-4");

const gridOf = (label, { people }, rows) => {
  const grid = element("table", "matrix");
  grid.setAttribute("aria-label", label);
  const head = element("tr");
  head.append(element("td", ""));
  const nameOf = (person, scope) => {
    const th = said(person.name, "th");
    th.scope = scope;
    if (person.researcher) th.append(element("small", "", " researcher"));
    return th;
  };
  head.append(...people.map((person) => nameOf(person, "col")));
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  body.append(...people.map((person, i) => {
    const tr = element("tr");
    tr.append(nameOf(person, "row"), ...rows[i].map((one, j) => {
      if (one === null) return element("td", "", i === j ? "" : "·");
      const td = element("td", heatOf(one.value), `${Math.round(100 * one.value)}`);
      td.title = `${person.name} and ${people[j].name}: ${told(one)}, ${between(one)}`;
      td.append(element("small", "", `n ${one.n}`));
      return td;
    }));
    return tr;
  }));
  grid.append(top, body);
  return grid;
};

const kappas = (question) => {
  const { pairs, least, left_out } = question.cohen;
  const box = element("details");
  box.dataset.key = `${question.name}-cohen`;
  box.append(element("summary", "", "Cohen's κ of each two"));
  if (!pairs.length) box.append(empty(`No two people share ${least} items or more.`));
  else {
    const shown = cells(`${question.name}-kappas`);
    box.append(table(`Cohen's kappa, ${question.name}`, [{ name: "Two people", head: true }, { name: "Cohen's κ", n: true }], pairs.map(({ a, b, kappa }) => [said(`${a.name} and ${b.name}`, "span"), shown.of("Cohen's κ", kappa, "plain")])), shown.notes());
    if (left_out) box.append(element("p", "quiet", `${left_out} pairs of people with fewer items in common are left out.`));
  }
  return box;
};

export const matrixPart = (question) => {
  if (!question.matrix?.rows.flat().some((one) => one !== null)) return null;
  const made = element("div", "sub");
  const own = question.matrix;
  made.append(element("h3", "", "Everyone with everyone"));
  const { how } = own.rows.flat().find((one) => one !== null);
  made.append(element("p", "quiet", `Percent. ${how}`), wide(`Agreement of each two, ${question.name}`, gridOf(`Agreement of each two, ${question.name}`, own, own.rows)));
  if (own.left_out) made.append(element("p", "quiet", `${own.left_out} people with fewer answers are left out.`));
  if (own.rows_with_ties) {
    const box = element("details");
    box.dataset.key = `${question.name}-ties`;
    box.append(element("summary", "", "The same with ties counted"), wide(`Agreement of each two with ties, ${question.name}`, gridOf(`Agreement of each two with ties, ${question.name}`, own, own.rows_with_ties)));
    made.append(box);
  }
  made.append(kappas(question));
  return made;
};
