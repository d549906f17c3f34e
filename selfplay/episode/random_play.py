"""Random-policy episodes of any OpenSpiel game: chance, simultaneous moves, n players, hidden information."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from selfplay.episode import clock
from selfplay.episode.record import Episode, GameRecord, PolicySpan, Provenance, Step
from selfplay.episode.replay import ReplayDigest
from selfplay.episode.schema import CHANCE_SEAT, SIMULTANEOUS, UNIFORM
from selfplay.errors import UserError

if TYPE_CHECKING:
    import pyspiel

#: The largest int64: utilities of some games have no bound, and their record then counts values in units of 1.
_UNBOUNDED = float(2**63)


def refuse_unrecordable(game: pyspiel.Game) -> None:
    """Raises `UserError` for games whose episodes cannot be replayed from actions and chance outcomes."""
    import pyspiel

    kind = game.get_type()
    if kind.dynamics == pyspiel.GameType.Dynamics.MEAN_FIELD:
        raise UserError(f"{kind.short_name} is a mean-field game: it has no episodes of single players; choose another")
    if kind.chance_mode == pyspiel.GameType.ChanceMode.SAMPLED_STOCHASTIC:
        raise UserError(
            f"{kind.short_name} is sampled-stochastic: its chance outcomes are hidden inside the game and cannot be "
            "recorded; choose one with explicit chance"
        )


def value_scale(game: pyspiel.Game) -> float:
    """The largest absolute utility, or 1 where the game states no finite one."""
    largest = max(abs(game.min_utility()), abs(game.max_utility()))
    return float(largest) if 0 < largest < _UNBOUNDED else 1.0


def random_episode(
    game: pyspiel.Game,
    seed: int,
    provenance: Provenance,
    slot: str = "random",
    epoch: int = 0,
    number: int = 0,
    ply_limit: int = 2000,
) -> Episode:
    """One sealed episode of uniformly random play. ply_limit: steps after which it ends as `truncated`."""
    refuse_unrecordable(game)
    rng = np.random.default_rng(seed)
    started_at, began = int(clock.now() * 1e6), time.perf_counter()
    digest, state = ReplayDigest(), game.new_initial_state()
    steps: list[Step] = []
    while not state.is_terminal() and len(steps) < ply_limit:
        step = _random_step(state, rng)
        digest.step(state, step.action, step.joint)
        if step.joint is not None:
            state.apply_actions(list(step.joint))
        else:
            state.apply_action(step.action)
        steps.append(step)
    terminal = state.is_terminal()
    return Episode(
        provenance=provenance,
        slot=slot,
        epoch=epoch,
        number=number,
        status="ok" if terminal else "truncated",
        trainable=False,
        seats=game.num_players(),
        returns=tuple(state.returns()) if terminal else None,
        seed=seed,
        started_at=started_at,
        wall_ms=int((time.perf_counter() - began) * 1000),
        policy_spans=tuple(
            PolicySpan(seat, 0, len(steps) - 1, UNIFORM, 0, None) for seat in range(game.num_players()) if steps
        ),
        game=GameRecord(
            game_string=str(game),
            value_scale=value_scale(game),
            steps=tuple(steps),
            replay_digest=digest.end(state),
            ended_by="terminal" if terminal else "ply_limit",
        ),
    )


def _random_step(state: pyspiel.State, rng: np.random.Generator) -> Step:
    if state.is_chance_node():
        outcomes, odds = zip(*state.chance_outcomes(), strict=True)
        weights = np.asarray(odds, np.float64)
        return Step(CHANCE_SEAT, int(rng.choice(outcomes, p=weights / weights.sum())), "chance")
    if state.is_simultaneous_node():
        joint = []
        for seat in range(state.num_players()):
            legal = state.legal_actions(seat)
            joint.append(int(rng.choice(legal)) if legal else 0)
        return Step(SIMULTANEOUS, -1, "random", joint=tuple(joint))
    return Step(state.current_player(), int(rng.choice(state.legal_actions())), "random")
