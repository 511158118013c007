/* Keys and the two large buttons become intentions: a value to give, a command, an action. The keys are the original
   TAMER program's. Space counts on release, as there; repeats of a held key never count. */

import { $ } from "./words.js";

const good = { value: 1, keys: ["/", "?", "ArrowUp", "PageDown", "j", "J"] };
const bad = { value: -1, keys: ["z", "Z", "ArrowDown", "PageUp", "k", "K"] };
const scrolls = ["ArrowUp", "ArrowDown", "PageUp", "PageDown"];

const inField = (target) => target instanceof HTMLElement && (target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox])"));
/* Whoever came to a button by Tab means that button with Space; after a click, Space is training again. The button
   that closed a dialog keeps the focus until the next frame although nobody can see it: not that one either. */
const onButton = (target) => target instanceof HTMLElement && target.matches("button:focus-visible, input:focus-visible, a:focus-visible") && target.checkVisibility();

export const keys = ({ give, toggle, command, demonstrating, choose, help, teaching }) => {
  const free = (event) => !(event.ctrlKey || event.metaKey || event.altKey || event.isComposing || inField(event.target) || document.querySelector("dialog[open]"));
  let space = false;

  const valueOf = (event) => {
    const found = [good, bad].find((one) => one.keys.includes(event.key));
    if (!found) return 0;
    // where "/" is itself typed with Shift, the character decides; for all other keys, the Shift key
    const ten = event.key === "/" ? false : event.key === "?" || event.shiftKey;
    return found.value * (ten ? 10 : 1);
  };

  addEventListener("keydown", (event) => {
    if (!free(event)) return;
    if (event.key === " ") {
      if (onButton(event.target)) return;
      event.preventDefault();
      if (!event.repeat) space = true;
      return;
    }
    if (demonstrating() && choose(event)) return event.preventDefault();
    const value = valueOf(event);
    if (value) {
      if (scrolls.includes(event.key) && !teaching()) return; // nobody to teach: then they scroll as anywhere
      event.preventDefault();
      if (!event.repeat) give(value, event, event.key);
      return;
    }
    if (event.repeat) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const meant = { Escape: toggle, p: () => command("p"), 0: () => command("pause"), 1: () => command("step"), 2: () => command("resume"), "+": () => command("faster"), "=": () => command("faster"),
      "-": () => command("slower"), "−": () => command("slower"), t: () => command("tamer"), d: () => command("demonstrate"), h: help }[name];
    if (!meant) return;
    event.preventDefault();
    meant();
  });

  addEventListener("keyup", (event) => {
    if (event.key !== " " || !space) return;
    space = false;
    event.preventDefault(); // or a button that was clicked before would be clicked again
    if (free(event)) toggle();
  });
  addEventListener("blur", () => { space = false; });

  for (const [id, value] of [["praise", 1], ["blame", -1]]) {
    const button = $(id);
    let last = 0;
    button.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button !== 0) return;
      event.preventDefault(); // no focus and no double-tap zoom
      last = event.timeStamp;
      give(value * (event.shiftKey ? 10 : 1), event, "button");
    });
    // Enter and Space on a focused button, and the tap of a screen reader, come as a click without a pointer
    button.addEventListener("click", (event) => { if (event.detail === 0 && event.timeStamp - last > 700) give(value, event, "button"); });
    button.addEventListener("contextmenu", (event) => event.preventDefault());
  }
  addEventListener("click", (event) => { if (event.detail > 0 && event.target.closest?.("button, input[type=checkbox]") && !event.target.closest("dialog")) document.activeElement.blur(); });
};
