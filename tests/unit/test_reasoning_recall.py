"""A reasoning run that is started again reads what it still has to learn from, however much it has archived."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from selfplay import store
from selfplay.actors.archivist import Archivist
from selfplay.episode import Provenance, clock, to_batch
from selfplay.episode.record import Episode
from selfplay.io import run_files
from selfplay.nets import weights
from selfplay.store.corpus import newest
from selfplay.store.table.closings import Ledger
from trainers.reasoning import learner_actor as tutor
from trainers.reasoning.actors import ReasoningCrew
from trainers.reasoning.learner_actor import Tutor
from trainers.reasoning.loop import Course
from trainers.reasoning.lost_episodes import missing
from trainers.reasoning.state import ReasoningState
from trainers.reasoning.token_batch import Lessons
from trainers.reasoning.workers import Staff
from trainers.run.weights_lineage import Derivation

PROMPTS, GROUP = 4, 2
#: When the run began, seconds since 1970, and how long a round took.
BEGAN, ROUND_S, ROUNDS = 1.7e9, 120.0, 16


def episode(number: int, round_: int, place: int, epoch: int, origin: str = "cot_rl", tokens: int = 3) -> Episode:
    """The answer at `place` of a round; every other one is right."""
    right = place % 2 == 0
    said = {
        "seat": 0, "role": "assistant", "parent": None, "suffix_ids": [3], "token_ids": [4, 5] + [number % 7] * tokens,
        "logprobs": [-0.5] * (2 + tokens), "loss_mask": [True] * (2 + tokens), "finish_reason": "stop", "text": "4",
    }  # fmt: skip
    problem = round_ * PROMPTS + place // GROUP
    reasoning: dict[str, Any] = {
        "problem_seed": problem, "difficulty": 1.0, "problem_digest": f"{problem:064x}", "tokenizer": "bytes",
        "group_id": f"r{round_:06d}-{place // GROUP:04d}" if origin == "cot_rl" else f"w{number:06d}",
        "sample_index": place % GROUP, "temperature": 1.0, "top_k": None, "top_p": None, "answer": "4", "turns": [said],
    }  # fmt: skip
    judged = {"seat": 0, "state": "accepted" if right else "rejected", "reward": float(right), "error": None,
              "criteria": []}  # fmt: skip
    provenance = Provenance("run", "sums-v0", 0, "f" * 64, "b" * 64, "0.1", "here", "CC0-1.0", None, origin)
    began = int((BEGAN + ROUND_S * round_ + 1) * 1e6)
    return Episode(
        provenance, "r0", epoch, number, "ok", True, 1, (float(right),), problem, began, 5, reasoning=reasoning,
        verdicts=(judged,),
    )  # fmt: skip


def archive(uri: str, rounds: int, worked: int = 6, tokens: int = 3) -> int:
    """The episodes of a solver, then rounds, a block each; the version of the table."""
    committer = store.Committer(uri, "run", 1)
    epoch, number = committer.register("r0").epoch, worked
    blocks = [[episode(n, 0, 0, epoch, "solver", tokens) for n in range(worked)]]
    for round_ in range(rounds):
        blocks.append([episode(number + i, round_, i, epoch, tokens=tokens) for i in range(PROMPTS * GROUP)])
        number += PROMPTS * GROUP
    written = [store.write_block(uri, to_batch(some), "r0", epoch, i) for i, some in enumerate(blocks)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "_ahead", float("-inf"))  # else it would not go back to then
        for i, block in enumerate(written):
            patch.setattr(time, "time", lambda i=i: BEGAN + ROUND_S * i)  # a round's samples are archived at its end
            committer.commit([block])
    return committer.table_version


def learner(uri: str, window: int = 20_000, staleness: int = 1) -> Tutor:
    """One that can recall, without a policy."""
    made = object.__new__(Tutor)
    made._job = SimpleNamespace(corpus=uri, run_id="run", policy="")  # type: ignore[assignment]
    made._config = SimpleNamespace(  # type: ignore[assignment]
        expert=SimpleNamespace(window=window, per_problem=4),
        learner=SimpleNamespace(max_staleness=staleness),
        run=SimpleNamespace(seed=7),
    )
    made._base, made._own, made._since = Lessons(), Lessons(), Derivation(0, "a" * 64)
    made._imitable = lambda lessons: lessons  # type: ignore[method-assign]
    return made


def course(uri: str, version: int, round_: int, since: float) -> Course:
    made = object.__new__(Course)
    made.folder = SimpleNamespace(new=False, corpus=uri, run_id="run")  # type: ignore[assignment]
    made.staff = SimpleNamespace(archived=version)  # type: ignore[assignment]
    made.state = SimpleNamespace(round=round_, since=since)  # type: ignore[assignment]
    return made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that were read."""
    paths: list[str] = []
    reading = newest._read

    def counted(corpus: store.Corpus, some: list[str], *more: Any) -> Any:
        paths.extend(some)
        return reading(corpus, some, *more)

    monkeypatch.setattr(newest, "_read", counted)
    return paths


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    uri = str(tmp_path_factory.mktemp("corpus"))
    return uri, archive(uri, ROUNDS)


