/* The line to the server: JSON there and back. What the server refuses is a Refused, with its code and its words; what
   did not reach it, or reached it while it could not, is an Unreachable, and may be sent again. */

export class Refused extends Error {
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

export class Unreachable extends Error {
  constructor(text, wait_s = 0) {
    super(text);
    this.wait_s = wait_s; // how long the server asks to be left alone
  }
}

const WITHIN_MS = 20_000;

/* `ask("GET", "/me")`, `ask("POST", "/submit", {…})`: the answer, as JSON. */
export const ask = async (method, path, body, within_ms = WITHIN_MS) => {
  let answer;
  try {
    answer = await fetch(`/label/api${path}`, {
      method,
      cache: "no-store",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(within_ms),
    });
  } catch {
    throw new Unreachable("No connection to the server.");
  }
  let told = {};
  try { told = await answer.json(); } catch { /* an empty answer, or a proxy's page */ }
  if (answer.ok) return told;
  const text = told?.error?.text ?? `The server answered ${answer.status}.`;
  if (answer.status === 429 || answer.status >= 500) throw new Unreachable(text, Number(answer.headers.get("retry-after")) || 0);
  throw new Refused(answer.status, told?.error?.code ?? "", text);
};

/* Where to log in, and to come back to this page from. */
export const loginAddress = () => `/label/login#${encodeURIComponent(location.pathname)}`;

/* As `ask`, for a page that shows nothing to strangers: it sends them to the login. */
export const askAsPerson = async (method, path, body) => {
  try {
    return await ask(method, path, body);
  } catch (error) {
    if (error.status === 401) {
      location.replace(loginAddress());
      await new Promise(() => {}); // the page is on its way out
    }
    throw error;
  }
};

/* Who is here; a page that cannot know it says so in `node`, and does no more. */
export const whoIsHere = async (node) => {
  try {
    return await askAsPerson("GET", "/me");
  } catch (error) {
    const again = document.createElement("button");
    again.type = "button";
    again.textContent = "Try again";
    again.addEventListener("click", () => location.reload());
    const text = document.createElement("p");
    text.className = "trouble";
    text.role = "alert";
    text.textContent = error.message;
    node.replaceChildren(text, again);
    return new Promise(() => {});
  }
};
