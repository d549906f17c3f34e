"""What in a dialogue or a walk contradicts itself, whoever could judge it: verdicts, rewards, tokens, shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from selfplay.episode import CHANCE_SEAT, Episode
from selfplay.episode.schema import CHANCE_ROLE

#: Origins of texts that no policy here has sampled: they may be imitated, and have no log-probabilities.
_UNSAMPLED = ("solver", "teacher", "human")
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
    control, steps = episode.control, len(episode.control["rewards"])
    for name, shape, count in (("observations", "observation_shape", steps + 1), ("actions", "action_shape", steps)):
        wanted = count * math.prod(control[shape] or ())
        if len(control[name]) != wanted:
            return f"it has {len(control[name])} numbers of {name}, and {wanted} follow from its steps and shapes"
    if control["logprobs"] is not None and len(control["logprobs"]) != steps:
        return f"it has {len(control['logprobs'])} log-probabilities for {steps} actions"
    if not all(math.isfinite(reward) for reward in control["rewards"]):
        return "a reward is not finite"
    total = math.fsum(control["rewards"])
    if episode.returns is not None and not math.isclose(episode.returns[0], total, rel_tol=1e-9, abs_tol=1e-9):
        return f"its return is {episode.returns[0]:g}, and its rewards sum to {total:g}"
    return None


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
