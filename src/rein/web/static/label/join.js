/* Joining by an invitation; its token is in the address after #, which browsers do not send, and does not stay there. */

import { ask } from "./api.js";
import { $, put } from "./text.js";

const token = decodeURIComponent(location.hash.slice(1));
history.replaceState(null, "", location.pathname);

const trouble = (text) => {
  put($("trouble"), text);
  $("trouble").hidden = !text;
};
if (!token) {
  trouble("This address holds no invitation. Open the link that you were given, whole.");
  $("send").disabled = true;
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if ($("password").value !== $("again").value) {
    trouble("The two passwords are not the same.");
    return $("again").select();
  }
  $("send").disabled = true;
  trouble("");
  try {
    const { role } = await ask("POST", "/join", { token, name: $("name").value.trim(), password: $("password").value });
    location.replace(role === "labeler" ? "/label" : "/label/research");
  } catch (error) {
    trouble(error.message);
    $("send").disabled = false;
  }
});
$("name").focus();
