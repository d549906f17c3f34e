"""The compiled parts of a search: choose a leaf, add a node, back a value up.

Each function works on one slot; loops over slots are in `lockstep.py`. Ties go to the lowest edge, everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from selfplay.search.config import PUCT, Constants
from selfplay.search.tree import Tree

Array = np.ndarray[Any, Any]


@njit(cache=True)
def improved_logits(tree: Tree, c: Constants, s: int, index: int, out: Array) -> None:
    """out `[count]` = log prior + sigma(completed Q) (Danihelka et al. 2022, section 4, equation 10).

    The completed Q of an unvisited action is v_mix (appendix D, equation 33), all in [0, 1].
    """
    node = tree.node[s, index]
    first, count, visits = node.first, node.count, node.visits
    raw = (node.value + 1.0) * 0.5
    if visits == 0:
        shift = c.c_visit * c.c_scale * raw
        for i in range(count):
            out[i] = tree.edge[s, first + i].log_prior + shift
        return
    most = 0
    seen = 0.0
    weighted = 0.0
    for i in range(count):
        edge = tree.edge[s, first + i]
        n = edge.visits
        if n > 0:
            q = (edge.total / n + 1.0) * 0.5
            out[i] = q
            seen += edge.prior
            weighted += edge.prior * q
            most = max(most, n)
    unvisited = raw if seen <= 0.0 else (raw + visits * (weighted / seen)) / (1.0 + visits)
    scale = (c.c_visit + most) * c.c_scale
    for i in range(count):
        edge = tree.edge[s, first + i]
        q = out[i] if edge.visits > 0 else unvisited
        out[i] = edge.log_prior + scale * q


@njit(cache=True)
def softmax(logits: Array, count: int) -> None:
    """In place over the first `count` entries."""
    high = -math.inf
    for i in range(count):
        high = max(high, logits[i])
    total = 0.0
    for i in range(count):
        logits[i] = math.exp(logits[i] - high)
        total += logits[i]
    for i in range(count):
        logits[i] /= total


@njit(cache=True)
def gumbel_root_edge(tree: Tree, c: Constants, s: int, wanted: int, scratch: Array) -> int:
    """The root edge with `wanted` visits that maximises gumbel + log prior + sigma(completed Q)."""
    improved_logits(tree, c, s, 0, scratch)
    first, count = tree.node[s, 0].first, tree.node[s, 0].count
    best, best_score = -1, -math.inf
    for i in range(count):
        if tree.edge[s, first + i].visits == wanted:
            score = tree.noise[s, i] + scratch[i]
            if best < 0 or score > best_score:
                best, best_score = i, score
    return first + best


@njit(cache=True)
def gumbel_final_edge(tree: Tree, c: Constants, s: int, scratch: Array) -> int:
    """The edge to play: the best score among the most visited root edges."""
    first, count = tree.node[s, 0].first, tree.node[s, 0].count
    most = 0
    for e in range(first, first + count):
        most = max(most, tree.edge[s, e].visits)
    return gumbel_root_edge(tree, c, s, most, scratch)


@njit(cache=True)
def gumbel_inner_edge(tree: Tree, c: Constants, s: int, index: int, scratch: Array) -> int:
    """argmax of pi'(a) - N(a) / (1 + sum N) (section 5, equation 14)."""
    improved_logits(tree, c, s, index, scratch)
    node = tree.node[s, index]
    first, count = node.first, node.count
    softmax(scratch, count)
    denominator = 1.0 + node.visits
    best, best_score = 0, -math.inf
    for i in range(count):
        score = scratch[i] - tree.edge[s, first + i].visits / denominator
        if score > best_score:
            best, best_score = i, score
    return first + best


@njit(cache=True)
def puct_edge(tree: Tree, c: Constants, s: int, index: int) -> int:
    """argmax of Q + U (Silver et al. 2018, supplement, "Search"), with a stated value of unvisited actions."""
    node = tree.node[s, index]
    first, count = node.first, node.count
    seen = 0.0
    for e in range(first, first + count):
        if tree.edge[s, e].visits > 0:
            seen += tree.edge[s, e].prior
    reduction = c.root_fpu_reduction if index == 0 and tree.slot[s].noisy else c.fpu_reduction
    unvisited = node.value - reduction * math.sqrt(seen)
    rate = math.log((1.0 + node.visits + c.c_base) / c.c_base) + c.c_init
    factor = rate * math.sqrt(max(1.0, float(node.visits)))
    best, best_score = 0, -math.inf
    for i in range(count):
        edge = tree.edge[s, first + i]
        n = edge.visits
        q = edge.total / n if n > 0 else unvisited
        score = q + factor * edge.prior / (1.0 + n)
        if score > best_score:
            best, best_score = i, score
    return first + best


