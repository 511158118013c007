/* How far a project is, from the counts of its batches. */

/* Answers of role work: how many there are of those that are wanted, and how many items there are at all. */
export const standing = ({ batches }) => {
  const found = { done: 0, wanted: 0, items: 0 };
  for (const { roles } of batches) {
    for (const [role, one] of Object.entries(roles)) {
      found.items += one.items;
      if (role !== "work") continue;
      found.done += Math.min(one.answers, one.wanted);
      found.wanted += one.wanted;
    }
  }
  return found;
};
