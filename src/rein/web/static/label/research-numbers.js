/* Numbers of a report as the papers print them: 77 ± 2%, with their interval, what they were counted from, and how they
   were computed. What cannot be told says why. */

import { element, many } from "./text.js";

const signed = (value, digits) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);

/* ± is one standard error; as many digits as it leaves certain. */
const points = (share) => Math.abs(100 * share).toFixed(1);
const FORMS = {
  change: ({ value, se }) => `${value < 0 ? "−" : "+"}${points(value)} ± ${points(se)} points`,
  share: ({ value, se }) => {
    const digits = se && se < 0.0195 ? 1 : 0;
    return se ? `${(100 * value).toFixed(digits)} ± ${(100 * se).toFixed(digits)}%` : `${(100 * value).toFixed(0)}%`;
  },
  plain: ({ value, se }) => (se ? `${signed(value, 2)} ± ${se.toFixed(2)}` : signed(value, 2)),
  seconds: ({ value }) => (value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value).toLocaleString("en")} s`),
  whole: ({ value }) => Math.round(value).toLocaleString("en"),
  hours: ({ value }) => `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} h`,
};

const END = {
  change: (value) => `${value < 0 ? "−" : "+"}${points(value)}`,
  share: (value) => `${(100 * value).toFixed(0)}%`,
  plain: (value) => signed(value, 2),
  seconds: (value) => FORMS.seconds({ value }),
  whole: (value) => FORMS.whole({ value }),
  hours: (value) => FORMS.hours({ value }),
};

export const told = (one, form = "share") => FORMS[form](one);

export const between = (one, form = "share") => `${END[form](one.low)} to ${END[form](one.high)}`;

const howNode = (key, lines) => {
  const made = element("details", "quiet how");
  made.dataset.key = key;
  made.append(element("summary", "", "How computed"), ...lines);
  return made;
};

/* A large number, with what it means. `counted` is what n counts. */
export const tile = (key, name, one, { form = "share", counted = "pair", note = "" } = {}) => {
  const box = element("div");
  const dd = element("dd");
  if (one.value === null) dd.append(element("strong", "none", "–"), element("span", "", one.why));
  else {
    const below = [one.low === undefined ? "" : `95%: ${between(one, form)}`, one.n === undefined ? "" : many(one.n, counted)];
    dd.append(element("strong", "", told(one, form)), element("span", "", below.filter(Boolean).join(" · ")));
    if (note) dd.append(element("span", "marked", note));
    dd.append(howNode(key, [element("p", "", one.how)]));
  }
  box.append(element("dt", "", name), dd);
  return box;
};

/* Cells of one table: numbers, and marks for those that cannot be told; `notes` explains both below it. */
export const cells = (key) => {
  const whys = [];
  const hows = new Map();
  return {
    of: (column, one, form = "share", { n = true } = {}) => {
      if (one === null || one === undefined) return "";
      if (one.value === null) {
        if (!whys.includes(one.why)) whys.push(one.why);
        const made = element("span", "none", "– ");
        made.append(element("sup", "", String(whys.indexOf(one.why) + 1)), element("span", "unseen", one.why));
        return made;
      }
      hows.set(column, [...new Set([...(hows.get(column) ?? []), one.how])]);
      const made = element("span", "number", told(one, form));
      if (one.low !== undefined && n) made.append(" ", element("small", "", `${between(one, form)}, n ${one.n.toLocaleString("en")}`));
      return made;
    },
    notes: () => {
      const made = element("div", "notes");
      if (whys.length) {
        const list = element("ol", "quiet whys");
        list.append(...whys.map((why) => element("li", "", why)));
        made.append(list);
      }
      if (hows.size) {
        const list = element("dl");
        for (const [name, lines] of hows) list.append(element("dt", "", name), ...lines.map((line) => element("dd", "", line)));
        made.append(howNode(key, [list]));
      }
      return made;
    },
  };
};
