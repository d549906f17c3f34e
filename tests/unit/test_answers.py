"""Answers in texts: found where they are, compared as what they are, and never taken for what they are not."""

from __future__ import annotations

from fractions import Fraction
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay import answers

pytest.importorskip("math_verify")


@given(st.integers(), st.integers(0, 10**9))
def test_numbers_are_read_as_they_are_written(whole: int, decimals: int) -> None:
    for text in (f"{whole}", f"{whole:,}", f"{whole}.0"):
        if abs(whole) < 10**40:
            assert answers.number(text) == whole
    assert answers.number(f"{whole % 10**9}.{decimals}") == Fraction(f"{whole % 10**9}.{decimals}")


@pytest.mark.parametrize("text", ["", "1 2", "1,00", "1e5", "nan", "inf", "٣", "1.", ".5", "--1", "1/2", "9" * 70])
def test_nothing_else_is_a_number(text: str) -> None:
    assert answers.number(text) is None


@given(st.text("ab{}\\ \n", max_size=30), st.recursive(st.text("ab ", max_size=4), lambda s: s.map("{{{}}}".format)))
def test_the_last_box_is_found_with_balanced_braces(before: str, inside: str) -> None:
    assert answers.boxed(f"{before}\\boxed{{{inside}}}") == inside.strip()
    assert answers.boxed(f"\\boxed{{7}}{before}\\boxed{{{inside}}} and so on") == inside.strip()
    assert answers.final_box(f"{before} $\\boxed{{{inside}}}$.") == inside.strip()
    assert answers.final_box(f"\\boxed{{{inside}}} or not") is None


@pytest.mark.parametrize("text", ["", r"\boxed", r"\boxed{{}", r"\boxed7", r"\boxed{1}\boxed{", "x" * 300000])
def test_a_box_that_does_not_close_holds_nothing(text: str) -> None:
    assert answers.boxed(text) is None and answers.final_box(text) is None


SAME = [
    ("0.5", r"\frac{1}{2}"), (r"\dfrac{1}{2}", "0.5"), ("72.0", "72"), ("1,000", "1000"), ("$72$", "72"),
    (r"1+x^2", "x^2+1"), (r"(x+1)(x-1)", "x^2-1"), (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"\{2,1\}", r"\{1,2\}"),
    (r"(1, 2)", "(1,2)"), ("A", r"\text{A}"), (r"\text{(A)}", r"\text{(A)}"), ("x=3", "3"), (r"10\text{ cm}", "10"),
    ("90^\\circ", "90"), ("-3", "-3"), (r"-\frac{3}{4}", "-0.75"), ("3/4", "0.75"), (r"\$18.50", "18.5"),
]  # fmt: skip
OTHER = [
    ("", "72"), ("73", "72"), ("72 or 73", "72"), ("72,73", "72"), (r"71 \text{ or } 72", "72"), ("x=72=73", "72"),
    ("[1,2)", "(1,2]"), ("2-1", "1"), ("36+36", "72"), (r"\sqrt{4}", "2"), (r"\sum_{k=1}^{3} k", "6"), ("3!", "6"),
    (r"\int_0^1 2x\,dx", "1"), (r"\lim_{n\to\infty} 1/n", "0"), (r"\binom{4}{2}", "6"), (r"\int 2x\,dx", "x^2"),
    ("9^{9^{9^{9}}}", "x"), ("9^9^9^9", "x"), ("9^{99999999}", "x"), ("x" * 500, "x"), ("{" * 50 + "1" + "}" * 50, "1"),
    ("\\frac{" * 60, "1"), ("3.14159", r"\pi"), ("0.333", r"\frac{1}{3}"), (r"\infty", "72"), (r"\text{nan}", "72"),
    ("__import__('os').system('true')", "0"), ("1\u200b", "1"), ("\x00", "1"), ("72\\%72", "72"), ("\ud800", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_the_same_mathematics(answer: str, gold: str) -> None:
    assert answers.same_mathematics(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), OTHER)
def test_other_mathematics(answer: str, gold: str) -> None:
    assert not answers.same_mathematics(answer, gold)


@settings(deadline=None, max_examples=30)
@given(st.fractions(-1000, 1000, max_denominator=50), st.fractions(-1000, 1000, max_denominator=50))
def test_fractions_are_the_same_if_they_are(one: Fraction, other: Fraction) -> None:
    def latex(value: Fraction) -> str:
        return f"{'-' * (value < 0)}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"

    assert answers.same_mathematics(latex(one), f"{one.numerator}/{one.denominator}")
    assert answers.same_mathematics(latex(one), latex(other)) == (one == other)


def test_it_works_off_the_main_thread() -> None:
    found = []
    thread = Thread(target=lambda: found.append(answers.same_mathematics("0.5", r"\frac{1}{2}")))
    thread.start()
    thread.join()
    assert found == [True]
