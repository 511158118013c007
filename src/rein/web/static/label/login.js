/* Logging in: by name and password. Afterwards the page that was asked for, if it is one of the labeling pages. */

import { ask } from "./api.js";
import { $, put } from "./text.js";

/* Only an address of these pages is gone back to: the part after # is anybody's to write. */
const wanted = () => {
  let path = "";
  try { path = decodeURIComponent(location.hash.slice(1)); } catch { /* not one of ours */ }
  return /^\/label(\/[\w%.~-]+)*$/.test(path) && !path.startsWith("/label/login") ? path : null;
};

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("send").disabled = true;
  $("trouble").hidden = true;
  try {
    const { role } = await ask("POST", "/login", { name: $("name").value.trim(), password: $("password").value });
    location.replace(wanted() ?? (role === "labeler" ? "/label" : "/label/research"));
  } catch (error) {
    put($("trouble"), error.message);
    $("trouble").hidden = false;
    $("send").disabled = false;
    $("password").select();
  }
});
$("name").focus();
