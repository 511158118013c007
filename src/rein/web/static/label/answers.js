import { letter } from "./text.js";

/* An answer in a few words, in the order of the screen: for the explanation after a practice item, and for one's own page. */
export const inWords = (question, value) => {
  const of = { rating: "ratings", flags: "flags", likert: "axes" }[question.kind];
  if (question.kind === "comparison") {
    const side = value.choice === null ? "even" : `${letter(value.choice)} is better`;
    return value.points ? `${side} (${value.points} of ${question.points})` : side;
  }
  if (question.kind === "best_of") return `${letter(value.best)} is the best`;
  if (question.kind === "ranking") {
    const groups = new Map();
    value.ranks.forEach((rank, place) => groups.set(rank, [...(groups.get(rank) ?? []), letter(place)]));
    return [...groups.keys()].sort((a, b) => a - b).map((rank) => groups.get(rank).join(" = ")).join(" > ");
  }
  if (!of) return value.text;
  return value[of].map((own, place) => {
    if (question.kind === "rating") return `${letter(place)} ${own}`;
    if (question.kind === "flags") return `${letter(place)}: ${own.map((name) => question.flags[name] ?? name).join(", ") || "none"}`;
    return `${letter(place)}: ${Object.entries(own).map(([axis, n]) => `${axis} ${n}`).join(", ")}`;
  }).join("; ");
};
