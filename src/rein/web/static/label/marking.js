/* Whether the differences between candidates are marked: as the project starts, until this person chooses otherwise in
   it, on this device. A project that starts another way since then starts anew. Never before the source is shown: the
   notes until then are about each text by itself. */

export const unshown = (card) => card.staged && !card.revealed;

export const makeMarking = ({ person, project }) => {
  const name = `rein-label-diff-${person}-${project}`;
  let chosen = null;
  try { chosen = JSON.parse(localStorage.getItem(name)); } catch { /* storage is off, or holds something else */ }
  return {
    on: (card) => card.diff !== "never" && !unshown(card) && (chosen?.start === card.diff ? chosen.on : card.diff === "on"),
    offered: (card) => card.diff !== "never" && !unshown(card) && card.candidates.length > 1,
    choose: (card, on) => {
      chosen = { start: card.diff, on };
      try { localStorage.setItem(name, JSON.stringify(chosen)); } catch { /* the page itself keeps it */ }
    },
  };
};
