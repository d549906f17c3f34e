"""Archived dialogues are judged again by the task's own verifier, on the problem made again."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from selfplay.environments import registry
from selfplay.environments.task import Task, ruleset_digest
from selfplay.episode import Episode, PolicySpan, Provenance
from selfplay.store.coverage import CONFIG, TOKENS
from selfplay.store.verify.verify import Check, Rules, verify_episode

PARITY = registry.find_task("parity")
RULES = Rules([])


def archived(answer: str, state: str, reward: float | None, task: str = "parity") -> Episode:
    """An episode in which `answer` was given to the parity problem of seed 3, difficulty 8."""
    posed = Task(PARITY).pose(3, 8)
    asked = [
        {"seat": 0, "role": message.role, "parent": None, "suffix_ids": [], "token_ids": [], "logprobs": None,
         "loss_mask": [], "finish_reason": None, "text": message.content}
        for message in posed.messages
    ]  # fmt: skip
    said = {
        "seat": 0, "role": "assistant", "parent": 0, "suffix_ids": [], "token_ids": [1], "logprobs": [-0.5],
        "loss_mask": [True], "finish_reason": "stop", "text": answer,
    }  # fmt: skip
    reasoning: dict[str, Any] = {
        "problem_seed": 3, "difficulty": 8.0, "problem_digest": posed.digest, "group_id": "g", "sample_index": 0,
        "tokenizer": "a" * 64, "temperature": 1.0, "top_k": None, "top_p": None, "answer": answer,
        "turns": [*asked, said],
    }  # fmt: skip
    error = "sandbox lost" if state == "unverifiable" else None
    score = {"criterion": "answer", "verifier_id": PARITY.id, "verifier_version": "0", "score": reward, "low": 0.0,
             "high": 1.0, "reason": ""}  # fmt: skip
    verdict = {"seat": 0, "state": state, "reward": reward, "error": error, "criteria": [score]}
    provenance = Provenance(
        "run", PARITY.id, 0, ruleset_digest(PARITY), "b" * 64, "0.1", "here", "CC0-1.0", None, "cot_rl"
    )
    returns, span = None if reward is None else (reward,), PolicySpan(0, 1, 1, "run", 3, "c" * 64)
    return Episode(
        provenance, "a", 1, 0, "ok", reward is not None, 1, returns, 3, 0, 1, (span,), reasoning=reasoning,
        verdicts=(verdict,),
    )  # fmt: skip


def right() -> str:
    assert PARITY.solve is not None
    return PARITY.solve(Task(PARITY).pose(3, 8).problem)


def wrong() -> str:
    return right()[:-1] + str(1 - int(right()[-1]))


def test_true_verdicts_are_true() -> None:
    uncovered = (CONFIG, TOKENS)  # neither its run nor its tokenizer is here
    assert verify_episode(archived(right(), "accepted", 1.0), RULES) == Check("run/a/1/0", "true", uncovered=uncovered)
    assert verify_episode(archived(wrong(), "rejected", 0.0), RULES).state == "true"


@pytest.mark.parametrize(
    ("episode", "said"),
    [
        (archived(wrong(), "accepted", 1.0), "was judged accepted, 1, and its verifier says rejected, 0"),
        (archived(right(), "rejected", 0.0), "was judged rejected, 0, and its verifier says accepted, 1"),
        (archived(right(), "accepted", 0.5), "was judged accepted, 0.5"),
    ],
)
def test_false_verdicts_are_named(episode: Episode, said: str) -> None:
    check = verify_episode(episode, RULES)
    assert check.state == "false" and said in check.reason


def test_another_problem_is_noticed() -> None:
    episode = archived(right(), "accepted", 1.0)
    assert episode.reasoning is not None
    other = dataclasses.replace(episode, seed=4, reasoning={**episode.reasoning, "problem_seed": 4})
    assert verify_episode(other, RULES).reason == "the problem, made again, is another"
    turns = [{**turn, "text": "1=" if turn["role"] == "user" else turn["text"]} for turn in episode.reasoning["turns"]]
    other = dataclasses.replace(episode, reasoning={**episode.reasoning, "turns": turns})
    assert verify_episode(other, RULES).reason == "the digest of its problem is not that of what was asked"


def test_what_cannot_be_judged_is_said() -> None:
    check = verify_episode(archived(right(), "unverifiable", None), RULES)
    assert (check.state, check.reason) == ("not checkable", "nobody could tell when it was sealed")
    episode = archived(right(), "accepted", 1.0)
    assert episode.verdicts is not None
    away = dataclasses.replace(episode.provenance, env_id="sums-v0")
    check = verify_episode(dataclasses.replace(episode, provenance=away), RULES)
    assert check.reason == "a verdict is by parity-v0 version 0, and not by sums-v0"
    verdict = {**episode.verdicts[0], "criteria": []}
    check = verify_episode(dataclasses.replace(episode, provenance=away, verdicts=(verdict,)), RULES)
    assert check.state == "not checkable" and "sums-v0 is not installed" in check.reason
    other = dataclasses.replace(episode.provenance, ruleset_digest="0" * 64)
    check = verify_episode(dataclasses.replace(episode, provenance=other), RULES)
    assert check.state == "not checkable" and "is not the one that it was judged by" in check.reason


@pytest.mark.parametrize("name", ["nim", "countdown"])
def test_the_digest_is_the_same_every_time(name: str) -> None:
    spec = registry.find_task(name)
    assert ruleset_digest(spec) == ruleset_digest(spec) != ruleset_digest(PARITY)
