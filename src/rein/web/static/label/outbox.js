/* What was said and has not been acknowledged by the server. It lies in IndexedDB, so that it outlives the page, the
   browser and a restart of the server; each has a key of its own, so that it counts once however often it is sent. Tabs
   take turns (Web Locks). What the server refuses stays, with what it said, until the person puts it away. */

import { ask, Unreachable } from "./api.js";

const NAME = "rein-label";
const FIRST_MS = 1000;
const MOST_MS = 15_000;

/* A key that nobody else makes. Not randomUUID, which is missing where there is no TLS. */
export const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const done = (request) => new Promise((good, bad) => {
  request.onsuccess = () => good(request.result);
  request.onerror = () => bad(request.error);
});

/* What was written is on the disk once its transaction is complete: until then it may be taken back, as on a full disk. */
const kept = (request) => new Promise((good, bad) => {
  const { transaction } = request;
  transaction.oncomplete = () => good(request.result);
  transaction.onabort = () => bad(transaction.error ?? new Error("aborted"));
});

const opened = () => new Promise((good, bad) => {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore("waiting", { keyPath: "n", autoIncrement: true });
  request.onsuccess = () => good(request.result);
  request.onerror = () => bad(request.error);
  request.onblocked = () => bad(new Error("blocked"));
});

/* The rows, in IndexedDB. What a browser does not take (storage is off, or full) lies in the page, which says so; what it
   does not let go of is done with all the same. */
const makeShelf = async () => {
  const database = await opened().catch(() => null);
  const loose = new Map();
  const gone = new Set();
  let last = 0;
  const within = (mode) => database.transaction("waiting", mode, { durability: "strict" }).objectStore("waiting");
  return {
    loose,
    all: async () => {
      const rows = database ? await done(within("readonly").getAll()).catch(() => []) : [];
      return [...rows.filter(({ n }) => !loose.has(n) && !gone.has(n)), ...loose.values()];
    },
    put: async (row) => {
      if (database) {
        try {
          row.n = await kept(within("readwrite").put(row));
          loose.delete(row.n);
          return;
        } catch { /* full, or taken back */ }
      }
      row.n ??= `page-${(last += 1)}`;
      loose.set(row.n, row);
    },
    remove: async (n) => {
      loose.delete(n);
      if (!database || typeof n !== "number") return;
      try {
        await kept(within("readwrite").delete(n));
      } catch { gone.add(n); }
    },
  };
};

const alone = (work) => (navigator.locks ? navigator.locks.request(NAME, work) : work());

/* `person`: whose rows these are; those of somebody else who used this browser are left alone. `answered(row, result)`
   and `refused(row)` are told in every tab; `changed({ waiting, refused, trouble, login })` when any of these is. */
export const openOutbox = async ({ person, answered, refused, changed }) => {
  const shelf = await makeShelf();
  const channel = new BroadcastChannel(NAME);
  const state = { waiting: [], refused: [], trouble: "", login: false, lasting: true };
  let tries = 0;
  let timer = null;

  const look = async () => {
    const mine = (await shelf.all()).filter((row) => row.person === person);
    state.waiting = mine.filter((row) => row.state === "waiting");
    state.refused = mine.filter((row) => row.state === "refused");
    state.lasting = shelf.loose.size === 0;
    changed(state);
  };

  const tell = (word, row, result) => {
    channel.postMessage({ person, word, row, result });
    hear({ word, row, result });
  };
  const hear = ({ word, row, result }) => {
    if (word === "answered") answered(row, result);
    if (word === "refused") refused(row);
  };
  channel.onmessage = ({ data }) => {
    if (data.person !== person) return;
    hear(data);
    look();
  };

  const later = (wait_s) => {
    clearTimeout(timer);
    const wait_ms = Math.max(wait_s * 1000, Math.min(MOST_MS, FIRST_MS * 2 ** tries) * (0.8 + 0.4 * Math.random()));
    tries += 1;
    timer = setTimeout(drain, wait_ms);
  };

  /* Sends the oldest first until nothing waits, or the server cannot be reached. */
  const drain = () => alone(async () => {
    clearTimeout(timer);
    for (;;) {
      const row = (await shelf.all()).find((one) => one.person === person && one.state === "waiting");
      if (!row) { tries = 0; break; }
      try {
        const result = await ask("POST", row.path, row.body);
        await shelf.remove(row.n);
        Object.assign(state, { trouble: "", login: false });
        tries = 0;
        tell("answered", row, result);
      } catch (error) {
        if (error instanceof Unreachable) {
          state.trouble = error.message;
          later(error.wait_s);
          break;
        }
        if (error.status === 401) {
          Object.assign(state, { login: true, trouble: error.message });
          later(MOST_MS / 1000);
          break;
        }
        const kept = { ...row, state: "refused", code: error.code ?? "", text: error.message };
        await shelf.put(kept);
        tell("refused", kept);
      }
      await look();
    }
    await look();
  });

  addEventListener("online", drain);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && state.waiting.length) drain(); });
  addEventListener("beforeunload", (event) => { if (state.waiting.length) event.preventDefault(); });

  await look();
  return {
    state,
    drain,
    /* `row`: { path, body, title }; when this returns it is on the device's disk, or `lasting` is false. */
    add: async (row) => {
      const whole = { ...row, person, state: "waiting", at_ms: Date.now() };
      state.waiting.push(whole);
      changed(state);
      await shelf.put(whole);
      channel.postMessage({ person });
      if (shelf.loose.size) await look();
    },
    again: async (row) => { await shelf.put({ ...row, state: "waiting" }); await drain(); },
    discard: async (row) => { await shelf.remove(row.n); channel.postMessage({ person }); await look(); },
  };
};
