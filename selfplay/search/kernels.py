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
def mixed_value(tree: Tree, s: int, node: int) -> float:
    """The value of an unvisited action, in [0, 1]: v_mix (Danihelka et al. 2022, appendix D, equation 33)."""
    first, count = tree.first[s, node], tree.count[s, node]
    prior_sum = 0.0
    weighted = 0.0
    for e in range(first, first + count):
        n = tree.edge_visits[s, e]
        if n > 0:
            prior_sum += tree.prior[s, e]
            weighted += tree.prior[s, e] * ((tree.total[s, e] / n + 1.0) * 0.5)
    raw = (tree.value[s, node] + 1.0) * 0.5
    visits = tree.visits[s, node]
    if visits == 0 or prior_sum <= 0.0:
        return raw
    return (raw + visits * (weighted / prior_sum)) / (1.0 + visits)


@njit(cache=True)
def improved_logits(tree: Tree, c: Constants, s: int, node: int, out: Array) -> None:
    """out `[count]` = log prior + sigma(completed Q) (section 4, equation 10)."""
    first, count = tree.first[s, node], tree.count[s, node]
    most = 0
    for e in range(first, first + count):
        most = max(most, tree.edge_visits[s, e])
    scale = (c.c_visit + most) * c.c_scale
    unvisited = mixed_value(tree, s, node)
    for i in range(count):
        n = tree.edge_visits[s, first + i]
        q = (tree.total[s, first + i] / n + 1.0) * 0.5 if n > 0 else unvisited
        out[i] = tree.log_prior[s, first + i] + scale * q


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
    first, count = tree.first[s, 0], tree.count[s, 0]
    best, best_score = -1, -math.inf
    for i in range(count):
        if tree.edge_visits[s, first + i] == wanted:
            score = tree.noise[s, i] + scratch[i]
            if best < 0 or score > best_score:
                best, best_score = i, score
    return first + best


@njit(cache=True)
def gumbel_final_edge(tree: Tree, c: Constants, s: int, scratch: Array) -> int:
    """The edge to play: the best score among the most visited root edges."""
    first, count = tree.first[s, 0], tree.count[s, 0]
    most = 0
    for e in range(first, first + count):
        most = max(most, tree.edge_visits[s, e])
    return gumbel_root_edge(tree, c, s, most, scratch)


@njit(cache=True)
def gumbel_inner_edge(tree: Tree, c: Constants, s: int, node: int, scratch: Array) -> int:
    """argmax of pi'(a) - N(a) / (1 + sum N) (section 5, equation 14)."""
    improved_logits(tree, c, s, node, scratch)
    first, count = tree.first[s, node], tree.count[s, node]
    softmax(scratch, count)
    denominator = 1.0 + tree.visits[s, node]
    best, best_score = 0, -math.inf
    for i in range(count):
        score = scratch[i] - tree.edge_visits[s, first + i] / denominator
        if score > best_score:
            best, best_score = i, score
    return first + best


@njit(cache=True)
def puct_edge(tree: Tree, c: Constants, s: int, node: int) -> int:
    """argmax of Q + U (Silver et al. 2018, supplement, "Search"), with a stated value of unvisited actions."""
    first, count = tree.first[s, node], tree.count[s, node]
    parent_visits = tree.visits[s, node]
    seen = 0.0
    for e in range(first, first + count):
        if tree.edge_visits[s, e] > 0:
            seen += tree.prior[s, e]
    reduction = c.root_fpu_reduction if node == 0 and tree.noisy[s] else c.fpu_reduction
    unvisited = tree.value[s, node] - reduction * math.sqrt(seen)
    rate = math.log((1.0 + parent_visits + c.c_base) / c.c_base) + c.c_init
    factor = rate * math.sqrt(max(1.0, float(parent_visits)))
    best, best_score = 0, -math.inf
    for i in range(count):
        n = tree.edge_visits[s, first + i]
        q = tree.total[s, first + i] / n if n > 0 else unvisited
        score = q + factor * tree.prior[s, first + i] / (1.0 + n)
        if score > best_score:
            best, best_score = i, score
    return first + best


