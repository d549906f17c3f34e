"""The author's calls of one batch of dialogues: several at once in processes of their own, within a budget of time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from selfplay.contract import Next, Transcript, Verdict
from selfplay.environments import author
from selfplay.environments.author import BUDGET, Failure
from selfplay.environments.isolation import wire
from selfplay.environments.task import Posed, Task

#: How long one look at the processes waits before the budget is looked at again, seconds.
_LOOK_S = 1.0


@dataclass(frozen=True)
class Answer:
    """What came of a call. key: of whoever asked. value: the verdicts, one a seat; what is said next, None where
    nothing is; or why `respond` gave nothing.
    """

    key: int
    value: tuple[Verdict, ...] | Next | Failure | None


class Judging:
    """Calls of `verify` and `respond` under way. Those of a task that is not isolated are answered at once.

    budget_s: seconds that may be spent on waiting for answers with nothing else to do; None: any. Once they are over,
    what is not answered, and whatever else is asked, fails with the kind "budget".
    """

    def __init__(self, task: Task, budget_s: float | None = None) -> None:
        self._task, self._budget_s = task, budget_s
        self._waited = 0.0
        self._under_way: dict[int, tuple[int, bool]] = {}  # number of the host -> key, whether it is a verdict
        self._ready: list[Answer] = []

    def __len__(self) -> int:
        """Calls whose answers have not been taken."""
        return len(self._under_way) + len(self._ready)

    def judge(self, key: int, posed: Posed, transcript: Transcript) -> None:
        """Asks for the verdicts of a dialogue."""
        if self._spent:
            self._ready.append(Answer(key, self._task.verdicts(self._over())))
        elif self._task.apart(transcript):
            arguments = [wire.problem_to(posed.problem), wire.transcript_to(transcript)]
            self._under_way[self._task.host.submit("judge", arguments)] = (key, True)
        else:
            self._ready.append(Answer(key, self._task.judge(posed.problem, transcript)))

    def respond(self, key: int, posed: Posed, transcript: Transcript) -> None:
        """Asks what is said after an answer; also after the last that there may be."""
        if self._spent:
            self._ready.append(Answer(key, self._over()))
        elif self._task.apart(transcript):
            arguments = self._task.arguments(posed, transcript)
            self._under_way[self._task.host.submit("respond", arguments)] = (key, False)
        else:
            value: Next | Failure | None
            try:
                value = author.respond(self._task.spec, posed.problem, posed.digest, transcript)
            except Failure as failure:
                value = failure
            self._ready.append(Answer(key, value))

    def take(self, wait: bool) -> list[Answer]:
        """The answers that are there. wait: for at least one, where any call is under way; it costs of the budget."""
        self._collect(0.0)
        while wait and self._under_way and not self._ready:
            began = time.monotonic()
            self._collect(min(_LOOK_S, self._left))
            self._waited += time.monotonic() - began
            if self._spent and not self._ready:
                self._give_up()
        taken, self._ready = self._ready, []
        return taken

    def close(self) -> None:
        """Ends the calls that are under way; nobody is to be told."""
        if self._under_way:
            self._task.host.forget()
        self._under_way.clear()
        self._ready.clear()

    @property
    def _left(self) -> float:
        return _LOOK_S if self._budget_s is None else max(0.0, self._budget_s - self._waited)

    @property
    def _spent(self) -> bool:
        return self._budget_s is not None and self._waited >= self._budget_s

    def _collect(self, seconds: float) -> None:
        if not self._under_way:
            return
        for number, answer in self._task.host.ready(seconds):
            key, verdict = self._under_way.pop(number)
            self._ready.append(Answer(key, self._task.verdicts(answer) if verdict else answer))

    def _give_up(self) -> None:
        self._task.host.forget()
        for key, verdict in self._under_way.values():
            self._ready.append(Answer(key, self._task.verdicts(self._over()) if verdict else self._over()))
        self._under_way.clear()

    def _over(self) -> Failure:
        return Failure(BUDGET, f"the batch's verification budget of {self._budget_s:g} s was used up")
