"""One round of many searches at once, compiled: all choose a leaf; all take in what the leaves turned out to be.

Between the two the caller steps `pyspiel` states (Python, one call a leaf), and after them a net evaluates the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from selfplay.search import cache as table
from selfplay.search import kernels as k
from selfplay.search.cache import Cache
from selfplay.search.config import Constants
from selfplay.search.tree import Tree

Array = np.ndarray[Any, Any]

RUNNING, WAITING, IDLE = 0, 1, 2


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer, for `carray`."""

    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), build


class Leaves(NamedTuple):
    """What the states below the chosen edges are, `[n]` each, in the order in which they were chosen.

    slot, parent, edge: int32; parent and edge are -1 for a root.
    seat: int8 seat to act; at a terminal state the seat that moved.
    legal: int32 number of legal actions, -1 at a terminal state.
    value: float64 return in [-1, 1] from the point of view of `seat`, terminal states only.
    actions: `[sum of legal]` int32.
    """

    slot: Array
    parent: Array
    edge: Array
    seat: Array
    legal: Array
    value: Array
    actions: Array


class Batch(NamedTuple):
    """Positions that wait for the net.

    inputs: `[B, size]` float32, rows in use first. rows: `[1]` int64 rows in use.
    slot, node, row: `[S]` int32, one for each waiting slot. waiting: `[1]` int64 how many of them.
    entry: `[S]` int64 place in the cache, -1 for none or where another waiting slot fills the same place.
    """

    inputs: Array
    rows: Array
    slot: Array
    node: Array
    row: Array
    entry: Array
    waiting: Array


def new_batch(slots: int, size: int) -> Batch:
    i32, i64 = np.int32, np.int64
    return Batch(
        np.zeros((slots, size), np.float32),
        np.zeros(1, i64),
        np.zeros(slots, i32),
        np.zeros(slots, i32),
        np.zeros(slots, i32),
        np.zeros(slots, i64),
        np.zeros(1, i64),
    )


@njit(cache=True)
def choose_leaves(
    tree: Tree, c: Constants, status: Array, slot: Array, node: Array, edge: Array, act: Array, scratch: Array
) -> int:
    """Fills slot, node, edge, act with the next leaf of each running slot; returns how many.

    A slot whose simulations are made is passed over. The root of a slot without nodes is reported with node -1.
    scratch: float64, as wide as the widest node.
    """
    n = 0
    for s in range(len(status)):
        if status[s] != RUNNING:
            continue
        if tree.slot[s].nodes == 0:
            slot[n], node[n], edge[n], act[n] = s, -1, -1, -1
            n += 1
            continue
        parent, chosen = k.find_leaf(tree, c, s, scratch)
        if chosen < 0:
            continue
        slot[n], node[n], edge[n], act[n] = s, parent, chosen, tree.edge[s, chosen].action
        n += 1
    return n


@njit(cache=True)
def trace(tree: Tree, slot: Array, node: Array, action: Array, moves: Array, ends: Array) -> None:
    """The moves from each root to its leaf: those of leaf i are `moves[ends[i - 1] : ends[i]]` (from 0 for the first).

    slot, node, action: `[n]` as `choose_leaves` filled them. moves: int32, as long as all ways may be together.
    ends: `[n]` int64.
    """
    end = 0
    for i in range(len(slot)):
        s, parent = slot[i], node[i]
        depth = 0
        at = parent
        while at > 0:
            depth += 1
            at = tree.node[s, at].parent
        if parent >= 0:
            depth += 1
            place = end + depth - 1
            moves[place] = action[i]
            at = parent
            while at > 0:
                place -= 1
                moves[place] = tree.edge[s, tree.node[s, at].parent_edge].action
                at = tree.node[s, at].parent
        end += depth
        ends[i] = end


