/* How long somebody really worked on an item: time while the page is seen and something was done within a minute.

   `active_ms` in all; `reading_ms` up to the first answer; `stages_ms` in each stage (the notes before the source is
   shown, the answers after it). */

const IDLE_MS = 60_000;
const EVENTS = ["keydown", "pointerdown", "pointermove", "wheel", "scroll", "input", "focus"];

export const makeClock = (now = () => performance.now()) => {
  let last = null; // when something was done; null while nobody looks
  let times = null;
  let stage = "";

  const run = () => {
    const at = now();
    if (last !== null && times) {
      const gap = Math.min(at - last, IDLE_MS);
      times.active += gap;
      times.stages[stage] = (times.stages[stage] ?? 0) + gap;
      if (times.reading) times.before += gap;
    }
    last = document.hidden ? null : at;
  };
  for (const event of EVENTS) addEventListener(event, run, { passive: true, capture: true });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { run(); last = null; } else last = now();
  });

  return {
    /* Begins an item, or goes on with one whose times were kept. */
    begin: (name, kept) => {
      times = kept ?? { active: 0, before: 0, reading: true, stages: {} };
      stage = name;
      last = document.hidden ? null : now();
      return times;
    },
    enter: (name) => { run(); stage = name; },
    answered: () => { run(); if (times) times.reading = false; },
    read: () => {
      run();
      const whole = (ms) => Math.min(86_400_000, Math.round(ms));
      return {
        active_ms: whole(times.active), reading_ms: whole(times.before),
        stages_ms: Object.fromEntries(Object.entries(times.stages).map(([name, ms]) => [name, whole(ms)])),
      };
    },
  };
};
