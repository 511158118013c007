/* Coming in by a link that works once; its token is in the address after #, and does not stay there. */

import { ask } from "./api.js";
import { $, put } from "./text.js";

const token = decodeURIComponent(location.hash.slice(1));
history.replaceState(null, "", location.pathname);

try {
  if (!token) throw new Error("This address holds no link. Open it whole, as it was given to you.");
  const { role } = await ask("POST", "/enter", { token });
  location.replace(role === "labeler" ? "/label" : "/label/research");
} catch (error) {
  $("state").hidden = true;
  $("trouble").hidden = false;
  put($("trouble"), error.message);
}
