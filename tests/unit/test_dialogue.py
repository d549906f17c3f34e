"""Dialogues with tasks become episodes: what was sampled is what is archived, judged and learned from, and no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from selfplay.contract import Message, Next, TaskSpec  # noqa: E402
from selfplay.environments import registry  # noqa: E402
from selfplay.environments.task import Task, ruleset_digest  # noqa: E402
from selfplay.episode import Episode, Provenance, to_batch  # noqa: E402
from selfplay.errors import UserError  # noqa: E402
from selfplay.nets.language import LanguagePolicy, fresh  # noqa: E402
from selfplay.nets.language.config import small  # noqa: E402
from selfplay.nets.language.policy import PolicySpec  # noqa: E402
from selfplay.nets.language.tokenizer import of_characters  # noqa: E402
from selfplay.rollout import Completion, Request, Sampling  # noqa: E402
from selfplay.rollout.continuous import ContinuousEngine  # noqa: E402
from selfplay.rollout.dialogue import Assignment, Dialogues, Recorder, Speaker  # noqa: E402
from selfplay.store.corpus.tokens import sequences_from  # noqa: E402
from selfplay.store.verify.spelling import kept  # noqa: E402
from selfplay.store.verify.verify import Rules, verify_episode  # noqa: E402

torch.set_num_threads(1)
TOKENIZER = of_characters(map(chr, range(10, 127)))


class Spy:
    """Another engine, and what it was asked and answered, in order."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.version = engine, 5
        self.asked: list[Request] = []
        self.told: list[Completion] = []
        self.cancelled = 0

    def submit(self, requests: Sequence[Request]) -> None:
        self.asked += requests
        self.engine.submit(requests)

    def advance(self) -> list[Completion]:
        done: list[Completion] = self.engine.advance()
        self.told += done
        return done

    def cancel(self) -> None:
        self.cancelled += 1
        self.engine.cancel()


class Says:
    """An engine that answers at once, with texts."""

    version = 0

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say, self.waiting = say, list[Request]()

    def submit(self, requests: Sequence[Request]) -> None:
        self.waiting += requests

    def advance(self) -> list[Completion]:
        out = []
        for request in self.waiting:
            ids = [*TOKENIZER.encode(self.say(TOKENIZER.decode(request.prompt))), TOKENIZER.eos[0]]
            out.append(Completion(request.key, np.array(ids, np.int32), np.zeros(len(ids), np.float32), "stop"))
        self.waiting = []
        return out

    def cancel(self) -> None:
        self.waiting = []


def policy() -> LanguagePolicy:
    return fresh(PolicySpec(None, small(TOKENIZER.size, 1, 16, 2, 400), dict(TOKENIZER.files), 400), seed=0)


def recorder(spec: TaskSpec) -> Recorder:
    digest = "0" * 64 if registry.source_of(spec).kind == "unknown" else ruleset_digest(spec)
    provenance = Provenance("run", spec.id, spec.version, digest, "b" * 64, "0.1", "here", "CC0-1.0", None, "cot_rl")
    return Recorder(provenance, "a", 1, Task(spec), 40)


@pytest.fixture
def record() -> Iterator[Callable[[TaskSpec], Recorder]]:
    made: list[Recorder] = []

    def make(spec: TaskSpec) -> Recorder:
        made.append(recorder(spec))
        return made[-1]

    yield make
    for one in made:
        one.task.close()


