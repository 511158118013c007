/* Elements by their id, and new ones. Text goes in as text, never as HTML: the pages' policy forbids the other way. The
   report's script (report/static/report.js) has these lines too, for its page is one file that loads no other. */

export const $ = (id) => document.getElementById(id);

export const element = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};
