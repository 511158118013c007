/* One's own account: the keys of the work page, the password, and where one is logged in. */

import { ask, askAsPerson, whoIsHere } from "./api.js";
import { $, button, element, put, when } from "./text.js";
import { COMMANDS, keysOf, problemOf } from "./keys.js";

const me = await whoIsHere($("main"));
put($("who"), `${me.name}, ${me.role}`);
$("username").value = me.name;

/* -------------------------------------------------------------------------------------------------------- keys */

const fields = new Map();
for (const { name, says } of COMMANDS) {
  const label = element("label", "key-choice");
  const input = element("input");
  input.maxLength = 2; // one character, of any plane
  input.size = 2;
  input.autocomplete = "off";
  label.append(input, element("span", "", says));
  fields.set(name, input);
  $("keys").append(label);
}
const fill = (preferences) => {
  $("shortcuts").checked = preferences.shortcuts !== false;
  for (const [name, key] of Object.entries(keysOf(preferences))) fields.get(name).value = key;
};
fill(me.preferences);
$("keys-form").hidden = false;
$("keys-usual").addEventListener("click", () => fill({}));
$("keys-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  put($("keys-done"), "");
  const keys = Object.fromEntries([...fields].map(([name, input]) => [name, input.value.toLowerCase()]));
  const problem = problemOf(keys);
  put($("keys-trouble"), problem);
  if (problem) return;
  Object.assign(me.preferences, { shortcuts: $("shortcuts").checked, keys });
  try {
    await askAsPerson("POST", "/preferences", { preferences: me.preferences });
    put($("keys-done"), "Kept.");
  } catch (error) { put($("keys-trouble"), error.message); }
});

/* ---------------------------------------------------------------------------------------------------- password */

$("old-label").hidden = !me.has_password;
$("password-form").hidden = false;
$("password-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  put($("password-done"), "");
  put($("password-trouble"), "");
  try {
    await askAsPerson("POST", "/password", { old: me.has_password ? $("old").value : null, new: $("new").value });
    me.has_password = true;
    $("old-label").hidden = false;
    $("old").value = "";
    $("new").value = "";
    put($("password-done"), "Changed. Every other browser and key of yours is logged out.");
    showSessions();
  } catch (error) { put($("password-trouble"), error.message); }
});

/* ---------------------------------------------------------------------------------------------------- sessions */

const showSessions = async () => {
  try {
    const { sessions } = await askAsPerson("GET", "/sessions");
    $("sessions").replaceChildren(...sessions.map((one) => {
      const item = element("li", "panel");
      const head = element("p", "", one.this ? "This browser" : one.kind === "key" ? "Key" : "Browser");
      if (one.label) head.append(element("span", "quiet", ` · ${one.label}`));
      const times = element("p", "quiet", "last seen ");
      times.append(when(one.seen_ms), ", ends ", when(one.expires_ms));
      item.append(head, times);
      if (!one.this) {
        item.append(button("End it", "", async () => {
          try {
            await askAsPerson("DELETE", `/sessions/${encodeURIComponent(one.id)}`);
            item.remove();
          } catch (error) { put($("sessions-trouble"), error.message); }
        }));
      }
      return item;
    }));
  } catch (error) { put($("sessions-trouble"), error.message); }
};
showSessions();

$("leave").addEventListener("click", async () => {
  try {
    await ask("POST", "/logout", {});
    location.replace("/label/login");
  } catch (error) { put($("sessions-trouble"), error.message); }
});