def works(spec: TaskSpec, n: int, level: float | None = None) -> list[Assignment]:
    task = Task(spec)
    posed = [task.pose(i // 2, spec.difficulties[0] if level is None else level) for i in range(n)]
    return [Assignment(one, f"g{i // 2}", i % 2, 0.25 if i < 4 else None) for i, one in enumerate(posed)]


def speaker(engine: Any, context: int = 400, learns: bool = True) -> Speaker:
    return Speaker(engine, TOKENIZER, "p", "d" * 64, context, learns)


def hold(record: Recorder, engines: Sequence[Any], n: int = 8, learns: Sequence[bool] = (True, True)) -> list[Episode]:
    spec = record.task.spec
    speakers = {seat: speaker(engines[seat % len(engines)], learns=learns[seat]) for seat in range(spec.seats)}
    return list(Dialogues(record, speakers, Sampling(max_tokens=12)).hold(works(spec, n)))


@pytest.mark.parametrize("name", ["parity", "countdown", "guess_number", "nim"])
@pytest.mark.parametrize("frozen", [False, True])
def test_lines_read_back_are_what_was_given_and_sampled(name: str, frozen: bool, record: Any) -> None:
    spec = registry.find_task(name)
    engines = [Spy(ContinuousEngine(policy(), rows=5, seed=seat)) for seat in range(spec.seats)]
    episodes = hold(record(spec), engines, learns=(True, not frozen))
    assert [one.number for one in episodes] == list(range(40, 48))
    read = sequences_from(to_batch(episodes)).lines
    lines: dict[tuple[int, ...], list[Any]] = {}
    for line in read:
        lines.setdefault(tuple(line.ids.tolist()), []).append(line)
    learning = engines[:1] if frozen else engines
    for seat, engine in enumerate(engines):
        requests = {}
        for request, completion in zip(_paired(engine), engine.told, strict=True):
            requests[(*request.prompt, *completion.token_ids.tolist())] = (request, completion)
        for whole, (request, completion) in requests.items():
            longer = [ids for ids in lines if ids[: len(whole)] == whole and any(x.seat == seat for x in lines[ids])]
            assert bool(longer) == (engine in learning), "every answer is in a line of its seat"
            for line in (line for ids in longer for line in lines[ids] if line.seat == seat):
                sampled = slice(len(request.prompt), len(whole))
                assert line.loss_mask[sampled].all()
                assert np.allclose(line.logprobs[sampled], completion.logprobs, atol=1e-6)
                assert not line.loss_mask[len(request.prompt) - 1], "what was told is not learned"
    sampled = sum(len(done.token_ids) for engine in learning for done in engine.told)
    assert sum(int(line.loss_mask.sum()) for line in read) == sampled, "no other token is"
    assert all(line.logprobs[~line.loss_mask].sum() == 0 or frozen for line in read)
    measured = {work.posed.digest for work in works(spec, 8) if work.posed.side != "training"}
    for episode in episodes:
        check = verify_episode(episode, Rules([]))
        given = [verdict["state"] for verdict in episode.verdicts or ()]
        assert check.state == ("not checkable" if "unverifiable" in given else "true"), check.reason
        may = episode.returns is not None and episode.reasoning["problem_digest"] not in measured
        assert episode.status in ("ok", "truncated") and episode.trainable == may
        assert (episode.reasoning["turns"][0]["role"] == "chance") == (episode.reasoning["group_id"] in ("g0", "g1"))
        spans = [(span.seat, span.first_step, span.policy_id, span.version) for span in episode.policy_spans]
        said = enumerate(episode.reasoning["turns"])
        assert spans == [(turn["seat"], i, "p", 5) for i, turn in said if turn["role"] == "assistant"]
    assert all(engine.cancelled == 1 for engine in engines)


def _paired(engine: Spy) -> list[Request]:
    """The request of each answer: of one key there is one under way at a time."""
    asked: dict[int, list[Request]] = {}
    for request in engine.asked:
        asked.setdefault(request.key, []).append(request)
    return [asked[done.key].pop(0) for done in engine.told]


@pytest.mark.parametrize("name", ["parity", "countdown", "guess_number", "nim"])
def test_solvers_are_accepted_and_verify_as_true(name: str, record: Any) -> None:
    spec = registry.find_task(name)
    answers: dict[str, str] = {}
    for work in works(spec, 6):
        told = "".join(message.content for message in work.posed.messages)
        if spec.gold is not None and spec.play is None:
            answers[told] = spec.gold(work.posed.problem)
            continue
        lines = {0: "", 1: ""}
        for turn in Task(spec).solved(work.posed).turns:
            if turn.role == "assistant":
                answers[lines[turn.seat]] = turn.text
            lines[turn.seat] += turn.text
    episodes = hold(record(spec), [Says(answers.__getitem__)], n=6)
    assert all(episode.status == "ok" and max(episode.returns) == 1 for episode in episodes)
    assert {verify_episode(episode, Rules([])).state for episode in episodes} == {"true"}


def _put(name: str, value: Any, place: int) -> Callable[[list[Any]], None]:
    def edit(turns: list[Any]) -> None:
        turns[place][name] = value(turns[place][name]) if callable(value) else value

    return edit


def _told(text: str) -> Callable[[list[Any]], None]:
    """Something else was said after the first answer, and the next one has its tokens before it."""

    def edit(turns: list[Any]) -> None:
        _put("text", text, 3)(turns)
        _put("suffix_ids", TOKENIZER.encode(text), 4)(turns)

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_put("text", "you have won", 3), "the tokens before it do not spell what its seat was told"),
        (_told("higher"), "after answer 1: what was said next, or to whom, is not what the task says"),
        (_put("parent", 1, 4), "continues turn 1, and the line of seat 0 ends in turn 3"),
        (_put("parent", None, 3), "continues turn None"),
        (_put("role", "assistant", 3), "turn 3 has no policy span"),
        (_put("suffix_ids", lambda ids: [1, *ids], 4), "do not spell"),
        (_put("seat", 1, 3), "seat 1"),
        (_put("token_ids", lambda ids: ids[:-1], 2), "turn 2"),
        (_put("finish_reason", None, 2), "ended by None"),
        (_put("text", None, 3), "has no text"),
        (lambda turns: turns.__delitem__(slice(-2, None)), ""),
    ],
)
def test_what_a_dialogue_of_several_turns_gives_away(edit: Any, said: str, record: Any) -> None:
    spec, rules = registry.find_task("guess_number"), Rules([], (), dict([kept(TOKENIZER.files) or ("", "")]))
    (one,) = hold(record(spec), [Says(lambda prompt: "8")], n=1)
    assert one.reasoning is not None and len(one.reasoning["turns"]) > 6
    assert verify_episode(one, rules).state == "true", verify_episode(one, rules).reason
    turns = [dict(turn) for turn in one.reasoning["turns"]]
    edit(turns)
    wrong = dataclasses.replace(one, reasoning={**one.reasoning, "turns": turns})
    check = verify_episode(wrong, rules)
    assert check.state == "false" and said in check.reason, check.reason


