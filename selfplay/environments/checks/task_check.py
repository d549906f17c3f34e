"""The contract test that every task passes; `selfplay check-env` runs it. It needs neither torch, ray nor a network.

Problems are made again, gold answers and worked solutions must be accepted, wrong and hostile texts must not be; every
check stops at its first fault and names the seed and difficulty.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from selfplay.contract import Problem, TaskSpec, Transcript
from selfplay.environments.checks.game_check import run_check
from selfplay.environments.checks.hostile import CHECK, payloads
from selfplay.environments.checks.progress import progress
from selfplay.environments.checks.report import Listener, TaskReport
from selfplay.environments.checks.shortcuts import MOST, Shown, constants, leaks
from selfplay.environments.checks.steps import here
from selfplay.environments.checks.twins import twins
from selfplay.environments.task import Posed, Side, Task, said
from selfplay.errors import UserError

#: Seeds of each difficulty that are looked at.
SEEDS = 6
#: What a verifier that is not isolated may take for one text, seconds.
_SLOW_S = 1.0
_HELD_OUT, _TRAINING = 3, 20
#: Processor time for making the problems of one level in which short ways to the answer are looked for, seconds.
_LEVEL_S = 0.7


def check_task(spec: TaskSpec, listener: Listener = lambda finding: None) -> TaskReport:
    """Never raises for a fault of the task: what its code raises becomes a finding. Takes a few seconds.

    What reads hostile text runs as it does in the factory, but not confined, so that code in a text is seen to run. All
    else runs in this process, without a limit; `selfplay.environments.checks.watch.examine` brings one.
    """
    began = time.monotonic()
    task, apart = Task(here(spec)), Task(spec, confined=False)
    checks: tuple[tuple[str, Callable[[Task], Any]], ...] = (
        ("problems are made again", _regenerates),
        ("gold answers are accepted", partial(_accepted, which="gold")),
        ("worked solutions are accepted", partial(_accepted, which="solve")),
        ("dialogues of solvers end and are judged", _dialogues),
        ("wrong answers are not", _wrong_answers),
        ("answers are not given away", _given_away),
        (CHECK, partial(_hostile, apart=apart)),
        ("problems enough to train on and to hold out", _split),
        ("twins are not on two sides", lambda task: (None, twins(task))),
    )
    try:
        findings = tuple(run_check(name, partial(check, task), listener) for name, check in checks)
        progress().check("an example")
        example = _example(task) if findings[0].problem is None else ("", "", "")
    finally:
        apart.close()
        task.close()
    seconds = round(time.monotonic() - began, 3)
    return TaskReport(
        spec.id, spec.summary, findings, spec.difficulties, SEEDS * len(spec.difficulties), seconds, example
    )


def _posed(task: Task) -> Iterator[tuple[str, Posed]]:
    """(where, problem) of every difficulty."""
    for difficulty in task.spec.difficulties:
        for seed in range(SEEDS):
            where = f"seed {seed}, difficulty {difficulty:g}"
            progress().at(where)
            yield where, task.pose(seed, difficulty)


def _regenerates(task: Task) -> str | None:
    for where, posed in _posed(task):
        again = task.pose(posed.problem.seed, posed.problem.difficulty)
        if again != posed:
            return f"{where}: made again, the problem is another"
        try:
            plain = json.loads(json.dumps(dict(posed.problem.data)))
        except (TypeError, ValueError) as error:
            return f"{where}: its data are not what JSON can hold: {error}"
        if plain != dict(posed.problem.data):
            return f"{where}: its data change in JSON (tuples become lists, keys become text)"
        problem = posed.problem
        if task.prompt(Problem(problem.seed, problem.difficulty, plain)) != posed.messages:
            return f"{where}: the prompt does not follow from the data"
    return None


def _accepted(task: Task, which: str) -> str | None:
    if (task.spec.gold if which == "gold" else task.spec.solve) is None:
        return None
    for where, posed in _posed(task):
        text = task.gold(posed.problem) if which == "gold" else task.solution(posed.problem)
        verdict = task.judge(posed.problem, said(posed, [text]))[0]
        if verdict.state != "accepted":
            return f"{where}: {text!r:.60} is {verdict.state}: {verdict.error or _reasons(verdict.criteria)}"
        if which == "gold" and verdict.reward is not None and verdict.reward <= 0:
            return f"{where}: the gold answer is accepted with the reward {verdict.reward:g}"
    return None


def _dialogues(task: Task) -> str | None:
    if task.spec.play is None:
        return None
    for where, posed in _posed(task):
        said_ = task.solved(posed)
        if task.responded(posed, said_) is not None:
            return f"{where}: solvers do not end it within {task.spec.max_turns} answers"
        verdicts = task.judge(posed.problem, said_)
        unsure = next((verdict for verdict in verdicts if verdict.state == "unverifiable"), None)
        if unsure is not None:
            return f"{where}: played to its end by solvers, it is unverifiable: {unsure.error}"
        if not any(verdict.state == "accepted" for verdict in verdicts):
            return f"{where}: played by solvers, nobody is accepted"
        if task.solved(posed) != said_:
            return f"{where}: played again, the dialogue is another"
    return None


def _wrong_answers(task: Task) -> str | None:
    """Another problem's answer may be right by chance; that all are, for every problem, may not be."""
    if task.spec.gold is None:
        return None
    for difficulty in task.spec.difficulties:
        posed = [task.pose(seed, difficulty) for seed in range(SEEDS)]
        golds = [task.gold(one.problem) for one in posed]
        others = [(one, text) for one, own in zip(posed, golds, strict=True) for text in golds if text != own]
        verdicts = [task.judge(one.problem, said(one, [text]))[0].state for one, text in others]
        if verdicts and all(state == "accepted" for state in verdicts):
            return f"difficulty {difficulty:g}: the gold answers of other problems are all accepted"
        if "unverifiable" in verdicts:
            return f"difficulty {difficulty:g}: a wrong answer is unverifiable instead of rejected"
    return None


