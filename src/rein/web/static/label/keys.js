/* Single keys for what is done often. They can be switched off, and given other letters (WCAG 2.1.4); none acts while
   something is being typed, while the focus is on a button or link beside the item, with a modifier held, or below a
   dialog. Who goes on from a text by Tab, and types on, so does nothing by it. Esc brings the focus back to the item. */

export const COMMANDS = [
  { name: "skip", key: "s", says: "skip this item, with a reason" },
  { name: "flag", key: "f", says: "say that something is wrong with this item" },
  { name: "ask", key: "q", says: "ask the researchers about this item" },
  { name: "undo", key: "z", says: "take the last answer back, also after it was sent" },
  { name: "guide", key: "i", says: "show or hide the instructions" },
  { name: "diff", key: "d", says: "mark what only one of them says" },
  { name: "help", key: "?", says: "show these keys" },
];
/* What is not to be chosen anew: it answers questions. */
export const FIXED = [
  ["1 … 9", "choose a point of the scale, or the best one"],
  ["↑ ↓", "go from one question to the next; move an entry of a ranking"],
  ["← → =", "in a ranking: the left one, the right one, equal"],
  ["⌫ R", "in a ranking: take an answer back; ask everything again"],
  ["Enter", "send the answer; go to the next note, and from the last one to the source; go on after an explanation"],
  ["Ctrl Enter", "send the answer from a text, where Enter begins a line; Shift Enter begins one in a note"],
  ["Esc", "leave a text or a button for the keys, close a dialog"],
];

export const keysOf = (preferences) => Object.fromEntries(COMMANDS.map(({ name, key }) => [name, preferences.keys?.[name] ?? key]));

/* What is wrong with a choice of keys, or "". */
export const problemOf = (keys) => {
  const seen = new Map();
  for (const [name, key] of Object.entries(keys)) {
    if ([...key].length !== 1 || /[\s\d=]/.test(key)) return `“${key}” cannot be the key of ${name}: one character, and no digit, = or space, which answer questions.`;
    if (seen.has(key)) return `“${key}” is the key of both ${seen.get(key)} and ${name}.`;
    seen.set(key, name);
  }
  return "";
};

export const typing = (target) => target instanceof HTMLElement && (target.isContentEditable || target.matches("textarea, select, input:not([type=radio], [type=checkbox])"));
export const acts = (target) => target instanceof HTMLElement && target.matches("button, a, summary");

/* `commands`: name → what it does; `key(event)`: for all other keys, whether it took one; `enter(event)`, `escape()`. */
export const listen = ({ preferences, commands, key, enter, escape }) => {
  addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const chord = event.ctrlKey || event.metaKey;
    if (event.key === "Enter") {
      if (event.repeat || (!chord && acts(event.target))) return;
      if (enter(event, chord)) event.preventDefault();
      return;
    }
    if (chord) return;
    if (event.key === "Escape") return escape(event);
    if (typing(event.target)) return;
    const character = [...event.key].length === 1;
    if (character && (preferences.shortcuts === false || (acts(event.target) && !event.target.closest(".item")))) return;
    if (key(event)) return event.preventDefault();
    if (!character || event.repeat) return;
    const keys = keysOf(preferences);
    const found = Object.keys(commands).find((name) => keys[name]?.toLowerCase() === event.key.toLowerCase());
    if (!found) return;
    event.preventDefault();
    commands[found]();
  });
};