@njit(cache=True)
def choose_edge(tree: Tree, c: Constants, s: int, node: int, scratch: Array) -> int:
    if c.algorithm == PUCT:
        return puct_edge(tree, c, s, node)
    if node == 0:
        return gumbel_root_edge(tree, c, s, tree.schedule[s, tree.done[s]], scratch)
    return gumbel_inner_edge(tree, c, s, node, scratch)


@njit(cache=True)
def back_up(tree: Tree, s: int, leaf: int) -> None:
    """Adds the leaf's value to every edge above it, each from its own mover's point of view; one simulation done."""
    value, player = tree.value[s, leaf], tree.player[s, leaf]
    node = leaf
    while tree.parent[s, node] >= 0:
        edge = tree.parent_edge[s, node]
        node = tree.parent[s, node]
        tree.edge_visits[s, edge] += 1
        tree.visits[s, node] += 1
        tree.total[s, edge] += value if tree.player[s, node] == player else -value
    tree.done[s] += 1


@njit(cache=True)
def find_leaf(tree: Tree, c: Constants, s: int, scratch: Array) -> tuple[int, int]:
    """Walks down to an edge without a child; (node, edge), or (-1, -1) when the slot's simulations are made.

    Simulations that end in a terminal node are backed up on the way: they need neither a state nor a net.
    """
    while tree.done[s] < tree.target[s]:
        node = 0
        while True:
            edge = choose_edge(tree, c, s, node, scratch)
            child = tree.child[s, edge]
            if child < 0:
                return node, edge
            node = child
            if tree.terminal[s, node]:
                break
        back_up(tree, s, node)
    return -1, -1


@njit(cache=True)
def add_node(tree: Tree, s: int, parent: int, edge: int, player: int) -> int:
    """A new node without edges below `edge`; parent -1 makes it the root of an empty slot."""
    node = tree.nodes[s]
    tree.nodes[s] = node + 1
    tree.player[s, node] = player
    tree.terminal[s, node] = False
    tree.first[s, node] = tree.edges[s]
    tree.count[s, node] = 0
    tree.visits[s, node] = 0
    tree.parent[s, node] = parent
    tree.parent_edge[s, node] = edge
    if parent >= 0:
        tree.child[s, edge] = node
    return node


@njit(cache=True)
def add_edges(tree: Tree, s: int, node: int, actions: Array) -> None:
    """Gives the newest node its legal actions `[count]`, unvisited, priors still unknown."""
    first = tree.edges[s]
    for i in range(len(actions)):
        tree.action[s, first + i] = actions[i]
        tree.edge_visits[s, first + i] = 0
        tree.total[s, first + i] = 0.0
        tree.child[s, first + i] = -1
    tree.count[s, node] = len(actions)
    tree.edges[s] = first + len(actions)


@njit(cache=True)
def set_priors(tree: Tree, c: Constants, s: int, node: int, logits: Array, value: float) -> None:
    """Gives a node the net's word: `logits[i]` belongs to its i-th edge, value to the seat to act."""
    tree.value[s, node] = value
    first, count = tree.first[s, node], tree.count[s, node]
    high = -math.inf
    for i in range(count):
        high = max(high, logits[i])
    total = 0.0
    for i in range(count):
        total += math.exp(logits[i] - high)
    shift = high + math.log(total)
    for i in range(count):
        log_prior = logits[i] - shift
        tree.log_prior[s, first + i] = log_prior
        tree.prior[s, first + i] = math.exp(log_prior)
    if node == 0 and c.algorithm == PUCT and tree.noisy[s]:
        eps = c.dirichlet_fraction
        for i in range(count):
            tree.prior[s, first + i] = (1.0 - eps) * tree.prior[s, first + i] + eps * tree.noise[s, i]
