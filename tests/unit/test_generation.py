"""Self-play without actors: games that repeat, replay, end as they should and say who played them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from selfplay.environments.game import Game, load, spec_from_string
from selfplay.episode import Episode, PolicySpan, Provenance, Step, from_batch, replay, replay_digest, to_batch
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.search.rules import NONE, rules_of

Array = np.ndarray
Net = Callable[[Array], tuple[Array, Array]]

GAMES = ("tic_tac_toe", "connect_four", "dots_and_boxes(num_rows=2,num_cols=2)", "mancala", "hex(board_size=4)")
ALGORITHMS = ("gumbel", "puct")


@functools.cache
def game_of(name: str) -> Game:
    return load(spec_from_string(name))


def search(algorithm: str) -> SearchConfig:
    return SearchConfig(algorithm=algorithm)  # type: ignore[arg-type]


def generator(game: Game, config: SearchConfig, net: Net | None = None, seed: int = 0, **settings: object) -> Generator:
    provenance = Provenance("run", game.spec.id, 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    play = PlaySettings(**({"slots": 6, "simulations": 16, "cache_entries": 500} | settings))  # type: ignore[arg-type]
    evaluate = net or HashNet(game.num_actions, value_range=0.5)
    return Generator(game, evaluate, config, play, provenance, "p0", 7, 3, np.random.default_rng(seed))


def sealed(count: int) -> Callable[[int, int], bool]:
    return lambda episodes, _: episodes >= count


def record(episode: Episode) -> Episode:
    """The episode without its clock."""
    return dataclasses.replace(episode, started_at=0, wall_ms=0)


def steps_of(episode: Episode) -> tuple[Step, ...]:
    assert episode.game is not None
    return episode.game.steps


def constant(game: Game, value: float) -> Net:
    """A net that likes all moves and says `value` of every position for the seat to act."""
    return lambda batch: (np.zeros((len(batch), game.num_actions)), np.full(len(batch), value))


def optimist(game: Game, seat: int, value: float) -> Net:
    """A net that knows who wins: `value` for `seat`, -`value` for the other (its input ends with the seat plane)."""
    assert game.encoder.seat_plane

    def evaluate(batch: Array) -> tuple[Array, Array]:
        to_act = batch.reshape(len(batch), -1)[:, -1]
        return np.zeros((len(batch), game.num_actions)), np.where(to_act == seat, value, -value)

    return evaluate


# ------------------------------------------------------------------------------------------------------- repetition


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equal_weights_and_seeds_give_equal_games(algorithm: str) -> None:
    game = game_of("connect_four")
    settings = {"full_fraction": 0.5, "resign_threshold": 0.4, "resign_moves": 2}
    first, again, other, uncached = (
        generator(game, search(algorithm), seed=seed, cache_entries=cache, **settings).play(sealed(12))
        for seed, cache in ((1, 500), (1, 500), (2, 500), (1, 0))
    )
    rows = [to_batch([record(e) for e in episodes]) for episodes in (first, again, other)]
    assert rows[0].equals(rows[1])
    assert not rows[0].equals(rows[2])
    # Without a cache searches take other numbers of ticks, so games end in another order; the games are the same.
    # Seeds are handed out in that order, so only the games that all began with are compared.
    begun = {e.seed: steps_of(e) for e in uncached}
    same = [e for e in first if e.seed in begun]
    assert len(same) >= 6
    for episode in same:
        assert [s.action for s in begun[episode.seed]] == [s.action for s in steps_of(episode)]


def test_the_calls_that_play_is_cut_into_do_not_matter() -> None:
    """Games under way go on in the next call: none is lost, begun anew or sealed twice."""
    game = game_of("connect_four")
    whole = generator(game, search("gumbel")).play(sealed(20))
    pieces = generator(game, search("gumbel"))
    parts: list[Episode] = []
    while len(parts) < len(whole):
        parts += pieces.play(lambda _, decisions: decisions >= 5)
    assert to_batch([record(e) for e in parts[: len(whole)]]).equals(to_batch([record(e) for e in whole]))


def test_no_two_games_share_a_seed_and_numbers_follow_each_other() -> None:
    one = generator(game_of("tic_tac_toe"), search("gumbel"))
    episodes = one.play(sealed(60)) + one.abort()
    assert len({e.seed for e in episodes}) == len(episodes)
    assert [e.number for e in episodes] == list(range(3, 3 + len(episodes)))
    assert {(e.slot, e.epoch) for e in episodes} == {("p0", 7)}
    assert len({tuple(s.action for s in steps_of(e)) for e in episodes}) > 30


# ----------------------------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", GAMES)
def test_every_episode_replays(name: str, algorithm: str) -> None:
    """The digest, whose move it was, legal actions, visits that sum to the simulations, and how the game ended."""
    game = game_of(name)
    one = generator(game, search(algorithm), full_fraction=0.7, ply_limit=20)
    for episode in from_batch(to_batch(one.play(sealed(12)) + one.abort())):
        assert episode.game is not None
        assert replay_digest(game.game, episode.game.steps) == episode.game.replay_digest
        for _, state, step in replay(game.game, episode.game.steps):
            assert step.seat == state.current_player()
            if step.source == "search":
                assert step.actions.tolist() == state.legal_actions()
                assert step.visits.sum() == step.simulations == (16 if step.full_search else 8)
                assert step.prior.sum() == pytest.approx(1, abs=1e-3)
                np.testing.assert_array_equal(np.isnan(step.q), step.visits == 0)
                assert max(abs(step.root_value), abs(step.raw_value)) <= game.value_scale
        end = game.after([s.action for s in episode.game.steps])
        if episode.status == "ok":
            assert end.is_terminal() and episode.returns == tuple(end.returns())
        else:
            assert not end.is_terminal() and episode.returns is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_seat_that_moves_twice_keeps_its_point_of_view(algorithm: str) -> None:
    """A net that gives every position 0.5 for seat 0: every value in the record is 0.5 for seat 0, -0.5 for seat 1."""
    game = game_of("dots_and_boxes(num_rows=2,num_cols=2)")
    one = generator(game, search(algorithm), optimist(game, 0, 0.5), simulations=3, opening_fraction=0.0)
    twice = 0
    for episode in one.play(sealed(12)):
        steps = steps_of(episode)
        seats = [step.seat for step in steps]
        twice += sum(a == b for a, b in zip(seats[:8], seats[1:9], strict=True))
        for step in steps[:8]:  # no search reaches the end of the game from here
            expected = 0.5 if step.seat == 0 else -0.5
            assert step.raw_value == step.root_value == pytest.approx(expected)
            np.testing.assert_allclose(step.q[step.visits > 0], expected)
    assert twice > 5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_forced_win_is_played(algorithm: str) -> None:
    """Whoever can win at once does, even with a net that knows nothing; and is sure of it in the record."""
    game = game_of("connect_four")
    config = dataclasses.replace(search(algorithm), c_scale=1.0)
    one = generator(game, config, constant(game, 0.0), simulations=48, temperature=0.0, opening_plies=12)
    chances = 0
    for episode in one.play(sealed(25)):
        for _, state, step in replay(game.game, steps_of(episode)):
            if step.source != "search":
                continue
            wins = [a for a in state.legal_actions() if state.child(a).returns()[step.seat] > 0]
            if wins:
                chances += 1
                assert step.action in wins
                assert step.q[step.actions.tolist().index(step.action)] == 1.0
    assert chances > 15


# ----------------------------------------------------------------------------------------------------- how games end


def test_the_ply_limit_truncates_and_is_no_draw() -> None:
    game = game_of("connect_four")
    episodes = generator(game, search("gumbel"), ply_limit=9, opening_plies=4).play(sealed(12))
    cut = [e for e in episodes if e.status == "truncated"]
    assert len(cut) > 6
    for episode in cut:
        assert episode.n_steps == 9 and episode.returns is None and episode.trainable
        assert episode.game is not None and episode.game.ended_by == "ply_limit"


def test_a_game_that_ends_at_the_ply_limit_has_ended() -> None:
    game = game_of("tic_tac_toe")
    episodes = generator(game, search("gumbel"), ply_limit=9).play(sealed(40))
    full = [e for e in episodes if e.n_steps == 9]
    assert full and all(e.status == "ok" and e.returns is not None for e in episodes)


def test_openings_leave_room_for_a_search() -> None:
    """Random openings longer than the ply limit are cut so that one searched move fits."""
    game = game_of("connect_four")
    episodes = generator(game, search("gumbel"), opening_fraction=1.0, opening_plies=12, ply_limit=5).play(sealed(20))
    assert max(e.n_steps for e in episodes) == 5
    assert all(steps_of(e)[-1].source == "search" for e in episodes)


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four"])
def test_openings_are_random_and_never_end_the_game(name: str) -> None:
    game = game_of(name)
    one = generator(game, search("gumbel"), opening_fraction=0.7, opening_plies=12, simulations=2)
    episodes = one.play(sealed(80))
    lengths = []
    for episode in episodes:
        steps = steps_of(episode)
        opening = [i for i, step in enumerate(steps) if step.source == "opening"]
        assert opening == list(range(len(opening)))
        assert steps[-1].source == "search"
        assert not game.after([s.action for s in steps[: len(opening)]]).is_terminal()
        for step in steps[: len(opening)]:
            assert len(step.actions) == 0 and step.simulations == 0 and not step.full_search
            assert np.isnan(step.root_value) and np.isnan(step.raw_value)
        lengths.append(len(opening))
    assert 0.5 < np.mean(np.array(lengths) > 0) < 0.9
    assert min(lengths) == 0 and max(lengths) <= 12
    assert len(set(lengths)) > 5
    none = generator(game, search("gumbel"), opening_fraction=0.0, simulations=2).play(sealed(6))
    assert all(step.source == "search" for e in none for step in steps_of(e))


def test_of_several_openings_the_most_even_is_played() -> None:
    game = game_of("connect_four")
    net = HashNet(game.num_actions, value_range=1.0)

    def unevenness(choices: int) -> float:
        one = generator(game, search("gumbel"), net, opening_fraction=1.0, simulations=1, opening_choices=choices)
        one.set_policy(Policy("a-run", 7, "d" * 64))
        values = []
        for episode in one.play(sealed(60)):
            opening = [s.action for s in steps_of(episode) if s.source == "opening"]
            assert opening
            span = episode.policy_spans[0]
            assert span.policy_id == ("random" if choices == 1 else "random-evenest")
            assert span.version == (0 if choices == 1 else 7)
            values.append(abs(float(net(game.encoder.encode(game.after(opening))[None])[1][0])))
        return float(np.mean(values))

    assert 0.3 < unevenness(1) < 0.7  # a value is anything from -1 to 1
    assert unevenness(8) < 0.2


def test_aborted_games_are_archived_but_not_trainable() -> None:
    game = game_of("connect_four")
    one = generator(game, search("gumbel"), opening_fraction=0.0)
    assert one.abort() == [] and one.in_flight == (0, 0)
    one.play(lambda _, decisions: decisions >= 20)
    games, plies = one.in_flight
    aborted = one.abort()
    assert games == 6 and plies == sum(e.n_steps for e in aborted) >= 20
    for episode in aborted:
        assert (episode.status, episode.trainable, episode.returns) == ("aborted", False, None)
        assert episode.game is not None and episode.game.ended_by == "aborted"
        assert replay_digest(game.game, episode.game.steps) == episode.game.replay_digest
    assert one.abort() == [] and one.in_flight == (0, 0)
    after = one.play(sealed(3))  # a generator can go on: with new games
    assert not {e.seed for e in after} & {e.seed for e in aborted}
    assert min(e.number for e in after) == max(e.number for e in aborted) + 1


# ------------------------------------------------------------------------------------------------------ resignation


def test_a_seat_resigns_after_so_many_hopeless_moves_of_its_own() -> None:
    """Seat 1 always believes itself lost: it resigns with its third search, whatever seat 0 thinks."""
    game = game_of("hex(board_size=4)")
    one = generator(
        game, search("gumbel"), optimist(game, 0, 0.9), simulations=2, opening_fraction=0.0,
        resign_threshold=0.8, resign_moves=3, resign_playon=0.0,
    )  # fmt: skip
    for episode in one.play(sealed(8)):
        assert episode.game is not None
        assert (episode.status, episode.game.ended_by, episode.trainable) == ("ok", "resignation", True)
        assert episode.game.resigned_seat == 1 and episode.returns == (1.0, -1.0)
        assert not episode.game.played_on_after_resignation and episode.game.would_have_resigned_seat is None
        assert [s.seat for s in episode.game.steps] == [0, 1, 0, 1, 0, 1]
        assert replay_digest(game.game, episode.game.steps) == episode.game.replay_digest


def test_games_played_on_measure_false_resignations() -> None:
    game = game_of("hex(board_size=4)")
    one = generator(
        game, search("gumbel"), optimist(game, 0, 0.9), simulations=2, opening_fraction=0.0,
        resign_threshold=0.8, resign_moves=2, resign_playon=0.5, slots=16,
    )  # fmt: skip
    episodes = one.play(sealed(60))
    on = [e for e in episodes if e.game and e.game.played_on_after_resignation]
    assert 10 < len(on) < 50
    for episode in episodes:
        assert episode.game is not None
        if episode.game.played_on_after_resignation:
            assert episode.game.ended_by == "terminal" and episode.game.resigned_seat is None
            assert episode.returns == tuple(game.after([s.action for s in steps_of(episode)]).returns())
            assert episode.game.would_have_resigned_seat == 1
        else:
            assert episode.game.resigned_seat == 1 and episode.game.would_have_resigned_seat is None
    assert any(e.returns == (-1.0, 1.0) for e in on)  # the net is wrong about hex, and these games show it


def test_one_better_moment_calls_resignation_off() -> None:
    """The moves below the threshold must follow each other."""
    game = game_of("hex(board_size=4)")

    def moody(batch: Array) -> tuple[Array, Array]:
        stones = 16 - batch[:, 4].sum((1, 2))  # plane 4: empty hexagons
        return np.zeros((len(batch), game.num_actions)), np.where(stones % 4 < 2, -0.95, 0.95)

    settings = {"simulations": 1, "cheap_simulations": 0, "full_fraction": 1e-9, "opening_fraction": 0.0}
    two, one = (
        generator(
            game, search("gumbel"), moody, resign_threshold=0.9, resign_moves=moves, resign_playon=0.0, **settings
        ).play(sealed(4))
        for moves in (2, 1)
    )
    assert all(e.game and e.game.ended_by == "terminal" for e in two)
    assert all(e.game and e.game.ended_by == "resignation" and e.n_steps == 1 for e in one)


def test_a_good_move_among_losing_ones_is_hope() -> None:
    """The mean over all moves tried says lost; the move that was found says won, and it is played."""
    game = game_of("hex(board_size=4)")

    def one_move_wins(batch: Array) -> tuple[Array, Array]:
        held = batch[:, 4, 1, 1] == 0  # plane 4: empty hexagons
        to_act = batch[:, -1, 0, 0]
        return np.zeros((len(batch), game.num_actions)), np.where(held == (to_act == 0), 0.95, -0.95)

    one = generator(
        game, search("gumbel"), one_move_wins, opening_fraction=0.0,
        resign_threshold=0.5, resign_moves=1, resign_playon=0.0,
    )  # fmt: skip
    for episode in one.play(sealed(6)):
        assert episode.game is not None
        first = steps_of(episode)[0]
        assert first.action == 5 and first.root_value < -0.5
        assert episode.game.resigned_seat == 1 and episode.n_steps == 2


def test_without_a_threshold_nobody_resigns() -> None:
    game = game_of("connect_four")
    episodes = generator(game, search("gumbel"), constant(game, -1.0), simulations=2, ply_limit=12).play(sealed(8))
    for episode in episodes:
        assert episode.game and episode.game.ended_by in ("terminal", "ply_limit")
        assert not episode.game.played_on_after_resignation and episode.game.would_have_resigned_seat is None


# ---------------------------------------------------------------------------------------------------------- searches


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cheap_and_full_searches_are_told_apart(algorithm: str) -> None:
    game = game_of("connect_four")
    one = generator(game, search(algorithm), full_fraction=0.25, cheap_simulations=4, opening_fraction=0.0)
    steps = [step for e in one.play(sealed(20)) for step in steps_of(e)]
    full = [step.full_search for step in steps]
    assert 0.12 < np.mean(full) < 0.4
    assert all(step.simulations == (16 if step.full_search else 4) for step in steps)
    always = generator(game, search(algorithm), simulations=4, opening_fraction=0.0).play(sealed(2))
    assert all(step.full_search for e in always for step in steps_of(e))


def test_cheap_searches_may_be_the_larger_ones() -> None:
    game = game_of("tic_tac_toe")
    one = generator(game, search("gumbel"), full_fraction=0.5, simulations=4, cheap_simulations=9)
    steps = [s for e in one.play(sealed(10)) for s in steps_of(e) if s.source == "search"]
    assert {s.simulations for s in steps} == {4, 9}


def test_a_temperature_draws_moves_by_visits_then_the_most_visited() -> None:
    game = game_of("connect_four")
    one = generator(game, search("puct"), temperature=1.0, temperature_plies=6, opening_fraction=0.0)
    early, late = [], []
    for episode in one.play(sealed(15)):
        for ply, step in enumerate(steps_of(episode)):
            visits = step.visits[step.actions.tolist().index(step.action)]
            assert visits > 0
            (early if ply < 6 else late).append(visits == step.visits.max())
    assert all(late) and 0.2 < np.mean(early) < 0.95


# ------------------------------------------------------------------------------------------------------ policy spans


def test_spans_name_who_made_each_step() -> None:
    """New weights in the middle of games: each step lies in one span of its seat, of the policy that made it."""
    game = game_of("connect_four")
    one = generator(game, search("gumbel"), opening_fraction=0.5, opening_plies=4)
    policies = [Policy("net", v, hashlib.sha256(b"%d" % v).hexdigest()) for v in range(6)]
    episodes: list[Episode] = []
    for policy in policies:
        one.set_policy(policy)
        episodes += one.play(lambda _, decisions: decisions >= 25)
    one.set_policy(policies[-1])  # the same once more is no change
    episodes += one.play(lambda _, decisions: decisions >= 5) + one.abort()
    versions = set()
    for episode in from_batch(to_batch(episodes)):
        steps = steps_of(episode)
        owner: dict[int, PolicySpan] = {}
        for span in episode.policy_spans:
            assert steps[span.first_step].seat == steps[span.last_step].seat == span.seat
            for i in range(span.first_step, span.last_step + 1):
                if steps[i].seat == span.seat:
                    assert i not in owner
                    owner[i] = span
        assert sorted(owner) == list(range(len(steps)))
        order = [owner[i].version for i in range(len(steps)) if steps[i].source == "search"]
        assert order == sorted(order)
        for i, step in enumerate(steps):
            if step.source == "opening":
                assert (owner[i].policy_id, owner[i].version, owner[i].digest) == ("random", 0, None)
            else:
                assert owner[i].policy_id == "net" and owner[i].digest == policies[owner[i].version].digest
                versions.add(owner[i].version)
        assert len({(s.seat, s.policy_id, s.version) for s in episode.policy_spans}) == len(episode.policy_spans)
    assert versions == set(range(6))


def test_new_weights_are_asked_at_once() -> None:
    """Nothing that the old net said is served from the cache to a search under the new one."""
    game = game_of("tic_tac_toe")
    nets = [HashNet(game.num_actions, value_range=0.5, salt=salt) for salt in range(2)]
    current = 0
    one = generator(
        game, search("gumbel"), lambda batch: nets[current](batch), opening_fraction=0.0, cache_entries=50_000
    )
    one.set_policy(Policy("net", 0, "0" * 64))
    one.play(sealed(30))
    current = 1
    one.set_policy(Policy("net", 1, "1" * 64))
    one.play(sealed(6))  # games begun under the old net end
    one.abort()
    checked = 0
    for episode in one.play(sealed(10)):
        for _, state, step in replay(game.game, steps_of(episode)):
            _, value = nets[1](game.encoder.encode(state)[None])
            assert step.raw_value == pytest.approx(value[0], abs=1e-6)
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "breakthrough(rows=6,columns=6)"])
@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
def test_how_leaves_are_reached_changes_nothing(name: str, algorithm: str) -> None:
    """Compiled rules, kept states or the way walked again from the root: the same games and the same work."""
    game, found = game_of(name), []
    for kind, retraces in ((rules_of(game), False), (NONE, True), (NONE, False)):
        one = generator(game, search(algorithm), HashNet(game.num_actions, value_range=1.0), simulations=40)
        one.search._rules, one.search._retraces = kind, retraces
        batch = to_batch(sorted(one.play(sealed(12)), key=lambda e: e.number)[:12])
        stats = one.search.stats
        work = (stats.simulations, stats.evaluations, stats.batches, stats.lookups, stats.hits)
        found.append((work, batch.column("game").to_pylist()))
    assert found[0] == found[1] == found[2]
