"""When an episode is true: its row is as it was sealed, and its game is what the rules make of it.

Games are replayed with the rules installed here, if these are the ones that they were played under. A game is true if
its steps are legal, its searches weighed just the legal actions and add up, the rules say along the way what the replay
digest holds, and give the recorded returns in the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay.author import TIMEOUT
from selfplay.contract import Transcript, Turn
from selfplay.episode import Episode, GameRecord, ReplayDigest, Step, content_digests, from_batch
from selfplay.episode.replay import ReplayError, advance
from selfplay.episode.schema import CHANCE_ROLE, EPISODES, SCHEMA_VERSION, UNITS
from selfplay.errors import UserError
from selfplay.store.coverage import (
    CANNOT_TELL,
    CHAIN,
    FALSE,
    NEWER_SCHEMA,
    NO_PLUGIN,
    NO_VERIFIER,
    NOT_TOLD,
    OTHER_RULES,
    REFUSED,
    TIMED_OUT,
    TRUE,
    Check,
    unknown,
)
from selfplay.store.payloads import judgement_lies, payload_lies
from selfplay.store.rows import episodes_of
from selfplay.store.table import first_line

if TYPE_CHECKING:
    import pyspiel

    from selfplay.task import Task

Array = np.ndarray[Any, Any]
_STATUS_OF = {"terminal": ("ok",), "resignation": ("ok",), "ply_limit": ("truncated",), "aborted": ("aborted",)}


@dataclass(frozen=True)
class Missing:
    """Why something cannot be judged here: the class, a key of `coverage.WHY`, and the reason in words."""

    why: str
    reason: str


class Rules:
    """Rules and verifiers installed here, loaded once each and compared with those that an episode was played under."""

    def __init__(self, environments: list[dict[str, Any]]) -> None:
        """environments: rows of the corpus's environments table; they say what to install."""
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

    def judge(self, episode: Episode) -> Check:
        """A dialogue, judged again by the task's own verifier on the problem made again."""
        name, p, record = episode.episode_id, episode.provenance, episode.reasoning
        assert record is not None
        key = (p.env_id, p.ruleset_digest)
        if key not in self._tasks:
            self._tasks[key] = self._load_task(*key)
        task = self._tasks[key]
        if isinstance(task, Missing):
            return unknown(name, task.why, task.reason)
        try:
            posed = task.pose(record["problem_seed"], record["difficulty"])
        except UserError as error:
            return Check(name, FALSE, str(error))
        if posed.digest != record["problem_digest"]:
            return Check(name, FALSE, "the problem, made again, is another")
        turns = [turn for turn in record["turns"] if turn["role"] != CHANCE_ROLE]
        said = Transcript(tuple(Turn(turn["seat"], turn["role"], turn["text"] or "") for turn in turns))
        if said.turns[: len(posed.messages)] != posed.opening.turns:
            return Check(name, FALSE, "what was asked is not the problem")
        recorded = {verdict["seat"]: verdict for verdict in episode.verdicts or ()}
        for seat, verdict in enumerate(task.judge(posed.problem, said)):
            if verdict.state == "unverifiable":
                return unknown(name, CANNOT_TELL, f"the verifier of {p.env_id} cannot tell: {verdict.error}")
            told = recorded.get(seat)
            if told is None or told["state"] == "unverifiable":
                return unknown(name, NOT_TOLD, "nobody could tell when it was sealed")
            if any(one["criterion"] == TIMEOUT for one in told["criteria"]):
                return unknown(name, TIMED_OUT, "it was rejected because its verification took too long")
            if (told["state"], told["reward"]) != (verdict.state, verdict.reward):
                was, now = f"{told['state']}, {told['reward']:g}", f"{verdict.state}, {verdict.reward:g}"
                return Check(name, FALSE, f"seat {seat} was judged {was}, and its verifier says {now}")
        return Check(name, TRUE)

    def _load_task(self, env_id: str, ruleset: str) -> Task | Missing:
        from selfplay import archived
        from selfplay.task import Task, ruleset_digest

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
        from selfplay import archived
        from selfplay.game import load
        from selfplay.playthrough import ruleset_digest as digest_of

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
    checks = []
    derived = zip(names, columns["n_steps"].to_pylist(), columns["kind"].to_pylist(), strict=True)
    stored = columns["content_digest"].to_pylist()
    heads, lines = episodes_of(batch, steps=False), _lines(columns["game"])
    for row, (name, n_steps, kind) in enumerate(derived):
        head, line = heads[row], lines[row]
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
                if _plainly_true(head, line, rules):
                    checks.append(Check(name, TRUE))
                else:
                    checks.append(verify_episode(from_batch(batch.slice(row, 1))[0], rules))
                if versions[row] == 1 and checks[-1].state == TRUE:
                    checks[-1] = replace(checks[-1], uncovered=(*checks[-1].uncovered, CHAIN))
            except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:  # SpielError, too
                checks.append(Check(name, FALSE, f"the row is not an episode: {first_line(error)}"))
    return checks


