/* Heat maps over two of the state's numbers: predicted feedback per action, the best action, and how much the trainer's
   word weighs where. Blue and orange part at 0, so that no colour means no opinion. A dot is where the agent is. */

import { $, actionColour, colour, element, number, onTheme, signsOf } from "./words.js";

const rgb = (text) => {
  const g = new OffscreenCanvas(1, 1).getContext("2d"); // any CSS colour → three numbers
  g.fillStyle = text;
  g.fillRect(0, 0, 1, 1);
  return g.getImageData(0, 0, 1, 1).data;
};

/* 256 colours through some stops, evenly spaced. */
const palette = (stops) => {
  const ends = stops.map(rgb);
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (ends.length - 1);
    const low = Math.min(Math.floor(at), ends.length - 2);
    return [0, 1, 2].map((c) => ends[low][c] + (ends[low + 1][c] - ends[low][c]) * (at - low));
  });
};

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

export const maps = () => {
  let task = null;
  let newest = null;
  let state = null;
  let made = "";
  let cards = [];
  let tones = null;

  const build = (plan) => {
    cards = plan.map(({ title }) => {
      const card = element("div", "map");
      const pixels = element("div", "pixels");
      const canvas = element("canvas");
      const dot = element("span", "dot");
      canvas.setAttribute("role", "img");
      pixels.append(canvas, dot);
      const [y, x, scale] = [element("div", "y"), element("div", "x"), element("div", "scale")];
      card.append(element("h3", "", title), y, pixels, x, scale);
      return { card, canvas, dot, x, y, scale };
    });
    $("maps-list").replaceChildren(...cards.map(({ card }) => card));
  };

  const ramp = (stops) => {
    const canvas = element("canvas");
    canvas.width = 256;
    canvas.height = 1;
    const image = new ImageData(256, 1);
    stops.forEach((tone, i) => image.data.set([...tone, 255], i * 4));
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };

  const draw = () => {
    $("maps").hidden = !newest;
    if (!newest) return;
    tones ||= { two: palette([colour("--c1"), colour("--sheet"), colour("--c0")]), one: palette([colour("--sheet"), colour("--on")]) };
    const { rows, cols, h, best, influence } = newest;
    const several = (influence?.cells.length ?? 0) > 1;
    const plan = [
      ...h.cells.map((cells, i) => ({ title: task.actions[i] ?? `action ${i + 1}`, cells, tones: tones.two, low: h.low, high: h.high })),
      ...(best ? [{ title: "what it would do", cells: best, best: true }] : []),
      ...(influence?.cells ?? []).map((cells, i) => ({ title: several ? `your influence: ${task.actions[i] ?? i + 1}` : "your influence", cells, tones: tones.one, low: 0, high: influence.high })),
    ];
    const key = plan.map(({ title }) => title).join();
    if (key !== made) build(plan);
    made = key;
    $("maps-say").textContent = `Feedback it predicts for each action, by ${newest.x} and ${newest.y}: blue for praise, orange for blame, no colour for no opinion. The dot is where it is now.`;
    const actions = task.actions.map((_, i) => rgb(colour(actionColour(i, task.actions.length))));
    plan.forEach((one, i) => {
      const { canvas, x, y, scale } = cards[i];
      canvas.width = cols;
      canvas.height = rows;
      canvas.setAttribute("aria-label", `${one.title}, ${newest.x} across, ${newest.y} up`);
      const image = new ImageData(cols, rows);
      const values = bytes(one.cells);
      for (let row = 0; row < rows; row++)
        for (let col = 0; col < cols; col++) { // row 0 of the message is the lowest y, row 0 of a picture is the highest
          const tone = one.best ? actions[values[row * cols + col]] ?? [0, 0, 0] : one.tones[values[row * cols + col]];
          image.data.set([tone[0], tone[1], tone[2], 255], ((rows - 1 - row) * cols + col) * 4);
        }
      canvas.getContext("2d").putImageData(image, 0, 0);
      const ends = (axis) => [number(newest.low[axis]), newest[axis ? "y" : "x"], number(newest.high[axis])].map((text) => element("span", "", text));
      x.replaceChildren(...ends(0));
      y.replaceChildren(...ends(1));
      scale.replaceChildren(...(one.best
        ? task.actions.map((name, action) => {
            const item = element("span", "glyph", signsOf(task.actions)[action]);
            item.title = name;
            item.style.setProperty("--line", `var(${actionColour(action, task.actions.length)})`);
            return item;
          })
        : [number(one.low), ramp(one.tones), number(one.high)]));
    });
    point();
  };

  const point = () => {
    if (!newest) return;
    const at = [newest.x, newest.y].map((name) => task.names?.indexOf(name) ?? -1);
    for (const { dot } of cards) {
      dot.hidden = !state || at.includes(-1);
      if (dot.hidden) continue;
      const share = at.map((index, axis) => Math.max(0, Math.min(1, (state[index] - newest.low[axis]) / (newest.high[axis] - newest.low[axis]))));
      dot.style.left = `${share[0] * 100}%`;
      dot.style.bottom = `${share[1] * 100}%`;
    }
  };

  onTheme(() => { tones = null; draw(); });
  return {
    reset: (itsTask, itsMaps) => { task = itsTask; newest = itsMaps; state = null; made = ""; draw(); },
    take: (message) => { newest = message; draw(); },
    at: (itsState) => { state = itsState; point(); },
  };
};