def _given_away(task: Task) -> tuple[str | None, str | None]:
    """An answer that the prompt holds, or that is right for all problems."""
    notes: list[str] = []
    for posed, shown in _levels(task):
        where = f"difficulty {posed[0].problem.difficulty:g}"
        for problem, note in (leaks(shown), _constants(task, posed, shown)):
            if problem is not None:
                return f"{where}: {problem}", None
            if note is not None:
                notes.append(f"{where}: {note}")
    return None, notes[0] if notes else None


def _constants(task: Task, posed: list[Posed], shown: list[Shown]) -> tuple[str | None, str | None]:
    def accepts(index: int, answer: str) -> bool:
        one = posed[index]
        return task.judge(one.problem, said(one, [answer]))[0].state == "accepted"

    if task.spec.gold is not None:
        return constants(shown, accepts)
    # What is said last in a dialogue is right only after what was said before: whole dialogues are compared.
    whole = [replace(one, answer=_answers(task.solved(each))) for each, one in zip(posed, shown, strict=True)]
    return constants(whole, lambda index, answer: False)[0], None


def _answers(transcript: Transcript) -> str:
    return "\n".join(turn.text for turn in transcript.turns if turn.role == "assistant")


def _levels(task: Task) -> Iterator[tuple[list[Posed], list[Shown]]]:
    """Problems with different prompts, of the easiest, the middle and the hardest level: as many as are made soon."""
    levels = task.spec.difficulties
    for difficulty in sorted({levels[0], levels[len(levels) // 2], levels[-1]}):
        found: dict[str, tuple[Posed, Shown]] = {}
        until = time.process_time() + _LEVEL_S
        for seed in range(2 * MOST):
            if len(found) == MOST or time.process_time() > until:
                break
            where = f"seed {seed}, difficulty {difficulty:g}"
            progress().at(where)
            posed = task.pose(seed, difficulty)
            if posed.digest not in found:
                prompt = "\n".join(message.content for message in posed.messages)
                found[posed.digest] = posed, Shown(where, prompt, _final(task, posed))
        progress().at("")
        yield [posed for posed, _ in found.values()], [shown for _, shown in found.values()]


def _final(task: Task, posed: Posed) -> str:
    """What a right policy writes last."""
    return task.gold(posed.problem) if task.spec.gold is not None else task.solved(posed).answer


def _hostile(task: Task, apart: Task) -> str | None:
    spec = apart.spec
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "ran"
        for difficulty in (spec.difficulties[0], spec.difficulties[-1]):
            posed = task.pose(0, difficulty)
            prompt, gold = posed.messages[-1].content, _right(task, posed)
            for name, text in payloads(canary, prompt, gold).items():
                progress().at(f"difficulty {difficulty:g}, {name}")
                began = time.monotonic()
                fault = _responds(apart, posed, text)
                if fault is not None:
                    return f"difficulty {difficulty:g}: {name}: {fault}"
                progress().step()
                verdict = apart.judge(posed.problem, said(posed, [text]))[0]
                if canary.exists():
                    return f"difficulty {difficulty:g}: {name} ran in the verifier"
                if verdict.state == "accepted":
                    return f"difficulty {difficulty:g}: {name} is accepted ({text!r:.60})"
                seconds = time.monotonic() - began
                if not spec.isolated and (verdict.state == "unverifiable" or seconds > _SLOW_S):
                    what = verdict.error or f"it takes {seconds:.1f} s"
                    return f"difficulty {difficulty:g}: {name} is too much for verify ({what}); parse, or isolated=True"
        if spec.gold is None:
            return None
        posed = task.pose(0, spec.difficulties[0])
        verdict = apart.judge(posed.problem, said(posed, [task.gold(posed.problem)]))[0]
        return None if verdict.state == "accepted" else f"after hostile texts the gold answer is {verdict.state}"


def _responds(task: Task, posed: Posed, text: str) -> str | None:
    """What `respond` does wrong when a policy says `text` first, or after an answer of the solvers."""
    if task.spec.respond is None:
        return None
    transcripts = [said(posed, [text])]
    if task.spec.play is not None:
        turns = task.solved(posed).turns
        second = [i for i, turn in enumerate(turns) if turn.role == "assistant"][1:2]
        transcripts += [Transcript((*turns[:i], replace(turns[i], text=text))) for i in second]
    for transcript in transcripts:
        began = time.monotonic()
        progress().step()
        try:
            task.responded(posed, transcript)
        except UserError as error:
            return str(error)
        seconds = time.monotonic() - began
        if not task.spec.isolated and seconds > _SLOW_S:
            return f"is too much for respond (it takes {seconds:.1f} s); parse, or isolated=True"
    return None


def _right(task: Task, posed: Posed) -> str:
    """A right first answer."""
    if task.spec.gold is not None:
        return task.gold(posed.problem)
    return task.solved(posed).of(0)[0]


def _split(task: Task) -> str | None:
    for difficulty in (task.spec.difficulties[0], task.spec.difficulties[-1]):
        sides: tuple[tuple[Side, int], ...] = (("held_out", _HELD_OUT), ("training", _TRAINING))
        for side, wanted in sides:
            source = task.problems(difficulty, side)
            try:
                found = [next(source) for _ in range(wanted)]
            except UserError as error:
                return f"{error}; at least {_HELD_OUT} held-out and {_TRAINING} training problems are needed"
            assert len({one.digest for one in found}) == wanted
    return None


def _reasons(criteria: tuple[object, ...]) -> str:
    return "; ".join(str(getattr(one, "reason", "")) for one in criteria)


def _example(task: Task) -> tuple[str, str, str]:
    spec = task.spec
    posed = task.pose(0, spec.difficulties[len(spec.difficulties) // 2])
    solution = task.solution(posed.problem) if spec.solve is not None else ""
    if not solution and spec.play is not None:
        spoken = task.solved(posed).turns[len(posed.messages) :]
        solution = " | ".join(f"seat {turn.seat}: {turn.text}" for turn in spoken if turn.role == "assistant")
    return "\n".join(message.content for message in posed.messages), _right(task, posed), solution
