/* Whether somebody can see what they are about to answer, and the way there. What covers it is the bar at the foot; the
   head scrolls away, or stands above `main`. */

import { $ } from "./text.js";

const ENOUGH = 0.7; // of it, or of all the room there is

const room = () => {
  const bar = $("bar").getBoundingClientRect();
  const main = $("main").getBoundingClientRect();
  return { top: Math.max(0, main.top), bottom: Math.min(innerHeight, bar.height ? bar.top : innerHeight) };
};

const seen = (node, least) => {
  const { top, bottom } = room();
  const box = node.getBoundingClientRect();
  return Math.min(box.bottom, bottom) - Math.max(box.top, top) >= least(box.height, bottom - top);
};

/* Most of it is there. */
export const inSight = (node) => seen(node, (own, all) => ENOUGH * Math.min(own, all));

/* It has begun: its first lines are there. */
export const begun = (node) => seen(node, (own) => Math.min(own, 72));

export const bring = (node) => {
  const { top, bottom } = room();
  node.scrollIntoView({ block: node.getBoundingClientRect().height > bottom - top ? "start" : "center" });
};