def test_only_what_is_newer_than_the_checkpoint_is_read(corpus: tuple[str, int], opened: list[str]) -> None:
    uri, version = corpus
    found = course(uri, version, ROUNDS - 2, BEGAN + ROUND_S * (ROUNDS - 2))._rounds_found()
    assert len(opened) <= 6, "two rounds, and those of the five minutes for which clocks may differ"
    assert found == course(uri, version, ROUNDS - 2, 0.0)._rounds_found(), "a state that does not say when"
    assert sorted(found) == [ROUNDS - 2, ROUNDS - 1] and len(found[ROUNDS - 1]) == PROMPTS
    assert sorted(found[ROUNDS - 1][f"r{ROUNDS - 1:06d}-0000"].states) == ["accepted", "rejected"]


def test_the_window_of_expert_iteration_is_filled_from_its_end(
    corpus: tuple[str, int], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tutor, "_BACK_S", 60.0)
    uri, version = corpus
    whole, some = learner(uri, window=10), learner(uri, window=10)
    some.recall_own(version, ROUNDS, BEGAN + ROUND_S * ROUNDS)
    assert len(set(opened)) < ROUNDS - 2
    whole.recall_own(version, ROUNDS, 0.0)
    assert len(set(opened)) == ROUNDS + 1
    assert len(some._own) == 10 and some._own.names["group"] == whole._own.names["group"]
    assert np.array_equal(some._own.numbers["weight"], whole._own.numbers["weight"])
    assert {event["what"] for event in some._since.events} == {"add"}


def test_a_window_that_all_rounds_do_not_fill_holds_them_all(corpus: tuple[str, int]) -> None:
    some = learner(corpus[0])
    some.recall_own(corpus[1], ROUNDS, BEGAN + ROUND_S * ROUNDS)
    assert len(some._own) == ROUNDS * PROMPTS


def test_the_solver_s_episodes_are_sought_where_they_can_be(corpus: tuple[str, int]) -> None:
    assert learner(corpus[0]).recall_base(corpus[1], BEGAN) == learner(corpus[0]).recall_base(corpus[1]) == 6


def test_what_died_with_a_driver_is_counted(corpus: tuple[str, int]) -> None:
    """Of what it had asked for when it last said so: what the archive does not hold."""
    uri, version = corpus
    newest = f"r{ROUNDS - 1:06d}"
    asked = {f"{newest}-0000": GROUP, f"{newest}-0001": GROUP + 1, f"r{ROUNDS:06d}-0000": GROUP, "h000003-0001": 1}
    assert missing(uri, "run", version, asked, BEGAN + ROUND_S * (ROUNDS - 1)) == 1 + GROUP + 1
    assert missing(uri, "run", version, {}, 0.0) == 0