@dataclass(frozen=True, slots=True)
class _Line:
    """The steps of a game as plain lists. candidates: of step i, `weighed[ends[i] : ends[i + 1]]`.

    sound: whether the arithmetic of every search adds up.
    """

    seats: list[int]
    actions: list[int]
    weighed: list[int]
    ends: list[int]
    sound: bool


def _lines(games: pa.StructArray) -> list[_Line]:
    """The steps of all games of a batch, and whether their searches add up; empty where there is no game."""
    steps = pc.struct_field(games, "steps")
    flat, ends = steps.flatten(), _ends(steps)
    nested = pc.struct_field(flat, "candidates")
    candidates, weighed_ends = nested.flatten(), _ends(nested)
    wrong = np.zeros(len(flat), bool)
    searched = np.flatnonzero(np.diff(weighed_ends))
    if len(searched):
        first, counts = weighed_ends[searched], np.diff(weighed_ends)[searched]
        visits = np.asarray(pc.fill_null(pc.struct_field(candidates, "visits"), -1)).astype(np.int64)
        prior = np.asarray(pc.fill_null(pc.struct_field(candidates, "prior"), 0)).astype(np.int64)
        valued = np.asarray(pc.struct_field(candidates, "q").is_valid())
        simulations = np.asarray(pc.fill_null(pc.struct_field(flat, "simulations"), 0))[searched]
        wrong[searched] = np.add.reduceat(visits, first) > simulations
        wrong[searched] |= np.logical_or.reduceat((visits < 0) | (valued != (visits > 0)), first)
        wrong[searched] |= np.abs(np.add.reduceat(prior, first) / UNITS - 1.0) > _mass_error(counts)
    before = np.concatenate([[0], np.cumsum(wrong)])
    seats, actions = (pc.fill_null(pc.struct_field(flat, name), -9).to_pylist() for name in ("seat", "action"))
    weighed, offsets = pc.fill_null(pc.struct_field(candidates, "action"), -9).to_pylist(), weighed_ends.tolist()
    return [
        _Line(seats[a:b], actions[a:b], weighed[offsets[a] : offsets[b]], offsets[a : b + 1], before[a] == before[b])
        for a, b in pairwise(ends.tolist())
    ]


def _ends(lists: pa.ListArray) -> Array:
    """`[n + 1]` int64 offsets into the elements of all lists, nulls being empty."""
    ends = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(np.asarray(pc.fill_null(pc.list_value_length(lists), 0)), out=ends[1:])
    return ends


def _mass_error(candidates: Any) -> Any:
    """How far the stored priors of so many candidates may be from one: each was rounded."""
    return 1e-3 + candidates / 65534


def _plainly_true(head: Episode, line: _Line, rules: Rules) -> bool:
    """Whether a game of turns agrees with the rules in all that `verify_episode` asks.

    False says only that it must be looked at closely: by `verify_episode`, that is slower and names what is wrong.
    """
    record = head.game
    if record is None or not line.sound:
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
    if digest.end(state) != record.replay_digest:
        return False
    return _spans_lie(head, len(line.actions)) is None and _end_lies(game, state, head, record) is None


