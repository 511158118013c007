/* A ranking with ties, made by insertion: each candidate is compared with the middle of those that already stand, until
   its place is found; about K·log₂K questions for K candidates. Nothing here knows of the page.

   `groups` is the order, the best first, equals in one group; `asked` is the pair of the next question: one that stands,
   then the one that looks for its place, which is of a later letter, as candidates come in their own order. A score that was
   given before (a rating) says where a candidate belongs among those with other scores, so that only equals are asked
   about. */

export const insertion = (count, ties) => {
  let groups = [];
  let todo = [];
  let open = null; // the candidate that is looking for its place, between the groups low and high
  let past = []; // states before each answer, so that an answer can be taken back
  let scores = [];

  const copy = () => ({ groups: groups.map((one) => [...one]), todo: [...todo], open: open && { ...open }, scores: [...scores] });

  const place = (at, x) => { groups.splice(at, 0, [x]); };

  const advance = () => {
    while (!open && todo.length) {
      const x = todo.shift();
      const mine = scores[x] ?? null;
      let low = 0;
      let high = groups.length;
      if (mine !== null) {
        const other = (group) => scores[group[0]] ?? null;
        while (low < high && other(groups[low]) !== null && other(groups[low]) > mine) low += 1;
        while (high > low && other(groups[high - 1]) !== null && other(groups[high - 1]) < mine) high -= 1;
      }
      if (low === high) place(low, x);
      else open = { x, low, high };
    }
  };

  const begin = (given = []) => {
    scores = given;
    groups = [];
    past = [];
    open = null;
    todo = Array.from({ length: count }, (_, i) => i);
    advance();
  };
  begin();

  const middle = () => (open.low + open.high) >> 1;

  /* Moves `x` by one place, out of or past a group; `way` is −1 towards the best. */
  const move = (x, way) => {
    const at = groups.findIndex((group) => group.includes(x));
    const group = groups[at];
    if (group.length > 1) {
      group.splice(group.indexOf(x), 1);
      place(way < 0 ? at : at + 1, x);
      return true;
    }
    const to = at + way;
    if (to < 0 || to >= groups.length) return false;
    groups.splice(at, 1);
    groups.splice(to, 0, group);
    return true;
  };

  /* Makes `x` equal to the one above it (the first: to the one below); one that is equal stands alone again. */
  const tie = (x) => {
    const at = groups.findIndex((group) => group.includes(x));
    if (groups[at].length > 1) return move(x, 1);
    const to = at > 0 ? at - 1 : 1;
    if (!ties || to >= groups.length) return false;
    groups[to].push(x);
    groups[to].sort((a, b) => a - b);
    groups.splice(at, 1);
    return true;
  };

  return {
    begin,
    move,
    tie,
    groups: () => groups,
    asked: () => (open ? [groups[middle()][0], open.x] : null),
    left: () => todo.length + (open ? 1 : 0),
    /* "first" or "second" of the pair is better, or "equal". */
    answer: (word) => {
      if (!open || (word === "equal" && !ties)) return false;
      past.push(copy());
      const at = middle();
      if (word === "equal") {
        groups[at].push(open.x);
        groups[at].sort((a, b) => a - b);
        open = null;
      } else {
        if (word === "second") open.high = at; else open.low = at + 1;
        if (open.low === open.high) { place(open.low, open.x); open = null; }
      }
      advance();
      return true;
    },
    back: () => {
      const before = past.pop();
      if (!before) return false;
      ({ groups, todo, open } = before);
      return true;
    },
    ranks: () => {
      if (open || todo.length) return null;
      const found = new Array(count).fill(0);
      groups.forEach((group, i) => group.forEach((x) => { found[x] = i + 1; }));
      return found;
    },
    state: copy,
    restore: (to) => {
      past = [];
      if (to?.ranks) {
        todo = [];
        open = null;
        groups = [];
        const most = Math.max(...to.ranks);
        for (let rank = 1; rank <= most; rank += 1) groups.push(to.ranks.flatMap((own, x) => (own === rank ? [x] : [])));
        groups = groups.filter((group) => group.length);
      } else if (to?.groups) ({ groups, todo, open, scores } = structuredClone(to));
      else begin();
    },
  };
};
