/* The drawings, one per task: each takes a canvas of any size and a state vector, and knows nothing of time. */

import { clamp, colour, number } from "./words.js";

const line = (g, points, width, stroke) => {
  g.beginPath();
  for (const [x, y] of points) g.lineTo(x, y);
  Object.assign(g, { lineWidth: width, strokeStyle: stroke, lineCap: "round", lineJoin: "round" });
  g.stroke();
};

const disc = (g, x, y, r, fill) => {
  g.beginPath();
  g.arc(x, y, r, 0, 7);
  g.fillStyle = fill;
  g.fill();
};

const box = (g, x, y, w, h, r, fill) => {
  g.beginPath();
  g.roundRect(x, y, w, h, r);
  g.fillStyle = fill;
  g.fill();
};

/* The chosen action over a body: an arrow, or a dot for doing nothing. */
const sign = (g, x, y, size, { sign: text, tone }) => {
  const turn = { "→": 0, "↓": 1, "←": 2, "↑": 3 }[text];
  if (turn === undefined) return disc(g, x, y, size / 7, tone);
  g.save();
  g.translate(x, y);
  g.rotate((turn * Math.PI) / 2);
  line(g, [[-size / 2, 0], [size / 2, 0]], size / 9, tone);
  line(g, [[size / 5, -size / 3.6], [size / 2, 0], [size / 5, size / 3.6]], size / 9, tone);
  g.restore();
};

const mountainCar = (g, w, h, [position], { act, body }) => {
  const low = -1.3; // a little more than the car can reach, so that it is never cut
  const span = 1.98;
  const size = clamp(h / 9, 11, 34);
  const x = (at) => ((at - low) / span) * w;
  const y = (at) => h - 14 - (Math.sin(3 * at) * 0.45 + 0.55 - 0.1) * ((h - 14 - size * 2.4) / 0.9);
  const hill = Array.from({ length: 121 }, (_, i) => low + (span * i) / 120).map((at) => [x(at), y(at)]);
  g.beginPath();
  for (const point of hill) g.lineTo(...point);
  g.lineTo(w, h);
  g.lineTo(0, h);
  g.fillStyle = colour("--ground");
  g.fill();
  line(g, hill, 2, colour("--soft"));
  const [flagX, flagY] = [x(0.5), y(0.5)];
  line(g, [[flagX, flagY], [flagX, flagY - size * 1.9]], 2.5, colour("--body"));
  g.beginPath();
  g.moveTo(flagX, flagY - size * 1.9);
  g.lineTo(flagX + size * 0.95, flagY - size * 1.55);
  g.lineTo(flagX, flagY - size * 1.2);
  g.fillStyle = colour("--flag");
  g.fill();
  g.save();
  g.translate(x(position), y(position));
  g.rotate(Math.atan2(y(position + 0.01) - y(position - 0.01), x(position + 0.01) - x(position - 0.01)));
  box(g, -size * 0.8, -size * 0.82, size * 1.6, size * 0.5, size * 0.16, body);
  box(g, -size * 0.42, -size * 1.15, size * 0.84, size * 0.5, size * 0.16, body);
  for (const side of [-0.45, 0.45]) {
    disc(g, side * size, -size * 0.24, size * 0.24, body);
    disc(g, side * size, -size * 0.24, size * 0.1, colour("--sheet"));
  }
  g.restore();
  if (act) sign(g, clamp(x(position), size, w - size), Math.max(size * 0.5, y(position) - size * 1.75), size * 1.25, act);
};

