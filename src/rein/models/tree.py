"""Token trees: what a model makes of many sequences that begin alike, each shared token computed once.

Flow     sequences → `Tree.extend` (a trie) → `score`: one forward pass over the tokens of many trees, laid end to end
         without padding → log P of every token that was asked for, behind its own path

A prompt with four completions is one path that forks at its end; prompts of 0, 1, 2, 4, … shots are forks along the
longest one. A token's position is its depth, and it attends to its ancestors alone: exactly what it would see in its
sequence. The last token of a sequence is predicted, never read, so it costs nothing.

The longest path of a tree, its trunk, is read with plain causal attention; branches in blocks, each block seeing the
trunk up to its forks and, by a mask, its own ancestors.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rein.models.attention import causal_attention
from rein.models.gpt import GPT, Context
from rein.models.machine import autocast

ROOT = -1  # the parent of a first token

_ROWS = 128  # of a block of branches: few, for each row is multiplied with the keys of all
_LOGITS_AT_ONCE = 1 << 22


class Tree:
    """A trie of token ids. A node is a token behind the path that leads to it.

    Example  >>> tree = Tree()
             >>> prompt = tree.extend(ROOT, [5, 6, 7])
             >>> yes, no = tree.complete(prompt, [8, 9]), tree.complete(prompt, [8, 4])
             >>> tree.tokens, tree.parents, yes, no
             ([5, 6, 7, 8, 9, 4], [-1, 0, 1, 2, 3, 3], [3, 4], [3, 5])
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []  # how many tokens stand before it
        self.wanted: dict[int, None] = {}  # nodes whose log-probability is asked for, in the order of asking
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, node: int, ids: Sequence[int]) -> int:
        """The node that `ids` lead to from `node`, and those on the way, made where they are missing."""
        children, tokens = self._children, self.tokens
        for token in ids:
            child = children.get((node, token))
            if child is None:
                child = len(tokens)
                children[node, token] = child
                tokens.append(token)
                self.depths.append(self.depths[node] + 1 if node != ROOT else 0)
                self.parents.append(node)
            node = child
        return node

    def complete(self, node: int, ids: Sequence[int]) -> list[int]:
        """As `extend`, and asks for the log-probability of each of `ids`. Returns their nodes."""
        assert node != ROOT, "a first token has no probability: put the end of text in front"
        nodes = []
        for token in ids:
            node = self.extend(node, (token,))
            nodes.append(node)
        self.wanted.update(dict.fromkeys(nodes))
        return nodes

    def sequence(self, node: int) -> list[int]:
        """The tokens that lead to a node, its own included."""
        ids = []
        while node != ROOT:
            ids.append(self.tokens[node])
            node = self.parents[node]
        return ids[::-1]

    def n_read(self) -> int:
        """How many tokens a model has to read: those that something wanted follows."""
        return int(self.read().sum())

    def read(self) -> npt.NDArray[np.bool_]:
        """Which nodes have to be read, (nodes,): ancestors of what is wanted."""
        parents = self.parents
        read = np.zeros(len(parents), dtype=bool)
        for node in self.wanted:
            node = parents[node]
            while node != ROOT and not read[node]:
                read[node] = True
                node = parents[node]
        return read


@dataclass(frozen=True)
class TreeScores:
    """Of every node of a tree; NaN and False where nothing was asked.

    Shapes   logprobs_N (nodes,) float64, nats; top_N, allowed_top_N (nodes,): is the token the likeliest there is, and
             the likeliest that is not forbidden.
    """

    logprobs_N: npt.NDArray[np.float64]
    top_N: npt.NDArray[np.bool_]
    allowed_top_N: npt.NDArray[np.bool_]


@torch.inference_mode()
def score(
    model: GPT, trees: Sequence[Tree], *, precision: str = "fp32", forbidden: Collection[int] = ()
) -> list[TreeScores]:
    """log P(token | the path to it) of the wanted nodes of each tree.

    Equal to that of the plain sequences up to rounding, whatever trees are scored together.

    Raises   AssertionError when a path is longer than n_ctx.
    """
    if not any(tree.wanted for tree in trees):
        return [_unasked(len(tree)) for tree in trees]
    layouts = [_Layout(tree) for tree in trees]
    device = model.wte.device
    tokens = np.concatenate([layout.tokens for layout in layouts])
    positions = np.concatenate([layout.positions for layout in layouts])
    n_ctx = model.config.n_ctx
    assert not len(positions) or positions.max() < n_ctx, f"a path of {positions.max() + 1} tokens, n_ctx={n_ctx}"
    forest = _Forest(model, layouts, device)
    with autocast(device, precision):
        wte_VD = model.embedding(None)
        tokens_1N = torch.from_numpy(tokens)[None].to(device)
        x_1ND = model.vocabulary.embed(tokens_1N, wte_VD)
        x_1ND = x_1ND + F.embedding(torch.from_numpy(positions)[None].to(device), model.wpe)
        x_ND = model.ln_f(model.blocks(x_1ND, Context(cache=forest)))[0]  # type: ignore[arg-type]
        return _read_off(model, x_ND, wte_VD, layouts, forbidden)


