"""Dialogues and walks that contradict themselves are false, though nobody here could judge them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfplay import store
from selfplay.episode import Episode, PolicySpan
from selfplay.store.verify.verify import Rules, verify_episode

GOLDEN = Path(__file__).parents[1] / "golden" / "corpus_v1"


@pytest.fixture(scope="module")
def episodes() -> dict[str, Episode]:
    found = list(store.open(str(GOLDEN)).records())
    judged, failed = sorted((e for e in found if e.kind == "reasoning"), key=lambda e: e.number)
    return {"judged": judged, "failed": failed, "walk": next(e for e in found if e.kind == "control")}


def changed(episode: Episode, change: Callable[[Any], None]) -> Episode:
    """A copy whose nested values `change` has changed in place, sealed anew."""
    values = {"verdicts": episode.verdicts, "reasoning": episode.reasoning, "control": episode.control}
    fields: dict[str, Any] = copy.deepcopy(values)
    fields["returns"] = list(episode.returns) if episode.returns is not None else None
    change(fields)
    fields["verdicts"] = None if fields["verdicts"] is None else tuple(fields["verdicts"])
    fields["returns"] = None if fields["returns"] is None else tuple(fields["returns"])
    return dataclasses.replace(episode, **fields)


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(fields: Any) -> None:
        for key in path[:-1]:
            fields = fields[key]
        fields[path[-1]] = value

    return change


def test_nothing_is_wrong_with_those_of_the_golden_corpus(episodes: dict[str, Episode]) -> None:
    for episode in episodes.values():
        check = verify_episode(episode, Rules([]))
        reason = {"reasoning": "sums-v0 is not installed", "control": "no verifier for kind control"}[episode.kind]
        assert check.state == "not checkable" and check.reason.startswith(reason)


@pytest.mark.parametrize(
    ("which", "change", "said"),
    [
        ("judged", put("verdicts", 0, "reward", value=0.5), "has the return 1, and its verdict the reward 0.5"),
        ("judged", put("verdicts", 0, "reward", value=None), "is accepted and its reward is None"),
        ("judged", put("verdicts", 0, "state", value="unverifiable"), "is unverifiable and its reward is 1.0"),
        ("judged", put("verdicts", 0, "state", value="maybe"), "a verdict is 'maybe'"),
        ("judged", put("verdicts", 0, "seat", value=1), "is about seat 1 of 1"),
        ("judged", put("verdicts", 0, "reward", value=float("inf")), "a reward is inf"),
        ("judged", put("verdicts", 0, "criteria", 0, "score", value=1.5), "has the score 1.5, outside 0.0 to 1.0"),
        ("judged", put("verdicts", 0, "criteria", 0, "score", value=None), "criterion answer has no score"),
        ("judged", put("returns", value=[0.0]), "seat 0 has the return 0, and its verdict the reward 1"),
        ("judged", put("verdicts", 0, "error", value="timed out"), "is accepted, and its verifier failed: timed out"),
        ("judged", put("reasoning", "turns", 1, "parent", value=1), "does not come before it"),
        ("judged", put("reasoning", "turns", 1, "seat", value=3), "turn 1 is by seat 3 of 1"),
        ("judged", put("reasoning", "turns", 1, "loss_mask", value=[True]), "2 tokens and a loss_mask of 1"),
        ("judged", put("reasoning", "turns", 1, "logprobs", value=None), "a token has no log-probability"),
        ("judged", put("reasoning", "turns", 1, "logprobs", 0, value=0.5), "a log-probability above zero"),
        ("failed", put("returns", value=[0.0]), "has the return 0, and no verdict with a reward"),
        ("walk", put("control", "observations", value=[0.0]), "1 numbers of observations, and 4 follow"),
        ("walk", put("control", "rewards", 0, value=-2.0), "its return is -1, and its rewards sum to -2"),
        ("walk", put("control", "logprobs", value=[0.0, 0.0]), "2 log-probabilities for 1 actions"),
        ("walk", put("control", "logprobs", value=[0.5]), "a log-probability of an action is above zero"),
        ("walk", put("control", "logprobs", value=[None]), "above zero, or none"),
        ("walk", put("control", "actions", value=[0.5]), "a discrete action is no whole number"),
        ("walk", put("control", "observation_shape", value=[-2, -1]), "its observation_shape is none"),
        ("walk", put("control", "observation_shape", value=[2] * 40), "its observation_shape is none"),
    ],
)
def test_a_contradiction_is_named(
    episodes: dict[str, Episode], which: str, change: Callable[[Any], None], said: str
) -> None:
    check = verify_episode(changed(episodes[which], change), Rules([]))
    assert check.state == "false" and said in check.reason


def test_each_step_of_a_walk_has_one_policy(episodes: dict[str, Episode]) -> None:
    rewards = [0.5] * 4
    control = {**(episodes["walk"].control or {}), "rewards": rewards, "actions": rewards, "action_shape": [1],
               "observations": [0.0] * 10, "logprobs": [3.5] * 4}  # fmt: skip
    walk = dataclasses.replace(episodes["walk"], control=control, returns=(2.0,))
    for ends, fits in (([(0, 3)], True), ([(2, 3), (0, 1)], True), ([(0, 1)], False), ([(0, 2), (2, 3)], False)):
        spans = tuple(PolicySpan(0, first, last, "run", 1, "c" * 64) for first, last in ends)
        check = verify_episode(dataclasses.replace(walk, policy_spans=spans), Rules([]))
        assert check.state == ("not checkable" if fits else "false"), check.reason


def test_a_verifier_that_failed_teaches_nothing(episodes: dict[str, Episode]) -> None:
    check = verify_episode(dataclasses.replace(episodes["failed"], trainable=True), Rules([]))
    assert check.reason == "it is marked trainable, and no verdict could be given"
