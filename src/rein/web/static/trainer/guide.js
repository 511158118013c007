/* The dialogs: a tour of three cards on the first visit, the help, and the end of a session. */

import { $, element, touch } from "./words.js";

const cards = [
  ["stage", "Watch", () => "This is the agent at its task. It knows nothing yet, so it will look foolish. That is what you are for."],
  ["judge", "Judge", () => touch()
    ? "First switch training on. When what it just did was good, touch Good; when it was bad, touch Bad."
    : "When you have closed this, Space begins the lesson. When what it just did was good, press / or the up arrow; when it was bad, press Z or the down arrow."],
  ["ribbon", "See where your word lands", (reach) => `Every step is a cell. Each press is shared over the steps you can have meant, ${reach} before: the threads show which. Steady, prompt feedback teaches best.`],
];
const seenKey = "rein-trainer-tour";

export const guide = ({ opened, finish, reach }) => {
  const open = (dialog) => {
    if (dialog.open) return;
    opened();
    dialog.showModal();
  };

  /* ----------------------------------------------------------------------------------------------- tour */

  const tour = $("tour");
  let at = 0;
  const place = () => {
    const [id, title, text] = cards[at];
    const target = $(id);
    target.scrollIntoView({ block: "center" });
    const around = target.getBoundingClientRect();
    const card = $("tour-card");
    $("tour-count").textContent = `${at + 1} of ${cards.length}`;
    $("tour-title").textContent = title;
    $("tour-text").textContent = text(reach());
    $("tour-next").textContent = at + 1 < cards.length ? "Next" : "Start teaching";
    Object.assign($("spot").style, { left: `${around.left - 4}px`, top: `${around.top - 4}px`, width: `${around.width + 8}px`, height: `${around.height + 8}px` });
    const { width, height } = card.getBoundingClientRect();
    const below = around.bottom + 14 + height < innerHeight;
    const above = around.top - 14 - height > 0;
    card.style.left = `${Math.max(12, Math.min(innerWidth - width - 12, around.left + around.width / 2 - width / 2))}px`;
    card.style.top = `${below ? around.bottom + 14 : above ? around.top - 14 - height : Math.max(12, around.top + 20)}px`;
  };
  const start = () => {
    at = 0;
    open(tour);
    place();
    $("tour-next").focus();
  };
  $("tour-next").addEventListener("click", () => {
    at += 1;
    if (at < cards.length) place();
    else tour.close();
  });
  $("tour-skip").addEventListener("click", () => tour.close());
  tour.addEventListener("close", () => {
    try { localStorage.setItem(seenKey, "seen"); } catch { /* storage is off */ }
    scrollTo(0, 0);
  });
  addEventListener("resize", () => { if (tour.open) place(); });

  /* ----------------------------------------------------------------------------------------------- help */

  const help = () => {
    $("help-reach").textContent = reach();
    open($("help-page"));
  };
  $("help").addEventListener("click", help);
  $("help-close").addEventListener("click", () => $("help-page").close());
  $("tour-again").addEventListener("click", () => { $("help-page").close(); start(); });

  /* --------------------------------------------------------------------------------------------- finish */

  const page = $("finish-page");
  $("finish").addEventListener("click", () => open(page));
  for (const id of ["finish-no", "finish-close"]) $(id).addEventListener("click", () => page.close());
  $("finish-yes").addEventListener("click", () => { page.close(); finish(); });

  const copy = async (text, button, code) => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch { // no clipboard without https: select the text, so that one key copies it
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  };

  return {
    help,
    firstTour: () => {
      let seen = null;
      try { seen = localStorage.getItem(seenKey); } catch { /* storage is off */ }
      if (!seen) start();
    },
    finished: ({ record, rows, next }) => {
      for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
      $("finish-ask").hidden = true;
      $("finish-done").hidden = false;
      $("finish-record").textContent = record;
      $("finish-rows").replaceChildren(...rows.map(([name, value]) => {
        const row = element("tr");
        const head = element("th", "", name);
        head.scope = "row";
        row.append(head, element("td", "", value));
        return row;
      }));
      $("finish-next").replaceChildren(...next.map((text) => {
        const item = element("li");
        const code = element("code", "", text);
        const button = element("button", "", "Copy");
        button.type = "button";
        button.setAttribute("aria-label", `Copy: ${text}`);
        button.addEventListener("click", () => copy(text, button, code));
        item.append(code, button);
        return item;
      }));
      page.showModal();
    },
  };
};
