/* What only one of two texts says: words outside their longest common subsequence. The table has 16-bit
   lengths and at most MOST² cells, 8 MB; longer texts are not marked at all rather than marked wrongly. */

const MOST = 2000; // words of a text

/* Words and the spaces between them; joined again they are the text. */
const pieces = (text) => text.match(/\s+|[\p{L}\p{N}\p{M}'’_-]+|[^\s\p{L}\p{N}\p{M}'’_-]/gu) ?? [];

const isWord = (piece) => !/^\s/.test(piece);

/* For each piece of `a` and of `b`, whether it is in the longest common subsequence of their words, which are equal when
   `same` makes the same of them; null where a text is too long. */
const common = (a, b, same) => {
  const xs = a.map((piece, at) => ({ at, word: same(piece) })).filter(({ word }) => isWord(word));
  const ys = b.map((piece, at) => ({ at, word: same(piece) })).filter(({ word }) => isWord(word));
  if (xs.length > MOST || ys.length > MOST) return null;
  const wide = ys.length + 1;
  const table = new Uint16Array((xs.length + 1) * wide);
  for (let i = xs.length - 1; i >= 0; i -= 1) {
    for (let j = ys.length - 1; j >= 0; j -= 1) {
      table[i * wide + j] = xs[i].word === ys[j].word
        ? table[(i + 1) * wide + j + 1] + 1
        : Math.max(table[(i + 1) * wide + j], table[i * wide + j + 1]);
    }
  }
  const inA = a.map(() => false);
  const inB = b.map(() => false);
  for (let i = 0, j = 0; i < xs.length && j < ys.length;) {
    if (xs[i].word === ys[j].word) { inA[xs[i].at] = true; inB[ys[j].at] = true; i += 1; j += 1; }
    else if (table[(i + 1) * wide + j] >= table[i * wide + j + 1]) i += 1;
    else j += 1;
  }
  return [inA, inB];
};

/* Each text as [{ text, only }]: runs that only it says, of all of `texts`, case apart; null where one is too long. */
export const onlyOnes = (texts) => {
  const cut = texts.map(pieces);
  const shared = cut.map((own) => own.map((piece) => !isWord(piece)));
  for (let a = 0; a < cut.length; a += 1) {
    for (let b = a + 1; b < cut.length; b += 1) {
      const found = common(cut[a], cut[b], (word) => word.toLowerCase());
      if (!found) return null;
      found[0].forEach((yes, i) => { if (yes) shared[a][i] = true; });
      found[1].forEach((yes, i) => { if (yes) shared[b][i] = true; });
    }
  }
  return cut.map((own, which) => {
    const runs = [];
    own.forEach((piece, i) => {
      // A space belongs to the marked words on both sides of it.
      const only = isWord(piece) ? !shared[which][i] : i > 0 && i + 1 < own.length && !shared[which][i - 1] && !shared[which][i + 1];
      if (runs.length && runs[runs.length - 1].only === only) runs[runs.length - 1].text += piece;
      else runs.push({ text: piece, only });
    });
    return runs;
  });
};

/* From `before` to `after` as [{ text, act: "same" | "gone" | "new" }]; null where one is too long. */
export const changes = (before, after) => {
  const [a, b] = [pieces(before), pieces(after)];
  const found = common(a, b, (word) => word);
  if (!found) return null;
  const runs = [];
  const put = (text, act) => {
    if (runs.length && runs[runs.length - 1].act === act) runs[runs.length - 1].text += text;
    else runs.push({ text, act });
  };
  let j = 0;
  for (let i = 0; i < a.length; i += 1) {
    if (!isWord(a[i])) continue; // the spaces of the text as it is now are kept, not those of the old one
    if (!found[0][i]) { put(`${a[i]}${a[i + 1] && !isWord(a[i + 1]) ? a[i + 1] : ""}`, "gone"); continue; }
    while (j < b.length && !(isWord(b[j]) && found[1][j])) { put(b[j], isWord(b[j]) ? "new" : "same"); j += 1; }
    if (j < b.length) { put(b[j], "same"); j += 1; }
  }
  for (; j < b.length; j += 1) put(b[j], isWord(b[j]) ? "new" : "same");
  return runs;
};