def verify_episode(episode: Episode, rules: Rules) -> Check:
    """The episode against the rules, as far as they are here."""
    name = episode.episode_id
    if episode.game is None:
        lie = _spans_lie(episode, episode.n_steps) or judgement_lies(episode) or payload_lies(episode)
        if lie is not None:
            return Check(name, FALSE, lie)
        if episode.reasoning is not None:
            return rules.judge(episode)
        return unknown(name, NO_VERIFIER, f"no verifier for kind {episode.kind} is installed")
    game = rules.find(episode)
    if isinstance(game, Missing):
        return unknown(name, game.why, game.reason)
    try:
        reason = _spans_lie(episode, episode.n_steps) or _game_lies(game, episode, episode.game)
    except ReplayError as error:
        reason = str(error)
    return Check(name, TRUE) if reason is None else Check(name, FALSE, reason)


def _game_lies(game: pyspiel.Game, episode: Episode, record: GameRecord) -> str | None:
    """What in the record contradicts the rules; None if nothing does."""
    if record.game_string != str(game):
        return f"it names the game {record.game_string}, and {episode.provenance.env_id} is {game}"
    if episode.seats != game.num_players():
        return f"it has {episode.seats} seats, and the game {game.num_players()}"
    digest, state = ReplayDigest(), game.new_initial_state()
    for ply, step in enumerate(record.steps):
        if step.seat >= 0 and not state.is_terminal() and not state.is_simultaneous_node():
            legal = state.legal_actions()
            if step.seat != state.current_player() or step.action not in legal:
                advance(state, step, ply)  # raises, and says why
            reason = _search_lies(step, legal)
            if reason is not None:
                return f"step {ply}: {reason}"
            digest.decision(step.seat, legal, step.action)
            state.apply_action(step.action)
        else:
            if not state.is_terminal() and (step.joint is not None) == state.is_simultaneous_node():
                digest.step(state, step.action, step.joint)
            advance(state, step, ply)
    if digest.end(state) != record.replay_digest:
        return "replayed, the rules say otherwise than its replay digest"
    return _end_lies(game, state, episode, record)


def _search_lies(step: Step, legal: list[int]) -> str | None:
    if not len(step.actions):
        return None
    if step.actions.tolist() != legal:
        return "the candidates are not the legal actions"
    if int(step.visits.sum()) > step.simulations or (step.visits < 0).any():
        return f"the visits ({int(step.visits.sum())}) are more than the {step.simulations} simulations"
    if not np.array_equal(np.isnan(step.q), step.visits == 0):
        return "a candidate has visits without a value, or a value without visits"
    if abs(float(step.prior.sum()) - 1.0) > _mass_error(len(legal)):
        return f"the priors sum to {float(step.prior.sum()):.4f}"
    return None


def _end_lies(game: pyspiel.Game, state: pyspiel.State, episode: Episode, record: GameRecord) -> str | None:
    if episode.status in ("ok", "truncated", "aborted") and episode.status not in _STATUS_OF[record.ended_by]:
        return f"its status is {episode.status}, and it ended by {record.ended_by}"
    if episode.trainable and episode.status not in ("ok", "truncated"):
        return f"it is marked trainable with status {episode.status}"
    if state.is_terminal() != (record.ended_by == "terminal"):
        return f"it ended by {record.ended_by}, and the game {'was' if state.is_terminal() else 'was not'} over"
    if (record.resigned_seat is not None) != (record.ended_by == "resignation"):
        return "its resigned seat contradicts how it ended"
    if record.ended_by in ("ply_limit", "aborted"):
        return None if episode.returns is None else "it has returns without an outcome"
    if episode.returns is None or len(episode.returns) != episode.seats:
        return "it has no return for every seat"
    if record.ended_by == "terminal":
        true = state.returns()
        if any(abs(told - given) > 1e-9 for told, given in zip(episode.returns, true, strict=True)):
            return f"its returns are {list(episode.returns)}, and the rules give {list(true)}"
        return None
    assert record.resigned_seat is not None
    if not 0 <= record.resigned_seat < episode.seats or min(episode.returns) != episode.returns[record.resigned_seat]:
        return "the seat that resigned did not get the lowest return"
    if not all(game.min_utility() <= value <= game.max_utility() for value in episode.returns):
        return "a return lies outside the utilities of the game"
    return None


def _spans_lie(episode: Episode, n_steps: int) -> str | None:
    for span in episode.policy_spans:
        if not 0 <= span.first_step <= span.last_step < n_steps:
            return f"a policy span covers steps {span.first_step} to {span.last_step} of {n_steps}"
        if not 0 <= span.seat < episode.seats:
            return f"a policy span is of seat {span.seat}"
    return None
