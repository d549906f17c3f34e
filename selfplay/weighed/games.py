"""The decisions of archived games, as a net and a search are asked about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyspiel

from selfplay.environments import archived
from selfplay.environments.game import Game, load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Episode, PolicySpan, Step
from selfplay.errors import UserError
from selfplay.play.draws import GameDraws, PlaySettings
from selfplay.search import SearchConfig

Array = np.ndarray[Any, Any]

#: Rows of an older schema may be of games in which a search went on when new weights came: the first decision under
#: them may be of two nets, and of the older one alone at its root.
ONE_NET_SINCE = 2
#: Of a search that is made again: settings may be a stranger's.
_MOST_SIMULATIONS = 100_000


@dataclass(frozen=True)
class Decision:
    """One searched move. row: of its episode among those looked at together. ply: of the step.

    x: `[*input_shape]` float32, what the net was shown. first: whether no earlier move of the game is of this policy.
    state: before the move; noise, full: as the seed draws them, None where that is unknown.
    """

    row: int
    ply: int
    step: Step
    span: PolicySpan
    x: Array
    first: bool
    state: pyspiel.State
    full: bool | None
    noise: Array | None
    may_be_mixed: bool


@dataclass(frozen=True)
class Played:
    """How a run played: its settings, its search."""

    play: PlaySettings
    search: SearchConfig


class Games:
    """Games installed here, if their rules are those that were played."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Game | str] = {}

    def find(self, episode: Episode) -> Game | str:
        """The game of an episode, or in words why there is none."""
        assert episode.game is not None
        p = episode.provenance
        key = (p.env_id, p.ruleset_digest, episode.game.game_string)
        if key not in self._found:
            self._found[key] = _load(*key)
        return self._found[key]


def _load(env_id: str, rules: str, game_string: str) -> Game | str:
    try:
        spec = archived.find_game(env_id, game_string)
        game = load(spec)
        if game.string != game_string or ruleset_digest(spec) != rules:
            return f"the rules of {env_id} installed here are not those it was played under"
        assert game.encoder is not None
    except UserError as error:
        return str(error)
    return game


def played_by(settings: Mapping[str, Any] | None, game: Game) -> Played | None:
    """How a run of these settings plays this game; None where they do not say it in full."""
    try:
        play, search = (settings or {})["selfplay"], (settings or {})["search"]
        names = ("algorithm", "considered", "c_visit", "c_scale", "c_init", "c_base", "fpu_reduction")
        kept = SearchConfig(
            **{name: search[name] for name in names}, dirichlet_fraction=search["dirichlet_fraction"]
        )
        simulations = [int(search[name]) for name in ("simulations", "cheap_simulations")]
        if not all(0 <= n <= _MOST_SIMULATIONS for n in simulations) or not 0 < play["opening_choices"] <= 64:
            return None
        return Played(
            PlaySettings(
                slots=1,
                simulations=simulations[0],
                cheap_simulations=simulations[1],
                full_fraction=float(search["full_fraction"]),
                opening_fraction=float(play["opening_fraction"]),
                opening_plies=int(play["opening_plies"]),
                opening_choices=int(play["opening_choices"]),
                temperature=float(play["temperature"]),
                temperature_plies=int(play["temperature_plies"]),
                dirichlet_alpha=search["dirichlet_alpha"],
                resign_threshold=play["resign_threshold"],
                resign_playon=float(play["resign_playon"]),
                ply_limit=int(play["ply_limit"] or game.spec.ply_limit),
            ),
            kept,
        )
    except (KeyError, TypeError, ValueError, UserError):
        return None


@dataclass(frozen=True)
class Opened:
    """An opening that a net chose as the evenest of some that the seed drew.

    x: `[lines, *input_shape]` float32, what it was shown after each. played: indices of those that the game begins
    with.
    """

    row: int
    span: PolicySpan
    x: Array
    played: tuple[int, ...]


@dataclass(frozen=True)
class Walked:
    """A game gone through: its decisions with known weights, and what in it the seed contradicts (None: nothing).

    opened: its opening, if a net of known weights chose it. seeded: whether there was something that its seed decides,
    and settings to know it by.
    """

    decisions: tuple[Decision, ...]
    opened: Opened | None
    lie: str | None
    seeded: bool


def walk(game: Game, row: int, episode: Episode, played: Played | None, schema: int) -> Walked:
    """Raises `ValueError` where its moves are not of the game. schema: version of the row."""
    assert episode.game is not None
    draws = None
    if played is not None and episode.provenance.origin == "self_play":
        draws = GameDraws(game, played.play, played.search.algorithm == "gumbel", episode.seed)
    found: list[Decision] = []
    known: set[str | None] = set()
    state, lie, steps, chosen = game.new_initial_state(), None, episode.game.steps, None
    if draws is not None:
        opened = next((i for i, step in enumerate(steps) if step.source != "opening"), len(steps))
        line = tuple(step.action for step in steps[:opened])
        if line not in ({one.actions for one in draws.openings} or {()}):
            lie = f"its opening {list(line)} is none that its seed draws"
        elif len(draws.openings) > 1 and line:
            chosen = _opened(game, row, episode, draws, line)
    for ply, step in enumerate(steps):
        legal = state.legal_actions()
        if len(step.actions) and step.actions.tolist() != legal:
            raise ValueError(f"step {ply} weighs other moves than the legal ones")
        if step.seat != state.current_player() or step.action not in legal:
            raise ValueError(f"step {ply} is no move of its game")
        if step.source == "search" and len(step.actions):
            full, noise = (None, None) if draws is None or lie else draws.search(len(legal))
            if draws is not None and played is not None and lie is None:
                lie = _seed_lies(ply, step, full, draws, played)
            span = next(
                (s for s in episode.policy_spans if s.seat == step.seat and s.first_step <= ply <= s.last_step), None
            )
            if span is not None and span.digest:
                first = span.digest not in known
                known.add(span.digest)
                x = game.encoder.encode(state)
                mixed = first and schema < ONE_NET_SINCE
                full = None if lie else full
                found.append(Decision(row, ply, step, span, x, first, state.clone(), full, noise, mixed))
        state.apply_action(step.action)
    return Walked(tuple(found), chosen, lie, draws is not None)


def _opened(game: Game, row: int, episode: Episode, draws: GameDraws, line: tuple[int, ...]) -> Opened | None:
    span = next((one for one in episode.policy_spans if one.first_step < len(line) and one.digest), None)
    if span is None:
        return None
    x = np.stack([game.encoder.encode(one.state) for one in draws.openings])
    return Opened(row, span, x, tuple(i for i, one in enumerate(draws.openings) if one.actions == line))


def _seed_lies(ply: int, step: Step, full: bool | None, draws: GameDraws, played: Played) -> str | None:
    """What in a step contradicts the seed of its game; draws on."""
    simulations = played.play.simulations if full else played.play.cheap_simulations
    if (full, simulations) != (step.full_search, step.simulations):
        kind, drawn = ("full" if f else "cheap" for f in (step.full_search, full))
        return (
            f"step {ply} is a {kind} search of {step.simulations} simulations, and its seed draws a {drawn} one of "
            f"{simulations}"
        )
    if played.search.algorithm == "puct":
        best = int(step.actions[int(step.visits.argmax())]) if step.visits.any() else step.action
        drawn_action = draws.move(ply, step.actions, step.visits, best)
        if drawn_action != step.action:
            return f"step {ply} plays {step.action}, and its seed draws {drawn_action} from its visits"
    return None
