"""What a version was trained on can be told to the last sample, from the corpus alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from selfplay import store
from selfplay.environments import registry
from selfplay.environments.game import load, spec_from_string
from selfplay.episode import Episode, Provenance, to_batch
from selfplay.episode.training import TargetSettings, row_places, rows_from
from selfplay.errors import UserError
from selfplay.io import run_files
from selfplay.nets import NetConfig, weights
from selfplay.nets.policy_value import build, to_arrays
from selfplay.play.generator import Generator, PlaySettings
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.corpus import lineage
from selfplay.store.table import maintenance
from trainers.alphazero import replay_window
from trainers.alphazero.learner_actor import Student, StudentJob
from trainers.alphazero.learner_settings import LearnerSettings
from trainers.alphazero.loop import Loop
from trainers.alphazero.provenance import sampler_of, samples_of, versions_of
from trainers.alphazero.state import State
from trainers.run.services import Office
from trainers.run.weights_lineage import Derivation

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
        self.blocks = self.games = 0
        self.state, self.version = State(version=0, digest="of the net before any training"), 0
        self.rows: dict[tuple[str, int], bytes] = {}
        self.hire(None)

    def books(self) -> Office:
        """The real one, that adds its rows without an actor."""
        books = object.__new__(Office)
        books.policy_id, books._net, books._kept = "run", "{}", []
        books.folder = SimpleNamespace(run_id="run", uri=str(self.place))  # type: ignore[assignment]
        books.provenance = SimpleNamespace(code_commit=None)  # type: ignore[assignment]
        books.tidier = SimpleNamespace(entered=lambda rows: None)
        add = lambda table, rows: store.append(self.corpus, table, rows)  # noqa: E731
        books.archivist = SimpleNamespace(add=SimpleNamespace(remote=add))
        books._hand_out = lambda *published: None  # type: ignore[method-assign]
        return books

    def hire(self, checkpoint: str | None) -> None:
        self.net = NetConfig(GAME.encoder.shape, GAME.num_actions, True, channels=4, blocks=1)
        net, place = self.net.to_json(), str(self.place)
        job = StudentJob(registry.pack(SPEC), net, self.settings, TARGETS, 3.0, 60, place, self.corpus, "run")
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
        """As the loop does it."""
        loop = object.__new__(Loop)
        loop.state, loop.crew, loop.archived = self.state, self.books(), self.committer.table_version  # type: ignore[assignment]
        loop.progress, loop.last_report = self.student.progress(), None
        loop.watch = SimpleNamespace(published=lambda *told: None)  # type: ignore[assignment]
        student = self.student
        loop.student = SimpleNamespace(publish=SimpleNamespace(remote=lambda v: type(student).publish(student, v)))
        loop.publish()
        self.version = self.state.version


def row_bytes(observation: Any, z: Any, q: Any) -> bytes:
    return np.asarray(observation, np.float32).tobytes() + np.float32(z).tobytes() + np.float32(q).tobytes()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """What windows really gave to learners in this process, row by row, before any symmetry."""
    seen: Counter[bytes] = Counter()
    honest = replay_window.ReplayWindow.sample

    def sample(self: replay_window.ReplayWindow, batch: int, rng: np.random.Generator) -> Any:
        def spying(rng: np.random.Generator, rows: int, batch: int) -> Any:
            index = draw(rng, rows, batch)
            numbers = self._numbers.array[index]
            seen.update(row_bytes(o, n[0], n[1]) for o, n in zip(self._observations(index), numbers, strict=True))
            return index

        draw = replay_window.draw
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replay_window, "draw", spying)
            return honest(self, batch, rng)

    monkeypatch.setattr(replay_window.ReplayWindow, "sample", sample)
    monkeypatch.setattr(ray, "get", lambda value: value)
    return seen


def test_the_samples_of_a_version_are_told_exactly(tmp_path: Path, drawn: Counter[bytes]) -> None:
    """With a window that forgets, and a learner that died and was resumed from a checkpoint."""
    settings = LearnerSettings(
        batch=32, device="cpu", bf16=False, threads=1, seed=5, window=replay_window.WindowSettings(80, 0.5, 0.4, 120)
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
    maintenance.compact(run.corpus)
    maintenance.vacuum(run.corpus, 0, dry_run=False)  # the learner was resumed from a version that cannot be opened now
    assert [samples_of(store.open(run.corpus), "run", version) for version in range(1, 7)] == all_told


def test_a_version_comes_from_the_checkpoint_and_not_from_what_was_published_after_it(
    tmp_path: Path, drawn: Counter[bytes]
) -> None:
    """Versions 2 and 3 were published after the checkpoint and had no part in version 4; twice the learner dies."""
    settings = LearnerSettings(
        batch=32, device="cpu", bf16=False, threads=1, seed=5, window=replay_window.WindowSettings(80, 0.5, 0.4, 120)
    )
    run = Run(tmp_path, settings)
    untrained = weights.digest(to_arrays(build(run.net, settings.seed)))  # as the driver publishes it
    run.play(4)
    run.publish()
    drawn.clear()
    run.play(1)  # sampled for version 2, and for version 4 as well
    run.student.checkpoint("here.safetensors", {})
    before = drawn.copy()
    run.play(1)
    run.publish()
    run.play(1)
    run.publish()
    run.hire("here.safetensors")
    drawn.clear()
    run.play(1)
    run.student.checkpoint("there.safetensors", {})
    run.play(1)
    run.hire("there.safetensors")  # without a version in between
    drawn.clear()  # what came after that checkpoint was undone
    run.play(1)
    run.publish()
    corpus = store.open(run.corpus)
    told = Counter(b for place, n in samples_of(corpus, "run", 4).items() for b in [run.rows[place]] * n)
    assert drawn + before <= told, "the steps before the first checkpoint, and those since the second"
    rows = {row["version"]: row for row in corpus.table("policies").to_pylist()}
    digest = {version: row["digest"] for version, row in rows.items()}
    assert {version: row["parent_digest"] for version, row in rows.items()} == {
        1: untrained, 2: digest[1], 3: digest[2], 4: digest[1],
    }  # fmt: skip
    assert lineage.of_weights(corpus, digest[4]).parents == (digest[1], untrained)
    assert lineage.of_weights(corpus, digest[3]).parents == (digest[2], digest[1], untrained)
    (use,) = (row for row in corpus.table("uses").to_pylist() if row["version_out"] == 4)
    assert (use["version_in"], use["digest_in"]) == (1, digest[1])
    steps = [(e["first_step"], e["last_step"]) for e in use["events"] if e["what"] == "train"]
    (older,) = (row for row in corpus.table("uses").to_pylist() if row["version_out"] == 1)
    assert steps[0][0] == older["last_step"] + 1 and use["last_step"] == run.student.progress().step - 1
    assert all(after[0] == step[1] + 1 for step, after in zip(steps, steps[1:], strict=False)), "no step is missing"
    meta = weights.load(run_files.weights_uri(str(tmp_path), 4))[1]
    assert (meta["parent_version"], meta["parent_digest"]) == (1, digest[1]), "for a driver that finds it unentered"


def test_weights_that_were_published_twice_keep_their_parents(tmp_path: Path) -> None:
    """Who goes on from a checkpoint of a version itself publishes the same weights again."""
    store.Committer(str(tmp_path), "run", 1)
    digest = {name: name * 32 for name in ("aa", "bb", "cc")}
    made = [(0, "aa", None), (1, "bb", "aa"), (2, "bb", "bb"), (3, "cc", "bb"), (4, "cc", None)]
    for version, name, parent in made:
        row = {"policy_id": "run", "run_id": "run", "version": version, "digest": digest[name]}
        store.append(str(tmp_path), "policies", [row | {"parent_digest": parent and digest[parent]}])
    corpus = store.open(str(tmp_path))
    assert lineage.of_weights(corpus, digest["cc"]).parents == (digest["bb"], digest["aa"])
    twice = lineage.of_weights(corpus, digest["bb"])
    assert (twice.version, twice.parents) == (1, (digest["aa"],))


def test_checkpoints_of_older_code_name_the_version_that_was_newest_then() -> None:
    derived = Derivation.from_checkpoint({}, {"version": 3, "digest": "d" * 64})
    assert (derived.version, derived.digest, derived.events) == (3, "d" * 64, [])
    assert Derivation.from_checkpoint({}, None) == Derivation(None, None)


def test_the_sampler_is_told_in_full() -> None:
    one = sampler_of(LearnerSettings(seed=3, batch=64, learners=2))
    assert one == (
        '{"seed": 3, "batch": 64, "shards": 2, '
        '"window": {"initial": 20000, "alpha": 0.65, "beta": 0.4, "maximum": 500000}}'
    )