def test_what_is_stopped_is_archived_and_never_learned_from(record: Any) -> None:
    spec = registry.find_task("guess_number")
    engine = Spy(ContinuousEngine(policy(), rows=4))
    dialogues = Dialogues(record(spec), {0: speaker(engine)}, Sampling(max_tokens=12))
    episodes = list(dialogues.hold(works(spec, 9, 4.0), stop=lambda: len(engine.told) >= 12))
    ended = [one for one in episodes if one.status == "aborted"]
    assert ended and len(episodes) == 9 and [one.number for one in episodes] == list(range(40, 49))
    for one in ended:
        assert not one.trainable and one.returns is None and one.verdicts[0]["reward"] is None
        assert verify_episode(one, Rules([])).state == "not checkable"
    assert engine.advance() == [], "nothing of it is under way"
    again = list(dialogues.hold(works(spec, 9)))
    assert [one.number for one in again] == list(range(49, 58)) and not any(one.status == "aborted" for one in again)


def test_dialogues_that_nobody_waits_for_leave_nothing_under_way(record: Any) -> None:
    spec = registry.find_task("parity")
    engine = ContinuousEngine(policy(), rows=2)
    dialogues = Dialogues(record(spec), {0: speaker(engine)}, Sampling(max_tokens=12))
    going = dialogues.hold(works(spec, 9))
    next(going)
    going.close()
    assert engine.advance() == []
    short = Dialogues(record(spec), {0: speaker(engine, 10)}, Sampling(max_tokens=12))
    with pytest.raises(UserError, match=r"a prompt of parity-v0 has \d+ tokens, the policy's context 10; take"):
        list(short.hold([*works(spec, 2), *works(spec, 1, 16.0)]))
    assert engine.advance() == []


def test_a_dialogue_that_no_longer_fits_is_truncated_and_true(record: Any) -> None:
    spec = registry.find_task("guess_number")
    engine = Spy(ContinuousEngine(policy(), rows=4))
    dialogues = Dialogues(record(spec), {0: speaker(engine, 40)}, Sampling(max_tokens=12))
    episodes = list(dialogues.hold(works(spec, 6, spec.difficulties[0])))
    cut = [one for one in episodes if one.status == "truncated"]
    assert cut and all(one.reasoning["turns"][-1]["role"] == "assistant" for one in episodes)
    assert {verify_episode(one, Rules([])).state for one in episodes} <= {"true", "not checkable"}


