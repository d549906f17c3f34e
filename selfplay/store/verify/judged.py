"""A dialogue against its task: its problem made again, what was said to seats asked again, its answers judged again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfplay.contract import Next, Transcript, Turn, Verdict
from selfplay.environments.author import TIMEOUT, Failure
from selfplay.episode import Episode
from selfplay.episode.schema import CHANCE_ROLE
from selfplay.errors import UserError
from selfplay.store.coverage import CANNOT_TELL, FALSE, NOT_TOLD, TIMED_OUT, TRUE, Check, unknown
from selfplay.store.verify.sampled import DialogueSettings, chance_lies
from selfplay.store.verify.splits import side_lies

if TYPE_CHECKING:
    from selfplay.environments.task import Posed, Task


def judged(task: Task, episode: Episode, settings: DialogueSettings | None) -> Check:
    """Whether the task poses the problem, leads the dialogue and judges it as the episode says.

    settings: of its run, if they are here.
    """
    name, record = episode.episode_id, episode.reasoning
    assert record is not None
    if episode.seats != task.spec.seats:
        return Check(name, FALSE, f"it has {episode.seats} seats, and {task.spec.id} {task.spec.seats}")
    try:
        posed = task.pose(record["problem_seed"], record["difficulty"])
    except UserError as error:
        return Check(name, FALSE, str(error))
    lie = _posed_otherwise(posed, episode)
    if lie is None and settings is not None and not settings.levels:
        lie = chance_lies(episode, settings, task.spec.difficulties)
    if lie is not None:
        return Check(name, FALSE, lie)
    turns = tuple(
        Turn(turn["seat"], turn["role"], turn["text"] or "") for turn in record["turns"] if turn["role"] != CHANCE_ROLE
    )
    try:
        lie = _led_otherwise(task, posed, turns, episode)
    except Failure as failure:
        return unknown(name, CANNOT_TELL, f"what {task.spec.id} says next cannot be told: {failure}")
    if lie is not None:
        return Check(name, FALSE, lie)
    if episode.status == "aborted":
        return unknown(name, NOT_TOLD, "its dialogue was cut off before it could be judged")
    if episode.status == "error":
        return unknown(name, NOT_TOLD, f"its dialogue failed before it could be judged: {(episode.error or ('',))[0]}")
    return _compared(task, posed, turns, episode)


def _posed_otherwise(posed: Posed, episode: Episode) -> str | None:
    record = episode.reasoning
    assert record is not None
    if posed.digest != record["problem_digest"]:
        return "the problem, made again, is another"
    return side_lies(episode, posed)


def _led_otherwise(task: Task, posed: Posed, turns: tuple[Turn, ...], episode: Episode) -> str | None:
    """What was said to seats, and when the dialogue ended, against what the task says. Raises `Failure`."""
    first = len(posed.messages)
    if turns[:first] != posed.opening.turns:
        return "what was asked is not the problem"
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    if answers[:1] not in ([], [first]):
        return "something was said to a seat besides the problem"
    if len(answers) > task.spec.max_turns:
        return f"it has {len(answers)} answers, and {task.spec.id} allows {task.spec.max_turns}"
    over = len(answers) == task.spec.max_turns
    cut = any(turn["finish_reason"] == "length" for turn in (episode.reasoning or {})["turns"])
    if task.spec.respond is None:
        if episode.status in ("ok", "truncated") and (episode.status == "truncated") != cut:
            return f"its status is {episode.status}, and its answer {'was' if cut else 'was not'} cut at a limit"
        return None
    for number, place in enumerate(answers):
        last = number + 1 == len(answers)
        if last and episode.status in ("aborted", "error") and place + 1 == len(turns):
            return None  # it was not asked, or gave nothing
        try:
            said = task.responded(posed, Transcript(turns[: place + 1]))
        except Failure:
            if last and over:
                return None  # at the end it need not answer any more
            raise
        until = len(turns) if last else answers[number + 1] + 1
        lie = _said_otherwise(said, turns[place + 1 : until], last)
        if lie is not None:
            return f"after answer {number + 1}: {lie}"
        if last and episode.status in ("ok", "truncated"):
            unfinished = cut or (said is not None and not over)
            if unfinished and episode.status == "ok":
                return "its status is ok, and the dialogue was not over"
            if not cut and said is None and episode.status == "truncated":
                return "its status is truncated, and the dialogue was over"
    return None


def _said_otherwise(said: Next | None, turns: tuple[Turn, ...], last: bool) -> str | None:
    """turns: those that followed, with the next answer where there is one. last: there is none."""
    if said is None:
        return "the dialogue was over, and went on" if turns else None
    told = tuple(Turn(said.seat, message.role, message.content) for message in said.messages)
    if last:  # it may have ended before this was said: at its limits
        return None if not turns or turns == told else "what was said next is not what the task says"
    if turns[:-1] != told or turns[-1].seat != said.seat:
        return "what was said next, or to whom, is not what the task says"
    return None


def _compared(task: Task, posed: Posed, turns: tuple[Turn, ...], episode: Episode) -> Check:
    name = episode.episode_id
    recorded = {verdict["seat"]: verdict for verdict in episode.verdicts or ()}
    for seat, verdict in enumerate(task.judge(posed.problem, Transcript(turns))):
        if verdict.state == "unverifiable":
            return unknown(name, CANNOT_TELL, f"the verifier of {task.spec.id} cannot tell: {verdict.error}")
        told = recorded.get(seat)
        if told is None:
            return Check(name, FALSE, f"seat {seat} has no verdict")
        if told["state"] == "unverifiable":
            return unknown(name, NOT_TOLD, "nobody could tell when it was sealed")
        if any(one["criterion"] == TIMEOUT for one in told["criteria"] or ()):
            return unknown(name, TIMED_OUT, "it was rejected because its verification took too long")
        if (told["state"], told["reward"]) != (verdict.state, verdict.reward):
            was, now = f"{told['state']}, {told['reward']:g}", f"{verdict.state}, {verdict.reward:g}"
            return Check(name, FALSE, f"seat {seat} was judged {was}, and its verifier says {now}")
        lie = _judged_otherwise(told["criteria"] or (), verdict)
        if lie is not None:
            return Check(name, FALSE, f"seat {seat}: {lie}")
    return Check(name, TRUE)


def _judged_otherwise(told: object, verdict: Verdict) -> str | None:
    """The criteria, but for their reasons: these are words for people."""
    names = ("criterion", "score", "low", "high")
    was = [tuple(one[name] for name in names) for one in told]  # type: ignore[attr-defined]
    now = [(one.name, one.score, one.low, one.high) for one in verdict.criteria]
    return None if was == now else f"it was judged by {was}, and its verifier says {now}"
