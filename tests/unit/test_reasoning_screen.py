"""What a person sees of a reasoning run: screens of made-up statuses, also with texts out to fool a terminal."""

from __future__ import annotations

import io
import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from selfplay.cli.display import LineDisplay, reasoning_progress
from selfplay.cli.display import drawn as live
from selfplay.cli.farewell import farewell
from selfplay.cli.reasoning_screen import held_out, sample, screen, verdict
from selfplay.cli.screen import POOR, spark
from trainers.alphazero.status import Status
from trainers.reasoning.status import ReasoningStatus, ReasoningSummary, Sample, Score

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]#[/bold red] \u202etxt\r\nover\x9b31m \ud800 :boom: [link=x]y[/link] [/"


def scores(version: int, elapsed_s: float, *shares: float) -> tuple[Score, ...]:
    """Over all levels first, then a level each."""
    mean = sum(shares) / len(shares)
    rows = [(None, mean), *((float(2 * i + 4), share) for i, share in enumerate(shares))]
    return tuple(
        Score(version, level, share, max(0.0, share - 0.04), min(1.0, share + 0.03), 256 if level is None else 64,
              12.3 + version, elapsed_s)
        for level, share in rows
    )  # fmt: skip


def learning() -> ReasoningStatus:
    """Three minutes into five of parity."""
    course = [0.62, 0.7, 0.81, 0.88, 0.93, 0.97]
    return ReasoningStatus(
        recipe="parity",
        env="parity-v0",
        out="runs/parity",
        corpus="runs/parity/corpus",
        algorithm="grpo",
        parameters=823_000,
        phase="learning",
        elapsed_s=170,
        total_s=300,
        warm_steps=400,
        warm_total=400,
        rounds=12,
        episodes=31_004,
        tokens=1_234_567,
        tokens_per_s=12_345.6,
        version=14,
        loss=0.0123,
        reward=0.71,
        length=12.34,
        entropy=0.42,
        mixed_groups=0.45,
        kl_to_start=0.031,
        clip_share=0.012,
        unverifiable=0.0,
        staleness=0.3,
        history=tuple((10.0 * i, 0.3 + 0.04 * i, 20.0 - 0.7 * i) for i in range(12)),
        scores=scores(14, 160.0, 1.0, 0.98, 0.96, 0.94),
        first_scores=scores(1, 40.0, 0.9, 0.7, 0.5, 0.38),
        score_history=tuple(scores(i, 40.0 + 20 * i, share)[0] for i, share in enumerate(course)),
        levels=((4.0, 0.99, 0.05), (6.0, 0.9, 0.2), (8.0, 0.7, 0.35), (10.0, 0.4, 0.4)),
        cores=2,
        busy={"generation": 1.31, "learning": 0.52},
        samples=(
            Sample("Is the number of ones in 1 0 1 1 odd?", "1 0 1 1: 1 1 0 1. #odd", 1.0, "odd", 4, "run/a/1/1"),
            Sample("Is the number of ones in 1 0 0 1 odd?", "so [bold]odd[/bold] #odd", 0.0, "it is even", 4, "run/2"),
            Sample("Is the number of ones in 1 1 odd?", HOSTILE, None, "the verifier was killed", 4, "run/a/1/3"),
        ),
        sizing="2 cores, no GPU: 1 actor of 512 answers, 1 learner",
        messages=("an actor died and was started again; 16 episodes in flight were lost",),
    )


def warming() -> ReasoningStatus:
    return ReasoningStatus(
        "parity", "parity-v0", "runs/parity", "runs/parity/corpus", "grpo", 823_000, "warming",
        elapsed_s=12, total_s=300, warm_steps=320, warm_total=400, episodes=4096, loss=0.4125,
    )  # fmt: skip


def finished() -> ReasoningSummary:
    return ReasoningSummary("parity-1a2b", "target", replace(learning(), phase="finished", elapsed_s=171.0))


