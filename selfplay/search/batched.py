"""Many tree searches side by side, one net batch a tick.

Every slot searches one game. A tick lets each slot walk to a leaf (compiled), steps the leaf's `pyspiel` state (or, in
games whose rules are compiled, a few bits), answers it from the cache or puts it into the batch, evaluates the batch
and backs everything up. Slots that the cache or the rules answer walk again within the tick, so that the net sees full
batches. Slots do not wait for each other's moves: one that finishes is handed out at once and can be started anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from selfplay.environments.game import Game, RawObservation
from selfplay.search import cache as table
from selfplay.search import lockstep, rules
from selfplay.search import tree as trees
from selfplay.search.config import GUMBEL, PUCT, SearchConfig
from selfplay.search.schedule import considered_visits

if TYPE_CHECKING:
    import pyspiel

Array = np.ndarray[Any, Any]

#: The one door to a net: inputs `[B, *shape]` float32 -> (logits `[B, A]`, values `[B]` in [-1, 1] of the seat to act).
Evaluate = Callable[[Array], tuple[Array, Array]]

_ROUNDS = 6
#: A step that costs more than this is not taken twice.
_CHEAP_STEP_S = 1e-6


@dataclass(frozen=True)
class SearchResult:
    """What a search found at its root with `K` legal actions; values in [-1, 1], point of view of the seat to act.

    actions: `[K]` int32 ascending. visits: `[K]` int32. prior: `[K]` float32, without noise. q: `[K]` float32, NaN
    where unvisited. policy_target: `[K]` float32, sums to one. action: the action the search would play.
    root_value: mean of the net's value and all values backed up. raw_value: the net's value of the root alone.
    """

    actions: Array
    visits: Array
    prior: Array
    q: Array
    policy_target: Array
    action: int
    root_value: float
    raw_value: float
    simulations: int


@dataclass
class SearchStats:
    """Counts and seconds since the search was made. `lookups` are leaves that needed a value, `hits` those cached.

    wasted: of the simulations, those of searches that were begun anew because weights changed under them.
    """

    simulations: int = 0
    wasted: int = 0
    evaluations: int = 0
    batches: int = 0
    net_s: float = 0.0
    _counters: Array = field(default_factory=lambda: np.zeros(2, np.int64))

    @property
    def lookups(self) -> int:
        return int(self._counters[0])

    @property
    def hits(self) -> int:
        return int(self._counters[1])


class BatchedSearch:
    """Searches in `slots` games of one kind.

    game: two players, zero-sum, perfect information, deterministic, sequential (see `game.unsearchable`).
    evaluate: the net. max_simulations: the most that `start` will be asked for.
    cache_entries: positions kept in the evaluation cache, 0 for none.
    """

    def __init__(
        self,
        game: Game,
        evaluate: Evaluate,
        config: SearchConfig,
        slots: int,
        max_simulations: int = 64,
        cache_entries: int = 0,
    ) -> None:
        self.game = game
        self.config = config
        self.evaluate = evaluate
        self.slots = slots
        self.stats = SearchStats()
        self._c = config.constants()
        self.max_simulations = max_simulations
        actions = game.num_actions
        self._rules = rules.rules_of(game)
        # Compiled rules have room for all that can be; else more is made where it is needed, see `_make_room`.
        widest = min(actions, rules.MOST_LEGAL if self._rules else 48)
        self._tree = trees.new_tree(slots, max_simulations, (max_simulations + 1) * widest)
        self._most_edges = 0  # of any slot, or more
        self._row = min(actions, 64)
        self._cache = table.new_cache(cache_entries, cache_entries * self._row)
        self._salt = np.zeros(2, np.uint64)
        self._status = np.full(slots, lockstep.IDLE, np.int64)
        self._observe = [RawObservation(game.game) for _ in range(slots)]
        self._address = np.array([o.tensor.ctypes.data for o in self._observe], np.uint64)
        self._set_from = [o.set_from for o in self._observe]
        self._states: list[list[pyspiel.State]] = [[] for _ in range(slots)]
        self._batch = lockstep.new_batch(slots, game.encoder.size)
        self._leaf = [np.zeros(slots, np.int32) for _ in range(3)]
        self._finished = np.zeros(slots, np.int64)
        self._found = lockstep.new_found(slots, 1)
        self._scratch = np.zeros(256, np.float64)
        self._value_scale = game.value_scale
        nodes = max_simulations + 1 if self._rules else 0
        self._boards = np.zeros((slots, nodes, rules.WORDS), np.uint64)
        self._retraces = not self._rules and _steps_are_cheap(game)
        self._moves = np.zeros(slots * (max_simulations + 1), np.int32)
        self._ends = np.zeros(slots, np.int64)

    def new_weights(self, digest: str) -> None:
        """Tells that `evaluate` now answers by other weights; what was cached is forgotten.

        Searches under way begin anew with the noise that they were given: every search is of one net from its root to
        its last leaf, and can be repeated with that net alone.
        """
        self._salt[:] = np.frombuffer(bytes.fromhex(digest[:32].ljust(32, "0")), np.uint64)
        table.clear(self._cache)
        under_way = np.flatnonzero(self._status == lockstep.RUNNING)
        self.stats.wasted += int(self._tree.slot["done"][under_way].sum())
        for name in ("nodes", "edges", "done"):
            self._tree.slot[name][under_way] = 0
        for slot in under_way.tolist():
            del self._states[slot][1:]

    def start(self, slot: int, state: pyspiel.State, simulations: int, noise: Array | None = None) -> None:
        """Begins a search from `state`, which must not change until the search ends.

        noise: `[K]` floats over the legal actions: Gumbel(0, 1) or Dirichlet by the algorithm; None: no noise.
        """
        if simulations > self.max_simulations:
            raise ValueError(f"at most {self.max_simulations} simulations were announced, got {simulations}")
        if state.is_terminal():
            raise ValueError("a finished game cannot be searched")
        tree = self._tree
        count = len(state.legal_actions())
        if count > tree.noise.shape[1]:
            tree = self._tree = trees.with_root_edges(tree, count)
            self._found = lockstep.with_actions(self._found, count)
        tree.noise[slot, :count] = 0.0 if noise is None else noise
        tree.slot[slot] = (0, 0, 0, simulations, noise is not None and self._c.algorithm == PUCT)
        if self._c.algorithm == GUMBEL and simulations > 0:
            considered = min(self.config.considered, count, simulations)
            tree.schedule[slot, :simulations] = considered_visits(considered, simulations)
        self._states[slot] = [state]
        if self._rules:
            seat = state.current_player()
            self._set_from[slot](state, seat)
            rules.read(self._rules, self._observe[slot].tensor, seat, self._boards[slot, 0])
        self._status[slot] = lockstep.RUNNING

    def tick(self) -> list[int]:
        """One net batch for all running slots; returns the slots whose searches ended with it."""
        done = self._tree.slot["done"]
        before = int(done.sum())
        if self._rules:
            self._advance()
        else:
            for _ in range(_ROUNDS):
                if not self._round():
                    break
        if self._batch.rows[0]:
            self._ask_net()
        self.stats.simulations += int(done.sum()) - before
        n = lockstep.retire(self._tree, self._c, self._status, self._finished, self._found, self._scratch)
        return self._finished[:n].tolist()

    def _advance(self) -> None:
        """All rounds of a tick, by compiled rules."""
        encoder = self.game.encoder
        lockstep.advance(
            self._tree,
            self._c,
            self._status,
            self._rules,
            self._boards,
            encoder.gather,
            encoder.seat_plane,
            self._cache,
            self._salt,
            self._batch,
            self.stats._counters,
            self._scratch,
            _ROUNDS,
        )

    def _round(self) -> bool:
        """Lets every running slot make one step by OpenSpiel's rules; False where none runs."""
        slot, node, edge = self._leaf
        encoder = self.game.encoder
        n = lockstep.choose_leaves(
            self._tree,
            self._c,
            self._status,
            slot,
            node,
            edge,
            self._moves,
            self._ends,
            self._retraces,
            self._scratch,
        )
        if n == 0:
            return False
        leaves = self._step(slot[:n], node[:n], edge[:n])
        lockstep.take_in(
            self._tree,
            self._c,
            self._status,
            leaves,
            self._address,
            encoder.gather,
            encoder.seat_plane,
            self._cache,
            self._salt,
            self._batch,
            self.stats._counters,
        )
        return True

    def _ask_net(self) -> None:
        """Evaluates the batch, and gives each waiting slot its answer."""
        rows = int(self._batch.rows[0])
        inputs = self._batch.inputs[:rows].reshape(rows, *self.game.encoder.shape)
        began = time.perf_counter()
        logits, values = self.evaluate(inputs)
        self.stats.net_s += time.perf_counter() - began
        self.stats.evaluations += rows
        self.stats.batches += 1
        lockstep.take_evaluation(self._tree, self._c, self._status, self._cache, self._batch, logits, values)
        if len(self._cache.row) > 1 and not table.has_room(self._cache, self.slots, self._row * self.slots):
            table.clear(self._cache)

    def _step(self, slot: Array, node: Array, edge: Array) -> lockstep.Leaves:
        """Makes the states below the chosen edges (of an empty tree the root's), and reads what the trees need to know.

        Where a step costs about as little as a copy, a leaf is reached from its root again each time: fewer states
        lie about, so that those few stay in the processor's cache. Elsewhere every node keeps its state.
        """
        set_from, paths, retraces = self._set_from, self._states, self._retraces
        seats: list[int] = []
        legal: list[int] = []
        actions: list[int] = []
        values = [0.0] * len(slot)
        add_seat, add_legal = seats.append, legal.append
        first, ends = 0, self._ends[: len(slot)].tolist()
        moves = self._moves[: ends[-1]].tolist()
        for i, (s, parent, end) in enumerate(zip(slot.tolist(), node.tolist(), ends, strict=True)):
            path = paths[s]
            state = path[0]
            if parent >= 0:
                if retraces:
                    state = state.clone()
                    for action in moves[first:end]:
                        state.apply_action(action)
                else:
                    state = path[parent].child(moves[first])
                    path.append(state)
                first = end
            seat = state.current_player()
            if seat >= 0:
                set_from[s](state, seat)
                choices = state.legal_actions()
                actions += choices
                add_seat(seat)
                add_legal(len(choices))
            else:
                mover = int(self._tree.node[s, parent]["player"])
                values[i] = state.returns()[mover] / self._value_scale
                add_seat(mover)
                add_legal(-1)
        self._make_room(max(0, max(legal)))
        return lockstep.Leaves(
            slot,
            node,
            edge,
            np.array(seats, np.int8),
            np.array(legal, np.int32),
            np.array(values, np.float64),
            np.array(actions, np.int32),
        )

    def _make_room(self, widest: int) -> None:
        """Room for leaves of at most `widest` actions in every slot. How full the fullest is, is seldom looked up."""
        if widest > len(self._scratch):
            self._scratch = np.zeros(2 * widest, np.float64)
        self._most_edges += widest
        if self._most_edges > self._tree.edge.shape[1]:
            self._most_edges = int(self._tree.slot["edges"].max()) + widest
            if self._most_edges > self._tree.edge.shape[1]:
                self._tree = trees.with_edges(self._tree, 2 * self._most_edges)

    def result(self, slot: int) -> SearchResult:
        """The finished search of a slot."""
        root, found = self._tree.node[slot, 0], self._found
        count = int(root["count"])
        (actions, visits), (prior, q, policy) = found.whole[slot, :, :count].copy(), found.parts[slot, :, :count].copy()
        return SearchResult(
            actions=actions,
            visits=visits,
            prior=prior,
            q=q,
            policy_target=policy,
            action=int(actions[found.best[slot]]),
            root_value=float(found.value[slot]),
            raw_value=float(root["value"]),
            simulations=int(root["visits"]),
        )

    def tree(self, slot: int) -> dict[str, dict[str, Any]]:
        """The slot's tree for a person or a test: the moves from the root ("3 4") -> what its node holds."""
        t, out = self._tree, {}
        paths = {0: ""}
        for index in range(int(t.slot[slot]["nodes"])):
            node = t.node[slot, index]
            edges = t.edge[slot, node["first"] : node["first"] + node["count"]]
            for edge in edges:
                if edge["child"] >= 0:
                    paths[int(edge["child"])] = f"{paths[index]} {edge['action']}".strip()
            visits = edges["visits"]
            out[paths[index]] = {
                "player": int(node["player"]),
                "terminal": bool(node["terminal"]),
                "value": float(node["value"]),
                "actions": edges["action"].tolist(),
                "visits": visits.tolist(),
                "q": [float(w / n) if n else None for w, n in zip(edges["total"], visits, strict=True)],
                "prior": edges["prior"].tolist(),
            }
        return out


def _steps_are_cheap(game: Game, trials: int = 200) -> bool:
    """Whether `apply_action` costs less than twice a `clone`, measured at the start of the game."""
    state = game.new_initial_state()
    action = state.legal_actions()[0]
    clones = steps = math.inf
    for _ in range(trials):
        began = time.perf_counter()
        copy = state.clone()
        cloned = time.perf_counter()
        copy.apply_action(action)
        clones, steps = min(clones, cloned - began), min(steps, time.perf_counter() - cloned)
    return steps < 2 * clones and steps < _CHEAP_STEP_S


__all__ = ["BatchedSearch", "Evaluate", "SearchResult", "SearchStats"]
