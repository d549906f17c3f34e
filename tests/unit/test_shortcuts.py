"""Prompts that hold the answer are told from those that only name it among others."""

from __future__ import annotations

from random import Random

import pytest

from selfplay.environments.checks.shortcuts import Shown, constants, leaks

RANDOM = Random(5)
NUMBERS = [RANDOM.randrange(100, 1000) for _ in range(40)]


def level(prompts: list[str], answers: list[str]) -> list[Shown]:
    pairs = zip(prompts, answers, strict=True)
    return [Shown(f"seed {i}, difficulty 1", prompt, answer) for i, (prompt, answer) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("prompt", "answer", "place"),
    [
        ("What is it? (hint: {n})", "{n}", "hint: '"),
        ("Guess! {{'id': {i}, 'answer': {n}}}", "<answer>{n}</answer>", "answer': "),
        ("It is {n} that I think of, {i} times.", "The answer is {n}.", "after the first 'it is '"),
        ("{n}", "{n}", "at the very beginning of the prompt"),
        ("Number {i}: which one? Key {n:,}00", "\\boxed{{{n}00}}", "? key '"),
        ("Is {i} odd? {odd}", "{odd}", " odd? '"),
    ],
)
def test_what_gives_the_answer_away_is_found(prompt: str, answer: str, place: str) -> None:
    values = [{"n": n, "i": i, "odd": bool(n % 2)} for i, n in enumerate(NUMBERS)]
    fault, note = leaks(level([prompt.format(**v) for v in values], [answer.format(**v) for v in values]))
    assert note is None and fault is not None
    assert fault.startswith("the prompt gives the answer away: in 40 of 40 problems it stands ") and place in fault, (
        fault
    )


def test_what_only_names_the_answer_is_no_fault() -> None:
    odd = [str(bool(n % 2)) for n in NUMBERS]
    assert leaks(level([f"Is {n} odd, True or False?" for n in NUMBERS], odd)) == (None, None)
    choices = [f"{n}: A, B, C or D?" for n in NUMBERS]
    assert leaks(level(choices, ["ABCD"[n % 4] for n in NUMBERS])) == (None, None)
    digits = [str(n % 10) for n in NUMBERS]
    assert leaks(level([f"The last digit of {n} + 0 1 2 3 4 5 6 7 8 9?" for n in NUMBERS], digits)) == (None, None)
    few = level([f"{n}" for n in NUMBERS], list(map(str, NUMBERS)))[:5]
    assert leaks(few) == (None, None)


def test_a_choice_of_what_is_given_is_worth_a_remark() -> None:
    lists = [[Random(n + k).randrange(10**6) for k in range(5)] for n in NUMBERS]
    fault, note = leaks(level([f"The largest of {one}?" for one in lists], [str(max(one)) for one in lists]))
    assert fault is None and note is not None and "somewhere in the prompt in 40 of 40 problems" in note


def test_a_constant_answer_is_counted() -> None:
    same = level([str(n) for n in NUMBERS], ["7"] * 40)
    assert "the answer '7' is right in 40 of 40 problems, so nothing" in str(constants(same, lambda i, text: False)[0])
    many = level([str(n) for n in NUMBERS], list(map(str, range(40))))
    assert constants(many, lambda i, text: False) == (None, None)
    assert "is right in 40 of 40 problems" in str(constants(many, lambda i, text: True)[0])
    two = level([str(n) for n in NUMBERS], ["yes", "no", "yes", "yes"] * 10)
    fault, note = constants(two, lambda i, text: False)
    assert fault is None and note == (
        "the answer 'yes' is right in 30 of 40 problems (75%): a policy that always says so gets that much"
    )