def drawn(renderable: Any, width: int = 120, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


SIZES = [(200, 60), (120, 40), (100, 24), (80, 50), (80, 24)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_screen_shows_everything_and_fits(width: int, height: int) -> None:
    text = drawn(live(learning(), width, height), width, height)
    lines = text.splitlines()
    assert len(lines) <= height and max(map(cell_len, lines)) <= width
    for part in ("grpo", "2:10 left", "62% → 97%", "93–100 of 256 problems", "level 10", "94%", "▅▆▇▇██", "31,004",
                 "1.23M", "12,346/s", "0.71", "12.3", "0.42", "0.031", "45%", "1.2%", "✓ right",
                 "1 0 1 1: 1 1 0 1. #odd", "runs/parity", "Ctrl-C", "an actor died"):  # fmt: skip
        assert part in text, part
    assert ("1.8 of 2 at work" in text) == ((width, height) != (80, 24))


def test_the_screen_of_a_small_terminal_line_by_line() -> None:
    expected = """
 parity   ● answering and learning  grpo · 823,000 parameters          2:10 left
█████████████████████████████████████████████▍
╭─ held-out problems ──────────────────────────────────────────────────────────╮
│ █▀█ ▀▀█ ▀ █   right  93–100 of 256 problems                                  │
│ ▀▀█   █ ▄▀    62% → 97%  best 97%, version 14                                │
│ ▀▀▀   ▀ ▀ ▀   ▅▆▇▇██                                                         │
│ level 8  ███████████▌   96% 92–99  first  50% 26 tokens                      │
│ level 10 ███████████▎   94% 90–97  first  38% 26 tokens                      │
│ easier: 4 100% · 6 98%                                                       │
╰──────────────────────────────────────────────────────────────────────────────╯
 round 12, v14, 31,004 episodes, 1.23M tokens at 12,346/s
 reward 0.71 ▁▂▂▃▄▅▅▆▇█  length 12.3 █▇▇▆▅▄▄▃▂▁  entropy 0.42  KL 0.031
 mixed 45%  clipped 1.2%  unverifiable 0.0%  staleness 0.3
 levels drawn: 4 5.0% · 6 20% · 8 35% · 10 40%
╭─ newest samples ─────────────────────────────────────────────────────────────╮
│ ✓ right  level 4  odd                                                        │
│   Is the number of ones in 1 0 1 1 odd?                                      │
│   1 0 1 1: 1 1 0 1. #odd                                                     │
│                                                                              │
│                                                                              │
│                                                                              │
╰──────────────────────────────────────────────────────────────────────────────╯
 an actor died and was started again; 16 episodes in flight were lost
 Ctrl-C: save and stop  ·  runs/parity
"""
    text = drawn(screen(learning(), 80, 24), 80, 24)
    assert [line.rstrip() for line in text.splitlines()] == expected.strip("\n").splitlines()


def test_the_warm_start_and_the_first_moment() -> None:
    for width, height in SIZES:
        text = drawn(screen(warming(), width, height), width, height)
        assert "warm start" in text and "320 of 400 steps" in text and "0.412" in text
    nothing = ReasoningStatus("parity", "parity-v0", "runs/x", "", activity="loading torch and ray")
    assert "loading torch and ray" in drawn(screen(nothing, 80, 24), 80, 24)


def test_what_could_not_be_verified_is_red() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="256", highlight=False)
    for share, red in ((0.0, False), (0.02, True)):
        with console.capture() as caught:
            console.print(screen(replace(learning(), unverifiable=share, samples=()), 120, 40))
        assert (f"\x1b[1;38;5;160m{100 * share:.1f}%" in caught.get()) == red, POOR
    assert [verdict(reward)[0] for reward in (1.0, 0.0, -1.0, 0.5, None, float("nan"))] == [
        "✓ right", "✗ wrong", "✗ wrong", "~ partly right, 0.50", "? not verifiable", "? not verifiable"
    ]  # fmt: skip


def test_a_long_answer_keeps_its_end() -> None:
    long = Sample("p" * 5000, "first step " + "so " * 5000 + "the answer is 42", 1.0, "", 4, "run/a/1/1")
    text = drawn(sample(long, 60, 8), 60)
    assert len(text.splitlines()) <= 8 and "first step" in text and "answer is 42" in text


def safe(text: str) -> bool:
    return all(character == "\n" or character.isprintable() for character in text)


ANY_TEXT = st.text(st.characters(codec=None), max_size=200) | st.sampled_from([HOSTILE, "", "\n" * 50])


numbers = st.none() | st.floats(0, 1) | st.just(float("nan"))
measured = st.builds(
    Score, version=st.integers(0, 99), level=st.none() | st.integers(1, 12).map(float), accuracy=st.floats(0, 1),
    low=st.floats(0, 1), high=st.floats(0, 1), problems=st.integers(0, 999), tokens=st.floats(0, 1e5),
    elapsed_s=st.just(1.0),
)  # fmt: skip
asked = st.builds(
    Sample, prompt=ANY_TEXT, answer=ANY_TEXT, reward=numbers, reason=ANY_TEXT, difficulty=st.floats(0, 99),
    episode_id=st.just("e"),
)  # fmt: skip
many = {"max_size": 12}
statuses = st.builds(
    ReasoningStatus,
    recipe=ANY_TEXT.filter(bool), env=st.just("parity-v0"), out=st.just("runs/x"), corpus=st.just("runs/x/corpus"),
    algorithm=st.sampled_from(["", "grpo"]), parameters=st.integers(0, 10**12),
    phase=st.sampled_from(["starting", "warming", "learning", "draining", "finished"]), activity=ANY_TEXT,
    elapsed_s=st.floats(0, 1e6), total_s=st.floats(0, 1e6), warm_steps=st.integers(0, 500),
    warm_total=st.integers(0, 400), rounds=st.integers(0, 10**6), episodes=st.integers(0, 10**9),
    tokens=st.integers(0, 10**13), tokens_per_s=st.floats(0, 1e7), version=st.integers(0, 10**5), loss=numbers,
    reward=numbers, length=numbers, entropy=numbers, mixed_groups=numbers, kl_to_start=numbers, clip_share=numbers,
    unverifiable=numbers, staleness=numbers,
    lost=st.integers(0, 10**7),
    failures=st.lists(
        st.tuples(ANY_TEXT | st.just("time-out"), st.integers(0, 10**6), st.floats(0, 1)), max_size=6
    ).map(tuple),
    frontier=st.none() | st.floats(0, 99),
    development=st.none() | st.floats(0, 1),
    history=st.lists(st.tuples(st.floats(0, 9), st.floats(), st.floats()), max_size=40).map(tuple),
    scores=st.lists(measured, max_size=12).map(tuple), first_scores=st.lists(measured, max_size=12).map(tuple),
    score_history=st.lists(measured, max_size=40).map(tuple),
    levels=st.lists(st.tuples(st.floats(0, 99), st.floats(0, 1), st.floats(0, 1)), max_size=12).map(tuple),
    samples=st.lists(asked, max_size=4).map(tuple),
    messages=st.lists(ANY_TEXT, max_size=3).map(tuple),
    cores=st.integers(0, 9999),
    busy=st.fixed_dictionaries({}, optional=dict.fromkeys(["generation", "learning"], st.floats(0, 1e4))),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(statuses, st.sampled_from([*SIZES, (12, 3)]) | st.tuples(st.integers(8, 220), st.integers(1, 80)))
def test_any_status_fits_any_terminal(status: ReasoningStatus, size: tuple[int, int]) -> None:
    width, height = size
    text = drawn(screen(status, width, height), width, height)
    assert safe(text) and len(text.splitlines()) <= height
    assert max(map(cell_len, text.split("\n"))) <= width
    if height >= 8:
        assert "Ctrl-C"[: width - 2] in text
    ended = drawn(farewell(ReasoningSummary("id", "time", status)), 100)
    assert safe(ended) and max(map(cell_len, ended.split("\n"))) <= 100
    assert safe(reasoning_progress(status))


def test_the_strategies_know_every_field() -> None:
    """A new field of the status is drawn by nobody until it stands here too."""
    known = "recipe env out corpus algorithm parameters phase activity elapsed_s total_s warm_steps warm_total rounds "
    known += "episodes tokens tokens_per_s version loss reward length entropy mixed_groups kl_to_start clip_share "
    known += "unverifiable staleness history scores first_scores score_history development levels frontier samples "
    known += "activity_s activity_expected_s lost cores busy choices "
    assert {field.name for field in fields(ReasoningStatus)} == {*known.split(), "sizing", "messages", "failures"}


# Lines, farewell


def test_lines_for_a_pipe() -> None:
    out = io.StringIO()
    display = LineDisplay(out, final=True, every_s=0.0)
    display.update(Status("parity", "parity-v0", "runs/parity", "", activity="starting Ray"))
    display.update(warming())
    display.update(learning())
    display.update(learning())
    display.stopping()
    display.update(replace(learning(), phase="draining", activity="sealing", messages=("\x1b[2Jgone",)))
    display.finish(finished())
    text = out.getvalue()
    for part in ("parity: starting Ray", "warm start 320 of 400 steps, loss 0.412, 4:48 left", "answers are sealed",
                 "held-out, version 14: 97% of 256 problems right (93–100), 26.3 tokens an answer; level 4 100%",
                 "round 12, 31,004 episodes, held-out 62% → 97%, reward 0.71, length 12.3, entropy 0.42", "2:10 left",
                 "␛[2Jgone", "sealing"):  # fmt: skip
        assert part in text, part
    assert text.count("held-out, version 14") == 1 and text.count("[ 2:50] an actor died") == 1
    assert "\x1b" not in text and "unverifiable" not in text.split("archived:")[0]


def test_farewell_compares_and_says_what_next() -> None:
    text = drawn(farewell(finished()), 110)
    for part in ("the accuracy aimed at is reached, 2:51", "62% → 97%", "all levels", "v1 38%", "v14 94%", "90–97",
                 "13.3 → 26.3", "✓ right", "✗ wrong", "so [bold]odd[/bold] #odd", "31,004 episodes",
                 "selfplay run --out runs/parity", "selfplay corpus show latest runs/parity/corpus",
                 "selfplay corpus verify runs/parity/corpus",
                 "selfplay corpus export messages runs/parity/corpus chats",
                 'AutoModelForCausalLM.from_pretrained("runs/parity/policy")'):  # fmt: skip
        assert part in text, part
    assert "not verifiable" not in text and max(map(cell_len, drawn(farewell(finished()), 80).splitlines())) <= 80
    nothing = ReasoningStatus("parity", "parity-v0", "s3://b/x y", "", phase="finished")
    text = drawn(farewell(ReasoningSummary("id", "interrupted", nothing)))
    assert "everything is saved" in text and "--out 's3://b/x y'" in text and "AutoModel" not in text
    text = drawn(farewell(finished(), "/data/sums.jsonl?units=km"), 200)
    assert "selfplay run --out runs/parity --trust " in text
    assert "selfplay corpus verify runs/parity/corpus --env '/data/sums.jsonl?units=km'" in text


def test_summary_is_json() -> None:
    assert json.loads(json.dumps(finished().to_dict()))["status"]["scores"][0]["accuracy"] == pytest.approx(0.97)


def test_the_headline_without_a_first_measurement() -> None:
    once = replace(learning(), first_scores=(), score_history=())
    assert "→" not in held_out(once, 3)[1].plain
    assert spark([0.5, 1.0, 2.0], 8, (0.0, 1.0)) == "▅██"
    assert spark([-1.7e308, 1.7e308], 8) == "▁▁" and spark([0.0, 5e-324], 8) == "▁█"
