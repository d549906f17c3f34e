"""What in a dialogue contradicts how dialogues are recorded, whoever could judge it.

The recorder writes a seat's tokens once, as they were told or sampled: a line is a chain of turns, each answer carries
the tokens of what was told before it and its own, and has a policy that wrote it. So much follows from the row alone;
with the configuration of its run more does (`selfplay.store.verify.sampled`), with its tokenizer its tokens spell its
text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from selfplay.episode import CHANCE_SEAT, Episode, PolicySpan
from selfplay.episode.schema import CHANCE_ROLE
from selfplay.store.coverage import CONFIG, SPLIT, Check
from selfplay.store.verify.answer import Answer, Turn
from selfplay.store.verify.prompts import Asked, Renders, asked_of, settled
from selfplay.store.verify.sampled import DialogueSettings, dialogue_settings, sampling_lies, settings_lie
from selfplay.store.verify.spelling import Spelling, answer_lies, is_digest, prompt_lies, spelling, unread
from selfplay.store.verify.splits import digest_lies, untold

#: Origins of answers that no policy wrote: recorded by `Recorder.worked`.
WORKED = ("solver", "human")
#: Policies behind an endpoint: they give text alone.
ENDPOINT = "endpoint:"
_TOLD = ("system", "user", "tool")
_STATUSES = ("ok", "truncated", "aborted", "error")
#: How a run names the groups of its rounds, of its warm start, and of what is measured; -> origins of their episodes.
_GROUPS = {
    re.compile(r"r\d{6}-\d{4}"): ("cot_rl",),
    re.compile(r"w\d{6}"): ("solver", "teacher"),
    re.compile(r"[hd]\d{6}-.+-\d{4}"): ("evaluation",),
}


class Neighbourhood:
    """What a corpus says besides its episodes that dialogues are held against: configurations and tokenizers."""

    def __init__(
        self, runs: Iterable[Mapping[str, Any]], tokenizers: Mapping[str, str], renders: Renders | None = None
    ) -> None:
        """runs: rows of this table. tokenizers: digest -> files, as `spelling.kept` gives them. renders: compares
        prompts that are not read as data; None: they are not covered.
        """
        self._renders = renders
        self._settings = dialogue_settings(runs)
        self._files = tokenizers
        self._newest: tuple[str, Spelling | None] = ("", None)

    def settings(self, episode: Episode) -> DialogueSettings | None:
        """Those that the episode was made with; None where they are not here."""
        return self._settings.get(episode.provenance.config_digest)

    def settled(self, checks: Sequence[Check], asked: Mapping[int, Sequence[Asked]]) -> list[Check]:
        """The answers with what comes of their prompts. asked: place in `checks` -> prompts."""
        return settled(checks, asked, self._files, self._renders) if asked else list(checks)

    def spelling(self, digest: str) -> Spelling | None:
        """The tokenizer; None where it is not here, or is not read as data. One is in memory at a time."""
        if digest != self._newest[0]:
            files = self._files.get(digest)
            self._newest = (digest, None if files is None else spelling(digest, files))
        return self._newest[1]


def dialogue_lies(episode: Episode, known: Neighbourhood) -> tuple[str | None, tuple[str, ...], tuple[Asked, ...]]:
    """What is wrong with a dialogue that the recorder sealed, None if nothing is; what could not be looked at; and the
    prompts that only their tokenizer can tell of.
    """
    record = episode.reasoning
    assert record is not None
    lie = _head_lies(episode, record) or _verdicts_lie(episode) or _turns_lie(episode, record["turns"])
    if lie is not None:
        return lie, (), ()
    try:
        answers = list(_answers(episode, record["turns"]))
    except ValueError as error:
        return str(error), (), ()
    settings, spelled = known.settings(episode), known.spelling(record["tokenizer"])
    uncovered: set[str] = set() if settings is not None else {CONFIG}
    asked: list[Asked] = []
    lie = _policies_lie(episode, answers) or _end_lies(episode, record, answers)
    lie = lie or sampling_lies(episode, record, answers, settings, spelled)
    if lie is None and settings is not None:
        lie = settings_lie(episode, record, answers, settings)
    for answer in answers:
        lie = lie or answer_lies(answer, spelled, uncovered)
        unsure = unread(spelled)
        if unsure is not None:
            asked.append(asked_of(answer, record["tokenizer"], unsure, episode.schema_version))
        elif lie is None and spelled is not None:
            lie = prompt_lies(answer, spelled)
    lie = lie or digest_lies(episode, record)
    if lie is None and untold(episode, record):
        uncovered.add(SPLIT)
    return (lie, (), ()) if lie else (None, tuple(sorted(uncovered)), tuple(asked))


def _head_lies(episode: Episode, record: Mapping[str, Any]) -> str | None:
    p, status = episode.provenance, episode.status
    if not p.env_id.endswith(f"-v{p.env_version}"):
        return f"its environment is {p.env_id}, and its version {p.env_version}"
    if episode.seed != record["problem_seed"]:
        return f"its seed is {episode.seed}, and its problem's {record['problem_seed']}"
    if status not in _STATUSES:
        return f"its status is {status}, and no dialogue ends so"
    if (episode.error is not None) != (status == "error"):
        return f"its status is {status}, and its error {episode.error}"
    if p.origin in WORKED and status != "ok":
        return f"its origin is {p.origin}, and its status {status}"
    for pattern, origins in _GROUPS.items():
        if pattern.fullmatch(record["group_id"] or "") and p.origin not in origins:
            return f"its group {record['group_id']} is of origin {' or '.join(origins)}, and its own is {p.origin}"
    if record["sample_index"] < 0 or (record["sample_index"] and p.origin in (*WORKED, "teacher")):
        return f"it is sample {record['sample_index']} of its group, and its origin {p.origin}"
    if episode.trainable and (status not in ("ok", "truncated") or p.origin == "evaluation"):
        return f"it is marked trainable with status {status} and origin {p.origin}"
    return None


def _verdicts_lie(episode: Episode) -> str | None:
    """One verdict a seat, in order, by the environment's own verifier; the returns are their rewards, or none."""
    verdicts, p = episode.verdicts or (), episode.provenance
    if [verdict["seat"] for verdict in verdicts] != list(range(len(verdicts))) or len(verdicts) != episode.seats:
        return f"it does not have one verdict for each of its {episode.seats} seats, in their order"
    for verdict in verdicts:
        failed = verdict["state"] == "unverifiable"
        if failed != bool(verdict["error"]):
            return f"a verdict is {verdict['state']}, and its error is {verdict['error']!r}"
        if not failed and episode.status in ("aborted", "error"):
            return f"its status is {episode.status}, and a verdict is {verdict['state']}"
        for one in verdict["criteria"] or ():
            if (one["verifier_id"], one["verifier_version"]) != (p.env_id, str(p.env_version)):
                return f"a verdict is by {one['verifier_id']} version {one['verifier_version']}, and not by {p.env_id}"
            if one["low"] is None or one["high"] is None or (one["score"] is None) != failed:
                return f"criterion {one['criterion']} of a verdict that is {verdict['state']} lacks a number"
            if not -math.inf < one["low"] <= one["high"] < math.inf:
                return f"criterion {one['criterion']} ranges from {one['low']} to {one['high']}"
    rewards = [verdict["reward"] for verdict in verdicts]
    known = None if None in rewards else tuple(rewards)
    if episode.returns != known:
        return f"its returns are {episode.returns}, and its verdicts give {known}"
    if episode.trainable and known is None:
        return "it is marked trainable, and a seat has no verdict"
    return None