# --------------------------------------------------------------------------------------------------- layout


class _Layout:
    """In which order a tree's tokens are read: the trunk, then branch by branch."""

    def __init__(self, tree: Tree) -> None:
        parents, depths = np.array(tree.parents, dtype=np.int64), np.array(tree.depths, dtype=np.int64)
        read = tree.read()
        self.n_nodes = len(tree)
        on_trunk = np.zeros(len(tree), dtype=bool)
        if read.any():
            node = int(np.where(read, depths, -1).argmax())
            self.n_trunk = int(depths[node]) + 1
            while node != ROOT:
                on_trunk[node] = True
                node = tree.parents[node]
        else:
            self.n_trunk = 0
        # Of a branch's node: how much of the trunk it sees, and the branch, which is called by its first node.
        forks, branches = np.zeros(len(tree), dtype=np.int64), np.full(len(tree), -1, dtype=np.int64)
        off_trunk = np.flatnonzero(read & ~on_trunk)
        for node in off_trunk.tolist():
            parent = tree.parents[node]
            if parent == ROOT or on_trunk[parent]:
                forks[node], branches[node] = depths[node], node
            else:
                forks[node], branches[node] = forks[parent], branches[parent]
        trunk = np.flatnonzero(on_trunk)
        rest = off_trunk[np.lexsort((off_trunk, branches[off_trunk], forks[off_trunk]))]
        order = np.concatenate([trunk, rest])
        self.tokens = np.array(tree.tokens, dtype=np.int64)[order]
        self.positions = depths[order]
        self.forks, self.branches = forks[rest], branches[rest]
        row = np.full(len(tree) + 1, -1, dtype=np.int64)  # the last one answers for ROOT
        row[order] = np.arange(len(order))
        self.parents = row[parents[rest]] if len(rest) else rest
        # What is read off: the wanted nodes, each from the row of its parent.
        self.wanted = np.fromiter(tree.wanted, dtype=np.int64, count=len(tree.wanted))
        self.wanted_tokens = np.array([tree.tokens[node] for node in tree.wanted], dtype=np.int64)
        self.wanted_rows = row[parents[self.wanted]] if len(self.wanted) else self.wanted

    def __len__(self) -> int:
        return len(self.tokens)

    def blocks(self) -> list[tuple[int, int]]:
        """Rows of whole branches, counted behind the trunk; a block has about `_ROWS`, or is one long branch."""
        ends = [*np.flatnonzero(np.diff(self.branches)).tolist(), len(self.branches) - 1]
        cuts, last = [0], 0
        for stop in (end + 1 for end in ends):
            if stop - cuts[-1] > _ROWS and last > cuts[-1]:
                cuts.append(last)
            last = stop
        return [(a, b) for a, b in pairwise([*cuts, last]) if b > a]


@dataclass(frozen=True)
class _Block:
    """Rows `start` to `stop` of all rows, which see columns `first` to `last` of their trunk, and themselves."""

    start: int
    stop: int
    first: int
    last: int
    mask: Tensor  # (rows, last − first + rows) bool


