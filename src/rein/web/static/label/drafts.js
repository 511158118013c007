/* Answers that are not finished: kept on the device while they are made, so that a reload or a crash loses none. */

const LIFE_MS = 14 * 24 * 3600 * 1000;
const MARK = "rein-label-draft-";

export const makeDrafts = (person) => {
  const nameOf = (view) => `${MARK}${person}-${view.card().assignment}`;
  return {
    keep: (view) => {
      const { revision } = view.card();
      try { localStorage.setItem(nameOf(view), JSON.stringify({ at: Date.now(), revision, hidden: view.hidden(), ...view.draft() })); } catch { /* off or full */ }
    },
    /* Fills in what was kept of the same card at the same stage. */
    find: (view) => {
      const { revision } = view.card();
      try {
        const kept = JSON.parse(localStorage.getItem(nameOf(view)));
        if (kept?.revision === revision && kept.hidden === view.hidden()) view.restore(kept);
      } catch { /* storage is off, or holds something else */ }
    },
    drop: (assignment) => { try { localStorage.removeItem(`${MARK}${person}-${assignment}`); } catch { /* storage is off */ } },
    dropOld: () => {
      try {
        for (const name of Object.keys(localStorage).filter((one) => one.startsWith(MARK))) {
          if (!(Date.now() - JSON.parse(localStorage.getItem(name)).at < LIFE_MS)) localStorage.removeItem(name);
        }
      } catch { /* storage is off, or holds something else */ }
    },
  };
};
