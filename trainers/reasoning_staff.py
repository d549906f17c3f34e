"""Who works in a reasoning run: reasoners and a learner. Work is shared out, awaited, archived; the dead are replaced.

A call to a reasoner is under way until its episodes are archived. Where the reasoner dies before that, another, under a
new epoch, is asked the same again, in the order in which it was asked: that is the order of a writer's blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from selfplay.actors.reasoner import Ask, ReasonerReport
from selfplay.errors import UserError
from trainers.cluster import told
from trainers.reasoning_crew import ReasoningCrew
from trainers.reasoning_watch import ReasoningWatch

_MOST_DEATHS = 3


class TutorDied(Exception):
    """The learner is gone: another goes on from the last checkpoint."""


@dataclass
class Call:
    """What a reasoner was asked. actor: as it was then; another may have taken its place."""

    slot: str
    actor: Any
    asks: Sequence[Ask]
    method: str
    more: tuple[Any, ...]
    report: Any = None
    episodes: Any = None

    def send(self) -> Call:
        self.report, self.episodes = getattr(self.actor, self.method).remote(self.asks, *self.more)
        return self


class Staff:
    """The actors at work. archived: version of the episodes table that holds every receipt so far."""

    def __init__(self, crew: ReasoningCrew, watch: ReasoningWatch) -> None:
        self.tutor: Any = None
        self.archived = -1
        self._crew, self._watch = crew, watch
        self._reasoners: dict[str, Any] = {}
        self._under_way: list[Call] = []
        self._deaths: Counter[str] = Counter()

    def begin(self) -> None:
        """Starts the reasoners."""
        for number in range(self._crew.sizing.reasoners):
            slot = f"r{number:04d}"
            self._reasoners[slot] = self._crew.reasoner(slot)

    def spread(self, asks: Sequence[Ask], method: str, *more: Any) -> list[Call]:
        """Calls all reasoners, each with its share of the asks."""
        shares = {slot: asks[i :: len(self._reasoners)] for i, slot in enumerate(self._reasoners)}
        calls = [Call(slot, self._reasoners[slot], share, method, more) for slot, share in shares.items() if share]
        self._under_way += [call.send() for call in calls]
        return calls

    def archive(self, calls: Sequence[Call], reports: list[ReasonerReport] | None = None) -> list[Any]:
        """Waits for calls, commits what they wrote; what a lesson is made of: (receipt, episodes) pairs."""
        taken = []
        for call in calls:
            report = self._awaited(call)
            if reports is not None:
                reports.append(report)
            if report.block is not None:
                taken.append((report.block, call.episodes))
            self._watch.sampled(report)
        receipts = ray.get(self._crew.archivist.commit.remote([block for block, _ in taken])) if taken else []
        self._under_way = [call for call in self._under_way if not any(call is done for done in calls)]
        self.archived = max([self.archived, *(receipt.table_version for receipt in receipts)])
        return [(receipt, [episodes]) for receipt, (_, episodes) in zip(receipts, taken, strict=True)]

    def learned(self, ref: Any) -> Any:
        """The learner's answer. Raises `TutorDied` where it is gone."""
        try:
            while not ray.wait([ref], timeout=0.25)[0]:
                self._watch.show()
            return ray.get(ref)
        except RayActorError as error:
            self._died("the learner", "learner", error)
            raise TutorDied from error

    def learner_works(self) -> None:
        """It has finished what it was asked: earlier deaths no longer count."""
        del self._deaths["learner"]

    def _awaited(self, call: Call) -> ReasonerReport:
        """The result of a call; asked again of another reasoner where this one has died."""
        while True:
            try:
                while not ray.wait([call.report], timeout=0.25)[0]:
                    self._watch.show()
                found: ReasonerReport = ray.get(call.report)
                del self._deaths[call.slot]
                return found
            except RayActorError as error:
                self._died(f"reasoner {call.slot}", call.slot, error)
                self._watch.message(f"reasoner {call.slot} died; another asks again for what it had not finished")
                dead, another = call.actor, self._crew.reasoner(call.slot)
                self._reasoners[call.slot] = another
                for one in self._under_way:
                    if one.actor is dead:
                        one.actor = another
                        one.send()

    def _died(self, who: str, key: str, error: RayActorError) -> None:
        print(f"{who} died: {error}", flush=True)  # to the log
        cause = told(error)
        if isinstance(cause, UserError):  # it could not begin, and another could not either
            raise cause from None
        self._deaths[key] += 1
        if self._deaths[key] >= _MOST_DEATHS:
            raise UserError(f"{who} died {_MOST_DEATHS} times in a row; the newest file in logs/ holds its last words")
