"""The record: exact round trip up to the stated rounding, digests that notice, replay that proves."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyspiel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.episode import (
    EPISODES,
    Episode,
    GameRecord,
    PolicySpan,
    Provenance,
    ReplayError,
    Step,
    content_digests,
    from_batch,
    random_episode,
    replay,
    replay_digest,
    seat_view,
    to_batch,
)
from selfplay.errors import UserError

PROVENANCE = Provenance(
    run_id="run",
    env_id="connect_four-v0",
    env_version=0,
    ruleset_digest="a" * 64,
    config_digest="b" * 64,
    package_version="0.1.0",
    host="here",
    licence="CC0-1.0",
)


@st.composite
def steps(draw: st.DrawFn, scale: float) -> Step:
    width = draw(st.integers(0, 6))
    floats = st.floats(-1, 1, width=32)
    maybe = floats | st.just(math.nan)
    searched = width > 0
    joint = draw(st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5))) if not searched else None
    seat_values = draw(st.none() | st.lists(floats, min_size=2, max_size=3))
    q = [draw(maybe) * scale for _ in range(width)]
    return Step(
        seat=-2 if joint else draw(st.integers(-1, 3)),
        action=-1 if joint else draw(st.integers(0, 5000)),
        source=draw(st.sampled_from(["search", "random", "opening", "chance"])),
        simulations=draw(st.integers(0, 10**6)),
        full_search=draw(st.booleans()),
        actions=np.array(sorted(draw(st.sets(st.integers(0, 5000), min_size=width, max_size=width))), np.int32),
        visits=np.array([draw(st.integers(0, 2**31 - 1)) for _ in range(width)], np.int32),
        prior=np.array([abs(draw(floats)) for _ in range(width)], np.float32),
        q=np.array(q, np.float32),
        root_value=draw(maybe) * scale,
        raw_value=draw(maybe) * scale,
        surprise=draw(st.floats(0, 100, width=32) | st.just(math.nan)),
        joint=joint,
        seat_values=None if seat_values is None else np.array(seat_values, np.float32),
    )


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    scale = draw(st.sampled_from([1.0, 2.0, 192.0]))
    game = GameRecord(
        game_string="any",
        value_scale=scale,
        steps=tuple(draw(st.lists(steps(scale), max_size=5))),
        replay_digest="d" * 64,
        ended_by=draw(st.sampled_from(["terminal", "ply_limit", "resignation", "aborted"])),
        resigned_seat=draw(st.none() | st.integers(0, 1)),
        played_on_after_resignation=draw(st.booleans()),
        would_have_resigned_seat=draw(st.none() | st.integers(0, 1)),
    )
    verdict = {"seat": 0, "state": "accepted", "reward": 1.0, "error": None, "criteria": []}
    return Episode(
        provenance=dataclasses.replace(PROVENANCE, code_commit=draw(st.none() | st.just("c" * 40))),
        slot=draw(st.sampled_from(["a0", "actor-1"])),
        epoch=draw(st.integers(0, 2**30)),
        number=draw(st.integers(0, 2**31)),
        status=draw(st.sampled_from(["ok", "truncated", "aborted", "error"])),
        trainable=draw(st.booleans()),
        seats=2,
        returns=draw(st.none() | st.tuples(st.floats(-9, 9), st.floats(-9, 9))),
        seed=draw(st.integers(0, 2**63 - 1)),
        started_at=draw(st.integers(0, 2**50)),
        wall_ms=draw(st.integers(0, 10**9)),
        policy_spans=tuple(draw(st.lists(st.just(PolicySpan(0, 0, 3, "net", 7, "e" * 64)), max_size=2))),
        parents=tuple(draw(st.lists(st.just(("r/s/0/1", "fork")), max_size=1))),
        error=draw(st.none() | st.just(("actor", "it broke, sagt man: äöü"))),
        game=game,
        verdicts=draw(st.none() | st.just((verdict,))),
    )


def assert_same(found: Any, wanted: Any, tolerance: float = 0.0) -> None:
    """Equal, arrays and NaN included; floats up to `tolerance`."""
    if dataclasses.is_dataclass(wanted):
        scale = tolerance
        if isinstance(wanted, GameRecord):
            scale = wanted.value_scale * 0.51 / 32767
        for field in dataclasses.fields(wanted):
            exact = isinstance(wanted, Step) and field.name in ("surprise", "seat_values")
            assert_same(getattr(found, field.name), getattr(wanted, field.name), 0.0 if exact else scale)
    elif isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=2e-7, atol=tolerance)
    elif isinstance(wanted, tuple) and wanted and not isinstance(wanted[0], (int, str)):
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            assert_same(f, w, tolerance)
    elif isinstance(wanted, float):
        assert (math.isnan(found) and math.isnan(wanted)) or abs(found - wanted) <= tolerance, (found, wanted)
    else:
        assert found == wanted and type(found) is type(wanted)


@settings(max_examples=60, deadline=None)
@given(st.lists(episodes(), min_size=1, max_size=4))
def test_round_trip(written: list[Episode]) -> None:
    batch = to_batch(written)
    assert batch.schema == EPISODES
    read = from_batch(batch)
    for found, wanted in zip(read, written, strict=True):
        assert_same(found, wanted)
    assert to_batch(read).equals(batch), "what was rounded once stays"


def test_slices_and_concatenation_keep_the_content_digest() -> None:
    game = pyspiel.load_game("kuhn_poker")
    some = [random_episode(game, seed, PROVENANCE, number=seed) for seed in range(7)]
    whole = to_batch(some)
    parts = pa.concat_tables([pa.Table.from_batches([whole.slice(0, 3)]), pa.Table.from_batches([whole.slice(3)])])
    columns = {name: whole.slice(2, 4).column(name) for name in whole.schema.names}
    assert content_digests(columns) == whole.column("content_digest").to_pylist()[2:6]
    assert [e.episode_id for e in from_batch(parts)] == [e.episode_id for e in some]
    assert to_batch(from_batch(parts)).equals(whole)


def test_every_column_is_under_the_content_digest() -> None:
    batch = to_batch([random_episode(pyspiel.load_game("tic_tac_toe"), 1, PROVENANCE)])
    columns = {name: batch.column(name) for name in batch.schema.names}
    digest = content_digests(columns)
    for name in EPISODES.names:
        if name == "content_digest":
            continue
        other = pa.nulls(1, EPISODES.field(name).type)
        if columns[name].null_count:
            if not pa.types.is_string(other.type):
                continue
            other = pa.array(["x"])
        assert content_digests({**columns, name: other}) != digest, name


def test_an_edited_return_changes_the_content_digest() -> None:
    batch = to_batch([random_episode(pyspiel.load_game("tic_tac_toe"), 1, PROVENANCE)])
    columns = {name: batch.column(name) for name in batch.schema.names}
    flipped = pa.array([[-value for value in columns["returns"][0].as_py()]], EPISODES.field("returns").type)
    assert content_digests({**columns, "returns": flipped}) != content_digests(columns)


def test_reasoning_and_control_rows_round_trip() -> None:
    turn = {
        **{"seat": 0, "role": "assistant", "parent": None, "suffix_ids": [1, 2], "token_ids": [3]},
        **{"logprobs": [-0.5], "loss_mask": [True], "finish_reason": "stop", "text": "four"},
    }
    reasoning = {
        **{"problem_seed": 1, "difficulty": 2.0, "problem_digest": "f" * 64, "group_id": "g", "sample_index": 0},
        **{"tokenizer": "t", "temperature": 1.0, "top_k": None, "top_p": None, "answer": "4", "turns": [turn]},
    }
    control = {
        **{"observation_shape": [2], "action_shape": [], "observations": [0.0, 1.0, 2.0, 3.0], "actions": [1.0]},
        **{"rewards": [0.5], "logprobs": None},
    }
    base = random_episode(pyspiel.load_game("tic_tac_toe"), 1, PROVENANCE)
    mixed = [
        base,
        dataclasses.replace(base, number=1, game=None, reasoning=reasoning),
        dataclasses.replace(base, number=2, game=None, control=control),
    ]
    batch = to_batch(mixed)
    assert batch.column("kind").to_pylist() == ["game", "reasoning", "control"]
    assert batch.column("n_steps").to_pylist()[1:] == [1, 1]
    read = from_batch(batch)
    assert read[1].reasoning == reasoning and read[2].control == control and read[1].game is None
    assert to_batch(read).equals(batch)
    digests = batch.column("content_digest").to_pylist()
    assert batch.column("previous_digest").to_pylist() == [None, *digests[:2]], "each is linked to the one before"
    alone = to_batch([mixed[1]], digests[0]).column("content_digest").to_pylist()
    assert alone == digests[1:2], "other rows do not matter"


@pytest.mark.parametrize(
    "game_string",
    ["backgammon", "kuhn_poker", "chinese_checkers(players=3)", "goofspiel", "leduc_poker(players=3)", "phantom_ttt"],
)
def test_random_episodes_of_any_game_replay_to_their_digest(game_string: str) -> None:
    game = pyspiel.load_game(game_string)
    batch = to_batch([random_episode(game, seed, PROVENANCE, number=seed, ply_limit=300) for seed in range(3)])
    for episode in from_batch(batch):
        assert episode.game is not None and episode.seats == game.num_players()
        again = pyspiel.load_game(episode.game.game_string)
        assert replay_digest(again, episode.game.steps) == episode.game.replay_digest
        for ply, state, step in replay(again, episode.game.steps):
            assert step is episode.game.steps[ply] and not state.is_terminal()


def test_the_same_seed_plays_the_same_episode() -> None:
    game = pyspiel.load_game("backgammon")
    one, two, other = (random_episode(game, seed, PROVENANCE).game for seed in (5, 5, 6))
    assert one and two and other
    assert one.replay_digest == two.replay_digest != other.replay_digest


def test_games_that_cannot_be_recorded_are_refused_by_name() -> None:
    mean_field = pyspiel.load_game("mfg_crowd_modelling")
    with pytest.raises(UserError, match="mfg_crowd_modelling is a mean-field game"):
        random_episode(mean_field, 0, PROVENANCE)
    with pytest.raises(UserError, match="stones_and_gems is sampled-stochastic"):
        random_episode(pyspiel.load_game("stones_and_gems"), 0, PROVENANCE)


def test_a_step_the_rules_do_not_allow_is_named() -> None:
    game = pyspiel.load_game("tic_tac_toe")
    with pytest.raises(ReplayError, match="step 1: action 4 is not legal"):
        replay_digest(game, [Step(0, 4, "random"), Step(1, 4, "random")])
    with pytest.raises(ReplayError, match="step 1: seat 1 is to move"):
        replay_digest(game, [Step(0, 4, "random"), Step(0, 3, "random")])
    over = [Step(i % 2, a, "random") for i, a in enumerate([0, 3, 1, 4, 2, 5])]
    with pytest.raises(ReplayError, match="step 5: the game was over"):
        replay_digest(game, over)
    with pytest.raises(ReplayError, match="all seats move at once"):
        replay_digest(pyspiel.load_game("matrix_pd"), [Step(0, 1, "random")])


def test_a_seat_sees_nothing_of_others_cards() -> None:
    game = pyspiel.load_game("kuhn_poker")
    by_view: dict[str, set[int]] = {}
    for seed in range(60):
        episode = random_episode(game, seed, PROVENANCE)
        assert episode.game is not None
        hidden = episode.game.steps[1].action
        view = seat_view(game, episode, 0)
        assert [m.action for m in view.moments[:-1]] == [s.action for s in episode.game.steps if s.seat == 0]
        assert view.seat_return == episode.returns[0] if episode.returns else None
        by_view.setdefault(view.moments[0].observation, set()).add(hidden)
    assert len(by_view) == 3, "own card only"
    assert all(len(cards) == 2 for cards in by_view.values()), "the same view whatever the other seat holds"


def test_an_episode_has_exactly_one_payload_and_a_known_status() -> None:
    episode = random_episode(pyspiel.load_game("tic_tac_toe"), 1, PROVENANCE)
    assert episode.episode_id == "run/random/0/0" and episode.kind == "game"
    with pytest.raises(ValueError, match="exactly one payload"):
        dataclasses.replace(episode, game=None)
    with pytest.raises(ValueError, match="status must be one of"):
        dataclasses.replace(episode, status="fine")
    with pytest.raises(ValueError, match="outside"):
        bad = Step(0, 1, "search", 1, True, *(np.array([v]) for v in (1, 1, 0.5)), np.array([1.5]))
        assert episode.game is not None
        to_batch([dataclasses.replace(episode, game=dataclasses.replace(episode.game, steps=(bad,)))])
