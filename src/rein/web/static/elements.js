/* Elements by their id, and new ones. Text goes in as text, never as HTML: the pages' policy forbids the other way. The
   report's script (report/static/report.js) has these lines too, for its page is one file that loads no other. */

export const $ = (id) => document.getElementById(id);

export const element = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};

/* For screen readers: at most one sentence every 1.5 s, and of several waiting only the newest two. */
const waiting = [];
let speaking = null;
const next = () => {
  const text = waiting.shift();
  speaking = text === undefined ? null : setTimeout(next, 1500);
  if (text !== undefined) $("say").textContent = text;
};
export const say = (text) => {
  waiting.push(text);
  waiting.splice(0, waiting.length - 2);
  if (speaking === null) next();
};
