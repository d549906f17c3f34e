"""Who works in a reasoning run: reasoners and a learner. Work is shared out, awaited, archived; the dead are replaced.

A call to a reasoner is under way until its episodes are archived. Where the reasoner dies before that, or leaves a node
that has been given notice, another, under a new epoch, is asked the same again, in the order in which it was asked:
that is the order of a writer's blocks.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError

from selfplay.actors.notice import Leaving
from selfplay.actors.reasoner import Ask, ReasonerReport
from selfplay.errors import UserError
from selfplay.store import Receipt
from trainers.reasoning.actors import ReasoningCrew
from trainers.reasoning.status_tracker import ReasoningWatch
from trainers.run.event_log import note
from trainers.run.failure_causes import cause_of, in_words
from trainers.run.placement import Shortage

_MOST_DEATHS = 3


class TutorDied(Exception):
    """The learner is gone: another goes on from the last checkpoint."""


@dataclass(eq=False)
class Call:
    """What a reasoner was asked. actor: as it was then; another may have taken its place. sent: a running number.

    found: its report, once it has come; receipt: of its block, once that is archived.
    """

    slot: str
    actor: Any
    asks: Sequence[Ask]
    method: str
    more: tuple[Any, ...]
    sent: int = 0
    report: Any = None
    episodes: Any = None
    found: ReasonerReport | None = None
    receipt: Receipt | None = None

    def send(self, number: int) -> Call:
        self.sent = number
        self.report, self.episodes = getattr(self.actor, self.method).remote(self.asks, *self.more)
        return self


class Staff:
    """The actors at work. archived: version of the episodes table that holds every receipt so far. lost: episodes that
    were asked for and died with a process, of the whole run.

    Work goes to reasoners that have loaded. On a cluster the others come later, as there is room for them.
    """

    def __init__(self, crew: ReasoningCrew, watch: ReasoningWatch) -> None:
        self.tutor: Any = None
        self.archived = -1
        self.lost = 0
        self._crew, self._watch = crew, watch
        self._reasoners: dict[str, Any] = {}
        self._coming: dict[Any, tuple[str, Any]] = {}  # answered when it has loaded -> (slot, actor)
        self._under_way: list[Call] = []
        self._deaths: Counter[str] = Counter()  # in a row
        self._left_out: set[str] = set()
        self._shortage = Shortage("reasoners", crew.needs, watch.message)
        self._sent = count()

    def begin(self) -> None:
        """Starts the reasoners."""
        for number in range(self._crew.sizing.reasoners):
            self._call_in(f"r{number:04d}")

    def _call_in(self, slot: str) -> None:
        actor = self._crew.reasoner(slot)
        if self._crew.sizing.joined:
            self._coming[actor.pid.remote()] = (slot, actor)
        else:
            self._reasoners[slot] = actor  # all share the work, loaded or not: what each does is repeatable

    def _welcome(self) -> None:
        """On a cluster: calls in who is missing, takes in who has loaded; waits where nobody has yet."""
        if not self._crew.sizing.joined:
            return
        known = {*self._reasoners, *self._left_out, *(slot for slot, _ in self._coming.values())}
        for number in range(self._crew.reasoners_wanted()):
            if len(known) < self._crew.reasoners_wanted() and (slot := f"r{number:04d}") not in known:
                self._call_in(slot)
                known.add(slot)
        while self._coming:
            ready, _ = ray.wait(list(self._coming), num_returns=len(self._coming), timeout=0.25 * (not self._reasoners))
            for ref in ready:
                slot, actor = self._coming.pop(ref)
                try:
                    ray.get(ref)
                    self._reasoners[slot] = actor
                except RayActorError as error:
                    self._call_another(slot, error)
            self._shortage.look(len(self._coming), len(self._reasoners))
            if self._reasoners:
                return
            self._watch.show()

    def spread(self, asks: Sequence[Ask], method: str, *more: Any) -> list[Call]:
        """Calls all reasoners, each with its share of the asks."""
        self._welcome()
        shares = {slot: asks[i :: len(self._reasoners)] for i, slot in enumerate(self._reasoners)}
        calls = [Call(slot, self._reasoners[slot], share, method, more) for slot, share in shares.items() if share]
        self._under_way += [call.send(next(self._sent)) for call in calls]
        self._crew.folder.amend(in_flight=self.in_flight(), lost_episodes=self.lost)
        return calls

    def in_flight(self) -> dict[str, int]:
        """Group -> episodes that were asked for and are not archived."""
        waiting = (ask for call in self._under_way if call.receipt is None for ask in call.asks)
        return {ask.group: ask.samples for ask in waiting}

    def lose(self, episodes: int) -> None:
        """Counts episodes that died with a process; the run's closing tells how many these were."""
        self.lost += episodes
        self._crew.lost_episodes = self.lost
        self._watch.lost(self.lost)

    def archive(self, calls: Sequence[Call], reports: list[ReasonerReport] | None = None) -> list[Any]:
        """Waits for calls, commits what they wrote; what a lesson is made of: (receipt, episodes) pairs."""
        done, total = 0, sum(len(call.asks) for call in calls)
        for call in calls:
            self._await(call)
            done += len(call.asks)
            self._watch.answered(done, total)
        self._commit(calls)
        given = []
        for call in calls:
            assert call.found is not None
            if reports is not None:
                reports.append(call.found)
            if call.receipt is not None:
                given.append((call.receipt, [call.episodes]))
            self._watch.sampled(call.found)
        self._under_way = [call for call in self._under_way if call not in calls]
        return given

    def _commit(self, calls: Sequence[Call]) -> None:
        """Archives the blocks of calls that have answered, and of those that their writers answered before."""
        last: dict[Any, int] = {}
        for call in calls:
            last[call.actor] = max(call.sent, last.get(call.actor, -1))
        before = [c for c in self._under_way if c not in calls and c.sent < last.get(c.actor, -1)]
        for call in before:
            self._await(call)
        blocks = []
        for call in sorted([*calls, *before], key=lambda call: call.sent):
            if call.found is not None and call.found.block is not None and call.receipt is None:
                blocks.append((call, call.found.block))
        receipts = ray.get(self._crew.archivist.commit.remote([block for _, block in blocks])) if blocks else []
        for (call, block), receipt in zip(blocks, receipts, strict=True):
            self._crew.archived(block, receipt)
            call.receipt = receipt
            self.archived = max(self.archived, receipt.table_version)
        if blocks:
            self._crew.tidier.archived(len(blocks))

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

    def _await(self, call: Call) -> None:
        """Waits for the report of a call; asked again of another reasoner where this one has died.

        What the dead one had answered is archived first: once another has its slot, it could not be.
        """
        while call.found is None:
            try:
                while not ray.wait([call.report], timeout=0.25)[0]:
                    self._watch.show()
                call.found = ray.get(call.report)
                del self._deaths[call.slot]
                if call.found.leaving:
                    self._replace(call.slot, call.actor, None)
            except (RayActorError, ObjectLostError) as error:
                self._replace(call.slot, call.actor, error)
            except Leaving:
                self._replace(call.slot, call.actor, None)

    def _replace(self, slot: str, gone: Any, error: RayError | None) -> None:
        """Another asks for what a reasoner had not finished: its successor, or on a cluster who is there.

        error: what it died of; None: it leaves in order. Does nothing for one that was replaced before.
        """
        if self._reasoners.get(slot) is not gone:
            return
        del self._reasoners[slot]
        self._settle(gone)
        self._commit([one for one in self._under_way if one.found is not None])
        ray.kill(gone)  # one that is only cut off would go on for nothing
        if error is None:
            self._watch.message(f"reasoner {slot} leaves a node that has been given notice; another goes on elsewhere")
            self._call_in(slot)
        else:
            self._call_another(slot, error)
        self._welcome()
        heir = slot if slot in self._reasoners else next(iter(self._reasoners))
        for call in self._under_way:
            if call.actor is gone and call.found is None:
                self.lose(sum(ask.samples for ask in call.asks))
                call.slot, call.actor = heir, self._reasoners[heir]
                call.send(next(self._sent))

    def _settle(self, gone: Any) -> None:
        """Takes what it had answered, in order; what came after a lost answer cannot be archived: it is asked again."""
        mine = [call for call in self._under_way if call.actor is gone and call.receipt is None]
        lost = False
        for call in sorted(mine, key=lambda call: call.sent):
            if not lost and call.found is None and ray.wait([call.report], timeout=0)[0]:
                with contextlib.suppress(RayError):
                    call.found = ray.get(call.report)
            lost = lost or call.found is None
            if lost:
                call.found = None

    def _call_another(self, slot: str, error: RayError) -> None:
        """A successor for a dead reasoner; none for one that always dies, where others work."""
        if self._deaths[slot] + 1 < _MOST_DEATHS or not self._reasoners:
            self._died(f"reasoner {slot}", slot, error)
            self._watch.message(f"reasoner {slot} died; another asks again for what it had not finished")
            self._call_in(slot)
            return
        note(self._crew.folder.run_id, "left out", who=f"reasoner {slot}", why=in_words(error))
        self._left_out.add(slot)
        self._watch.message(f"reasoner {slot} died again and again and is left out; the others go on")

    def _died(self, who: str, key: str, error: RayError) -> None:
        note(self._crew.folder.run_id, "died", who=who, why=in_words(error))
        cause = cause_of(error)
        if isinstance(cause, UserError):  # it could not begin, and another could not either
            raise cause from None
        self._deaths[key] += 1
        if self._deaths[key] >= _MOST_DEATHS:
            raise UserError(f"{who} died {_MOST_DEATHS} times in a row; the newest file in logs/ holds its last words")
