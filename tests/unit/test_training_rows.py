"""What the learner sees of an archived game is what was played: inputs by replay, targets from the stored integers."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pytest
import torch

from selfplay.environments.game import Game, load, spec_from_string
from selfplay.episode import Episode, Provenance, from_batch, to_batch
from selfplay.episode.rows import Rows
from selfplay.episode.training import TargetSettings, count_rows, rows_from
from selfplay.errors import UserError
from selfplay.play.generator import Generator, PlaySettings
from selfplay.search import BatchedSearch, SearchConfig, SearchResult
from selfplay.search.hash_net import HashNet
from trainers.alphazero.loss import value_losses

#: Priors and q are archived in units of 1 / 32767. Here sigma is at most (50 + 24) * 0.2 * q with q in [0, 1], and a
#: prior is at least 0.002: no target moves by more than this.
ROUNDING = 2e-3
MARGIN = "dots_and_boxes(num_rows=2,num_cols=2,utility_margin=true)"
GAMES = ("tic_tac_toe", "connect_four", MARGIN, "mancala")
GUMBEL = TargetSettings("gumbel", 50.0, 0.2, z_weight=0.5, q_weight=0.25, truncated_weight=0.5)


@functools.cache
def game_of(name: str) -> Game:
    return load(spec_from_string(name))


def generator(game: Game, search: SearchConfig, seed: int = 0, **settings: object) -> Generator:
    provenance = Provenance("run", game.spec.id, 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    play = PlaySettings(slots=6, simulations=24, cache_entries=500, **settings)  # type: ignore[arg-type]
    net = HashNet(game.num_actions, logit_range=1.0, value_range=0.5)
    return Generator(game, net, search, play, provenance, "p0", 1, 0, np.random.default_rng(seed))


def play(game: Game, search: SearchConfig, games: int = 8, seed: int = 0, **settings: object) -> list[Episode]:
    return generator(game, search, seed, **settings).play(lambda sealed, _: sealed >= games)


def kept(episodes: list[Episode]) -> list[tuple[Episode, int]]:
    """The decisions a learner may see: (episode, index of the step)."""
    return [
        (e, i)
        for e in episodes
        if e.trainable and e.game
        for i, step in enumerate(e.game.steps)
        if step.source == "search" and step.full_search
    ]


def targets_of(rows: Rows, row: int) -> tuple[np.ndarray, np.ndarray]:
    where = slice(int(rows.offsets[row]), int(rows.offsets[row + 1]))
    return rows.actions[where], rows.targets[where]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], list[SearchResult]]:
    """What every search found, by the moves that led to its root."""
    found: dict[tuple[int, ...], list[SearchResult]] = {}
    plain = BatchedSearch.result

    def result(self: BatchedSearch, slot: int) -> SearchResult:
        out = plain(self, slot)
        found.setdefault(tuple(self._states[slot][0].history()), []).append(out)
        return out

    monkeypatch.setattr(BatchedSearch, "result", result)
    return found


def test_an_algorithm_that_is_not_known_is_neither_played_nor_taught() -> None:
    with pytest.raises(UserError, match="searches by 'third' cannot be learned from"):
        dataclasses.replace(GUMBEL, algorithm="third")
    with pytest.raises(UserError, match="'third' is unknown; it is gumbel or puct"):
        SearchConfig(algorithm="third")  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
@pytest.mark.parametrize("name", GAMES)
def test_rows_are_what_was_played(
    name: str, algorithm: str, results: dict[tuple[int, ...], list[SearchResult]]
) -> None:
    game = game_of(name)
    episodes = play(game, SearchConfig(algorithm=algorithm), games=20, full_fraction=0.6)  # type: ignore[arg-type]
    settings = dataclasses.replace(GUMBEL, algorithm=algorithm)
    rows = rows_from(game, to_batch(episodes), settings)
    decisions = kept(episodes)
    assert len(rows) == len(decisions) == count_rows(to_batch(episodes)) > 15
    both = set()
    for row, (episode, ply) in enumerate(decisions):
        assert episode.game is not None and episode.returns is not None
        line = [step.action for step in episode.game.steps[:ply]]
        step, state = episode.game.steps[ply], game.after(line)
        seat = state.current_player()
        both.add(seat)
        assert seat == step.seat
        np.testing.assert_array_equal(rows.observations[row], game.encoder.encode(state))
        actions, target = targets_of(rows, row)
        assert actions.tolist() == state.legal_actions()
        assert target.sum() == pytest.approx(1, abs=1e-5) and (target >= 0).all()
        searched = [r for r in results[tuple(line)] if np.array_equal(r.visits, step.visits)]
        gap = min(np.abs(target - r.policy_target).max() for r in searched)
        assert gap <= (ROUNDING if algorithm == "gumbel" else 1e-6)
        assert rows.z[row] == pytest.approx(episode.returns[seat] / game.value_scale)
        assert rows.z[row] == pytest.approx(-episode.returns[1 - seat] / game.value_scale)
        assert abs(rows.q[row]) <= 1
        if algorithm == "puct":
            assert rows.q[row] == pytest.approx(step.root_value / game.value_scale, abs=2e-5)
        assert (rows.policy_weight[row], rows.z_weight[row], rows.q_weight[row]) == (1, 0.5, 0.25)
    assert both == {0, 1}


def test_q_is_the_value_of_the_improved_policy() -> None:
    """Sum of pi' * completed Q, written out once more from the episode's floats."""
    game = game_of("connect_four")
    episodes = from_batch(to_batch(play(game, SearchConfig())))
    rows = rows_from(game, to_batch(episodes), GUMBEL)
    for row, (episode, ply) in enumerate(kept(episodes)):
        step = episode.game.steps[ply]  # type: ignore[union-attr]
        seen = step.visits > 0
        mean = (step.prior[seen] * step.q[seen]).sum() / step.prior[seen].sum()
        mixed = (step.raw_value + step.visits.sum() * mean) / (1 + step.visits.sum())
        completed = np.where(seen, step.q, mixed)
        _, target = targets_of(rows, row)
        assert rows.q[row] == pytest.approx((target * completed).sum(), abs=1e-4)


def test_a_winning_move_is_worth_a_win() -> None:
    """z is 1 and q near it for the seat that wins at once; for the seat that moved before it z is -1."""
    game = game_of("tic_tac_toe")
    episodes = [e for e in play(game, SearchConfig(), games=40, opening_fraction=0.0) if e.returns != (0.0, 0.0)]
    rows = rows_from(game, to_batch(episodes), GUMBEL)
    decisions = kept(episodes)
    ends = [row for row, (e, ply) in enumerate(decisions) if ply == e.n_steps - 1]
    assert len(ends) == len(episodes) > 5
    for row in ends:
        assert rows.z[row] == 1 and rows.q[row] > 0.8
        assert rows.z[row - 1] == -1


def test_cheap_searches_openings_and_aborted_games_teach_nothing() -> None:
    game = game_of("connect_four")
    one = generator(game, SearchConfig(), full_fraction=0.3, opening_fraction=1.0)
    episodes = one.play(lambda sealed, _: sealed >= 4)
    aborted = one.abort()
    assert aborted and all(e.status == "aborted" and not e.trainable for e in aborted)
    steps = [step for e in episodes for step in e.game.steps]  # type: ignore[union-attr]
    assert any(step.source == "opening" for step in steps)
    assert any(step.source == "search" and not step.full_search for step in steps)
    mixed = [aborted[0], *episodes, *aborted[1:]]
    with_aborted, without = (rows_from(game, to_batch(es), GUMBEL) for es in (mixed, episodes))
    assert len(with_aborted) == len(without) == sum(s.full_search for s in steps) == count_rows(to_batch(mixed))
    for field in dataclasses.fields(Rows):
        np.testing.assert_array_equal(getattr(with_aborted, field.name), getattr(without, field.name))
    nothing = rows_from(game, to_batch(aborted), GUMBEL)
    assert len(nothing) == 0 and nothing.observations.shape == (0, *game.encoder.shape)


@pytest.mark.parametrize("name", ["connect_four", MARGIN])
def test_games_cut_by_the_ply_limit_are_no_draws(name: str) -> None:
    """Their last search value stands in for the outcome, for either seat, by the stated weight."""
    game = game_of(name)
    episodes = play(game, SearchConfig(), opening_fraction=0.0, ply_limit=6)
    assert all(e.status == "truncated" and e.returns is None and e.trainable for e in episodes)
    batch = to_batch(episodes)
    full, half, none = (
        rows_from(game, batch, dataclasses.replace(GUMBEL, truncated_weight=weight)) for weight in (1.0, 0.5, 0.0)
    )
    for rows in (full, half, none):
        assert (rows.z_weight == 0).all()
    np.testing.assert_allclose(full.q_weight, 0.25 + 0.5)
    np.testing.assert_allclose(half.q_weight, 0.25 + 0.25)
    np.testing.assert_allclose(none.q_weight, 0.25)
    for row, (episode, ply) in enumerate(kept(episodes)):
        steps = episode.game.steps  # type: ignore[union-attr]
        sign = 1 if steps[ply].seat == steps[-1].seat else -1
        last = sign * steps[-1].root_value / game.value_scale
        assert half.q[row] == pytest.approx((none.q[row] + last) / 2, abs=2e-5)
        assert full.q[row] == pytest.approx((0.25 * none.q[row] + 0.5 * last) / 0.75, abs=2e-5)
    # A net that already expects what is taught, with draws of its own, is left alone.
    draw = 0.5 * (1 - np.abs(full.q))
    logits = torch.tensor(np.log(np.stack([(1 + full.q - draw) / 2, draw, (1 - full.q - draw) / 2], 1)))
    logits.requires_grad_(True)
    taught = {name: torch.tensor(getattr(full, name)) for name in ("z", "q", "z_weight", "q_weight")}
    value_losses(logits, taught).sum().backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-5


def test_slices_and_tables_give_the_same_rows() -> None:
    """Blocks are read in slices and in chunks: no row of one episode leaks into another."""
    game = game_of("mancala")
    batch = to_batch(play(game, SearchConfig(), games=12))
    whole = rows_from(game, batch, GUMBEL)
    table = pa.Table.from_batches([batch.slice(0, 5), batch.slice(5, 4), batch.slice(9)])
    slices = [rows_from(game, batch.slice(i, 1), GUMBEL) for i in range(batch.num_rows)]
    assert sum(map(len, slices)) == len(whole)
    narrow = table.select(["trainable", "returns", "game"])
    for other in (rows_from(game, table, GUMBEL), rows_from(game, narrow, GUMBEL)):
        for field in dataclasses.fields(Rows):
            np.testing.assert_array_equal(getattr(other, field.name), getattr(whole, field.name))
    for name in ("observations", "targets", "z", "q"):
        np.testing.assert_array_equal(np.concatenate([getattr(s, name) for s in slices]), getattr(whole, name))


def test_an_illegal_archived_action_is_noticed() -> None:
    game = game_of("tic_tac_toe")
    episode = play(game, SearchConfig(), games=1, opening_fraction=0.0)[0]
    assert episode.game is not None
    steps = list(episode.game.steps)
    steps[2] = dataclasses.replace(steps[2], action=steps[0].action)
    broken = dataclasses.replace(episode, game=dataclasses.replace(episode.game, steps=tuple(steps)))
    with pytest.raises(ValueError, match="not legal"):
        rows_from(game, to_batch([broken]), GUMBEL)


def test_resignations_count_as_losses() -> None:
    game = game_of("connect_four")
    episodes = play(game, SearchConfig(), games=20, resign_threshold=0.05, resign_moves=1, resign_playon=0.0)
    resigned = [e for e in episodes if e.game and e.game.ended_by == "resignation"]
    assert len(resigned) > 5
    rows = rows_from(game, to_batch(resigned), GUMBEL)
    for row, (episode, ply) in enumerate(kept(resigned)):
        assert episode.game is not None
        assert rows.z[row] == (-1 if episode.game.steps[ply].seat == episode.game.resigned_seat else 1)
    assert (rows.z_weight == 0.5).all()
