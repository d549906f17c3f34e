"""What sampling leaves in a dialogue: log-probabilities, limits, and the settings of the run that it was sampled with.

What follows without weights is little: a log-probability that is possible need not be the one that was drawn. A token
that was drawn has a probability that float32 can hold. With top_p the tokens that are left out have less than
`1 - top_p` of the whole together, less than the drawn one and those after it; these are the likelier ones first, so the
drawn one has at least `(1 - top_p) / vocabulary`. With top_k alone there is no such bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfplay.episode import Episode
from selfplay.store.corpus.kept_settings import by_digest
from selfplay.store.verify.answer import Answer
from selfplay.store.verify.spelling import Spelling

#: Nats. Smaller probabilities are 0 in float32, and are not drawn.
_LEAST = -104.0
#: Nats. By rounding alone a log-probability may be so much above 0.
_ROUNDING = 1e-3
#: Tokens of the largest vocabularies that there are, several times over.
_MOST_TOKENS = 2**20
_MOST_LISTED = 1000


@dataclass(frozen=True)
class DialogueSettings:
    """What a run's configuration says of its dialogues: `trainers.reasoning.config`.

    fresh: the policy began here, and has no tokens and no end but its tokenizer's. context: most tokens of a line, None
    where a model decides. levels: of the problems to learn from; empty: all of the task. draws: how their levels are
    drawn, "one" (each with probability 1), "even", or else with a share `floor` spread evenly.
    """

    temperature: float
    top_k: int | None
    top_p: float | None
    max_tokens: int
    stop: tuple[str, ...]
    group: int
    fresh: bool
    context: int | None
    levels: tuple[float, ...]
    draws: str
    floor: float


def dialogue_settings(runs: Iterable[Mapping[str, Any]]) -> dict[str, DialogueSettings]:
    """By `config_digest`: the settings of the reasoning runs. runs: rows of the table `runs`.

    A configuration counts only where its digest is the one that its row, and so its episodes, name it by.
    """
    found: dict[str, DialogueSettings] = {}
    for digest, config in by_digest(runs).items():
        try:
            if "generation" in config:
                found[digest] = _settings(config)
        except (ValueError, TypeError, LookupError, AttributeError):
            continue  # of another version, or none; what it would have decided is not covered
    return found


def _settings(config: Mapping[str, Any]) -> DialogueSettings:
    g, policy, curriculum = config["generation"], config["policy"], config["curriculum"]
    levels, stop, fresh = config["task"]["difficulties"], g["stop"], policy["path"] is None
    if not isinstance(stop, list) or not isinstance(levels, list) or max(len(stop), len(levels)) > _MOST_LISTED:
        raise ValueError("more texts or levels than any run has")
    even = "even" if curriculum["kind"] == "uniform" else "learnability"
    return DialogueSettings(
        float(g["temperature"]), g["top_k"], g["top_p"], int(g["max_tokens"]), tuple(map(str, stop)), int(g["group"]),
        fresh, int(policy["context"]) if fresh else None, tuple(map(float, levels)),
        "one" if config["learner"]["algorithm"] == "expert" else even, float(curriculum["floor"]),
    )  # fmt: skip


def sampling_lies(
    episode: Episode,
    record: Mapping[str, Any],
    answers: Sequence[Answer],
    settings: DialogueSettings | None,
    spelled: Spelling | None,
) -> str | None:
    """What is wrong with how tokens were drawn, and with the log-probabilities that they were drawn with."""
    temperature, top_k, top_p = record["temperature"], record["top_k"], record["top_p"]
    if episode.provenance.origin in ("solver", "human"):
        if (temperature, top_k, top_p) != (None, None, None):
            return f"its origin is {episode.provenance.origin}, and it has settings of sampling"
    elif temperature is None or not 0 <= temperature < math.inf:
        return f"its temperature is {temperature}"
    if (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        return f"its top_k is {top_k} and its top_p {top_p}"
    own = settings is not None and settings.fresh and spelled is not None
    vocabulary = len(spelled.pieces) if own and spelled is not None else _MOST_TOKENS
    least = max(_LEAST, _least(top_p, vocabulary))
    for answer in answers:
        logprobs, place = answer.turn["logprobs"], answer.place
        if logprobs is None:
            continue
        if None in logprobs or len(logprobs) != len(answer.turn["token_ids"] or ()) or any(map(math.isnan, logprobs)):
            return f"turn {place}: a token has no log-probability"
        if temperature == 0 and any(logprobs):
            return f"turn {place}: the likeliest tokens were taken, and one has the log-probability {min(logprobs):g}"
        if logprobs and max(logprobs) > _ROUNDING:
            return f"turn {place} has a log-probability above zero"
        if logprobs and min(logprobs) < least:
            return f"turn {place} has the log-probability {min(logprobs):g}, and no token below {least:.4g} was drawn"
        if own and settings is not None and spelled is not None and _stopped_for_nothing(answer, settings, spelled):
            return f"turn {place} stopped, and neither its last token nor any text of its run's settings ends it"
    return None


def _stopped_for_nothing(answer: Answer, settings: DialogueSettings, spelled: Spelling) -> bool:
    ids, text = answer.turn["token_ids"], answer.turn["text"]
    return bool(
        answer.turn["finish_reason"] == "stop"
        and ids
        and ids[-1] not in spelled.ends
        and not any(stop in text for stop in settings.stop)
    )


def _least(top_p: float | None, vocabulary: int) -> float:
    """Nats; the least log-probability of a token drawn with top_p, -inf where rounding decides."""
    if top_p is None or top_p > 0.99:
        return -math.inf
    return math.log((1 - top_p) / vocabulary) - 1.0  # sums of float32 over a large vocabulary may be off by a third


def settings_lie(
    episode: Episode, record: Mapping[str, Any], answers: Sequence[Answer], settings: DialogueSettings
) -> str | None:
    """What contradicts the configuration of its run."""
    origin, sampling = episode.provenance.origin, (record["temperature"], record["top_k"], record["top_p"])
    if origin in ("cot_rl", "teacher"):
        wanted = (_single(settings.temperature), settings.top_k, _single(settings.top_p))
        if (_single(sampling[0]), sampling[1], _single(sampling[2])) != wanted:
            return f"it was sampled with temperature, top_k, top_p {sampling}, and its run samples with {wanted}"
    elif origin == "evaluation" and sampling != (0, None, None):
        return f"it was sampled with temperature, top_k, top_p {sampling}, and measured answers are the likeliest"
    if record["sample_index"] >= (settings.group if origin == "cot_rl" else 1):
        return f"it is sample {record['sample_index']}, and a group of its run has {settings.group}"
    if origin == "cot_rl" and settings.levels and record["difficulty"] not in settings.levels:
        return f"its difficulty is {record['difficulty']:g}, and its run has the levels {settings.levels}"
    if settings.levels and (lie := chance_lies(episode, settings, settings.levels)) is not None:
        return lie
    return next((lie for answer in answers if (lie := _limit_lies(answer, settings)) is not None), None)


def chance_lies(episode: Episode, settings: DialogueSettings, levels: Sequence[float]) -> str | None:
    """The probability that the level of its problem was drawn with, among `levels`, against how its run draws."""
    turns = (episode.reasoning or {})["turns"]
    if episode.provenance.origin != "cot_rl" or not turns or turns[0]["role"] != "chance":
        return None
    probability, even = json.loads(turns[0]["text"])["probability"], 1.0 / len(levels)
    least = {"one": 1.0, "even": even}.get(settings.draws, settings.floor * even)
    most = even if settings.draws == "even" else 1.0
    if least * (1 - 1e-9) <= probability <= most * (1 + 1e-9):
        return None
    return f"its level was drawn with probability {probability:g}, and its run draws it with {least:g} to {most:g}"


def _limit_lies(answer: Answer, settings: DialogueSettings) -> str | None:
    """The length of an answer that a policy of ours gave, and why it ended there."""
    if not answer.sampled:
        return None
    ids, place = answer.turn["token_ids"], answer.place
    most = settings.max_tokens
    if settings.context is not None:
        most = min(most, settings.context - answer.before - len(answer.turn["suffix_ids"] or ()))
    if len(ids) > most:
        return f"turn {place} has {len(ids)} tokens, and its run allows {most}"
    if answer.turn["finish_reason"] == "length" and settings.context is not None and len(ids) < most:
        return f"turn {place} was cut after {len(ids)} tokens, and its run allows {most}"
    return None


def _single(value: float | None) -> float | None:
    """As the schema stores it."""
    return None if value is None else float(np.float32(value))
