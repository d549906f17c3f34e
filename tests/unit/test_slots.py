"""A slot that has had all its writers under one driver is given up for another: its players and reasoners move on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyspiel
import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")

from selfplay import store
from selfplay.environments import registry  # noqa: E402
from selfplay.episode import random_episode  # noqa: E402
from selfplay.store.release.verifier.neighbours import Told, seeds_lie  # noqa: E402
from selfplay.store.table import commit  # noqa: E402
from selfplay.store.table.counters import numbers_of, player_seed  # noqa: E402
from selfplay.store.verify import neighbours  # noqa: E402
from trainers.alphazero.actors import Crew  # noqa: E402
from trainers.alphazero.config import RunConfig  # noqa: E402
from trainers.reasoning.actors import ReasoningCrew, ReasoningSizing  # noqa: E402
from trainers.reasoning.config import ReasoningConfig  # noqa: E402
from trainers.run import services  # noqa: E402
from trainers.run.placement import Place  # noqa: E402


class Here:
    """The methods of an object as those of an actor, called at once and in this process."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._actor, name))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers of a slot under a driver."""
    monkeypatch.setattr(commit, "WRITERS_PER_DRIVER", 2)
    monkeypatch.setattr(services.ray, "get", lambda answer: answer)


def admitted(crew: Any, committer: store.Committer) -> Any:
    crew.archivist = Here(committer)
    crew.weights = Here(SimpleNamespace(publish=lambda newest: None))
    return crew


@pytest.mark.usefixtures("few")
def test_players_write_where_they_are_told_and_no_game_is_played_twice(tmp_path: Path) -> None:
    config = RunConfig.model_validate({"name": "run", "env": {"id": "tic_tac_toe"}, "selfplay": {"games": 3}})
    folder = SimpleNamespace(run_id="run", uri=str(tmp_path), corpus=str(tmp_path / "corpus"))
    sizing = SimpleNamespace(players=1, gpus=0, joined=False)
    committer = store.Committer(folder.corpus, "run", 1)
    make: Any = Crew
    crew = admitted(make(config, registry.find("tic_tac_toe"), folder, 1, sizing, Place()), committer)
    game = pyspiel.load_game("tic_tac_toe")
    jobs = []
    for n in range(7):
        if n == 4:  # the archivist has died, and forgotten whom it admitted
            committer = store.Committer(folder.corpus, "run", 1)
            crew.archivist = Here(committer)
        job = crew.player_job("p0003")
        jobs.append(job)
        if n in (1, 2, 5, 6):  # the others die before they write
            episode = random_episode(game, n, crew.provenance, slot=job.slot, epoch=job.epoch, number=0)
            block, _ = store.Writer(folder.corpus, job.slot, job.epoch, job.first_block).write([episode])
            assert [one.status for one in committer.commit([block])] == ["committed"]
    assert [job.slot for job in jobs] == ["p0003"] * 2 + ["p0003.1"] * 2 + ["p0003.2"] * 2 + ["p0003.3"]
    assert [job.epoch for job in jobs] == [2, 3, 2, 3, 2, 3, 2]
    drawn = {int(np.random.default_rng(np.random.SeedSequence(job.seed)).integers(2**63)) for job in jobs}
    assert len(drawn) == len(jobs)


@pytest.mark.usefixtures("few")
def test_reasoners_write_where_they_are_told(tmp_path: Path) -> None:
    data = {"name": "run", "task": {"id": "parity"}, "policy": {"layers": 1, "hidden": 16, "heads": 2, "context": 200}}
    config = ReasoningConfig.model_validate(data)
    folder = SimpleNamespace(run_id="run", uri=str(tmp_path), corpus=str(tmp_path / "corpus"), new=True)
    make: Any = ReasoningCrew
    made = make(config, registry.find_task("parity"), folder, 1, ReasoningSizing(1, 1, 0, False), Place())
    crew = admitted(made, store.Committer(folder.corpus, "run", 1))
    jobs = [crew.reasoner_job("r0000") for _ in range(5)]
    assert [job.slot for job in jobs] == ["r0000"] * 2 + ["r0000.1"] * 2 + ["r0000.2"]
    assert len({job.seed for job in jobs}) == 5 and all(job.seed < 2**63 for job in jobs)
    crew.task.close()


def test_seeds_of_a_slot_that_stands_in_for_another_are_checked_like_its() -> None:
    assert numbers_of("p0003") == (3, 0) and numbers_of("p0012.4") == (12, 4)
    settings = {"run": {"seed": 5}, "selfplay": {"games": 2}}
    sequence = np.random.SeedSequence(player_seed(5, "p0003.2", 1000))
    seeds = np.random.Generator(np.random.PCG64(sequence)).integers(2**63, size=4)
    for slot, wrong in (("p0003.2", 0), ("p0003.1", 4), ("p0003", 4)):
        key, writer = ("run", slot, 1000), f"run/{slot}/1000"
        lies = list(neighbours._seeds(writer, key, np.arange(4), seeds, settings))
        told = [Told(n, 0, 0, int(seed), "game", None, None, False) for n, seed in enumerate(seeds)]
        assert len(lies) == len(list(seeds_lie(writer, slot, 1000, told, settings))) == wrong