PARITY, NUMBER = registry.find_task("parity"), registry.find_task("guess_number")


def _raise(*_: object) -> None:
    raise KeyError("oh\nno")


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        (_raise, "respond fails after 1 answers: KeyError"),
        (lambda *_: "more", "respond gave 'more', which is neither"),
        (lambda *_: Next(3, (Message("user", "x"),)), "respond names seat 3 of 1"),
        (lambda *_: Next(0, (Message("assistant", "x"),)), "respond must give messages with the roles"),
        (lambda *_: Next(0, ("x",)), "respond must give messages"),  # type: ignore[arg-type]
        (lambda *_: Next(0, (Message("user", "\u20ac"),)), "the tokenizer has no token for"),
    ],
)
def test_what_respond_does_wrong_is_an_error_of_that_dialogue(respond: Any, said: str, record: Any) -> None:
    def sometimes(problem: Any, transcript: Any, rng: Any) -> Any:
        return respond(problem, transcript, rng) if problem.seed == 1 else NUMBER.respond(problem, transcript, rng)

    spec = dataclasses.replace(NUMBER, respond=sometimes, isolated=False)
    episodes = hold(record(spec), [ContinuousEngine(policy(), rows=4)], n=6)
    wrong = [one for one in episodes if one.reasoning["problem_seed"] == 1]
    assert len(wrong) == 2 and len(episodes) == 6
    for one in wrong:
        assert (one.status, one.trainable, one.returns) == ("error", False, None)
        assert one.error is not None and said in one.error[1] and "\n" not in one.error[1]
        assert one.verdicts[0]["state"] == "unverifiable"
    assert all(one.status in ("ok", "truncated") for one in episodes if one not in wrong)
    assert len(sequences_from(to_batch(episodes))) == 6


def test_the_most_turns_truncate(record: Any) -> None:
    more = Next(0, (Message("user", "more"),))
    spec = dataclasses.replace(NUMBER, respond=lambda *_: more, max_turns=3, isolated=False)
    for one in hold(record(spec), [Says(lambda prompt: "1")], n=2):
        assert one.status == "truncated" and [t["role"] for t in one.reasoning["turns"]].count("assistant") == 3
    for one in hold(record(dataclasses.replace(spec, respond=lambda *_: None)), [Says(lambda prompt: "1")], n=2):
        assert one.status == "ok"


WILD = '''
import os, time
from selfplay.contract import *

def verify(problem, transcript):
    if transcript.answer == "die":
        os._exit(3)
    if transcript.answer == "hang":
        time.sleep(60)
    if transcript.answer == "raise":
        raise RuntimeError
    return Verdict.of(transcript.answer == str(problem.seed))

SPEC = TaskSpec(
    id="wilder-v0", summary="Says what it is told.", sample=lambda seed, difficulty: Problem(seed, difficulty, {}),
    verify=verify, timeout_s=4.0, prompt=lambda problem: [Message("user", f"{problem.seed}=")],
    gold=lambda problem: str(problem.seed),
)
'''


def test_a_verifier_that_dies_or_hangs_harms_no_neighbour(record: Any) -> None:
    spec = registry.load_source(WILD, "wilder.py")
    assert isinstance(spec, TaskSpec)
    says = {0: "0", 1: "die", 2: "2", 3: "hang", 4: "4", 5: "wrong", 6: "raise", 7: "7"}
    episodes = hold(record(spec), [Says(lambda prompt: says[int(prompt[:-1])])], n=16)
    for one in episodes:
        seed = one.reasoning["problem_seed"]
        (verdict,) = one.verdicts
        if says[seed] in ("die", "hang", "raise"):
            assert (verdict["state"], verdict["reward"]) == ("unverifiable", None) and verdict["error"]
            assert one.returns is None and not one.trainable
        else:
            assert verdict["reward"] == float(says[seed] == str(seed)) and one.trainable
    assert np.isnan([line.reward for line in sequences_from(to_batch(episodes)).lines]).sum() == 6