class _Forest:
    """Stands where a `Cache` stands: the attention of many trees that lie end to end in one row."""

    length = 0

    def __init__(self, model: GPT, layouts: Sequence[_Layout], device: torch.device) -> None:
        self._bands = [model.config.band_of_layer(layer) for layer in range(model.config.n_layer)]
        self._n_head = model.config.n_head
        self._trunks: list[tuple[int, int]] = []
        self._blocks: dict[int | None, list[_Block]] = {band: [] for band in self._bands}
        at = 0
        for layout in layouts:
            self._trunks.append((at, at + layout.n_trunk))
            for a, b in layout.blocks():
                for band, blocks in self._blocks.items():
                    blocks.append(_block(layout, a, b, at, band, device))
            at += len(layout)

    def attend(self, layer: int, qkv_BT3I: Tensor) -> Tensor:
        band, H = self._bands[layer], self._n_head
        N, width = qkv_BT3I.shape[1:]
        out_1NI = qkv_BT3I.new_empty(1, N, width // 3)
        q_HNE, k_HNE, v_HNE = qkv_BT3I[0].view(N, 3, H, width // (3 * H)).permute(1, 2, 0, 3).unbind()
        for start, stop in self._trunks:
            if stop > start:
                out_1NI[:, start:stop] = causal_attention(qkv_BT3I[:, start:stop], H, band=band)
        for block in self._blocks[band]:
            rows, trunk = slice(block.start, block.stop), slice(block.first, block.last)
            k, v = (torch.cat([kept[:, trunk], kept[:, rows]], dim=1) for kept in (k_HNE, v_HNE))
            mixed_HRE = F.scaled_dot_product_attention(q_HNE[None, :, rows], k[None], v[None], attn_mask=block.mask)[0]
            out_1NI[0, rows] = mixed_HRE.transpose(0, 1).reshape(len(block.mask), -1)
        return out_1NI


def _block(layout: _Layout, a: int, b: int, at: int, band: int | None, device: torch.device) -> _Block:
    """Rows a to b behind the trunk of a tree that begins at row `at`."""
    n, rows = layout.n_trunk, b - a
    depth = layout.positions[n + a : n + b]
    last = int(layout.forks[a:b].max())
    first = 0 if band is None else max(0, min(last, int(depth.min()) - band + 1))
    columns = np.arange(first, last)
    on_trunk = columns < layout.forks[a:b, None]
    own = np.zeros((rows, rows), dtype=bool)
    parents = layout.parents[a:b] - n - a
    for row in range(rows):
        if parents[row] >= 0:
            own[row] = own[parents[row]]
        own[row, row] = True
    seen = np.concatenate([on_trunk, own], axis=1)
    if band is not None:
        seen &= depth[:, None] - np.concatenate([columns, depth]) < band
    return _Block(at + n + a, at + n + b, at + first, at + last, torch.from_numpy(seen).to(device))


def _read_off(
    model: GPT, x_ND: Tensor, wte_VD: Tensor, layouts: Sequence[_Layout], forbidden: Collection[int]
) -> list[TreeScores]:
    """The wanted log-probabilities, from the states of the tokens before them."""
    begins = np.cumsum([0, *(len(layout) for layout in layouts)])
    rows_M = np.concatenate([layout.wanted_rows + at for layout, at in zip(layouts, begins, strict=False)])
    tokens_M = np.concatenate([layout.wanted_tokens for layout in layouts])
    states_R, state_of_M = np.unique(rows_M, return_inverse=True)
    device, banned = x_ND.device, torch.tensor(sorted(forbidden), dtype=torch.int64, device=x_ND.device)
    logprobs_M, top_M, allowed_M = np.empty(len(rows_M)), np.empty(len(rows_M), bool), np.empty(len(rows_M), bool)
    order = np.argsort(state_of_M, kind="stable")
    at_once = max(1, _LOGITS_AT_ONCE // model.config.n_vocab)
    for first in range(0, len(states_R), at_once):
        states = torch.from_numpy(states_R[first : first + at_once]).to(device)
        a, b = np.searchsorted(state_of_M[order], [first, first + at_once])
        mine = order[a:b]
        logits_RV = model.vocabulary.logits(x_ND[states][None], wte_VD)[0].float()
        rows, tokens = (torch.from_numpy(x).to(device) for x in (state_of_M[mine] - first, tokens_M[mine]))
        logprobs = logits_RV[rows, tokens].double() - torch.logsumexp(logits_RV, dim=-1).double()[rows]
        logprobs_M[mine] = logprobs.cpu().numpy()
        top = logits_RV.argmax(dim=-1)
        allowed = top
        if len(banned):
            allowed = logits_RV.index_fill_(1, banned, -torch.inf).argmax(dim=-1)
        top_M[mine], allowed_M[mine] = (top[rows] == tokens).cpu().numpy(), (allowed[rows] == tokens).cpu().numpy()
    scores, at = [], 0
    for layout in layouts:
        mine_M = slice(at, at := at + len(layout.wanted))
        found = _unasked(layout.n_nodes)
        found.logprobs_N[layout.wanted] = logprobs_M[mine_M]
        found.top_N[layout.wanted], found.allowed_top_N[layout.wanted] = top_M[mine_M], allowed_M[mine_M]
        scores.append(found)
    return scores


def _unasked(n_nodes: int) -> TreeScores:
    return TreeScores(np.full(n_nodes, np.nan), np.zeros(n_nodes, bool), np.zeros(n_nodes, bool))
