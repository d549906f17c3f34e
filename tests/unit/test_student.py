"""What the learner takes in: every archived position once, and the window full again after a restart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from selfplay.environments.game import load, spec_from_string
from selfplay.episode import Episode, Provenance, to_batch
from selfplay.episode.rows import Rows, concatenate
from selfplay.episode.training import TargetSettings, count_rows, rows_from
from selfplay.play.generator import Generator, PlaySettings
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.table.commit import Committer
from selfplay.store.table.receipt import Receipt
from selfplay.store.table.write import write_block
from trainers.alphazero import learner_actor as students
from trainers.alphazero.arithmetic import Training
from trainers.alphazero.config import LearnerConfig, SelfPlayRunSettings
from trainers.alphazero.learner_actor import Student
from trainers.alphazero.loop import Loop
from trainers.run.weights_lineage import Derivation

GAME = load(spec_from_string("tic_tac_toe"))
TARGETS = TargetSettings("gumbel", 50.0, 0.2, 0.5, 0.5, 0.5)


class Learner:
    """Stands in for the net: keeps the rows, counts as the real one does."""

    training = Training(False, "channels_last")

    def __init__(self, capacity: int) -> None:
        self.capacity, self.total, self.samples, self.step = capacity, 0, 0, 0
        self.rows: list[Rows] = []
        self.new: list[bool] = []

    def restore(self, uri: str) -> None:
        self.total, self.samples = 100, 300

    def recount(self, total: int) -> None:
        self.total = total

    def add(self, rows: Rows, new: bool) -> None:
        self.total += len(rows) if new else 0
        self.rows.append(rows)
        self.new.append(new)

    def window_rows(self) -> int:
        return sum(map(len, self.rows))

    def train(self, steps: int, lr: float, threads: int | None) -> dict[str, float]:
        self.samples += 8 * steps
        return {}


def student(corpus: str, capacity: int = 10_000) -> tuple[Student, Learner]:
    learner = Learner(capacity)
    one = Student.__new__(Student)
    job = SimpleNamespace(
        corpus=corpus, run_id="run", targets=TARGETS, samples_per_position=4.0, first_rows=50,
        learner=SimpleNamespace(batch=8),
    )  # fmt: skip
    one.__dict__.update(_job=job, _game=GAME, _learner=learner, _paid=0.0, _losses={}, _since=Derivation(0, "a" * 64))
    return one, learner


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    """Sixty games, half of their searches cheap, the last few aborted."""
    provenance = Provenance("run", GAME.spec.id, 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    play = PlaySettings(slots=8, simulations=6, cheap_simulations=2, full_fraction=0.4, opening_plies=3)
    net = HashNet(GAME.num_actions, value_range=0.5)
    one = Generator(GAME, net, SearchConfig(), play, provenance, "p0", 1000, 0, np.random.default_rng(0))
    return one.play(lambda sealed, _: sealed >= 60) + one.abort()


def archive(place: Path, episodes: list[Episode]) -> tuple[str, list[tuple[Receipt, Any]]]:
    """Commits the episodes in blocks of eight; returns them as lessons, too."""
    corpus = str(place / "corpus")
    committer = Committer(corpus, "run", 1)
    lessons = []
    for number, first in enumerate(range(0, len(episodes), 8)):
        batch = to_batch(episodes[first : first + 8])
        block = write_block(corpus, batch, "p0", 1000, number)
        lessons.append((committer.commit([block])[0], [batch]))
    return corpus, lessons


@pytest.fixture(autouse=True)
def no_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students.ray, "get", lambda value: value)


def test_every_archived_position_is_taken_once(tmp_path: Path, episodes: list[Episode]) -> None:
    """From the archive up to a version, as lessons after it: together they are all rows, each once, in order."""
    corpus, lessons = archive(tmp_path, episodes)
    whole = rows_from(GAME, to_batch(episodes), TARGETS)
    for split in (0, 3, len(lessons)):
        one, learner = student(corpus)
        version = lessons[split - 1][0].table_version if split else 0
        before = one.resume(version).positions
        assert one.progress().debt == 4.0 * min(before, 50)  # what the first window is owed, at most
        one.take(lessons[split:])
        assert learner.total == learner.window_rows() == len(whole)
        assert one.progress().debt == 4.0 * (min(before, 50) + len(whole) - before)
        assert sum(learner.new) == sum(len(rows_from(GAME, ref[0], TARGETS)) > 0 for _, ref in lessons[split:])
        sorted_rows = [
            np.sort(rows.observations.reshape(len(rows), -1) @ 2.0 ** np.arange(GAME.encoder.size))
            for rows in (concatenate(learner.rows), whole)
        ]
        np.testing.assert_array_equal(*sorted_rows)


@pytest.mark.parametrize("capacity", [20, 60, 100, 10_000])
def test_a_restart_fills_the_window(tmp_path: Path, episodes: list[Episode], capacity: int) -> None:
    """Openings and cheap searches are steps of an episode but no rows of the window."""
    corpus, lessons = archive(tmp_path, episodes)
    total = count_rows(to_batch(episodes))
    assert 60 < total < sum(e.n_steps for e in episodes) / 2
    one, learner = student(corpus, capacity)
    one.resume(lessons[-1][0].table_version)
    assert learner.total == total and not any(learner.new)
    assert learner.window_rows() >= min(capacity, total)
    if capacity < total / 2:
        assert learner.window_rows() < total


def test_a_corpus_without_games(tmp_path: Path) -> None:
    corpus, _ = archive(tmp_path, [])
    one, learner = student(corpus)
    assert one.resume(0).positions == 0 and learner.rows == []


def test_training_is_paced_by_positions(tmp_path: Path, episodes: list[Episode]) -> None:
    """Whole batches of what is owed, never more; none before the window has begun."""
    corpus, lessons = archive(tmp_path, episodes)
    one, learner = student(corpus)
    one.resume(0)
    one.take(lessons[:1])
    assert learner.total < 50 and one.train(1000, 0.1).samples == 0
    one.take(lessons[1:])
    debt = one.progress().debt
    assert one.train(40, 0.1).samples == 40 and one.train(47, 0.1).samples == 80
    progress = one.train(10**9, 0.1)
    assert progress.samples == debt - debt % 8 and progress.debt == debt % 8
    assert one.train(10**9, 0.1).samples == progress.samples


def test_a_receipt_must_fit_its_episodes(tmp_path: Path, episodes: list[Episode]) -> None:
    corpus, lessons = archive(tmp_path, episodes)
    one, _ = student(corpus)
    with pytest.raises(ValueError, match="receipt is for 8 episodes"):
        one.take([(lessons[0][0], [lessons[1][1][0].slice(0, 7)])])


def test_the_learning_rate_falls_at_the_end_of_the_run() -> None:
    share = 0.0
    loop = Loop.__new__(Loop)
    learner = LearnerConfig(lr=1e-2, lr_final=1e-3, lr_decay_from=0.6)
    config = SimpleNamespace(learner=learner, run=SelfPlayRunSettings())
    loop.__dict__.update(config=config, watch=SimpleNamespace(share_done=lambda: share))
    found = []
    for share in (0.0, 0.6, 0.8, 1.0):  # noqa: B007  (read by the watch)
        found.append(loop.learning_rate())
    assert found == pytest.approx([1e-2, 1e-2, 5.5e-3, 1e-3])
    # A deterministic run that ends by the clock must not learn by it; one that ends by positions may.
    config.run = SelfPlayRunSettings(deterministic=True)
    assert loop.learning_rate() == 1e-2
    config.run = SelfPlayRunSettings(deterministic=True, positions=1000)
    assert loop.learning_rate() == pytest.approx(1e-3)