@njit(cache=True)
def choose_edge(tree: Tree, c: Constants, s: int, index: int, scratch: Array) -> int:
    if c.algorithm == PUCT:
        return puct_edge(tree, c, s, index)
    if index == 0:
        return gumbel_root_edge(tree, c, s, tree.schedule[s, tree.slot[s].done], scratch)
    return gumbel_inner_edge(tree, c, s, index, scratch)


@njit(cache=True)
def back_up(tree: Tree, s: int, leaf: int) -> None:
    """Adds the leaf's value to every edge above it, each from its own mover's point of view; one simulation done."""
    node = tree.node[s, leaf]
    value, player = node.value, node.player
    while node.parent >= 0:
        edge = tree.edge[s, node.parent_edge]
        node = tree.node[s, node.parent]
        node.visits += 1
        edge.visits += 1
        edge.total += value if node.player == player else -value
    tree.slot[s].done += 1


@njit(cache=True)
def find_leaf(tree: Tree, c: Constants, s: int, scratch: Array) -> tuple[int, int]:
    """Walks down to an edge without a child; (node, edge), or (-1, -1) when the slot's simulations are made.

    Simulations that end in a terminal node are backed up on the way: they need neither a state nor a net.
    """
    while tree.slot[s].done < tree.slot[s].target:
        index = 0
        while True:
            chosen = choose_edge(tree, c, s, index, scratch)
            child = tree.edge[s, chosen].child
            if child < 0:
                return index, chosen
            index = child
            if tree.node[s, index].terminal:
                break
        back_up(tree, s, index)
    return -1, -1


@njit(cache=True)
def add_node(tree: Tree, s: int, parent: int, parent_edge: int, player: int) -> int:
    """A new node without edges below `parent_edge`; parent -1 makes it the root of an empty slot."""
    index = tree.slot[s].nodes
    tree.slot[s].nodes = index + 1
    node = tree.node[s, index]
    node.value = 0.0
    node.first = tree.slot[s].edges
    node.count = 0
    node.visits = 0
    node.parent = parent
    node.parent_edge = parent_edge
    node.player = player
    node.terminal = 0
    if parent >= 0:
        tree.edge[s, parent_edge].child = index
    return index


@njit(cache=True)
def add_edges(tree: Tree, s: int, index: int, actions: Array) -> None:
    """Gives the newest node its legal actions `[count]`, unvisited, priors still unknown."""
    first = tree.slot[s].edges
    for i in range(len(actions)):
        edge = tree.edge[s, first + i]
        edge.action = actions[i]
        edge.visits = 0
        edge.total = 0.0
        edge.child = -1
    tree.node[s, index].count = len(actions)
    tree.slot[s].edges = first + len(actions)


@njit(cache=True)
def set_priors(tree: Tree, c: Constants, s: int, index: int, logits: Array, value: float) -> None:
    """Gives a node the net's word: `logits[i]` belongs to its i-th edge, value to the seat to act."""
    node = tree.node[s, index]
    node.value = value
    first, count = node.first, node.count
    high = -math.inf
    for i in range(count):
        high = max(high, logits[i])
    total = 0.0
    for i in range(count):
        total += math.exp(logits[i] - high)
    shift = high + math.log(total)
    for i in range(count):
        edge = tree.edge[s, first + i]
        edge.log_prior = logits[i] - shift
        edge.prior = math.exp(edge.log_prior)
    if index == 0 and c.algorithm == PUCT and tree.slot[s].noisy:
        for i in range(count):
            edge = tree.edge[s, first + i]
            edge.prior = (1.0 - c.dirichlet_fraction) * edge.prior + c.dirichlet_fraction * tree.noise[s, i]


@njit(cache=True)
def summarise(
    tree: Tree, c: Constants, s: int, actions: Array, visits: Array, prior: Array, q: Array, policy: Array, wide: Array
) -> tuple[int, float]:
    """What the search of slot `s` found at its root with K legal actions; returns (index to play, root value).

    Fills, `[K]` each: actions, visits int32; prior float32, without noise; q float32, NaN where unvisited; policy
    float32, the policy target. wide: float64 scratch, K or more.
    """
    root = tree.node[s, 0]
    first, count, made = root.first, root.count, root.visits
    value = root.value
    best = 0
    for i in range(count):
        edge = tree.edge[s, first + i]
        actions[i], visits[i] = edge.action, edge.visits
        prior[i] = math.exp(edge.log_prior)
        q[i] = edge.total / edge.visits if edge.visits > 0 else math.nan
        value += edge.total
    if c.algorithm == PUCT:
        for i in range(count):
            policy[i] = visits[i] / made if made > 0 else prior[i]
            if (made > 0 and visits[i] > visits[best]) or (made == 0 and prior[i] > prior[best]):
                best = i
    else:
        best = gumbel_final_edge(tree, c, s, wide) - first
        improved_logits(tree, c, s, 0, wide)
        softmax(wide, count)
        for i in range(count):
            policy[i] = wide[i]
    return best, value / (1 + made)
