/* What stands in place of an item when there is none, and where to go from there. */

import { button, element } from "./text.js";
import { result } from "./teach.js";

const WORDS = {
  "all done": "There is nothing left for you here at the moment. Thank you.",
  "nothing yet": "There is nothing here yet.",
  "no member": "You have no part in this project. Once a researcher adds you, it is among your projects.",
  stopped: "The researchers have paused your work on this project.",
  closed: "This project is closed.",
};
const AGAIN = new Set(["all done", "nothing yet"]); // that may change by itself
const WITHOUT_WORK = new Set(["nothing yet", "no member"]);

/* `told`: why there is nothing, or null while that is not known; `asking`: whether the server is being asked. */
export const nothingNode = ({ told, asking, training, project, again }) => {
  const box = element("div", "nothing");
  if (told === "failed training" && training) box.append(element("h2", "", "Practice not passed"), result(training));
  else box.append(element("p", "empty", told ? WORDS[told] ?? "There is no work for you here at the moment." : asking ? "Asking for work …" : "The next item comes when there is a connection."));
  if (!told) return box;
  const links = element("p", "row");
  const own = ["Your work so far", `/label/mine/${encodeURIComponent(project)}`];
  for (const [words, address] of [...(WITHOUT_WORK.has(told) ? [] : [own]), ["All projects", "/label"]]) {
    const link = element("a", "button", words);
    link.href = address;
    links.append(link);
  }
  if (AGAIN.has(told)) links.append(button("Look again", "", again));
  box.append(links);
  return box;
};
