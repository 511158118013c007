/* A stage shows one world: the newest step only, moving there from where it stands, and remembers when each step it
   really painted was first to be seen. Those times make credit independent of the network (t_shown of a press). */

import { actionColour, colour, paper, signsOf, still } from "./words.js";
import { between, worlds } from "./worlds.js";

export const stage = (canvas, { small = false } = {}) => {
  const sheet = paper(canvas, () => { dirty = true; });
  let dirty = true;
  let task = null;
  let draw = null;
  let signs = [];
  let waiting = null; // the newest step that no frame has shown yet
  let pending = null; // {k, picture}: the newest picture that no frame has shown yet
  let shown = null; // {step, from, to, at, lasts_ms}
  let picture = null;
  let painted = []; // the last painted steps, [k, time of the first frame]
  let seen = [];

  const standing = (at) => (shown ? between(draw, shown.from, shown.to, still() ? 1 : Math.min(1, (at - shown.at) / shown.lasts_ms)) : null);
  const mark = (k, at) => {
    painted.push([k, at]);
    if (painted.length > 64) painted.shift();
  };

  return {
    reset: (itsTask) => {
      task = itsTask;
      draw = worlds[task.draw] && !(small && task.draw === "frames") ? task.draw : "numbers";
      signs = signsOf(task.actions);
      waiting = pending = shown = picture = null;
      painted = [];
      seen = [];
      dirty = true;
    },
    offer: (step, step_s) => { waiting = { step, step_s }; },
    picture: (k, bitmap) => {
      if (pending && pending.k > k) return;
      pending = { k, bitmap };
    },
    newest: () => (painted.length ? painted.at(-1)[0] : null),
    /* What stood on the screen at a time: a key can go down in the frame before the newest one. */
    at: (time) => painted.findLast(([, at]) => at <= time) || painted[0] || null,

    /* Called once per animation frame; returns the step that has just begun to be shown, or null. */
    paint: (at) => {
      let begun = null;
      if (!task || !sheet.ready) return null;
      if (waiting) {
        const { step, step_s } = waiting;
        const fresh = !shown || step.i <= 1 || step.episode !== shown.step.episode;
        // a walker in a maze steps, a car glides: a long step is not stretched over all of its time
        const lasts_ms = Math.min(step_s, task.draw === "loop-maze" ? 0.25 : 1) * 1000;
        shown = { step, from: fresh ? null : standing(at), to: step.state, at, lasts_ms };
        if (draw !== "frames") mark(step.k, at);
        begun = step;
        waiting = null;
        dirty = true;
      }
      if (pending) {
        picture?.close();
        picture = pending.bitmap;
        mark(pending.k, at);
        pending = null;
        dirty = true;
      }
      if (!dirty && !(shown && at - shown.at < shown.lasts_ms + 50 && draw !== "frames")) return begun;
      dirty = false;
      const { g, width, height } = sheet;
      g.clearRect(0, 0, width, height);
      const state = standing(at);
      if (!state && !picture) return begun;
      const index = shown?.step.action;
      const count = task.actions.length;
      const act = small || index === undefined ? null : { index, count, sign: signs[index], tone: colour(actionColour(index, count)) };
      worlds[draw](g, width, height, state, { task, act, picture, seen, body: colour(small ? "--soft" : "--body") });
      return begun;
    },
  };
};
