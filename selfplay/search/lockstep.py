"""One round of many searches at once, compiled: all choose a leaf; all take in what the leaves turned out to be.

Between the two the caller steps `pyspiel` states (Python, a few calls a leaf), and after them a net evaluates the
batch. Where the game's rules are compiled (`rules.py`), `advance` makes all rounds of a tick in one call. It does what
the others do in the same order, so that the net is shown the same batches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from selfplay.search import cache as table
from selfplay.search import kernels as k
from selfplay.search import rules as game
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
    tree: Tree,
    c: Constants,
    status: Array,
    slot: Array,
    node: Array,
    edge: Array,
    moves: Array,
    ends: Array,
    whole: bool,
    scratch: Array,
) -> int:
    """Fills slot, node, edge with the next leaf of each running slot; returns how many.

    A slot whose simulations are made is passed over. The root of a slot without nodes is reported with node -1.
    moves: int32, receives the moves to each leaf, if `whole` those from its root, else the last alone. Those of leaf i
    are `moves[ends[i - 1] : ends[i]]` (from 0 for the first). scratch: float64, as wide as the widest node.
    """
    n = 0
    end = 0
    for s in range(len(status)):
        if status[s] != RUNNING:
            continue
        parent, chosen = -1, -1
        if tree.slot[s].nodes > 0:
            parent, chosen = k.find_leaf(tree, c, s, scratch)
            if chosen < 0:
                continue
            depth = 1
            at = parent
            while whole and at > 0:
                depth += 1
                at = tree.node[s, at].parent
            end += depth
            at, below = parent, chosen
            for place in range(end - 1, end - 1 - depth, -1):
                moves[place] = tree.edge[s, below].action
                at, below = tree.node[s, at].parent, tree.node[s, at].parent_edge
        slot[n], node[n], edge[n], ends[n] = s, parent, chosen, end
        n += 1
    return n


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
    offset = 0
    for i in range(len(leaves.slot)):
        s, seat, legal = leaves.slot[i], leaves.seat[i], leaves.legal[i]
        node = k.add_node(tree, s, leaves.parent[i], leaves.edge[i], seat)
        if legal < 0:
            _end(tree, s, node, leaves.value[i])
            continue
        actions = leaves.actions[offset : offset + legal]
        offset += legal
        k.add_edges(tree, s, node, actions)
        pointer = _pointer(address[s])
        a = b = np.uint64(0)
        if len(cache.row) > 1:
            a, b = table.hash_position(carray(pointer, (size,), np.uint32), seat, actions, salt)
        row = _answer(tree, c, status, s, node, a, b, cache, batch, counters)
        if row >= 0:
            _show_net(carray(pointer, (size,), np.float32), seat, gather, seat_plane, batch.inputs[row])


@njit(cache=True)
def advance(
    tree: Tree,
    c: Constants,
    status: Array,
    kind: int,
    boards: Array,
    gather: Array,
    seat_plane: bool,
    cache: Cache,
    salt: Array,
    batch: Batch,
    counters: Array,
    scratch: Array,
    rounds: int,
) -> None:
    """At most `rounds` rounds of a game whose rules are compiled: `choose_leaves`, a step and `take_in` for each slot.

    kind: its rules. boards: `[S, N, WORDS]` uint64 the position of each node, of a root before its search begins.
    """
    raw = np.empty(gather.shape[1], np.float32)
    actions = np.empty(game.MOST_LEGAL, np.int32)
    for _ in range(rounds):
        moving = False
        for s in range(len(status)):
            if status[s] != RUNNING:
                continue
            parent, chosen = -1, -1
            if tree.slot[s].nodes > 0:
                parent, chosen = k.find_leaf(tree, c, s, scratch)
                if chosen < 0:
                    continue
            moving = True
            board = boards[s, tree.slot[s].nodes]
            if parent >= 0:
                result = game.play(kind, boards[s, parent], tree.edge[s, chosen].action, board)
                if result != game.GOES_ON:
                    node = k.add_node(tree, s, parent, chosen, np.int64(tree.node[s, parent].player))
                    _end(tree, s, node, float(result))
                    continue
            seat = np.int64(board[2])
            node = k.add_node(tree, s, parent, chosen, seat)
            k.add_edges(tree, s, node, actions[: game.legal_actions(kind, board, actions)])
            a = b = np.uint64(0)
            if len(cache.row) > 1:
                a, b = table.hash_words(board, salt)
            row = _answer(tree, c, status, s, node, a, b, cache, batch, counters)
            if row >= 0:
                game.show(kind, board, raw)
                _show_net(raw, seat, gather, seat_plane, batch.inputs[row])
        if not moving:
            break


@njit(cache=True)
def _end(tree: Tree, s: int, node: int, value: float) -> None:
    """Makes a new node terminal and backs it up. value: of the seat that moved."""
    tree.node[s, node].terminal = 1
    tree.node[s, node].value = value
    k.back_up(tree, s, node)


@njit(cache=True)
def _answer(
    tree: Tree,
    c: Constants,
    status: Array,
    s: int,
    node: int,
    a: np.uint64,
    b: np.uint64,
    cache: Cache,
    batch: Batch,
    counters: Array,
) -> int:
    """Answers a new node from the cache and backs it up, or lets its slot wait for the net.

    a, b: its key. Returns the row of the batch where the caller must put its input, -1 where none is needed.
    """
    counters[0] += 1
    entry = np.int64(-1)
    row = np.int64(-1)
    if len(cache.row) > 1:
        entry = table.find(cache, a, b)
        found = cache.row[entry]
        if found != table.EMPTY:
            counters[1] += 1
            if found >= 0:
                count = tree.node[s, node].count
                k.set_priors(tree, c, s, node, cache.logits[found : found + count], cache.value[entry])
                if node > 0:
                    k.back_up(tree, s, node)
                return -1
            row = -1 - found
            entry = np.int64(-1)
        elif table.has_room(cache, 1, 0):
            table.reserve(cache, entry, a, b, batch.rows[0])
        else:
            entry = np.int64(-1)
    fresh = row < 0
    if fresh:
        row = batch.rows[0]
        batch.rows[0] += 1
    w = batch.waiting[0]
    batch.slot[w], batch.node[w], batch.row[w], batch.entry[w] = s, node, row, entry
    batch.waiting[0] = w + 1
    status[s] = WAITING
    return row if fresh else -1


@njit(cache=True)
def _show_net(raw: Array, seat: int, gather: Array, seat_plane: bool, inputs: Array) -> None:
    """The net's input of a raw observation, as `Encoder.encode` makes it."""
    size = len(raw)
    for j in range(size):
        inputs[j] = raw[gather[seat, j]]
    if seat_plane:
        for j in range(size, len(inputs)):
            inputs[j] = seat


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


