/* The line to the server: joins, hears, reconnects with growing waits, measures the round trip, and keeps every press
   in an outbox until its credit has come back. After a reconnect the outbox is sent again; the server counts an id once. */

/* Page, counter and outbox outlive a reload in sessionStorage. They are taken out while the page lives, because a
   duplicated tab copies sessionStorage, and two pages of one name would throw each other out for ever. */
const store = "rein-trainer";
const taken = () => {
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(store)); sessionStorage.removeItem(store); } catch { /* storage is off */ }
  return kept || { page: crypto.getRandomValues(new Uint32Array(2)).reduce((text, n) => text + n.toString(36), ""), count: 0, outbox: [], record: null };
};

/* The control key comes once in the address, and is not to stay there: addresses end up in screenshots. */
const controlKey = () => {
  let key = decodeURIComponent(location.hash.slice(1));
  try {
    if (key) sessionStorage.setItem("rein-trainer-key", key);
    key = key || sessionStorage.getItem("rein-trainer-key") || "";
  } catch { /* storage is off */ }
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  return key;
};

export const connection = ({ hear, frame, changed, painted }) => {
  const key = controlKey();
  let kept = taken();
  const keep = () => { try { sessionStorage.setItem(store, JSON.stringify(kept)); } catch { /* storage is off */ } };
  addEventListener("pagehide", keep);
  addEventListener("pageshow", (event) => { if (event.persisted) kept = taken(); });

  let socket = null;
  let tries = 0;
  let timer = null;
  let joined = false;
  let silent = 0; // pings without an answer
  const line = { state: "connecting", retry_at: null, lost_at: null, rtt_ms: null, jitter_ms: null, offset_ms: null, error_ms: null };
  const pings = []; // the last 20: [round trip, offset]

  const send = (message) => {
    if (!joined) return false;
    socket.send(JSON.stringify(message));
    return true;
  };

  const open = () => {
    clearTimeout(timer);
    line.state = "connecting";
    changed();
    const mine = new WebSocket(`${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/tamer/socket`);
    socket = mine;
    mine.binaryType = "arraybuffer";
    mine.onopen = () => mine.send(JSON.stringify({ type: "join", key, page: kept.page }));
    mine.onmessage = (event) => {
      if (mine !== socket) return;
      if (typeof event.data !== "string") {
        frame(new DataView(event.data).getUint32(0, true), new Blob([new Uint8Array(event.data, 4)], { type: "image/jpeg" }));
        return;
      }
      const message = JSON.parse(event.data);
      if (message.type === "pong") pong(message);
      else if (message.type === "welcome") welcome(message);
      else {
        if (message.type === "credit") acknowledge(message.id);
        hear(message);
      }
    };
    mine.onclose = () => { if (mine === socket) lost(); };
  };

  const lost = () => {
    if (line.state === "closed") return;
    if (joined) line.lost_at = performance.now();
    joined = false;
    socket.onclose = null;
    socket.close();
    // 0.5 s, 1 s, 2 s … 10 s, each a little uneven, so that many watchers do not come back in one instant
    const wait_ms = Math.min(10_000, 500 * 2 ** tries++) * (0.8 + 0.4 * Math.random());
    line.state = "waiting";
    line.retry_at = performance.now() + wait_ms;
    timer = setTimeout(open, wait_ms);
    changed();
  };

  const acknowledge = (id) => {
    const at = kept.outbox.findIndex((press) => press.id === id);
    if (at >= 0) kept.outbox.splice(at, 1);
  };

  const welcome = (message) => {
    tries = 0;
    joined = true;
    pings.length = silent = 0;
    line.state = "connected";
    line.lost_at = null;
    // a press judges a step of one record; in another session step 17 is another step
    if (kept.record !== message.record) kept.outbox = [];
    kept.record = message.record;
    for (const credit of message.credits) acknowledge(credit.id);
    hear(message);
    for (const press of kept.outbox) send(press);
    ping();
    changed();
  };

  /* The offset of the ping with the shortest round trip is the best one (as in NTP); it is off by half of it at most. */
  const pong = ({ t, clock_s }) => {
    const now = performance.now();
    silent = 0;
    pings.push([now - t, clock_s * 1000 - (t + now) / 2]);
    if (pings.length > 20) pings.shift();
    const best = pings.reduce((a, b) => (b[0] < a[0] ? b : a));
    let sum = 0;
    for (let i = 1; i < pings.length; i++) sum += Math.abs(pings[i][0] - pings[i - 1][0]);
    Object.assign(line, { rtt_ms: now - t, offset_ms: best[1], error_ms: best[0] / 2, jitter_ms: pings.length > 1 ? sum / (pings.length - 1) : null });
    changed();
  };
  const ping = () => {
    if (joined && ++silent > 10) return lost(); // a line that died without a word; a hidden tab pings rarely but is answered
    send({ type: "ping", t: performance.now(), k: painted(), rtt_ms: line.rtt_ms, jitter_ms: line.jitter_ms, hidden: document.hidden });
  };
  setInterval(ping, 1000);
  setInterval(() => { if (line.state === "waiting") changed(); }, 250); // the countdown

  queueMicrotask(open); // when the page has its `line`
  return {
    line,
    send,
    outbox: () => kept.outbox,
    retry: open,
    close: () => { line.state = "closed"; joined = false; clearTimeout(timer); socket.close(); changed(); },
    press: (press) => {
      const named = { type: "press", id: `${kept.page}-${++kept.count}`, ...press };
      kept.outbox.push(named);
      send(named);
      return named;
    },
  };
};
