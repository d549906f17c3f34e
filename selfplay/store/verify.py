"""Is every episode true? Files against their names, rows against their digests, games against the rules.

Three answers, and never a guess: "true"; "false", with what is wrong; "not checkable", with what would have to be
installed. A game is true if the rules installed here are the ones it was played under, allow every recorded step, say
along the way what the replay digest holds, and give the recorded returns in the end.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfplay import storage
from selfplay.episode import Episode, GameRecord, ReplayDigest, Step, content_digests, from_batch
from selfplay.episode.replay import ReplayError, advance
from selfplay.episode.schema import EPISODES, SCHEMA_VERSION
from selfplay.errors import UserError
from selfplay.store.read import Corpus
from selfplay.store.table import EPISODES_TABLE, first_line

if TYPE_CHECKING:
    import pyspiel

TRUE, FALSE, NOT_CHECKABLE = "true", "false", "not checkable"
Array = np.ndarray[Any, Any]
#: Episodes of one file that one process takes at a time.
_PART_ROWS = 4096
_CONTENT_NAME = re.compile(r"([0-9a-f]{64})\.parquet$")
_STATUS_OF = {"terminal": ("ok",), "resignation": ("ok",), "ply_limit": ("truncated",), "aborted": ("aborted",)}


@dataclass(frozen=True)
class Check:
    """The answer for one episode, or for one file (`subject` is then its path).

    state: "true", "false" or "not checkable". reason: what is wrong, or what is missing; "" if true.
    """

    subject: str
    state: str
    reason: str = ""


class Rules:
    """The rules installed here, loaded once each and compared with those that an episode was played under."""

    def __init__(self, environments: list[dict[str, Any]]) -> None:
        """environments: rows of the corpus's environments table; they say what to install."""
        self._rows = {(row["env_id"], row["ruleset_digest"]): row for row in environments}
        self._games: dict[tuple[str, str, str], pyspiel.Game | str] = {}

    def find(self, episode: Episode) -> pyspiel.Game | str:
        """The game, or in words why it cannot be replayed here."""
        assert episode.game is not None
        key = (episode.provenance.env_id, episode.provenance.ruleset_digest, episode.game.game_string)
        if key not in self._games:
            self._games[key] = self._load(*key)
        return self._games[key]

    def _load(self, env_id: str, ruleset_digest: str, game_string: str) -> pyspiel.Game | str:
        from selfplay import registry
        from selfplay.game import load
        from selfplay.playthrough import ruleset_digest as digest_of

        try:
            spec = registry.find(registry.reference_of(env_id, game_string))
            game = load(spec).game
            if digest_of(spec) != ruleset_digest:
                hint = self._hint(env_id, ruleset_digest)
                return f"the rules of {env_id} installed here are not those it was played under; {hint}"
        except UserError:
            return f"{env_id} is not installed; {self._hint(env_id, ruleset_digest)}"
        return game

    def _hint(self, env_id: str, ruleset_digest: str) -> str:
        row = self._rows.get((env_id, ruleset_digest), {})
        if row.get("source"):
            return "its source is in the environments table of the corpus: read it before you run it"
        package, version = row.get("package"), row.get("package_version")
        return f"install {package} {version}" if package else f"install the package that brings {env_id}"


@dataclass(frozen=True)
class _Task:
    """A part of a file: its rows at `rows` (ascending), or all; `damage` is looked for in its first part only."""

    path: str
    rows: tuple[int, ...] | None
    first: bool


def verify_corpus(corpus: Corpus, sample: int | None = None, seed: int = 0, processes: int = 1) -> Iterator[Check]:
    """Every episode of the corpus, and every file that is missing, damaged or not what its name says. Streams.

    sample: only so many episodes, drawn evenly, and the files that hold them; None: all. processes: work side by side;
    the answers then come in no fixed order. One-file environments that this process has loaded are known to them.
    """
    if sample is None:
        yield from _doubled(corpus)
    tasks = _tasks(corpus, sample, seed)
    if processes <= 1 or len(tasks) <= 1:
        rules = Rules(corpus.environments())
        for task in tasks:
            yield from _verify_part(corpus, task, rules)
        return
    import multiprocessing

    from selfplay import registry

    trusted = [registry.pack(spec) for spec in registry.all_specs() if registry.source_of(spec).kind == "file"]
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes, len(tasks)), _begin, (corpus.uri, corpus.version, trusted)) as pool:
        for checks in pool.imap_unordered(_work, tasks):
            yield from checks


def _doubled(corpus: Corpus) -> Iterator[Check]:
    """Episodes that are there more than once."""
    try:
        counts = pc.value_counts(corpus.to_arrow(columns=["episode_id"]).column("episode_id"))
    except (OSError, pa.ArrowException):
        return  # a damaged file, that is named when its turn comes
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    for name, count in zip(*(column.to_pylist() for column in twice.flatten()), strict=True):
        yield Check(name, FALSE, f"it is there {count} times")


_working: tuple[Corpus, Rules] | None = None


def _begin(uri: str, version: int, trusted: list[Any]) -> None:
    global _working
    from selfplay import registry
    from selfplay.store.read import open

    for portable in trusted:
        registry.unpack(portable)
    corpus = open(uri, version)
    _working = (corpus, Rules(corpus.environments()))


def _work(task: _Task) -> list[Check]:
    assert _working is not None
    return list(_verify_part(_working[0], task, _working[1]))


