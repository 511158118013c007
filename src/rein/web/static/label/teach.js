/* After a practice item: what the researchers' answer is and why, how the round goes, and how it ended. */

import { $, element, many, percent, put, said } from "./text.js";
import { inWords } from "./answers.js";

const ended = (state) => state === "working" || state === "stopped";

const round = ({ done, of, agreed, median_s }) => {
  const line = element("p", "quiet");
  const parts = [`${done} of ${of} done`];
  if (agreed !== null) parts.push(`you agreed with ${percent(agreed)}`);
  if (median_s !== null) parts.push(`half of them took you less than ${Math.max(1, Math.round(median_s))} s`);
  line.textContent = `${parts.join("; ")}.`;
  return line;
};

/* How a round ended; also for a person who comes back later. */
export const result = (training) => {
  const made = element("div", "stack");
  if (!ended(training.state)) made.append(element("p", "", "It goes on: there are more practice items."));
  else if (training.let_in) made.append(element("p", "", "The researchers let you work here. From now on your answers count, and there is no explanation after them."));
  else if (training.state === "working") {
    made.append(element("p", "", "You have passed. From now on your answers count, and there is no explanation after them."));
  } else {
    made.append(element("p", "", [
      "This round was not passed, so there is no work for you here at the moment.",
      "The researchers see this and may open it again; nothing is held against you.",
    ].join(" ")));
  }
  if (training.of) made.append(round(training));
  return made;
};

/* Shows it in place of the item; resolves when the person goes on. */
export const explain = ({ view, said: own, told }) => new Promise((good) => {
  const { teach, training } = told;
  const parts = [];
  if (teach) {
    const share = teach.share > 0 && teach.share < 1 ? `You agree with the researchers on ${percent(teach.share)} of it.` : "";
    put($("teach-head"), share ? "Compared with the researchers" : teach.agreed ? "You agree with the researchers" : "The researchers see it differently");
    if (share) parts.push(element("p", "", share));
    const list = element("dl", "compared");
    for (const question of view.card().questions) {
      const right = teach.right[question.name];
      if (right === undefined) continue;
      const pair = element("div");
      pair.append(element("dt", "", question.text));
      if (own[question.name] !== undefined) pair.append(said(`you: ${inWords(question, own[question.name])}`, "dd"));
      pair.append(said(`the researchers: ${inWords(question, right)}`, "dd", "said right"));
      list.append(pair);
    }
    parts.push(list);
    if (teach.why) parts.push(said(`Because: ${teach.why}`, "p", "said why"));
  } else put($("teach-head"), "Noted");
  if (training) {
    const bar = element("progress");
    bar.max = training.of;
    bar.value = training.done;
    bar.setAttribute("aria-label", "practice items done");
    parts.push(...(ended(training.state) ? [bar, result(training)] : [bar, round(training)]));
    if (ended(training.state)) put($("teach-head"), training.state === "working" ? "Practice passed" : "Practice not passed");
  }
  $("teach-text").replaceChildren(...parts);
  $("teach").hidden = false;
  $("teach").focus();
  $("teach-next").onclick = () => {
    $("teach").hidden = true;
    good();
  };
});

export const left = (training) => (training && !ended(training.state) ? `Practice, ${many(training.of - training.done, "item")} to go. After each you see the researchers' answer; none counts as work.` : "");
