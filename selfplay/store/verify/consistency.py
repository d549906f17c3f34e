"""What in a dialogue or a walk contradicts itself, whoever could judge it: verdicts, rewards, tokens, shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from selfplay.episode import CHANCE_SEAT, Episode
from selfplay.episode.schema import CHANCE_ROLE

#: Origins of texts that no policy here has sampled: they may be imitated, and have no log-probabilities.
_UNSAMPLED = ("solver", "teacher", "human")
_MOST_DIMENSIONS = 32
_STATES = ("accepted", "rejected", "unverifiable")


def judgement_lies(episode: Episode) -> str | None:
    """What is wrong with the verdicts, and with the returns that follow from them; None if nothing is.

    A verdict that could not be given has no reward, and never counts as zero: its seat has no return.
    """
    rewards: dict[int, list[float]] = {}
    for verdict in episode.verdicts or ():
        seat, state, reward = verdict["seat"], verdict["state"], verdict["reward"]
        if not 0 <= seat < episode.seats:
            return f"a verdict is about seat {seat} of {episode.seats}"
        if state not in _STATES:
            return f"a verdict is {state!r}"
        if verdict["error"] is not None and state != "unverifiable":
            return f"a verdict is {state}, and its verifier failed: {verdict['error']}"
        if (reward is None) != (state == "unverifiable"):
            return f"a verdict is {state} and its reward is {reward}"
        if reward is not None and not math.isfinite(reward):
            return f"a reward is {reward}"
        for criterion in verdict["criteria"] or ():
            lie = _criterion_lies(criterion, state)
            if lie is not None:
                return lie
        if reward is not None:
            rewards.setdefault(seat, []).append(reward)
    if episode.kind == "reasoning" and episode.returns is not None and episode.verdicts is not None:
        for seat, value in enumerate(episode.returns):
            given = rewards.get(seat)
            if given is None:
                return f"seat {seat} has the return {value:g}, and no verdict with a reward"
            if not any(math.isclose(value, reward, abs_tol=1e-9) for reward in given):
                return f"seat {seat} has the return {value:g}, and its verdict the reward {given[-1]:g}"
    if episode.trainable and episode.verdicts and not rewards:
        return "it is marked trainable, and no verdict could be given"
    if episode.trainable and episode.status not in ("ok", "truncated"):
        return f"it is marked trainable with status {episode.status}"
    return None


def _criterion_lies(criterion: Mapping[str, Any], state: str) -> str | None:
    name, score, low, high = (criterion[key] for key in ("criterion", "score", "low", "high"))
    if score is None:
        return None if state == "unverifiable" else f"criterion {name} has no score, and the verdict is {state}"
    if not math.isfinite(score) or (low is not None and score < low) or (high is not None and score > high):
        return f"criterion {name} has the score {score}, outside {low} to {high}"
    return None


def payload_lies(episode: Episode) -> str | None:
    """What is wrong with the turns, or with the arrays of a control environment; None if nothing is."""
    if episode.reasoning is not None:
        return _turns_lie(episode.reasoning["turns"], episode.seats, episode.provenance.origin not in _UNSAMPLED)
    assert episode.control is not None
    return _walk_lies(episode, episode.control)


def _walk_lies(episode: Episode, control: Mapping[str, Any]) -> str | None:
    """Numbers that do not fit the steps and shapes of a walk, its return, or the probabilities of its actions."""
    steps, returns, logprobs = len(control["rewards"]), episode.returns, control["logprobs"]
    if episode.seats != 1:
        return f"it has {episode.seats} seats, and a walk one"
    for name, shape, count in (("observations", "observation_shape", steps + 1), ("actions", "action_shape", steps)):
        sizes = control[shape] or ()
        if len(sizes) > _MOST_DIMENSIONS or min(sizes, default=0) < 0:
            return f"its {shape} is none: {sizes[:4]}"
        wanted = count * math.prod(sizes)
        if len(control[name]) != wanted:
            return f"it has {len(control[name])} numbers of {name}, and {wanted} follow from its steps and shapes"
    discrete = not control["action_shape"]
    if discrete and not all(float(action).is_integer() for action in control["actions"]):
        return "a discrete action is no whole number"
    if logprobs is not None and len(logprobs) != steps:
        return f"it has {len(logprobs)} log-probabilities for {steps} actions"
    most = 1e-3 if discrete else math.inf  # a density may be above one
    if not all(value is not None and value < math.inf and value <= most for value in logprobs or ()):
        return "a log-probability of an action is above zero, or none"
    if not all(math.isfinite(reward) for reward in control["rewards"]):
        return "a reward is not finite"
    total = math.fsum(control["rewards"])
    if returns is not None and not math.isclose(returns[0], total, rel_tol=1e-9, abs_tol=1e-9):
        return f"its return is {returns[0]:g}, and its rewards sum to {total:g}"
    after = 0
    for span in sorted(episode.policy_spans, key=lambda one: one.first_step):
        if span.first_step != after or span.last_step < after:
            return f"step {after} has no policy span, or two"
        after = span.last_step + 1
    return None if after in (0, steps) else f"its policy spans end after {after} of {steps} steps"


def _turns_lie(turns: Sequence[Mapping[str, Any]], seats: int, sampled: bool) -> str | None:
    for i, turn in enumerate(turns):
        tokens = turn["token_ids"] or ()
        if turn["role"] == CHANCE_ROLE:
            if turn["seat"] != CHANCE_SEAT or turn["parent"] is not None or tokens:
                return f"turn {i} is of chance, and has a seat, a parent or tokens"
            continue
        if not 0 <= turn["seat"] < seats:
            return f"turn {i} is by seat {turn['seat']} of {seats}"
        if turn["parent"] is not None and not 0 <= turn["parent"] < i:
            return f"turn {i} continues turn {turn['parent']}, which does not come before it"
        for name in ("loss_mask", "logprobs"):
            if turn[name] is not None and len(turn[name]) != len(tokens):
                return f"turn {i} has {len(tokens)} tokens and a {name} of {len(turn[name])}"
        logprobs = turn["logprobs"] or [None] * len(tokens)
        if any(value is not None and (math.isnan(value) or value > 1e-3) for value in logprobs):
            return f"turn {i} has a log-probability above zero"
        for learned, value in zip(turn["loss_mask"] or (), logprobs, strict=False):
            if learned and (sampled or turn["logprobs"]) and (value is None or math.isinf(value)):
                return f"turn {i} is to be learned from, and a token has no log-probability"
    return None