@njit(cache=True)
def take_in(
    tree: Tree,
    c: Constants,
    status: Array,
    leaves: Leaves,
    address: Array,
    gather: Array,
    seat_plane: bool,
    cache: Cache,
    salt: Array,
    batch: Batch,
    counters: Array,
) -> None:
    """Adds the leaves to their trees. Terminal and cached ones are backed up at once; the others join the batch.

    address: `[S]` uint64 where each slot's raw observation (float32) lies. counters: `[2]` leaves looked up and found.
    """
    size = gather.shape[1]
    caching = len(cache.row) > 1
    offset = 0
    for i in range(len(leaves.slot)):
        s, seat, legal = leaves.slot[i], leaves.seat[i], leaves.legal[i]
        node = k.add_node(tree, s, leaves.parent[i], leaves.edge[i], seat)
        if legal < 0:
            tree.node[s, node].terminal = 1
            tree.node[s, node].value = leaves.value[i]
            k.back_up(tree, s, node)
            continue
        actions = leaves.actions[offset : offset + legal]
        offset += legal
        k.add_edges(tree, s, node, actions)
        pointer = _pointer(address[s])
        counters[0] += 1
        entry = np.int64(-1)
        row = np.int64(-1)
        if caching:
            a, b = table.hash_position(carray(pointer, (size,), np.uint32), seat, actions, salt)
            entry = table.find(cache, a, b)
            found = cache.row[entry]
            if found != table.EMPTY:
                counters[1] += 1
                if found >= 0:
                    k.set_priors(tree, c, s, node, cache.logits[found : found + legal], cache.value[entry])
                    if node > 0:
                        k.back_up(tree, s, node)
                    continue
                row = -1 - found
                entry = np.int64(-1)
            elif table.has_room(cache, 1, 0):
                table.reserve(cache, entry, a, b, batch.rows[0])
            else:
                entry = np.int64(-1)
        if row < 0:
            row = batch.rows[0]
            batch.rows[0] += 1
            raw = carray(pointer, (size,), np.float32)
            inputs = batch.inputs[row]
            for j in range(size):
                inputs[j] = raw[gather[seat, j]]
            if seat_plane:
                for j in range(size, len(inputs)):
                    inputs[j] = seat
        w = batch.waiting[0]
        batch.slot[w], batch.node[w], batch.row[w], batch.entry[w] = s, node, row, entry
        batch.waiting[0] = w + 1
        status[s] = WAITING


@njit(cache=True)
def take_evaluation(
    tree: Tree, c: Constants, status: Array, cache: Cache, batch: Batch, logits: Array, values: Array
) -> None:
    """Gives each waiting slot its row of logits `[B, A]` and values `[B]`, backs it up, fills the cache."""
    gathered = np.empty(64, logits.dtype)
    for w in range(batch.waiting[0]):
        s, node, row, entry = batch.slot[w], batch.node[w], batch.row[w], batch.entry[w]
        first, count = tree.node[s, node].first, tree.node[s, node].count
        if count > len(gathered):
            gathered = np.empty(2 * count, logits.dtype)
        for i in range(count):
            gathered[i] = logits[row, tree.edge[s, first + i].action]
        value = values[row]
        if entry >= 0:
            start = cache.used[1]
            if start + count <= len(cache.logits):
                for i in range(count):
                    cache.logits[start + i] = gathered[i]
                cache.used[1] = start + count
                cache.value[entry] = value
                cache.row[entry] = start
            else:
                cache.used[0] = len(cache.row)
        k.set_priors(tree, c, s, node, gathered[:count], value)
        if node > 0:
            k.back_up(tree, s, node)
        status[s] = RUNNING
    batch.waiting[0] = 0
    batch.rows[0] = 0


@njit(cache=True)
def retire(tree: Tree, status: Array, finished: Array) -> int:
    """Makes slots idle whose simulations are made; fills `finished` with them and returns how many."""
    n = 0
    for s in range(len(status)):
        slot = tree.slot[s]
        if status[s] == RUNNING and slot.nodes > 0 and slot.done >= slot.target:
            status[s] = IDLE
            finished[n] = s
            n += 1
    return n