const cartPole = (g, w, h, [position, , angle], { act, body }) => {
  const pole = Math.min(h * 0.62, w * 0.2);
  const reach = Math.min(w / 2 - 24, pole * 3.6); // 2.4 units, where the episode ends
  const x = w / 2 + (clamp(position, -2.7, 2.7) / 2.4) * reach;
  const y = h * 0.86;
  const size = clamp(h / 9, 11, 36);
  line(g, [[w / 2 - reach, y], [w / 2 + reach, y]], 2, colour("--soft"));
  for (const side of [-1, 1]) line(g, [[w / 2 + side * reach, y - 9], [w / 2 + side * reach, y + 9]], 3, colour("--soft"));
  const top = y - size * 0.8;
  g.setLineDash([2, 7]); // upright, to see the lean against
  line(g, [[x, top], [x, top - pole]], 1.5, colour("--rule"));
  g.setLineDash([]);
  box(g, x - size, y - size * 0.9, size * 2, size * 0.66, 4, body);
  for (const side of [-0.55, 0.55]) disc(g, x + side * size, y - size * 0.16, size * 0.18, body);
  line(g, [[x, top], [x + Math.sin(angle) * pole, top - Math.cos(angle) * pole]], size * 0.28, colour("--flag"));
  disc(g, x, top, size * 0.16, colour("--sheet"));
  if (act) sign(g, clamp(x + (act.sign === "←" ? -1 : 1) * size * 2, size, w - size), y - size * 0.6, size * 1.25, act);
};

const acrobot = (g, w, h, [cos1, sin1, cos2, sin2], { act, body }) => {
  const unit = h / 4.5;
  const [x, y] = [w / 2, h / 2];
  const one = Math.atan2(sin1, cos1);
  const two = one + Math.atan2(sin2, cos2);
  const elbow = [x + Math.sin(one) * unit, y + Math.cos(one) * unit];
  const tip = [elbow[0] + Math.sin(two) * unit, elbow[1] + Math.cos(two) * unit];
  g.setLineDash([8, 6]);
  line(g, [[w * 0.12, y - unit], [w * 0.88, y - unit]], 2, colour("--flag"));
  g.setLineDash([]);
  line(g, [[x, y], elbow], unit * 0.16, body);
  line(g, [elbow, tip], unit * 0.16, colour("--a4"));
  disc(g, x, y, unit * 0.1, colour("--sheet"));
  disc(g, ...elbow, unit * 0.1, colour("--sheet"));
  disc(g, ...tip, unit * 0.09, colour("--flag"));
  if (!act) return;
  const push = act.index - (act.count - 1) / 2; // the torque is on the elbow: draw it there as a bent arrow
  if (push === 0) return disc(g, elbow[0], elbow[1] - unit * 0.32, unit * 0.06, act.tone);
  const [from, to] = push > 0 ? [-0.3, -2.6] : [-2.84, -0.54];
  g.beginPath();
  g.arc(...elbow, unit * 0.34, from, to, push > 0);
  Object.assign(g, { lineWidth: unit * 0.05, strokeStyle: act.tone });
  g.stroke();
  const end = [elbow[0] + Math.cos(to) * unit * 0.34, elbow[1] + Math.sin(to) * unit * 0.34];
  const head = to + (push > 0 ? -Math.PI / 2 : Math.PI / 2);
  line(g, [2.5, 0, -2.5].map((turn) => [end[0] + (turn && Math.cos(head + turn) * unit * 0.15), end[1] + (turn && Math.sin(head + turn) * unit * 0.15)]), unit * 0.05, act.tone);
};

