/* Invitations: the form, and a link or a key that is shown once, to be copied. */

import { $, element, put } from "./text.js";
import { choice, field, formEnd, input, me, onSubmit, post } from "./research-page.js";

/* What is shown this once. */
export const shownOnce = (words, secret) => {
  const made = element("div", "note");
  const line = element("div", "copied");
  const code = element("code", "", secret);
  code.tabIndex = 0;
  const button = element("button", "", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(secret);
      put(button, "Copied");
    } catch {
      getSelection().selectAllChildren(code); // no clipboard without TLS: it is marked for Ctrl+C
      put(button, "Press Ctrl+C");
    }
  });
  line.append(code, button);
  made.append(element("p", "", words), line);
  return made;
};

export const roles = () => (me.role === "admin" ? ["labeler", "researcher", "admin"] : ["labeler", "researcher"]);

/* Members of `project`, or with null people of none. */
export const inviteForm = (project) => {
  const form = $("invite");
  const role = choice(roles());
  const uses = input("number", 1, { min: 1, max: 1000, step: 1 });
  const hours = input("number", 72, { min: 1, max: 8784, step: "any" });
  const box = element("div", "fields");
  box.append(field("Role", role), field("New people", uses), field("Good for, hours", hours));
  form.append(box, ...formEnd("Make a link"));
  onSubmit(form, async () => {
    const { link } = await post("/research/invites", { role: role.value, project, uses: Number(uses.value), hours: Number(hours.value) });
    $("link").replaceChildren(shownOnce("Send this to them. It is shown this once.", link));
    return "";
  });
};
