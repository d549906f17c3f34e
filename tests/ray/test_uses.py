"""What a version was trained on can be told to the last sample, from the corpus alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from selfplay import registry, store
from selfplay.episode import Episode, Provenance, to_batch
from selfplay.episode.training import TargetSettings, row_places, rows_from
from selfplay.errors import UserError
from selfplay.game import load, spec_from_string
from selfplay.generation import Generator, PlaySettings
from selfplay.nets import NetConfig
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store import upkeep
from trainers import window
from trainers.learner_settings import LearnerSettings
from trainers.student import Student, StudentJob
from trainers.uses import sampler_of, samples_of, versions_of

SPEC = spec_from_string("tic_tac_toe")
GAME = load(SPEC)
TARGETS = TargetSettings("gumbel", 50.0, 0.2, 0.5, 0.5, 0.5)


def played(count: int, first: int) -> list[Episode]:
    """Games with openings and cheap searches, which are steps and no rows."""
    provenance = Provenance("run", SPEC.id, 0, "a" * 64, "b" * 64, "0", "here", "CC0-1.0")
    play = PlaySettings(slots=8, simulations=6, cheap_simulations=2, full_fraction=0.6, opening_plies=3)
    net = HashNet(GAME.num_actions, value_range=0.5)
    rng = np.random.default_rng(first)
    one = Generator(GAME, net, SearchConfig(), play, provenance, "p0", 1000, first, rng)
    return one.play(lambda sealed, _: sealed >= count)[:count]


class Run:
    """A learner and its archive, without the loop: blocks are committed, taken in, trained on, and versions entered."""

    def __init__(self, place: Path, settings: LearnerSettings) -> None:
        self.place, self.corpus, self.settings = place, str(place / "corpus"), settings
        self.committer = store.Committer(self.corpus, "run", 1)
        self.committer.register("p0")
        self.blocks = self.games = self.version = 0
        self.rows: dict[tuple[str, int], bytes] = {}
        self.hire(None)

    def hire(self, checkpoint: str | None) -> None:
        net = NetConfig(GAME.encoder.shape, GAME.num_actions, True, channels=4, blocks=1)
        job = StudentJob(
            registry.pack(SPEC), net.to_json(), self.settings, TARGETS, 3.0, 60, str(self.place), self.corpus, "run"
        )
        self.student = Student(job)
        if checkpoint is not None:
            assert self.student.restore([checkpoint]).checkpoint == checkpoint
        self.student.resume(self.committer.table_version)

    def play(self, blocks: int) -> None:
        for _ in range(blocks):
            episodes = played(9, self.games)
            batch = to_batch(episodes)
            self.games += len(episodes)
            block = store.write_block(self.corpus, batch, "p0", 1000, self.blocks)
            self.blocks += 1
            receipts = self.committer.commit([block])
            self.student.take([(receipts[0], [batch])])
            rows = rows_from(GAME, batch, TARGETS)
            for i, (episode, ply) in enumerate(row_places(batch)):
                self.rows[episodes[episode].episode_id, int(ply)] = row_bytes(
                    rows.observations[i], rows.z[i], rows.q[i]
                )
            self.student.train(200, 1e-3)

    def publish(self) -> None:
        issue, _ = type(self.student).publish(self.student, self.version + 1)
        self.version += 1
        row = {"run_id": "run", "version_out": self.version, "digest_out": issue.digest, "events": issue.events}
        store.append(self.corpus, "uses", [row | {"sampler": issue.sampler}])


def row_bytes(observation: Any, z: Any, q: Any) -> bytes:
    return np.asarray(observation, np.float32).tobytes() + np.float32(z).tobytes() + np.float32(q).tobytes()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """What windows really gave to learners in this process, row by row, before any symmetry."""
    seen: Counter[bytes] = Counter()
    honest = window.ReplayWindow.sample

    def sample(self: window.ReplayWindow, batch: int, rng: np.random.Generator) -> Any:
        def spying(rng: np.random.Generator, rows: int, batch: int) -> Any:
            index = draw(rng, rows, batch)
            numbers = self._numbers.array[index]
            seen.update(row_bytes(o, n[0], n[1]) for o, n in zip(self._observations(index), numbers, strict=True))
            return index

        draw = window.draw
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(window, "draw", spying)
            return honest(self, batch, rng)

    monkeypatch.setattr(window.ReplayWindow, "sample", sample)
    monkeypatch.setattr(ray, "get", lambda value: value)
    return seen


def test_the_samples_of_a_version_are_told_exactly(tmp_path: Path, drawn: Counter[bytes]) -> None:
    """With a window that forgets, and a learner that died and was resumed from a checkpoint."""
    settings = LearnerSettings(
        batch=32, device="cpu", bf16=False, threads=1, seed=5, window=window.WindowSettings(80, 0.5, 0.4, 120)
    )
    run = Run(tmp_path, settings)
    all_told = []
    for version in range(1, 7):
        if version == 4:
            run.student.checkpoint("here.safetensors", {})
            run.student.train(1000, 1e-3)  # lost with the learner
            run.hire("here.safetensors")
        drawn.clear()
        run.play(3)
        run.publish()
        corpus = store.open(run.corpus)
        told = samples_of(corpus, "run", version)
        all_told.append(told)
        assert sum(told.values()) == sum(drawn.values()) > 0
        assert Counter(b for place, n in told.items() for b in [run.rows[place]] * n) == drawn
    assert list(versions_of(corpus, "run")) == [1, 2, 3, 4, 5, 6]
    steps = samples_of(corpus, "run", 6)
    oldest = min(int(episode.rsplit("/", 1)[1]) for episode, _ in steps)
    assert oldest > 0, "the window has forgotten nothing: the test shows too little"
    with pytest.raises(UserError, match="does not say what version 9 of run was trained on"):
        samples_of(corpus, "run", 9)
    upkeep.compact(run.corpus)
    upkeep.vacuum(run.corpus, 0, dry_run=False)  # the version that the learner was resumed from cannot be opened now
    assert [samples_of(store.open(run.corpus), "run", version) for version in range(1, 7)] == all_told


def test_the_sampler_is_told_in_full() -> None:
    one = sampler_of(LearnerSettings(seed=3, batch=64, learners=2))
    assert one == (
        '{"seed": 3, "batch": 64, "shards": 2, '
        '"window": {"initial": 20000, "alpha": 0.65, "beta": 0.4, "maximum": 500000}}'
    )