const loopMaze = (g, w, h, [atX, atY], { task, act, body }) => {
  const { width, height, blocked = [], between = [], start, goal } = task.walls;
  const cell = Math.min((w - 20) / width, (h - 20) / height);
  const left = (w - cell * width) / 2;
  const head = (h - cell * height) / 2;
  const x = (at) => left + at * cell;
  const y = (at) => head + at * cell; // row 0 is on top
  for (let i = 0; i <= width; i++) line(g, [[x(i), y(0)], [x(i), y(height)]], 1, colour("--rule"));
  for (let i = 0; i <= height; i++) line(g, [[x(0), y(i)], [x(width), y(i)]], 1, colour("--rule"));
  for (const [i, j] of blocked) box(g, x(i), y(j), cell, cell, 0, colour("--soft"));
  if (start) box(g, x(start[0]) + cell * 0.12, y(start[1]) + cell * 0.12, cell * 0.76, cell * 0.76, 5, colour("--ground"));
  if (goal) {
    box(g, x(goal[0]) + cell * 0.12, y(goal[1]) + cell * 0.12, cell * 0.76, cell * 0.76, 5, colour("--flag"));
    line(g, [[0.32, 0.52], [0.45, 0.66], [0.7, 0.36]].map(([i, j]) => [x(goal[0] + i), y(goal[1]) + j * cell]), cell * 0.07, colour("--sheet"));
  }
  const wall = Math.max(3, cell * 0.08);
  for (const [x1, y1, x2, y2] of between) {
    const ends = x1 === x2 ? [[x1, Math.max(y1, y2)], [x1 + 1, Math.max(y1, y2)]] : [[Math.max(x1, x2), y1], [Math.max(x1, x2), y1 + 1]];
    line(g, ends.map(([i, j]) => [x(i), y(j)]), wall, colour("--body"));
  }
  line(g, [[0, 0], [width, 0], [width, height], [0, height], [0, 0]].map(([i, j]) => [x(i), y(j)]), wall, colour("--body"));
  disc(g, x(atX + 0.5), y(atY + 0.5), cell * 0.29, body);
  if (act) sign(g, x(atX + 0.5), y(atY + 0.5), cell * 0.36, { ...act, tone: colour("--sheet") });
};

/* Any state: one bar per number, from the low end of its range to the high one, or as far as it has ever been. */
const numbers = (g, w, h, state, { task, body, seen }) => {
  const many = Math.min(state.length, Math.max(1, Math.floor((h - 12) / 15)));
  const row = Math.min(44, (h - 12) / many);
  const top = (h - row * many) / 2;
  const named = Math.min(150, w * 0.34);
  g.font = `${clamp(row * 0.45, 9, 14)}px system-ui, sans-serif`;
  g.textBaseline = "middle";
  for (let i = 0; i < many; i++) {
    const range = seen[i] || (seen[i] = [0, 0]);
    seen[i] = [Math.min(range[0], state[i]), Math.max(range[1], state[i])];
    const finite = (value) => value !== null && value !== undefined && Math.abs(value) < 1e6;
    const [low, high] = finite(task.low?.[i]) && finite(task.high?.[i]) ? [task.low[i], task.high[i]] : seen[i];
    const x = (value) => named + clamp((value - low) / (high - low || 1), 0, 1) * (w - named - 74);
    const y = top + row * (i + 0.5);
    const zero = x(clamp(0, low, high));
    box(g, named, y - row * 0.2, w - named - 74, row * 0.4, 3, colour("--grid"));
    box(g, Math.min(zero, x(state[i])), y - row * 0.2, Math.max(2, Math.abs(x(state[i]) - zero)), row * 0.4, 3, body);
    g.fillStyle = colour("--soft");
    g.textAlign = "right";
    g.fillText(task.names?.[i] ?? `number ${i + 1}`, named - 10, y, named - 14);
    g.fillStyle = colour("--ink");
    g.textAlign = "left";
    g.fillText(number(state[i]), w - 66, y);
  }
};

const frames = (g, w, h, state, { picture }) => {
  if (!picture) return;
  const scale = Math.min(w / picture.width, h / picture.height);
  g.drawImage(picture, (w - picture.width * scale) / 2, (h - picture.height * scale) / 2, picture.width * scale, picture.height * scale);
};

export const worlds = { "mountain-car": mountainCar, "cart-pole": cartPole, acrobot, "loop-maze": loopMaze, frames, numbers };

/* Between two states: number by number, but an acrobot's pairs of cosine and sine go round the circle. */
export const between = (draw, from, to, share) => {
  if (share >= 1 || !from || from.length !== to.length) return to;
  const mixed = to.map((value, i) => from[i] + (value - from[i]) * share);
  if (draw === "acrobot")
    for (const i of [0, 2]) {
      const size = Math.hypot(mixed[i], mixed[i + 1]) || 1;
      mixed[i] /= size;
      mixed[i + 1] /= size;
    }
  return mixed;
};
