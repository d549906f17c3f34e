"""Twins are on one side: no problem to train on is a held-out problem in other words, nor gives its answer away."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from envs.tasks import reasoning_gym
from selfplay.contract import Message, Problem, TaskSpec
from selfplay.environments import archived, registry
from selfplay.environments.checks.twins import twins
from selfplay.environments.task import KEY_DIGITS, SIDES, Side, Task, ruleset_digest, side_of
from selfplay.episode import Episode, Provenance
from selfplay.nets.language.tokenizer import of_characters
from selfplay.rollout.recorder import Assignment, Recorder
from selfplay.store.coverage import SPLIT
from selfplay.store.verify.spelling import kept
from selfplay.store.verify.verify import Rules, verify_episode

Data = dict[str, Any]
#: From the end of a maze to its start.
BACKWARDS = str.maketrans("SE", "ES")


def turned(rows: list[str]) -> list[str]:
    return ["".join(column) for column in zip(*rows[::-1], strict=True)]


def renamed(data: Data, rng: Random) -> Data:
    """The same people in another order, with other names."""
    people = len(data["said"])
    order = rng.sample(range(people), people)
    told: list[Any] = [None] * people
    for speaker, (kind, x, y) in enumerate(data["said"]):
        if kind in ("same", "differ"):
            told[order[speaker]] = [kind, *sorted((order[x], order[y]))]
        else:
            told[order[speaker]] = [kind, x if kind == "count" else order[x], 0]
    return {"names": "".join(sorted(rng.sample("ABCDEFGHIJ", people))), "said": told}


def reordered(data: Data, rng: Random) -> Data:
    """A product, or a sum, with its operands in another order; where there is a subtraction or both, as it is."""
    operations = {operation for operation, _ in data["steps"]}
    if operations not in ({"+"}, {"*"}):
        return data
    numbers = [data["first"], *(number for _, number in data["steps"])]
    rng.shuffle(numbers)
    steps = [[operation, number] for (operation, _), number in zip(data["steps"], numbers[1:], strict=True)]
    return {**data, "first": numbers[0], "steps": steps}


def swapped(data: Data, rng: Random) -> Data:
    return {**data, "a": data["b"], "b": data["a"]}


#: The data of another problem that is the same one.
TWINS: dict[str, Callable[[Data, Random], Data]] = {
    "addition": swapped,
    "multiplication": swapped,
    "indexed_addition": lambda data, rng: {**swapped(data, rng), "units": "a"},
    "countdown": lambda data, rng: {**data, "target": 99},
    "nim": lambda data, rng: {"heaps": rng.sample(data["heaps"], len(data["heaps"]))},
    "knights": renamed,
    "maze": lambda data, rng: {"rows": [row[::-1].translate(BACKWARDS) for row in turned(data["rows"])]},
    "modular": reordered,
}


@pytest.mark.parametrize("name", TWINS)
def test_twins_have_one_key_and_other_problems_another(name: str) -> None:
    spec, rng = registry.find_task(name), Random(0)
    assert spec.key is not None
    level, keys = spec.difficulties[1], set()
    for seed in range(40):
        problem = spec.sample(seed, level)
        key = spec.key(problem)
        keys.add(key)
        for _ in range(3):
            assert spec.key(replace(problem, data=TWINS[name](dict(problem.data), rng))) == key
    assert len(keys) > 25


def test_the_key_alone_decides_the_side_and_twins_are_different_questions() -> None:
    task = Task(registry.find_task("addition"))
    a, b = (
        task._posed(0, 2.0, (Problem(0, 2.0, {}), (Message("user", text),), hashlib.sha256(b"27+95").hexdigest()))
        for text in ("27+95=", "95+27=")
    )
    assert a.digest[:KEY_DIGITS] == b.digest[:KEY_DIGITS] and a.digest != b.digest and a.side == b.side
    posed = task.pose(7, 2)
    pair = sorted((posed.problem.data["a"], posed.problem.data["b"]), key=int)
    assert posed.digest[:KEY_DIGITS] == hashlib.sha256("+".join(pair).encode()).hexdigest()[:KEY_DIGITS]
    parity = Task(registry.find_task("parity")).pose(7, 8)
    asked = json.dumps([[m.role, m.content] for m in parity.messages])
    assert parity.digest == hashlib.sha256(asked.encode()).hexdigest(), "without a key, as it always was"


def leaked(seeds: int) -> tuple[int, int]:
    """Held-out questions of countdown whose target a training text writes out, of the same numbers; and all."""
    task = Task(registry.find_task("countdown"))
    written, held_out = set(), set()
    for seed in range(seeds):
        posed = task.pose(seed, 3)
        numbers, target = tuple(posed.problem.data["numbers"]), posed.problem.data["target"]
        if posed.side == "held_out":
            held_out.add((numbers, target))
        elif posed.side == "training":
            written |= {(numbers, int(value)) for value in re.findall(r"[=:](\d+)", task.solution(posed.problem))}
    return len(held_out & written), len(held_out)


def test_no_training_text_of_countdown_reaches_a_held_out_target() -> None:
    leaks, of = leaked(600)
    assert leaks == 0 and of > 20


@pytest.mark.slow
def test_no_training_text_of_countdown_reaches_a_held_out_target_in_a_whole_warm_start() -> None:
    leaks, of = leaked(30_000)
    assert leaks == 0 and of > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(TWINS) - {"countdown"}))
def test_no_twin_of_a_held_out_problem_is_trained_on(name: str) -> None:
    task, rng = Task(registry.find_task(name)), Random(1)
    for level in task.spec.difficulties[:2]:
        for seed in range(3000):
            posed = task.pose(seed, level)
            twin = replace(posed.problem, data=TWINS[name](dict(posed.problem.data), rng))
            assert task.spec.key is not None
            digest = hashlib.sha256(task.spec.key(twin).encode()).hexdigest()
            assert side_of(digest, posed.held_out_of) == posed.side


def test_check_env_says_where_twins_are_on_two_sides() -> None:
    spec = registry.find_task("addition")
    assert twins(Task(spec)) is None
    without: TaskSpec = replace(spec, key=None)
    told = twins(Task(without))
    assert told is not None and re.search(r"difficulty 2, seeds \d+ and \d+: '(\d+)\+(\d+)=' and '\2\+\1=': if", told)


def test_data_sets_of_reasoning_gym_are_split_by_what_they_ask() -> None:
    def key(name: str, question: str, **about: object) -> str:
        return reasoning_gym.key(name, Problem(0, 0.0, {"question": question, "answer": "", "about": about}))

    assert key("countdown", "Make 24", numbers=[3, 1, 2]) == key("countdown", "Make 9", numbers=[2, 3, 1])
    assert key("gcd", "Find the GCD of: 26, 760.") == key("gcd", "Find the GCD of: 760, 26.")
    assert key("maze", "a\n b") == key("maze", "A b ") != key("maze", "b a")


def questions(path: Path, rows: list[Data]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


#: ruleset digests of tasks before they had keys, as episodes of then name them.
BEFORE = {
    "addition-v0": "5130d1a90f61ead4a78f77c13dadbab53cd87596d7ff39e8a374af57c9a6c34f",
    "multiplication-v0": "0edded6c79b60da0417966e1f66c8c09b4d1ea2cc7927b0056060a75d924963c",
    "indexed_addition-v0": "064527a52914924f50bb76cfcf98d6d151637f98f49f5901d6924f881ef0c25f",
    "nim-v0": "586c3a9cc5fc0eb3a8c8680cbbcf92a1e2e6d64fc7273b6e209277c8713acab8",
    "maze-v0": "7c714052ba60b6ca958b5c1aa96f9b44ff80ce5b50ca4b010294be267c0caaf6",
    "modular-v0": "08fe49845d2539e511af6f1433b40fd175f8ab19386c18e57205bc1ff56c5177",
    "knights-v0": "c02f34a27671def42f17e46a0375c21e3eb55db47f4ac4ff92e349c63e5fdebd",
    "countdown-v0": "451a39b580fa90170ea153915eedef8d3b282ab5e0ef8d1c8942c1e92f6a5caf",
}


@pytest.mark.parametrize("env_id", BEFORE)
def test_episodes_from_before_a_task_had_a_key_are_judged_by_the_rules_of_then(env_id: str) -> None:
    before = archived.find_task(env_id)
    assert before.id == env_id and ruleset_digest(before) == BEFORE[env_id]
    newest = registry.find_task(before.name)
    assert newest.version == 1 and ruleset_digest(newest) != BEFORE[env_id]
    assert registry.unpack_any(registry.pack(before)).id == env_id, "in another process, too"
    assert before not in registry.all_specs()


def test_questions_of_a_file_are_split_by_their_words_or_by_a_field(tmp_path: Path) -> None:
    asked = [f"What is {n} + 1?" for n in range(60)]
    rows = [{"question": q, "answer": str(i + 1), "source": i // 2} for i, q in enumerate(asked)]
    rows += [{"question": f" {q.upper()}\n", "answer": str(i + 1), "source": i // 2} for i, q in enumerate(asked)]
    path = questions(tmp_path / "sums.jsonl", rows)
    task = Task(registry.find_task(path))
    sides = [task.pose(seed, 1).side for seed in range(120)]
    assert sides[:60] == sides[60:] and len(set(sides)) == 3 and task.spec.id.endswith("-v2")
    grouped = Task(registry.find_task(f"{path}?key=source"))
    sides = [grouped.pose(seed, 1).side for seed in range(60)]
    assert sides[::2] == sides[1::2] and grouped.spec.id != task.spec.id
    by_text, before = registry.find_task(f"{path}?split=text"), archived.find_task(task.spec.id.replace("-v2", "-v1"))
    assert by_text.key is None and by_text.id == before.id == task.spec.id.replace("-v2", "-v1")
    with contextlib.closing(Task(before)) as isolated:
        assert ruleset_digest(isolated) == ruleset_digest(by_text) and isolated.pose(3, 1) == Task(by_text).pose(3, 1)


def test_only_problems_of_the_training_side_are_ever_trainable() -> None:
    """Also of rows from before the recorder asked that: runs have drawn them so since there were any."""
    spec = registry.find_task("parity")
    task, letters = Task(spec), of_characters(map(chr, range(10, 127)))
    provenance = Provenance("run", spec.id, 0, ruleset_digest(task), "b" * 64, "0.1", "here", "CC0-1.0", None, "solver")
    posed = {one.side: one for one in (task.pose(seed, spec.difficulties[0]) for seed in range(300))}
    rules = Rules([], (), dict([kept(letters.files) or ("", "")]))

    def recorded(side: Side, group: str = "mine", **more: Any) -> Episode:
        work = Assignment(posed[side], group, 0)
        return replace(Recorder(provenance, "a", 1, task).worked(work, task.gold(work.posed.problem), letters), **more)

    assert [recorded(side).trainable for side in SIDES] == [True, False, False]
    for version in (1, 2):
        for side in SIDES:
            told = verify_episode(recorded(side, schema_version=version), rules)
            assert told.state == "true", told
            forged = verify_episode(recorded(side, trainable=side != "training", schema_version=version), rules)
            old = side == "development" and version == 1
            assert forged.state == ("true" if old else "false"), (side, version, forged)
            assert (SPLIT in forged.uncovered) == old
            drawn = verify_episode(recorded(side, "w000003", schema_version=version), rules)
            assert drawn.state == ("true" if side == "training" else "false"), (side, version, drawn)
    task.close()
