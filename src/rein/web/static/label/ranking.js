/* The ranking on the page: one question after the other (which of these two is better?), then the order as a list that
   can be changed by keys and by buttons. */

import { button, element, letter, many, written } from "./text.js";
import { heading } from "./scales.js";
import { insertion } from "./insertion.js";
import { bring, inSight } from "./sight.js";

const ANSWERS = { ArrowLeft: "first", 1: "first", ArrowRight: "second", 2: "second", "=": "equal", 0: "equal" };

const ranking = ({ question, card, changed, ratings, say, point }) => {
  const order = insertion(card.candidates.length, question.ties);
  const node = element("fieldset", "ranking");
  const duel = element("div", "duel");
  const list = element("ol", "order");
  const hint = element("p", "hint quiet");
  const note = element("p", "gentle");
  note.setAttribute("role", "status");
  node.append(heading(question, "Rank them, the best first"), hint, duel, list, note);
  let started = false;
  let pending = null; // whom the focus goes to after the next drawing

  const name = (x) => `${letter(x)}`;

  const contradiction = () => {
    const given = ratings();
    const ranks = order.ranks();
    if (!given || !ranks) return "";
    for (let a = 0; a < ranks.length; a += 1) {
      for (let b = 0; b < ranks.length; b += 1) {
        if (ranks[a] < ranks[b] && given[a] !== null && given[b] !== null && given[a] < given[b]) {
          return `You rank ${name(a)} above ${name(b)}, but rated it lower (${given[a]} and ${given[b]}). That may be what you mean; both are kept.`;
        }
      }
    }
    return "";
  };

  const answer = (word) => {
    if (!order.answer(word)) return false;
    const asked = order.asked();
    say(asked ? `${name(asked[0])} or ${name(asked[1])}?` : `Ranked: ${order.groups().map((group) => group.map(name).join(" equal to ")).join(", then ")}.`);
    draw();
    changed();
    return true;
  };

  const drawDuel = (asked) => {
    duel.hidden = !asked;
    if (!asked) return;
    const sides = asked.map((x, side) => {
      const box = element("button", "side");
      box.type = "button";
      box.append(element("strong", "", name(x)), element("kbd", "", side ? "→" : "←"));
      const text = element("span", "said");
      text.dir = "auto";
      text.append(written(card.candidates[x].text));
      box.append(text);
      box.setAttribute("aria-label", `${name(x)} is better`);
      box.addEventListener("click", () => answer(side ? "second" : "first"));
      return box;
    });
    const equal = button("equal", "=", () => answer("equal"));
    equal.disabled = !question.ties;
    const back = button("back", "⌫", () => { if (order.back()) { draw(); changed(); } });
    const between = element("div", "between");
    between.append(element("span", "quiet", "or"), equal, back);
    duel.replaceChildren(sides[0], between, sides[1]);
  };

  const act = (x, what) => {
    const done = what === "tie" ? order.tie(x) : order.move(x, what === "up" ? -1 : 1);
    if (!done) return;
    pending = x;
    const at = order.groups().findIndex((group) => group.includes(x));
    const with_ = order.groups()[at].filter((other) => other !== x);
    say(`${name(x)} is now number ${at + 1}${with_.length ? `, equal to ${with_.map(name).join(" and ")}` : ""}.`);
    draw();
    changed();
  };

  const drawList = (asked) => {
    list.hidden = order.groups().length === 0;
    list.replaceChildren(...order.groups().flatMap((group, i) => group.map((x, j) => {
      const li = element("li", `place ${j ? "tied" : ""}`);
      li.value = i + 1;
      const row = element("div", "entry");
      row.tabIndex = asked ? -1 : 0;
      row.dataset.x = x;
      row.setAttribute("role", "group");
      row.setAttribute("aria-label", `number ${i + 1}: ${name(x)}${group.length > 1 ? ", a tie" : ""}`);
      row.append(element("span", "rank", j ? "=" : String(i + 1)), element("strong", "", name(x)));
      const head = element("span", "short");
      head.dir = "auto";
      head.append(written(card.candidates[x].text.slice(0, 160)));
      row.append(head);
      if (!asked) {
        const tools = element("span", "tools");
        for (const [what, sign, words] of [["up", "↑", "better"], ["down", "↓", "worse"], ["tie", "=", group.length > 1 ? "no longer equal" : "equal to its neighbour"]]) {
          if (what === "tie" && !question.ties) continue;
          const tool = element("button", "", sign);
          tool.type = "button";
          tool.tabIndex = -1; // the entry itself takes these keys
          tool.setAttribute("aria-label", `${name(x)}: ${words}`);
          tool.title = words;
          tool.addEventListener("click", () => act(x, what));
          tools.append(tool);
        }
        row.append(tools);
      }
      li.append(row);
      return li;
    })));
    if (pending !== null) list.querySelector(`[data-x="${pending}"]`)?.focus();
    pending = null;
  };

  const which = () => `Which is better? ${many(order.left(), "more to place", "more to place")}; ← and → choose${question.ties ? ", = makes them equal" : ""}, ⌫ takes an answer back.`;

  const draw = () => {
    const asked = started ? order.asked() : null;
    hint.textContent = !started
      ? "It begins when its turn comes."
      : asked
        ? which()
        : "The order is complete. On an entry, ↑ and ↓ move it and = makes it equal; R asks everything again.";
    drawDuel(asked);
    if (started) drawList(asked);
    else list.hidden = true;
    note.textContent = contradiction();
    point(asked ?? []);
  };

  const start = () => {
    if (started) return;
    started = true;
    const given = ratings();
    order.begin(given && !given.includes(null) ? given : []);
    draw();
    changed();
  };

  const again = () => {
    started = false;
    start();
  };

  const stop = {
    node,
    focus: () => {
      start();
      (order.asked() ? duel.querySelector(".side") : list.querySelector(".entry"))?.focus();
    },
    key: (event) => {
      if (!started) return false;
      const asked = order.asked();
      const word = asked && ANSWERS[event.key];
      const x = asked ? undefined : event.target.closest?.("[data-x]")?.dataset.x;
      const what = x === undefined ? undefined : { ArrowUp: "up", ArrowDown: "down", "=": "tie" }[event.key];
      const back = event.key === "Backspace";
      const fresh = !asked && event.key.toLowerCase() === "r";
      if (!word && !what && !back && !fresh) return false;
      // Nobody answers what is off the screen: the first key brings it there, and no more.
      if (!inSight(asked ? duel : list)) {
        bring(asked ? duel : list);
        hint.textContent = asked ? `It was off the screen, so that key chose nothing. ${which()}` : "The order was off the screen, so that key changed nothing.";
        say(hint.textContent);
        return true;
      }
      if (word) return answer(word);
      if (what) act(Number(x), what);
      else if (fresh) again();
      else if (order.back()) { draw(); changed(); }
      return true;
    },
  };

  draw();
  return {
    node,
    stops: [stop],
    start,
    value: () => (started && order.ranks() ? { ranks: order.ranks() } : null),
    draft: () => (started ? (order.ranks() ? { ranks: order.ranks() } : order.state()) : null),
    set: (to) => {
      started = Boolean(to);
      order.restore(to ?? undefined);
      draw();
    },
    missing: () => (started && order.ranks() ? "" : "the ranking is not complete"),
    refresh: () => { note.textContent = contradiction(); },
  };
};

export const RANKING = { ranking };