def _turns_lie(episode: Episode, turns: Sequence[Turn]) -> str | None:
    """What is wrong with who was told what and answered, before any token is looked at."""
    lasts: dict[int, int] = {}
    before: Turn | None = None
    for place, turn in enumerate(turns):
        seat, role = turn["seat"], turn["role"]
        if role == CHANCE_ROLE:
            lie = f"turn {place} is of chance, after others" if place else _chance_lies(episode, turn)
            if lie is not None:
                return lie
            continue
        if turn["text"] is None:
            return f"turn {place} has no text"
        if turn["parent"] != lasts.get(seat):
            ends = lasts.get(seat)
            return f"turn {place} continues turn {turn['parent']}, and the line of seat {seat} ends in turn {ends}"
        if before is None and (seat, role) not in [(0, one) for one in _TOLD]:
            return f"turn {place} of seat {seat}, {role!r}, comes before the problem was told to seat 0"
        if before is not None and before["role"] in _TOLD and seat != before["seat"]:
            return f"turn {place} is of seat {seat}, and seat {before['seat']} was told something and is to answer"
        if role in _TOLD:
            filled = [name for name in ("suffix_ids", "token_ids", "logprobs", "loss_mask") if turn[name]]
            if filled or turn["finish_reason"] is not None:
                return f"turn {place} was told, and has {filled[0] if filled else 'a finish_reason'}"
        elif role != "assistant" or seat not in lasts:
            return f"turn {place} of seat {seat} has the role {role!r}"
        before, lasts[seat] = turn, place
    last = turns[-1]["role"] if turns else None
    if episode.status == "ok" and last != "assistant":
        return "its status is ok, and nothing was answered in the end"
    return None


