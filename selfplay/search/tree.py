"""Search trees of many games side by side, as arrays: a slot holds one game's tree, nodes and edges are numbered.

Edges exist for legal actions only and lie consecutively in action order, so a game of 4,674 actions costs no more than
its legal ones. What belongs to one node or edge lies in one record, so that a walk down touches few cache lines.
Values are in [-1, 1] (units of the game's largest utility).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

#: value: the net's, at a terminal node the return; point of view of `player`. first, count: its edges are
#: first .. first + count - 1. visits: sum of its edges' visits. parent, parent_edge: -1 at the root, which is node 0.
#: player: seat to act; at a terminal node the seat that moved into it.
NODE = np.dtype(
    [
        ("value", "f8"),
        ("first", "i4"),
        ("count", "i4"),
        ("visits", "i4"),
        ("parent", "i4"),
        ("parent_edge", "i4"),
        ("player", "i2"),
        ("terminal", "i2"),
    ]
)

#: total: sum of the values backed up, point of view of the seat to act above. prior, log_prior: softmax of the net's
#: logits over the legal actions; at a PUCT root `prior` is mixed with noise. child: a node, -1 before the first visit.
EDGE = np.dtype(
    [
        ("total", "f8"),
        ("prior", "f8"),
        ("log_prior", "f8"),
        ("visits", "i4"),
        ("child", "i4"),
        ("action", "i4"),
        ("spare", "i4"),
    ]
)

#: nodes, edges: in use. done, target: simulations made and wanted. noisy: the root's priors carry noise (PUCT).
SLOT = np.dtype([("nodes", "i4"), ("edges", "i4"), ("done", "i4"), ("target", "i4"), ("noisy", "i4")])


class Tree(NamedTuple):
    """`S` slots of `N` nodes and `E` edges.

    slot: `[S]` of `SLOT`. node: `[S, N]` of `NODE`. edge: `[S, E]` of `EDGE`.
    noise: `[S, R]` float64 Gumbel or Dirichlet noise of the root's edges.
    schedule: `[S, T]` int32 visit count that the root action of each simulation must have (Gumbel).
    """

    slot: Array
    node: Array
    edge: Array
    noise: Array
    schedule: Array


def new_tree(slots: int, simulations: int, edges: int) -> Tree:
    """An empty tree for `slots` games of at most `simulations` simulations; `edges` a slot to begin with."""
    return Tree(
        slot=np.zeros(slots, SLOT),
        node=np.zeros((slots, simulations + 1), NODE),
        edge=np.zeros((slots, max(edges, 1)), EDGE),
        noise=np.zeros((slots, 1), np.float64),
        schedule=np.zeros((slots, max(simulations, 1)), np.int32),
    )


def _wider(array: Array, width: int) -> Array:
    out = np.zeros((array.shape[0], width), array.dtype)
    out[:, : array.shape[1]] = array
    return out


def with_edges(tree: Tree, edges: int) -> Tree:
    """The same tree with room for `edges` edges a slot."""
    return tree._replace(edge=_wider(tree.edge, edges))


def with_root_edges(tree: Tree, edges: int) -> Tree:
    """The same tree with room for the noise of `edges` root edges."""
    return tree._replace(noise=_wider(tree.noise, edges))