class Found(NamedTuple):
    """What searches found at their roots, each with room for `R` actions; see `kernels.summarise` for the rows.

    whole: `[S, 2, R]` int32 actions and visits. parts: `[S, 3, R]` float32 prior, q and policy target.
    best: `[S]` int64 which of the actions to play. value: `[S]` float64 the root's.
    """

    whole: Array
    parts: Array
    best: Array
    value: Array


def new_found(slots: int, actions: int) -> Found:
    return Found(
        np.zeros((slots, 2, actions), np.int32),
        np.zeros((slots, 3, actions), np.float32),
        np.zeros(slots, np.int64),
        np.zeros(slots, np.float64),
    )


def with_actions(found: Found, actions: int) -> Found:
    """The same with room for `actions` actions each."""
    room = [(0, 0), (0, 0), (0, actions - found.whole.shape[2])]
    return found._replace(whole=np.pad(found.whole, room), parts=np.pad(found.parts, room))


@njit(cache=True)
def retire(tree: Tree, c: Constants, status: Array, finished: Array, found: Found, scratch: Array) -> int:
    """Makes slots idle whose simulations are made; fills `finished` with them, and returns how many.

    What they found is written to `found`. scratch: float64, as wide as the widest root.
    """
    n = 0
    for s in range(len(status)):
        slot = tree.slot[s]
        if status[s] == RUNNING and slot.nodes > 0 and slot.done >= slot.target:
            status[s] = IDLE
            finished[n] = s
            n += 1
            whole, parts = found.whole[s], found.parts[s]
            found.best[s], found.value[s] = k.summarise(
                tree, c, s, whole[0], whole[1], parts[0], parts[1], parts[2], scratch
            )
    return n
