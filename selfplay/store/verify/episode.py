"""When an episode is true: its row is as it was sealed, and its game is what the rules make of it.

A game is first held against itself and against the settings of its run, whatever is installed here: its searches add up
(`selfplay.store.verify.searched`), its spans say of every decision who made it (`selfplay.store.verify.spans`), and its
row agrees with both (`selfplay.store.verify.played`). Then it is replayed, if the rules installed here are those that
it was played under: its steps are legal, its searches weighed just the legal actions, the rules say along the way what
the replay digest holds, and give the recorded returns in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.episode import Episode, GameRecord, ReplayDigest, content_digests, from_batch, to_batch
from selfplay.episode.random_play import value_scale
from selfplay.episode.replay import ReplayError, advance
from selfplay.episode.schema import EPISODES, SCHEMA_VERSION
from selfplay.errors import UserError
from selfplay.store.coverage import (
    CHAIN,
    CONFIG,
    FALSE,
    NEWER_SCHEMA,
    NO_PLUGIN,
    NO_VERIFIER,
    OTHER_RULES,
    REFUSED,
    SURPRISE,
    TRUE,
    Check,
    unknown,
)
from selfplay.store.table.rows import episodes_of
from selfplay.store.table.table import first_line
from selfplay.store.verify.consistency import judgement_lies, payload_lies
from selfplay.store.verify.dialogues import Neighbourhood, dialogue_lies
from selfplay.store.verify.judged import judged
from selfplay.store.verify.played import Story, row_lies, stories
from selfplay.store.verify.plies import Plies, integers, plies_of
from selfplay.store.verify.prompts import Asked, Renders
from selfplay.store.verify.resigned import resignation_lies
from selfplay.store.verify.searched import SearchSettings, search_lies, search_settings
from selfplay.store.verify.spans import span_lies
from selfplay.store.verify.spelling import is_digest

if TYPE_CHECKING:
    import pyspiel

    from selfplay.environments.task import Task

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Missing:
    """Why something cannot be judged here: the class, a key of `coverage.WHY`, and the reason in words."""

    why: str
    reason: str


class Rules:
    """Rules and verifiers installed here, loaded once each and compared with those that an episode was played under."""

    def __init__(
        self,
        environments: list[dict[str, Any]],
        runs: Iterable[Mapping[str, Any]] = (),
        tokenizers: Mapping[str, str] = MappingProxyType({}),
        renders: Renders | None = None,
    ) -> None:
        """environments, runs: rows of these tables of the corpus; they say what to install, and what runs were told.

        tokenizers: the files of each, by its digest, as that table has them. renders: compares prompts that a chat
        template frames; None: they are not covered.
        """
        runs = list(runs)
        self.around = Neighbourhood(runs, tokenizers, renders)
        self.settings = search_settings(runs)
        self._rows = {(row["env_id"], row["ruleset_digest"]): row for row in environments}
        self._games: dict[tuple[str, str, str], pyspiel.Game | Missing] = {}
        self._tasks: dict[tuple[str, str], Task | Missing] = {}

    def find(self, episode: Episode) -> pyspiel.Game | Missing:
        """The game, or in words why it cannot be replayed here."""
        assert episode.game is not None
        key = (episode.provenance.env_id, episode.provenance.ruleset_digest, episode.game.game_string)
        if key not in self._games:
            self._games[key] = self._load(*key)
        return self._games[key]

    def task(self, episode: Episode) -> Task | Missing:
        """The task that a dialogue was held about, or why it cannot be judged here."""
        key = (episode.provenance.env_id, episode.provenance.ruleset_digest)
        if key not in self._tasks:
            self._tasks[key] = self._load_task(*key)
        return self._tasks[key]

    def _load_task(self, env_id: str, ruleset: str) -> Task | Missing:
        from selfplay.environments import archived
        from selfplay.environments.task import Task, ruleset_digest

        try:
            spec = archived.find_task(env_id)
        except archived.NotInstalled as error:
            return Missing(NO_PLUGIN, f"{error}; {self._hint(env_id, ruleset)}")
        except UserError as error:
            return Missing(REFUSED, str(error))  # which package it needs, or why it is not looked up
        task = Task(spec)
        if ruleset_digest(task) != ruleset:
            task.close()
            hint = self._hint(env_id, ruleset)
            return Missing(OTHER_RULES, f"{env_id} installed here is not the one that it was judged by; {hint}")
        return task

    def _load(self, env_id: str, ruleset_digest: str, game_string: str) -> pyspiel.Game | Missing:
        from selfplay.environments import archived
        from selfplay.environments.game import load
        from selfplay.environments.playthrough import ruleset_digest as digest_of

        try:
            spec = archived.find_game(env_id, game_string)
            game = load(spec).game
            if digest_of(spec) != ruleset_digest:
                hint = self._hint(env_id, ruleset_digest)
                reason = f"the rules of {env_id} installed here are not those it was played under; {hint}"
                return Missing(OTHER_RULES, reason)
        except archived.NotInstalled as error:
            return Missing(NO_PLUGIN, f"{error}; {self._hint(env_id, ruleset_digest)}")
        except UserError as error:
            return Missing(REFUSED, str(error))
        return game

    def _hint(self, env_id: str, ruleset_digest: str) -> str:
        row = self._rows.get((env_id, ruleset_digest), {})
        if row.get("source"):
            return "its source is in the environments table of the corpus: read it before you run it"
        if env_id.startswith("jsonl/"):
            name = env_id.removeprefix("jsonl/").rpartition("_")[0]
            if env_id.endswith("-v0"):
                return f"answers of v0 were compared by rules that are gone: {name}.jsonl is another environment now"
            return f"give the file of questions, {name}.jsonl or what it is called now, by --env"
        package, version = row.get("package"), row.get("package_version")
        return f"install {package} {version}" if package else f"install the package that brings {env_id}"


def verify_batch(batch: pa.RecordBatch, rules: Rules) -> list[Check]:
    """One answer a row. batch: all columns of the schema."""
    names = batch.column("episode_id").to_pylist()
    versions = batch.column("schema_version").to_pylist()
    newer = [version > SCHEMA_VERSION for version in versions]
    columns = {name: batch.column(name) for name in EPISODES.names}
    digests = content_digests(columns)
    checks: list[Check] = []
    asked: dict[int, tuple[Asked, ...]] = {}
    derived = zip(names, columns["n_steps"].to_pylist(), columns["kind"].to_pylist(), strict=True)
    stored = columns["content_digest"].to_pylist()
    heads, found = episodes_of(batch, steps=False), _looked_at(columns, rules)
    for row, (name, n_steps, kind) in enumerate(derived):
        head, line = heads[row], found.lines[row]
        if newer[row]:
            checks.append(unknown(name, NEWER_SCHEMA, "it has a newer schema: update this package"))
        elif digests[row] != stored[row]:
            checks.append(Check(name, FALSE, "the row was changed after sealing: its content digest does not fit"))
        elif isinstance(head, str):
            checks.append(Check(name, FALSE, head))
        elif (head.episode_id, head.kind, len(line.actions) if head.game else head.n_steps) != (name, kind, n_steps):
            checks.append(Check(name, FALSE, "its id, kind or number of steps contradicts its other columns"))
        else:
            try:
                check, asked[len(checks)] = _checked(batch, row, head, found, rules)
                checks.append(check)
                if versions[row] == 1 and checks[-1].state == TRUE:
                    checks[-1] = replace(checks[-1], uncovered=(*checks[-1].uncovered, CHAIN))
            except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:  # SpielError, too
                checks.append(Check(name, FALSE, f"the row is not an episode: {first_line(error)}"))
    return rules.around.settled(checks, asked)


def _checked(
    batch: pa.RecordBatch, row: int, head: Episode, found: _Games, rules: Rules
) -> tuple[Check, tuple[Asked, ...]]:
    """A row that is as it was sealed, and its prompts that are yet to be compared. head: its episode, without the steps
    of a game.
    """
    if head.game is None:
        return _alone(from_batch(batch.slice(row, 1))[0], rules)
    lie = row_lies(head, head.game, found.stories[row], found.settings[row]) or found.lies.get(row)
    if lie is not None:
        return Check(head.episode_id, FALSE, lie), ()
    if _plainly_true(head, found.lines[row], rules):
        return Check(head.episode_id, TRUE, uncovered=found.uncovered(row)), ()
    return _replayed(from_batch(batch.slice(row, 1))[0], rules, found.uncovered(row)), ()


@dataclass(frozen=True, slots=True)
class _Line:
    """The steps of a game as plain lists. candidates: of step i, `weighed[ends[i] : ends[i + 1]]`.

    estimates: whether a step has values of all seats.
    """

    seats: list[int]
    actions: list[int]
    weighed: list[int]
    ends: list[int]
    estimates: bool


def _lines(plies: Plies) -> list[_Line]:
    """The steps of each row; empty where there is no game."""
    seats, actions, weighed = plies.seat.tolist(), plies.action.tolist(), plies.option.tolist()
    offsets, estimated = plies.first.tolist(), set(plies.row[plies.estimates >= 0].tolist())
    return [
        _Line(seats[a:b], actions[a:b], weighed[offsets[a] : offsets[b]], offsets[a : b + 1], row in estimated)
        for row, (a, b) in enumerate(pairwise(plies.ends.tolist()))
    ]


@dataclass(frozen=True)
class _Games:
    """What is asked of all rows of a batch at once; N each, but for lies: row -> what contradicts itself there."""

    lines: list[_Line]
    stories: list[Story]
    settings: list[SearchSettings | None]
    lies: dict[int, str]

    def uncovered(self, row: int) -> tuple[str, ...]:
        """What could not be looked at in a game, as the settings of its run are not here; keys of `UNCOVERED`."""
        settings = self.settings[row]
        if not self.stories[row].searches or (settings is not None and settings.simulations is not None):
            return ()
        return (SURPRISE, CONFIG) if settings is None else (CONFIG,)  # a redacted one of older versions has little


def _looked_at(columns: Mapping[str, pa.Array], rules: Rules) -> _Games:
    """columns: game, policy_spans, seats, seed, origin and config_digest."""
    plies = plies_of(columns["game"])
    seats = np.maximum(integers(columns["seats"]), 0)
    settings = [rules.settings.get(digest) for digest in columns["config_digest"].to_pylist()]
    games = np.asarray(columns["game"].is_valid())
    own = games & np.asarray(pc.fill_null(pc.equal(columns["origin"], "self_play"), False))
    lies = resignation_lies(columns["game"], plies, settings, integers(columns["seed"]), own)
    lies |= span_lies(columns["policy_spans"], plies, seats, games) | search_lies(plies, seats, settings)
    return _Games(_lines(plies), stories(plies), settings, lies)


def _plainly_true(head: Episode, line: _Line, rules: Rules) -> bool:
    """Whether a game of turns agrees with the rules in all that `_replayed` asks.

    False says only that it must be looked at closely: by `_replayed`, that is slower and names what is wrong.
    """
    record = head.game
    if record is None or line.estimates:
        return False
    game = rules.find(head)
    if isinstance(game, Missing) or record.game_string != str(game) or head.seats != game.num_players():
        return False
    state, digest, start = game.new_initial_state(), ReplayDigest(), line.ends[0]
    for ply, (seat, action) in enumerate(zip(line.seats, line.actions, strict=True)):
        if seat != state.current_player() or seat < 0:
            return False
        legal = state.legal_actions()
        a, b = line.ends[ply] - start, line.ends[ply + 1] - start
        if action not in legal or (a != b and line.weighed[a:b] != legal):
            return False
        digest.decision(seat, legal, action)
        state.apply_action(action)
    return digest.end(state) == record.replay_digest and _end_lies(game, state, head, record) is None


def verify_episode(episode: Episode, rules: Rules) -> Check:
    """The episode against itself, and against the rules, as far as they are here."""
    name = episode.episode_id
    if episode.game is None:
        check, asked = _alone(episode, rules)
        return rules.around.settled([check], {0: asked})[0]
    try:
        batch = to_batch([episode])
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        return Check(name, FALSE, f"it cannot be a row: {first_line(error)}")
    return verify_batch(batch, rules)[0]


def _alone(episode: Episode, rules: Rules) -> tuple[Check, tuple[Asked, ...]]:
    """What is no game, and its prompts that are yet to be compared."""
    name = episode.episode_id
    lie = _spans_lie(episode, episode.n_steps) or judgement_lies(episode) or payload_lies(episode)
    if lie is not None:
        return Check(name, FALSE, lie), ()
    if episode.reasoning is not None:
        return _dialogue_checked(episode, episode.reasoning, rules)
    return unknown(name, NO_VERIFIER, f"no verifier for kind {episode.kind} is installed"), ()


def _replayed(episode: Episode, rules: Rules, uncovered: tuple[str, ...]) -> Check:
    """A game that does not contradict itself, against the rules."""
    name = episode.episode_id
    assert episode.game is not None
    game = rules.find(episode)
    if isinstance(game, Missing):
        return unknown(name, game.why, game.reason)
    try:
        reason = _game_lies(game, episode, episode.game)
    except ReplayError as error:
        reason = str(error)
    return Check(name, TRUE, uncovered=uncovered) if reason is None else Check(name, FALSE, reason)


def _dialogue_checked(
    episode: Episode, record: Mapping[str, Any], rules: Rules
) -> tuple[Check, tuple[Asked, ...]]:
    """A dialogue against what its recorder writes, then against its task."""
    name, recorded = episode.episode_id, is_digest(record["tokenizer"])
    lie, uncovered, asked = dialogue_lies(episode, rules.around) if recorded else (None, (), ())
    if lie is not None:
        return Check(name, FALSE, lie), ()
    task = rules.task(episode)
    if isinstance(task, Missing):
        return unknown(name, task.why, task.reason), asked
    if not recorded:  # of a task of another program, which may record otherwise, nothing is known here
        reason = "it names no tokenizer by its digest, and dialogues of its task are recorded so"
        return Check(name, FALSE, reason), ()
    check = judged(task, episode, rules.around.settings(episode))
    return replace(check, uncovered=uncovered) if check.state == TRUE else check, asked


def _game_lies(game: pyspiel.Game, episode: Episode, record: GameRecord) -> str | None:
    """What in the record contradicts the rules; None if nothing does."""
    if record.game_string != str(game):
        return f"it names the game {record.game_string}, and {episode.provenance.env_id} is {game}"
    if episode.seats != game.num_players():
        return f"it has {episode.seats} seats, and the game {game.num_players()}"
    zero_sum = str(game.get_type().utility) == "Utility.ZERO_SUM"
    if zero_sum and episode.seats == 2 and any(step.seat_values is not None for step in record.steps):
        return "it has values of both seats, and in a zero-sum game one is the negative of the other"
    digest, state = ReplayDigest(), game.new_initial_state()
    for ply, step in enumerate(record.steps):
        if step.seat >= 0 and not state.is_terminal() and not state.is_simultaneous_node():
            legal = state.legal_actions()
            if step.seat != state.current_player() or step.action not in legal:
                advance(state, step, ply)  # raises, and says why
            if len(step.actions) and step.actions.tolist() != legal:
                return f"step {ply}: the candidates are not the legal actions"
            digest.decision(step.seat, legal, step.action)
            state.apply_action(step.action)
        else:
            if not state.is_terminal() and (step.joint is not None) == state.is_simultaneous_node():
                digest.step(state, step.action, step.joint)
            advance(state, step, ply)
    if digest.end(state) != record.replay_digest:
        return "replayed, the rules say otherwise than its replay digest"
    return _end_lies(game, state, episode, record)


def _end_lies(game: pyspiel.Game, state: pyspiel.State, episode: Episode, record: GameRecord) -> str | None:
    """What the end contradicts, or what is stored in the game's units. The row itself: `verify.played`."""
    scale = value_scale(game)
    if record.value_scale != scale:
        return f"its values are in units of {record.value_scale:g}, and the largest utility of the game is {scale:g}"
    if state.is_terminal() != (record.ended_by == "terminal"):
        return f"it ended by {record.ended_by}, and the game {'was' if state.is_terminal() else 'was not'} over"
    if episode.returns is None:
        return None
    if record.ended_by == "terminal":
        true = state.returns()
        if not all(abs(told - given) <= 1e-9 for told, given in zip(episode.returns, true, strict=True)):
            return f"its returns are {list(episode.returns)}, and the rules give {list(true)}"
    elif not all(game.min_utility() <= value <= game.max_utility() for value in episode.returns):
        return "a return lies outside the utilities of the game"
    return None


def _spans_lie(episode: Episode, n_steps: int) -> str | None:
    for span in episode.policy_spans:
        if not 0 <= span.first_step <= span.last_step < n_steps:
            return f"a policy span covers steps {span.first_step} to {span.last_step} of {n_steps}"
        if not 0 <= span.seat < episode.seats:
            return f"a policy span is of seat {span.seat}"
    return None