def _chance_lies(episode: Episode, turn: Turn) -> str | None:
    """The choice of the problem, as the recorder writes it: {"difficulty": …, "probability": …}."""
    assert episode.reasoning is not None
    if episode.provenance.origin in (*WORKED, "teacher", "evaluation"):
        return f"its problem was chosen by chance, and its origin is {episode.provenance.origin}"
    try:
        said = json.loads(turn["text"])
        level, probability = said["difficulty"], said["probability"]
        fine = turn["seat"] == CHANCE_SEAT and set(said) == {"difficulty", "probability"}
        fine = fine and level == episode.reasoning["difficulty"] and 0 < probability <= 1
    except (ValueError, TypeError, LookupError, RecursionError):
        fine = False
    empty = not any(turn[name] for name in ("suffix_ids", "logprobs", "loss_mask", "finish_reason"))
    return None if fine and empty else "its turn of chance is not the choice of its problem with a probability"


def _answers(episode: Episode, turns: Sequence[Turn]) -> Iterator[Answer]:
    """The answers, each with the span that covers it. Raises `ValueError` where not just one does."""
    of: dict[int, PolicySpan] = {}
    for span in episode.policy_spans:
        for place in range(span.first_step, span.last_step + 1):
            if turns[place]["role"] != "assistant" or of.setdefault(place, span) is not span:
                raise ValueError(f"a policy span covers turn {place}, which nobody wrote, or which another covers, too")
    told: dict[int, list[tuple[str, str]]] = {}
    lengths: dict[int, int] = {}
    lasts: dict[int, Turn] = {}
    for place, turn in enumerate(turns):
        seat = turn["seat"]
        if turn["role"] == "assistant":
            if place not in of or of[place].seat != seat:
                raise ValueError(f"the answer in turn {place} has no policy span of its seat")
            messages = tuple(told.pop(seat, ()))
            yield Answer(place, turn, of[place], messages, lengths.get(seat, 0), lasts.get(seat))
            lengths[seat] = lengths.get(seat, 0) + len(turn["suffix_ids"] or ()) + len(turn["token_ids"] or ())
            lasts[seat] = turn
        else:
            told.setdefault(seat, []).append((turn["role"], turn["text"] or ""))


def _policies_lie(episode: Episode, answers: Sequence[Answer]) -> str | None:
    """Who wrote the answers, whether they have log-probabilities, and may be learned from."""
    p, made = episode.provenance, dict[str, tuple[int, str | None]]()
    for answer in answers:
        span, turn, place = answer.span, answer.turn, answer.place
        if made.setdefault(span.policy_id, (span.version, span.digest)) != (span.version, span.digest):
            return f"turn {place}: {span.policy_id} changed its weights within the dialogue"
        behind = span.policy_id.startswith(ENDPOINT)
        if p.origin in WORKED and (span.policy_id, span.version, span.digest) != (p.origin, p.env_version, None):
            return f"turn {place}: its origin is {p.origin}, and {span.policy_id} version {span.version} wrote it"
        if behind and (span.version, span.digest) != (0, None):
            return f"turn {place}: {span.policy_id} has version {span.version} and digest {span.digest}"
        unsampled = behind or p.origin in (*WORKED, "teacher")
        if answer.sampled == unsampled and (unsampled or p.origin in ("cot_rl", "evaluation")):
            has = "has" if answer.sampled else "lacks"
            return f"turn {place} by {span.policy_id}, origin {p.origin}, {has} log-probabilities"
        if answer.sampled and not is_digest(span.digest):
            return f"turn {place} has log-probabilities, and its policy no digest of weights"
        mask, tokens = turn["loss_mask"] or (), turn["token_ids"] or ()
        if len(mask) != len(tokens) or len(set(mask)) > 1 or None in mask:
            return f"turn {place} has {len(tokens)} tokens, and its loss_mask is not one answer for all of them"
        learned = any(mask)
        if learned and (p.origin == "evaluation" or (behind and p.origin != "teacher")):
            return f"turn {place} by {span.policy_id} is to be learned from, and its origin is {p.origin}"
        wanted = p.origin in (*WORKED, "teacher") or (p.origin == "cot_rl" and span.policy_id == p.run_id)
        if wanted and mask and not learned:
            return f"turn {place} by {span.policy_id}, origin {p.origin}, is not to be learned from"
    return None


def _end_lies(episode: Episode, record: Mapping[str, Any], answers: Sequence[Answer]) -> str | None:
    """How the answers ended, and the last of them."""
    for answer in answers:
        reason, place = answer.turn["finish_reason"], answer.place
        if not reason or (answer.sampled and reason not in ("stop", "length")):
            return f"turn {place} has log-probabilities and ended by {reason!r}"
        if episode.provenance.origin in WORKED and reason != "stop":
            return f"turn {place} is of origin {episode.provenance.origin} and ended by {reason!r}"
        if not answer.turn["token_ids"] and (answer.sampled or reason == "stop"):
            return f"turn {place} was answered with no token"
        if reason == "length" and episode.status == "ok":
            return f"turn {place} was cut at a limit, and its status is ok"
    text = answers[-1].turn["text"] if answers else None
    if record["answer"] != text:
        return "its answer is not the last text that was answered"
    if not answers and episode.status in ("ok", "truncated"):
        return f"nothing was answered, and its status is {episode.status}"
    return None
