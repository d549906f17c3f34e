"""What was said, as sealed episodes.

What was said is stored turn by turn; a turn's tokens follow those of its parent, so a line is a chain of turns. The
choice of the problem is a turn of chance, before all others, with its probability.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfplay.contract import Transcript, Turn, Verdict
from selfplay.environments.judging import Judging
from selfplay.environments.task import Posed, Task
from selfplay.episode import CHANCE_SEAT, Episode, PolicySpan, Provenance, clock
from selfplay.episode.schema import CHANCE_ROLE
from selfplay.nets.language.tokenizer import Tokenizer
from selfplay.rollout.sampling import Sampling


@dataclass(frozen=True)
class Assignment:
    """One dialogue that is wanted.

    group: samples of one problem drawn together share it; index: place in the group. chance: of the problem among all
    that could have been chosen, as the chooser saw it; None: it was not chosen by chance.
    """

    posed: Posed
    group: str
    index: int
    chance: float | None = None


class Recorder:
    """Seals episodes of one writer: numbers them, and knows what they have in common."""

    def __init__(self, provenance: Provenance, slot: str, epoch: int, task: Task, first_number: int = 0) -> None:
        self.provenance, self.slot, self.epoch, self.number = provenance, slot, epoch, first_number
        self.task = task

    def seal(
        self,
        work: Assignment,
        turns: Sequence[Mapping[str, Any]],
        verdicts: Sequence[Verdict],
        status: str,
        spans: Sequence[PolicySpan],
        sampling: Sampling | None,
        tokenizer: str,
        began: float,
        error: tuple[str, str] | None = None,
        origin: str | None = None,
    ) -> Episode:
        """The episode, with the next number. Only the seats' own verdicts carry a reward, and only if given.

        Problems that are held out or for development are never to be learned from, whoever asked for them.
        """
        problem = work.posed.problem
        rewards = [verdict.reward for verdict in verdicts]
        known = [reward for reward in rewards if reward is not None]
        answer = next((turn["text"] for turn in reversed(turns) if turn["role"] == "assistant"), None)
        provenance = self.provenance
        if origin is not None and origin != provenance.origin:
            provenance = replace(provenance, origin=origin)
        number, self.number = self.number, self.number + 1
        return Episode(
            provenance=provenance,
            slot=self.slot,
            epoch=self.epoch,
            number=number,
            status=status,
            trainable=status in ("ok", "truncated") and len(known) == len(rewards) and work.posed.side == "training",
            seats=self.task.spec.seats,
            returns=tuple(known) if len(known) == len(rewards) else None,
            seed=problem.seed,
            started_at=int(began * 1e6),
            wall_ms=int((clock.now() - began) * 1e3),
            policy_spans=tuple(spans),
            error=error,
            reasoning={
                "problem_seed": problem.seed,
                "difficulty": problem.difficulty,
                "problem_digest": work.posed.digest,
                "group_id": work.group,
                "sample_index": work.index,
                "tokenizer": tokenizer,
                "temperature": None if sampling is None else sampling.temperature,
                "top_k": None if sampling is None else sampling.top_k,
                "top_p": None if sampling is None else sampling.top_p,
                "answer": answer,
                "turns": list(turns),
            },
            verdicts=tuple(_verdict(self.task, seat, verdict) for seat, verdict in enumerate(verdicts)),
        )

    def worked(self, work: Assignment, text: str, tokenizer: Tokenizer, origin: str = "solver") -> Episode:
        """A dialogue of one answer that no policy sampled: a solver's, a person's. It is judged like any other."""
        return self.all_worked([(work, text)], tokenizer, None, origin)[0]

    def all_worked(
        self,
        works: Sequence[tuple[Assignment, str]],
        tokenizer: Tokenizer,
        budget_s: float | None,
        origin: str = "solver",
    ) -> list[Episode]:
        """Many of them, in their order, judged together. budget_s: see `Judging`."""
        began = clock.now()
        judging, verdicts = Judging(self.task, budget_s), dict[int, tuple[Verdict, ...]]()
        said: list[list[dict[str, Any]]] = []
        try:
            for key, (work, text) in enumerate(works):
                turns, parent = opening(work)
                ids, suffix = [*tokenizer.encode(text), tokenizer.eos[0]], tokenizer.opening(work.posed.messages)
                turns.append(turn(0, "assistant", parent, text, suffix, ids, None, "stop", learn=True))
                said.append(turns)
                judging.judge(key, work.posed, transcript_of(turns))
            while answers := judging.take(wait=True):
                for answer in answers:
                    assert isinstance(answer.value, tuple)
                    verdicts[answer.key] = answer.value
        finally:
            judging.close()
        episodes = []
        for key, ((work, _), turns) in enumerate(zip(works, said, strict=True)):
            last = len(turns) - 1
            spans = [PolicySpan(0, last, last, origin, self.task.spec.version, None)]
            digest = tokenizer.digest
            episodes.append(self.seal(work, turns, verdicts[key], "ok", spans, None, digest, began, origin=origin))
        return episodes


def opening(work: Assignment) -> tuple[list[dict[str, Any]], int | None]:
    """The turns before the first answer, and the index of the last of those that seat 0 was told."""
    turns: list[dict[str, Any]] = []
    if work.chance is not None:
        choice = {"difficulty": work.posed.problem.difficulty, "probability": work.chance}
        turns.append(turn(CHANCE_SEAT, CHANCE_ROLE, None, json.dumps(choice)))
    parent = None
    for message in work.posed.messages:
        turns.append(turn(0, message.role, parent, message.content))
        parent = len(turns) - 1
    return turns, parent


def turn(
    seat: int,
    role: str,
    parent: int | None,
    text: str,
    suffix: Sequence[int] = (),
    ids: Sequence[int] = (),
    logprobs: Sequence[float] | None = None,
    finish_reason: str | None = None,
    learn: bool = False,
) -> dict[str, Any]:
    return {
        "seat": seat,
        "role": role,
        "parent": parent,
        "suffix_ids": suffix,
        "token_ids": ids,
        "logprobs": logprobs,
        "loss_mask": [learn] * len(ids),
        "finish_reason": finish_reason,
        "text": text,
    }


def transcript_of(turns: Sequence[Mapping[str, Any]]) -> Transcript:
    return Transcript(
        tuple(Turn(turn["seat"], turn["role"], turn["text"]) for turn in turns if turn["role"] != CHANCE_ROLE)
    )


def _verdict(task: Task, seat: int, verdict: Verdict) -> dict[str, Any]:
    failed = verdict.state == "unverifiable"
    criteria = [
        {
            "criterion": one.name,
            "verifier_id": task.spec.id,
            "verifier_version": str(task.spec.version),
            "score": None if failed else one.score,
            "low": one.low,
            "high": one.high,
            "reason": one.reason,
        }
        for one in verdict.criteria
    ]
    error = verdict.error or ("no reason was given" if failed else None)
    return {
        "seat": seat,
        "state": verdict.state,
        "reward": verdict.reward,
        "error": error if failed else None,
        "criteria": criteria,
    }
