"""Self-play: a policy plays many games against itself, and every game becomes a sealed episode.

One `Generator` holds as many games as its search has slots. They do not wait for each other: whichever search ends,
its move is played and the next one begins. No ray here; `selfplay.actors.player` puts a generator into an actor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from selfplay.environments.game import Game
from selfplay.episode import Episode, GameRecord, PolicySpan, Provenance, ReplayDigest, Step, clock
from selfplay.episode.schema import EVENEST, UNIFORM
from selfplay.play.draws import GameDraws, PlaySettings
from selfplay.search import BatchedSearch, Evaluate, SearchConfig, SearchResult

if TYPE_CHECKING:
    import pyspiel

__all__ = ["EVENEST", "Generator", "PlaySettings", "Policy"]


@dataclass(frozen=True)
class Policy:
    """Who plays: `policy_id` names the series, `version` and `digest` (sha256 of the weights, hex) the member."""

    policy_id: str
    version: int
    digest: str


@dataclass
class _Table:
    """One game being played. `low` counts each seat's latest moves in a row below the resignation threshold.

    began: seconds since 1970; clock: seconds of a clock that nobody sets, at the same moment.
    """

    seed: int
    draws: GameDraws
    state: pyspiel.State
    began: float
    clock: float
    digest: ReplayDigest = field(default_factory=ReplayDigest)
    steps: list[Step] = field(default_factory=list)
    opened_by: Policy = Policy(UNIFORM, 0, "")
    spans: list[tuple[int, Policy]] = field(default_factory=list)
    low: list[int] = field(default_factory=lambda: [0, 0])
    would_resign: int | None = None
    full: bool = True


class Generator:
    """Plays `settings.slots` games of `game` at once with one policy.

    provenance, slot, epoch, first_number: the identity of the episodes it seals (design: run / slot / epoch / number).
    seeds: gives the seed of each new game; with equal weights, seeds and settings the games are equal.
    """

    def __init__(
        self,
        game: Game,
        evaluate: Evaluate,
        search: SearchConfig,
        settings: PlaySettings,
        provenance: Provenance,
        slot: str,
        epoch: int,
        first_number: int,
        seeds: np.random.Generator,
    ) -> None:
        self.game = game
        self.settings = settings
        self.policy = Policy("none", 0, "")
        self._provenance = provenance
        self._slot, self._epoch, self._number = slot, epoch, first_number
        self._seeds = seeds
        self._evaluate = evaluate
        self._gumbel = search.algorithm == "gumbel"
        most = max(settings.simulations, settings.cheap_simulations, 1)
        self.search = BatchedSearch(game, evaluate, search, settings.slots, most, settings.cache_entries)
        self._tables: list[_Table] = []
        self._rests: list[int] = []  # slots that wait for a search to begin

    def set_policy(self, policy: Policy) -> None:
        """The weights behind `evaluate` are now those of `policy`; games under way go on with them.

        A search under way begins anew, so that the version that a move is booked to made all of it; `settle` before the
        weights change, and none is.
        """
        if policy != self.policy:
            self.policy = policy
            self.search.new_weights(policy.digest)

    @property
    def in_flight(self) -> tuple[int, int]:
        """(games, moves) not yet sealed: what is lost if this process dies now."""
        return len(self._tables), sum(len(table.steps) for table in self._tables)

    def play(self, until: Callable[[int, int], bool]) -> list[Episode]:
        """Plays on and returns the episodes that ended.

        until: asked after every tick with the counts (episodes sealed, decisions made) since the call; True ends it.
        """
        if not self._tables:
            for slot in range(self.settings.slots):
                self._tables.append(self._new_table())
                self._begin(slot)
        resting, self._rests = self._rests, []
        for slot in resting:
            self._begin(slot)
        sealed: list[Episode] = []
        decisions = 0
        while not until(len(sealed), decisions):
            for slot in self.search.tick():
                decisions += 1
                sealed += self._go_on(slot)
                self._begin(slot)
        return sealed

    def settle(self, stop: Callable[[], bool] = lambda: False) -> tuple[list[Episode], int]:
        """Ends the searches under way, and begins none: the weights behind `evaluate` are about to change.

        stop: asked after every tick; True leaves the rest of them under way. Returns the episodes that ended, and how
        many decisions were made. The next `play` goes on.
        """
        sealed: list[Episode] = []
        before = len(self._rests)
        while len(self._rests) < len(self._tables) and not stop():
            for slot in self.search.tick():
                sealed += self._go_on(slot)
                self._rests.append(slot)
        return sealed, len(self._rests) - before

    def abort(self) -> list[Episode]:
        """Seals every game under way as `aborted` (archived, not trainable) and forgets them."""
        now, self._tables, self._rests = self._tables, [], []
        return [self._seal(table, "aborted", "aborted") for table in now if table.steps]

    def _go_on(self, slot: int) -> list[Episode]:
        """Plays the move of a finished search; where the game ends with it, another takes its place."""
        episode = self._move(slot)
        if episode is None:
            return []
        self._tables[slot] = self._new_table()
        return [episode]

    def _new_table(self) -> _Table:
        seed = int(self._seeds.integers(2**63))
        draws = GameDraws(self.game, self.settings, self._gumbel, seed)
        table = _Table(seed, draws, self.game.new_initial_state(), clock.now(), time.perf_counter())
        if draws.openings:
            for action in self._evenest(draws):
                seat = table.state.current_player()
                table.digest.decision(seat, table.state.legal_actions(), action)
                table.steps.append(Step(seat, action, "opening"))
                table.state.apply_action(action)
            if len(draws.openings) > 1:  # random moves, and a net that chose among them
                table.opened_by = replace(self.policy, policy_id=EVENEST)
        return table

    def _evenest(self, draws: GameDraws) -> tuple[int, ...]:
        """Of the lines that were drawn, the one that the net calls most even.

        Even positions teach most: there a move decides the game. (KataGo, arXiv:1902.10565, evens its random starts
        by the komi.)
        """
        lines = draws.openings
        if len(lines) == 1:
            return lines[0].actions
        began = time.perf_counter()
        _, values = self._evaluate(np.stack([self.game.encoder.encode(line.state) for line in lines]))
        stats = self.search.stats
        stats.net_s += time.perf_counter() - began
        stats.evaluations += len(lines)
        stats.batches += 1
        return lines[int(np.abs(values).argmin())].actions

    def _begin(self, slot: int) -> None:
        table, s = self._tables[slot], self.settings
        table.full, noise = table.draws.search(len(table.state.legal_actions()))
        self.search.start(slot, table.state, s.simulations if table.full else s.cheap_simulations, noise)

    def _move(self, slot: int) -> Episode | None:
        """Plays the move of a finished search; returns the episode if the game ended with it."""
        table, result = self._tables[slot], self.search.result(slot)
        seat = table.state.current_player()
        if not table.spans or table.spans[-1][1] is not self.policy:
            table.spans.append((len(table.steps), self.policy))
        action = table.draws.move(len(table.steps), result.actions, result.visits, result.action)
        table.digest.decision(seat, result.actions, action)
        table.steps.append(_step(seat, action, result, table.full, self.game.value_scale))
        # The tree still holds the old state: play on a copy.
        state = table.state.clone()
        state.apply_action(action)
        table.state = state
        if state.is_terminal():
            return self._seal(table, "ok", "terminal")
        if self._resigns(table, seat, result):
            return self._seal(table, "ok", "resignation", resigned=seat)
        if len(table.steps) >= self.settings.ply_limit:
            return self._seal(table, "truncated", "ply_limit")
        return None

    def _resigns(self, table: _Table, seat: int, result: SearchResult) -> bool:
        s = self.settings
        if s.resign_threshold is None:
            return False
        table.low[seat] = table.low[seat] + 1 if _hope(result) < -s.resign_threshold else 0
        if table.low[seat] < s.resign_moves:
            return False
        if table.draws.plays_on and table.would_resign is None:
            table.would_resign = seat
        return not table.draws.plays_on

    def _seal(self, table: _Table, status: str, ended_by: str, resigned: int | None = None) -> Episode:
        scale = self.game.value_scale
        returns: tuple[float, ...] | None = None
        if resigned is not None:
            returns = tuple(-scale if seat == resigned else scale for seat in range(2))
        elif ended_by == "terminal":
            returns = tuple(table.state.returns())
        episode = Episode(
            provenance=self._provenance,
            slot=self._slot,
            epoch=self._epoch,
            number=self._number,
            status=status,
            trainable=status in ("ok", "truncated"),
            seats=2,
            returns=returns,
            seed=table.seed,
            started_at=int(table.began * 1e6),
            wall_ms=int((time.perf_counter() - table.clock) * 1000),
            policy_spans=_spans(table),
            game=GameRecord(
                game_string=self.game.string,
                value_scale=scale,
                steps=tuple(table.steps),
                replay_digest=table.digest.end(table.state),
                ended_by=ended_by,
                resigned_seat=resigned,
                played_on_after_resignation=table.draws.plays_on,
                would_have_resigned_seat=table.would_resign,
            ),
        )
        self._number += 1
        return episode


def _hope(result: SearchResult) -> float:
    """The better of the root's value and the chosen move's (Silver et al. 2017, Methods, "Self-play").

    The root's value alone counts the visits that a search spends on losing moves.
    """
    return float(np.fmax(result.root_value, result.q[np.searchsorted(result.actions, result.action)]))


def _step(seat: int, action: int, result: SearchResult, full: bool, scale: float) -> Step:
    target, prior = result.policy_target, np.maximum(result.prior, 1e-9)
    surprise = float(np.add.reduce(target * np.log(np.maximum(target, 1e-9) / prior)))
    return Step(
        seat=seat,
        action=action,
        source="search",
        simulations=result.simulations,
        full_search=full,
        actions=result.actions,
        visits=result.visits,
        prior=result.prior,
        q=result.q * np.float32(scale) if scale != 1.0 else result.q,
        root_value=result.root_value * scale,
        raw_value=result.raw_value * scale,
        surprise=max(surprise, 0.0),
    )


def _spans(table: _Table) -> tuple[PolicySpan, ...]:
    """Who made which steps: the opening, then one span for each seat and version."""
    out = []
    opening = next((i for i, step in enumerate(table.steps) if step.source == "search"), len(table.steps))
    bounds = [start for start, _ in table.spans] + [len(table.steps)]
    pieces = [(0, opening, table.opened_by)] if opening else []
    pieces += [(bounds[i], bounds[i + 1], policy) for i, (_, policy) in enumerate(table.spans)]
    for first, end, policy in pieces:
        for seat in range(2):
            made = [i for i in range(first, end) if table.steps[i].seat == seat]
            if made:
                out.append(
                    PolicySpan(seat, made[0], made[-1], policy.policy_id, policy.version, policy.digest or None)
                )
    return tuple(out)
