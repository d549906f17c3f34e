"""Three ways to check a game, and one verdict: all rows of a batch at once, one episode, and the released one file.

The one file shares no code with the package. Whatever is edited in an honest row, its digest made anew, they agree.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import EPISODES, Episode, Provenance, content_digests, from_batch, random_episode, to_batch
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.release.verifier.dialogues import Tokenizers
from selfplay.store.release.verifier.episodes import row_lies
from selfplay.store.release.verifier.games import Rules as OneFileRules
from selfplay.store.release.verifier.played import teaching_lies
from selfplay.store.release.verifier.rows import Lie, Unknown
from selfplay.store.release.verifier.searches import settings_of
from selfplay.store.verify import episode as truth

Row = dict[str, Any]
Path = tuple[str | int, ...]
SEARCH = {"c_visit": 50.0, "c_scale": 0.2, "considered": 4, "simulations": 9, "cheap_simulations": 3}
PLAY = {"temperature": 1.0, "temperature_plies": 2, "opening_plies": 2, "ply_limit": 7, "resign_threshold": 0.15,
        "resign_moves": 2, "resign_playon": 0.5}  # fmt: skip
RUNS = [
    {
        "config": json.dumps({"search": {"algorithm": name} | SEARCH, "selfplay": PLAY, "learner": {}}),
        "config_digest": digest * 64,
    }
    for name, digest in (("gumbel", "a"), ("puct", "b"))
]
#: Columns that say which rules to look up: the one file looks in the certificate, the package among what is installed.
ELSEWHERE = ("env_id", "ruleset_digest", "game_string", "schema_version")


def provenance(env: str, config: str, origin: str) -> Provenance:
    spec = registry.find(env)
    return Provenance(
        "run", spec.id, spec.version, ruleset_digest(spec), config * 64, "0.1.0", "here", "CC0-1.0", "c" * 40, origin
    )


def searched(algorithm: str, config: str) -> list[Episode]:
    """Games with openings, cheap searches, two versions, resignations, cut and aborted ones."""
    game = load(registry.find("tic_tac_toe"))
    play = PlaySettings(
        slots=4, simulations=9, cheap_simulations=3, full_fraction=0.5, opening_fraction=0.5, opening_plies=2,
        temperature_plies=2, ply_limit=7, resign_threshold=0.15, resign_moves=2, resign_playon=0.5,
    )  # fmt: skip
    one = Generator(
        game, HashNet(game.num_actions, value_range=1.0), SearchConfig(algorithm=algorithm, considered=4),  # type: ignore[arg-type]
        play, provenance("tic_tac_toe", config, "self_play"), "p0", 7, 0, np.random.default_rng(1),
    )  # fmt: skip
    made: list[Episode] = []
    for version in (1, 2):
        one.set_policy(Policy("run", version, f"{version}" * 64))
        made += one.play(lambda sealed, _: sealed >= 12)
    return made + one.abort()


@functools.cache
def honest() -> list[Row]:
    episodes = searched("gumbel", "a") + searched("puct", "b")
    for env in ("openspiel:kuhn_poker", "openspiel:matching_pennies_3p", "tic_tac_toe"):
        game, one = load(registry.find(env)), provenance(env, "c", "random")
        episodes += [random_episode(game.game, n, one, "r0", 7, n, ply_limit=8) for n in range(2)]
    rows: list[Row] = to_batch(episodes).to_pylist()
    return rows


def sealed(rows: list[Row]) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_pylist(rows, EPISODES)
    columns = {name: batch.column(name) for name in EPISODES.names}
    columns["content_digest"] = pa.array(content_digests(columns))
    return pa.RecordBatch.from_arrays([columns[name] for name in EPISODES.names], schema=EPISODES)


def by_one_file(batch: pa.RecordBatch) -> list[tuple[str, str]]:
    place = batch.schema.get_field_index("started_at")
    rows = batch.set_column(place, "started_at", batch.column("started_at").cast(pa.int64())).to_pylist()
    known = {(row["env_id"], row["ruleset_digest"], row["game"]["game_string"]) for row in honest()}
    names = ("env_id", "ruleset_digest", "game_string")
    rules = OneFileRules({"packages": {}, "rulesets": [dict(zip(names, one, strict=True)) for one in known]})
    rules.searches = settings_of(RUNS)
    found = []
    for row in rows:
        try:
            row_lies(row, EPISODES, rules, Tokenizers({}))
            found.append(("true", ""))
        except Lie as lie:
            found.append(("false", str(lie)))
        except Unknown as reason:
            found.append(("not checkable", str(reason)))
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            found.append(("false", f"the row is not an episode: {error}"))
    return found


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """All values in a row, the nested ones, too."""
    if path and path[-1] not in ELSEWHERE:
        yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from places(one, (*path, index))


def changed(value: Any, draw: st.DrawFn) -> Any:
    """Another value of the same kind, or none."""
    if value is None:
        return draw(st.sampled_from([0, 1, -1, "x", [0.5, -0.5], [1, 1]]))
    if isinstance(value, bool):
        return draw(st.sampled_from([not value, None]))
    if isinstance(value, int):
        by = st.sampled_from([-300, -40, -3, -2, -1, 1, 2, 3, 40, 300, -32768 - value, -2 * value, 2**31])
        return draw(st.just(None) | by.map(lambda n: value + n))
    if isinstance(value, float):
        return draw(st.sampled_from([None, -value, value + 0.01, value * 2, float("nan"), float("inf"), 0.0, 64.0]))
    if isinstance(value, str):
        others = ["random", "search", "human", "error", "x" * 64]
        return draw(st.sampled_from([None, "", value + "0", value[:-1], *others]))
    if isinstance(value, list):
        return draw(st.sampled_from([None, [], value[:-1], value + value[-1:], value[::-1]]))
    return None


@st.composite
def edits(draw: st.DrawFn) -> Row:
    row = copy.deepcopy(draw(st.sampled_from(honest())))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(row))))
        holder: Any = row
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = changed(holder[path[-1]], draw)
    return row


def test_honest_rows_are_true_three_times() -> None:
    batch = sealed(honest())
    rules = truth.Rules([], RUNS)
    assert batch.column("content_digest").to_pylist() == [row["content_digest"] for row in honest()]
    assert {(check.state, check.uncovered) for check in truth.verify_batch(batch, rules)} == {("true", ())}
    assert {truth.verify_episode(one, rules).state for one in from_batch(batch)} == {"true"}
    assert set(by_one_file(batch)) == {("true", "")}
    endings = {row["game"]["ended_by"] for row in honest()}
    assert endings == {"terminal", "resignation", "ply_limit", "aborted"}
    assert any(row["game"]["would_have_resigned_seat"] is not None for row in honest())


def test_who_resigned_had_to_and_who_had_to_did() -> None:
    def undone(row: Row) -> None:
        row.update(status="aborted", trainable=False, returns=None)
        row["game"].update(ended_by="aborted", resigned_seat=None)

    def unnamed(row: Row) -> None:
        row["game"]["would_have_resigned_seat"] = None

    def other(row: Row) -> None:
        row["game"]["would_have_resigned_seat"] = 1 - row["game"]["would_have_resigned_seat"]

    def not_drawn(row: Row) -> None:
        row["game"].update(played_on_after_resignation=not row["game"]["played_on_after_resignation"])

    resigned = [row for row in honest() if row["game"]["resigned_seat"] is not None]
    would = [row for row in honest() if row["game"]["would_have_resigned_seat"] is not None]
    searches = [row for row in honest() if any(step["source"] == "search" for step in row["game"]["steps"])]
    quiet = [row for row in searches if row not in resigned and row not in would]
    assert len(resigned) > 3 and would and len(quiet) > 3
    for edit, of, said in (
        (undone, resigned, "moves in a row, and did not resign"),
        (unnamed, would, "moves in a row, and the row does not name it as the first"),
        (other, would, "without hope for 2 moves in a row"),
        (not_drawn, quiet, "its seed draws the opposite"),
    ):
        rows = copy.deepcopy(of)
        for row in rows:
            edit(row)
        reasons = [check.reason for check in truth.verify_batch(sealed(rows), truth.Rules([], RUNS))]
        assert all(said in reason for reason in reasons), reasons
        agree(rows)


def test_a_game_is_cut_where_its_run_cuts_and_not_before() -> None:
    def by(limit: int) -> list[dict[str, str]]:
        config = json.dumps({"search": {"algorithm": "gumbel"} | SEARCH, "selfplay": PLAY | {"ply_limit": limit}})
        return [{"config": config, "config_digest": "a" * 64}]

    long = [row for row in honest() if row["config_digest"] == "a" * 64 and row["n_steps"] == 7]
    cut = [row["game"]["ended_by"] == "ply_limit" for row in long]
    assert any(cut)
    for limit, wrong in ((7, [False] * len(cut)), (8, cut), (6, [True] * len(cut))):
        rules = OneFileRules({"packages": {}, "rulesets": []})
        rules.searches = settings_of(by(limit))
        checks = truth.verify_batch(sealed(long), truth.Rules([], by(limit)))
        assert ["its run cuts a game after" in check.reason for check in checks] == wrong
        for row, false in zip(long, wrong, strict=True):
            with pytest.raises(Lie) if false else contextlib.nullcontext():
                teaching_lies(row, rules.searches["a" * 64])


@settings(max_examples=8, deadline=None, print_blob=True)
@given(st.lists(edits(), min_size=8, max_size=8))
def test_whatever_is_edited_three_checks_agree(rows: list[Row]) -> None:
    agree(rows)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(edits(), min_size=8, max_size=8))
def test_they_agree_at_length(rows: list[Row]) -> None:
    agree(rows)


def agree(rows: list[Row]) -> None:
    """All three say the same of each row."""
    whole = []
    for row in rows:
        try:
            sealed([row])
            whole.append(row)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue  # no such row can be written
    if not whole:
        return
    batch, rules = sealed(whole), truth.Rules([], RUNS)
    quick = truth.verify_batch(batch, rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth, "_plainly_true", lambda *_: False)
        slow = truth.verify_batch(batch, rules)
    for n, (check, plain) in enumerate(zip(quick, by_one_file(batch), strict=True)):
        assert check == slow[n]
        assert check.state == plain[0], (check, plain, batch.column("episode_id")[n])
        try:
            (one,) = from_batch(batch.slice(n, 1))
            with np.errstate(invalid="ignore"):
                same = to_batch([one]).column("content_digest")[0] == batch.column("content_digest")[n]
        except (TypeError, ValueError, LookupError, AttributeError):
            same = False
        if same:  # nothing was lost on the way into memory
            assert truth.verify_episode(one, rules) == check
