"""Search trees of many games side by side, as arrays: a slot holds one game's tree, nodes and edges are numbered.

Edges exist for legal actions only and lie consecutively in action order, so a game of 4,674 actions costs no more than
its legal ones. Values are in [-1, 1] (units of the game's largest utility).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Tree(NamedTuple):
    """`S` slots, `N` nodes and `E` edges a slot.

    nodes: `[S]` int32 nodes in use; node 0 is the root.
    edges: `[S]` int32 edges in use.
    player: `[S, N]` int8 seat to act; at a terminal node the seat that moved into it.
    terminal: `[S, N]` bool.
    value: `[S, N]` float64 the net's value, at a terminal node the return; from the point of view of `player`.
    first, count: `[S, N]` int32 the node's edges are first .. first + count - 1.
    visits: `[S, N]` int32 sum of the visits of the node's edges.
    parent, parent_edge: `[S, N]` int32, -1 at the root.
    action: `[S, E]` int32.
    prior, log_prior: `[S, E]` float64, softmax of the net's logits over the legal actions; at a PUCT root `prior` is
      mixed with noise.
    edge_visits: `[S, E]` int32.
    total: `[S, E]` float64 sum of the values backed up, from the point of view of the seat to act at the edge's node.
    child: `[S, E]` int32 node, -1 before the first visit.
    noise: `[S, R]` float64 Gumbel or Dirichlet noise of the root's edges.
    schedule: `[S, T]` int32 visit count that the root action of each simulation must have (Gumbel).
    done, target: `[S]` int32 simulations made and wanted.
    noisy: `[S]` bool whether the root's priors carry noise (PUCT).
    """

    nodes: Array
    edges: Array
    player: Array
    terminal: Array
    value: Array
    first: Array
    count: Array
    visits: Array
    parent: Array
    parent_edge: Array
    action: Array
    prior: Array
    log_prior: Array
    edge_visits: Array
    total: Array
    child: Array
    noise: Array
    schedule: Array
    done: Array
    target: Array
    noisy: Array


_EDGE_FIELDS = ("action", "prior", "log_prior", "edge_visits", "total", "child")


def new_tree(slots: int, simulations: int, edges: int) -> Tree:
    """An empty tree for `slots` games of at most `simulations` simulations; `edges` a slot to begin with."""
    s, n, e = slots, simulations + 1, max(edges, 1)
    i32, f64 = np.int32, np.float64
    return Tree(
        nodes=np.zeros(s, i32),
        edges=np.zeros(s, i32),
        player=np.zeros((s, n), np.int8),
        terminal=np.zeros((s, n), np.bool_),
        value=np.zeros((s, n), f64),
        first=np.zeros((s, n), i32),
        count=np.zeros((s, n), i32),
        visits=np.zeros((s, n), i32),
        parent=np.zeros((s, n), i32),
        parent_edge=np.zeros((s, n), i32),
        action=np.zeros((s, e), i32),
        prior=np.zeros((s, e), f64),
        log_prior=np.zeros((s, e), f64),
        edge_visits=np.zeros((s, e), i32),
        total=np.zeros((s, e), f64),
        child=np.zeros((s, e), i32),
        noise=np.zeros((s, 1), f64),
        schedule=np.zeros((s, max(simulations, 1)), i32),
        done=np.zeros(s, i32),
        target=np.zeros(s, i32),
        noisy=np.zeros(s, np.bool_),
    )


def _wider(array: Array, width: int) -> Array:
    out = np.zeros((array.shape[0], width), array.dtype)
    out[:, : array.shape[1]] = array
    return out


def with_edges(tree: Tree, edges: int) -> Tree:
    """The same tree with room for `edges` edges a slot."""
    return tree._replace(**{name: _wider(getattr(tree, name), edges) for name in _EDGE_FIELDS})


def with_root_edges(tree: Tree, edges: int) -> Tree:
    """The same tree with room for the noise of `edges` root edges."""
    return tree._replace(noise=_wider(tree.noise, edges))