def _tasks(corpus: Corpus, sample: int | None, seed: int) -> list[_Task]:
    """All of the corpus, or a sample, in parts of at most `_PART_ROWS` rows."""
    files = sorted((file["path"], int(file["num_records"])) for file in corpus.files())
    total = sum(rows for _, rows in files)
    chosen: Array | None = None
    if sample is not None and sample < total:
        chosen = np.sort(np.random.default_rng(seed).choice(total, sample, replace=False))
    tasks: list[_Task] = []
    before = 0
    for path, rows in files:
        mine = np.arange(rows) if chosen is None else chosen[(chosen >= before) & (chosen < before + rows)] - before
        before += rows
        if len(mine) == rows and rows <= _PART_ROWS:
            tasks.append(_Task(path, None, True))
            continue
        parts = [mine[i : i + _PART_ROWS] for i in range(0, len(mine), _PART_ROWS)]
        tasks += [_Task(path, tuple(part.tolist()), i == 0) for i, part in enumerate(parts)]
    return tasks


def _verify_part(corpus: Corpus, task: _Task, rules: Rules) -> Iterator[Check]:
    root = storage.join(corpus.uri, EPISODES_TABLE)
    damage = _damage(storage.join(root, task.path)) if task.first else None
    if damage is not None:
        yield Check(task.path, FALSE, damage)
    try:
        fragment = corpus.fragments()[task.path]
        before = 0
        for batch in fragment.to_batches(schema=corpus.dataset.schema, batch_size=256, batch_readahead=1):
            if task.rows is None:
                yield from verify_batch(batch, rules)
            else:
                inside = [row - before for row in task.rows if before <= row < before + batch.num_rows]
                if inside:
                    yield from verify_batch(batch.take(pa.array(inside)), rules)
            before += batch.num_rows
    except (OSError, pa.ArrowException, UserError, FileNotFoundError) as error:
        if damage is None:
            yield Check(task.path, FALSE, f"the file cannot be read: {first_line(error)}")


def verify_batch(batch: pa.RecordBatch, rules: Rules) -> list[Check]:
    """One answer a row. batch: all columns of the schema."""
    names = batch.column("episode_id").to_pylist()
    newer = [version > SCHEMA_VERSION for version in batch.column("schema_version").to_pylist()]
    if any(newer):
        return [Check(name, NOT_CHECKABLE, "it has a newer schema: install a newer selfplay-factory") for name in names]
    columns = {name: batch.column(name) for name in EPISODES.names}
    digests = content_digests(columns)
    checks = []
    derived = zip(names, columns["n_steps"].to_pylist(), columns["kind"].to_pylist(), strict=True)
    stored = columns["content_digest"].to_pylist()
    for row, (name, n_steps, kind) in enumerate(derived):
        if digests[row] != stored[row]:
            checks.append(Check(name, FALSE, "the row was changed after sealing: its content digest does not fit"))
            continue
        try:
            (episode,) = from_batch(batch.slice(row, 1))
        except (ValueError, TypeError) as error:
            checks.append(Check(name, FALSE, f"the row is not an episode: {first_line(error)}"))
            continue
        if (episode.episode_id, episode.n_steps, episode.kind) != (name, n_steps, kind):
            checks.append(Check(name, FALSE, "its id, kind or number of steps contradicts its other columns"))
            continue
        checks.append(verify_episode(episode, rules))
    return checks


def verify_episode(episode: Episode, rules: Rules) -> Check:
    """The episode against the rules, as far as they are here."""
    name = episode.episode_id
    if episode.game is None:
        return Check(name, NOT_CHECKABLE, f"no verifier for kind {episode.kind} is installed")
    game = rules.find(episode)
    if isinstance(game, str):
        return Check(name, NOT_CHECKABLE, game)
    try:
        reason = _spans_lie(episode) or _game_lies(game, episode, episode.game)
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
    if abs(float(step.prior.sum()) - 1.0) > 1e-3 + len(legal) / 65534:
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
        if not np.allclose(episode.returns, true, rtol=0, atol=1e-9):
            return f"its returns are {list(episode.returns)}, and the rules give {list(true)}"
        return None
    assert record.resigned_seat is not None
    if not 0 <= record.resigned_seat < episode.seats or min(episode.returns) != episode.returns[record.resigned_seat]:
        return "the seat that resigned did not get the lowest return"
    if not all(game.min_utility() <= value <= game.max_utility() for value in episode.returns):
        return "a return lies outside the utilities of the game"
    return None


def _spans_lie(episode: Episode) -> str | None:
    for span in episode.policy_spans:
        if not 0 <= span.first_step <= span.last_step < episode.n_steps:
            return f"a policy span covers steps {span.first_step} to {span.last_step} of {episode.n_steps}"
        if not 0 <= span.seat < episode.seats:
            return f"a policy span is of seat {span.seat}"
    return None


def _damage(uri: str) -> str | None:
    """What is wrong with a file as such; None if it is there and is what its name says (where its name says it)."""
    named = _CONTENT_NAME.search(uri)
    try:
        if named is None:
            storage.size(uri)
        elif hashlib.sha256(storage.read(uri)).hexdigest() != named.group(1):
            return "the file was changed after it was written: its sha256 is not its name"
    except FileNotFoundError:
        return "the file is missing"
    return None


def summary(checks: list[Check]) -> dict[str, int]:
    """How many of each answer."""
    return {state: sum(check.state == state for check in checks) for state in (TRUE, FALSE, NOT_CHECKABLE)}