def test_closings_tell_what_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a driver that was killed: what its successor finds missing; of one that ends: what it has counted itself."""
    uri = str(tmp_path)
    archive(uri, 1)
    crew = object.__new__(ReasoningCrew)
    state = ReasoningState(lost_episodes=2, in_flight={"r000000-0000": GROUP, "r000001-0000": GROUP}, since=BEGAN)
    crew.folder = SimpleNamespace(corpus=uri, run_id="run", state=state)  # type: ignore[assignment]
    crew.epoch, crew._ledger = 2, Ledger()
    monkeypatch.setattr(crew, "_enter", lambda table, row: store.append(uri, table, [row]))
    crew._lost_before = crew.lost_before()
    assert crew.lost() == 2 + GROUP
    Archivist(uri, uri, "run", 2).close_earlier(crew._lost_before)
    staff = object.__new__(Staff)
    staff._crew, staff.lost, staff._watch = crew, 0, SimpleNamespace(lost=lambda episodes: None)  # type: ignore[assignment]
    staff.lose(crew.lost_episodes)
    staff.lose(5)
    crew.close(interrupted=False)
    rows = store.open(uri).table("closings").sort_by("epoch").to_pylist()
    assert [(row["how"], row["lost"]) for row in rows] == [("taken over", 2 + GROUP), ("finished", 5)]


class Policy:
    """Stands in for a policy and its optimiser: every step changes its one weight."""

    def __init__(self) -> None:
        self.step, self.samples = 0, 0

    def weights(self) -> dict[str, np.ndarray]:
        return {"w": np.full(1, self.step, np.float32)}

    def save(self, uri: str, more: dict[str, Any], state: dict[str, Any]) -> None:
        weights.save(uri, self.weights(), {"step": self.step, "more": more, "state": state})

    def restore(self, uri: str) -> tuple[dict[str, Any], dict[str, Any]]:
        meta = weights.load(uri)[1]
        self.step = int(meta["step"])
        return meta["more"], meta["state"]


def at_work(run: str) -> Tutor:
    made = learner(run)
    made._job = SimpleNamespace(run_uri=run)  # type: ignore[assignment]
    made._config.learner.algorithm, made._config.warm = "grpo", SimpleNamespace(batch=8, corpus=None)  # type: ignore[misc,assignment]
    made._learner, made._first_rl_step = Policy(), 0  # type: ignore[assignment]
    made._since = Derivation(0, weights.digest(made._learner.weights()))
    return made


def trained(one: Tutor, steps: int) -> None:
    first = one._learner.step
    one._learner.step += steps
    one._trained(first)


def test_a_policy_comes_from_the_checkpoint_and_not_from_what_was_published_after_it(tmp_path: Path) -> None:
    run = str(tmp_path)
    one = at_work(run)
    untrained = weights.digest(one._learner.weights())
    trained(one, 3)
    first, _ = Tutor.publish(one, 1)
    trained(one, 2)
    one.checkpoint("here.safetensors", {"version": 1, "digest": first.digest})
    trained(one, 4)
    second, _ = Tutor.publish(one, 2)
    again = at_work(run)
    assert again.restore(["here.safetensors"]).checkpoint == "here.safetensors"
    third, _ = Tutor.publish(again, 3)
    new = at_work(run)  # the first learner died before its first checkpoint: another begins with the untrained policy
    trained(new, 1)
    fourth, _ = Tutor.publish(new, 4)
    parents = [(issue.parent_version, issue.parent_digest) for issue in (first, second, third, fourth)]
    assert parents == [(0, untrained), (1, first.digest), (1, first.digest), (0, untrained)]
    assert [event["first_step"] for event in third.events] == [3], "the steps between the version and the checkpoint"
    assert weights.load(run_files.weights_uri(run, 3))[1]["parent_digest"] == first.digest
