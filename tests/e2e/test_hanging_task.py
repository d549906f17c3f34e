"""Tasks whose code hangs on what a policy writes: the run goes on without those answers, and Ctrl-C ends it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfplay import store

#: A whole run each: half a minute.
pytestmark = pytest.mark.slow

Start = Callable[..., Any]

HANGS = '''
import time
from selfplay.contract import *

def respond(problem, transcript, rng):
    answer = transcript.answer
    if not transcript.answer.endswith("."):
        while {hangs} and sum(map(ord, answer)) % 4 == 1:
            time.sleep(0.1)
        if sum(map(ord, answer)) % 4 == 2:
            raise RuntimeError("no idea")
    return None

def verify(problem, transcript):
    return Verdict.of(transcript.answer.count("1") % 2 == 0)

SPEC = TaskSpec(
    id="hangs-v0", summary="Hangs on some answers.", verify=verify, respond=respond, max_turns=2, timeout_s=0.3,
    sample=lambda seed, difficulty: Problem(seed, difficulty, {{"n": seed}}), isolated={isolated},
    prompt=lambda problem: [Message("user", f"{{problem.data['n']}}=")],
    play=lambda problem, transcript: "11.", {gold}
)
'''
TINY = [
    "--set=policy.hidden=16", "--set=policy.layers=1", "--set=policy.heads=1", "--set=policy.alphabet=01.=23456789",
    "--set=generation.prompts=4", "--set=generation.group=4", "--set=generation.max_tokens=6",
    "--set=evaluation.problems=8", "--set=evaluation.every_s=1000", "--set=warm.steps=0", "--set=warm.episodes=0",
    "--set=curriculum.kind=uniform", "--set=generation.actors=1",
]  # fmt: skip


def written(folder: Path, hangs: bool, isolated: bool, gold: str = "") -> Path:
    path = folder / "hangs.py"
    path.write_text(HANGS.format(hangs=hangs, isolated=isolated, gold=gold))
    return path


def test_a_respond_that_hangs_on_some_answers_costs_those_dialogues_alone(start: Start, tmp_path: Path) -> None:
    task, out = written(tmp_path, hangs=True, isolated=True), tmp_path / "run"
    driver = start("parity_cot", f"--set=task.id={task}", "--set=task.difficulties=[]", "--out", out, *TINY,
                   "--set=run.rounds=3", "--json")  # fmt: skip
    assert driver.wait() == 0, driver.told
    status = driver.summary()["status"]
    assert status["rounds"] == 3
    rows = store.open(str(out)).to_arrow().to_pylist()
    failed = Counter(row["verdicts"][0]["criteria"][0]["criterion"] for row in rows if row["status"] == "error")
    assert failed["time-out"] > 0 and failed["error"] > 0 and set(failed) == {"time-out", "error"}
    counted = {why: answers for why, answers, _ in status["failures"]}
    assert counted == dict(failed), "what is shown is what is archived"
    for row in rows:
        assert row["trainable"] == (row["status"] != "error" and row["origin"] == "cot_rl")
        if row["status"] == "error":
            (verdict,) = row["verdicts"]
            assert (verdict["state"], verdict["reward"]) == ("unverifiable", None)
            assert "respond took longer than 0.3 s" in verdict["error"] or "RuntimeError: no idea" in verdict["error"]


def test_ctrl_c_ends_a_run_whose_task_broke_its_promise_not_to_hang(start: Start, tmp_path: Path) -> None:
    task, out = written(tmp_path, hangs=True, isolated=False), tmp_path / "run"
    driver = start("parity_cot", f"--set=task.id={task}", "--set=task.difficulties=[]", "--out", out, *TINY,
                   "--set=run.minutes=30")  # fmt: skip
    driver.until(lambda: driver.actor("Reasoner"), "a reasoner")
    time.sleep(15)  # long enough for an answer on which it hangs
    driver.interrupt()
    time.sleep(2)
    driver.interrupt()
    began = time.monotonic()
    driver.wait()
    assert time.monotonic() - began < 60


def test_a_warm_start_says_before_ray_starts_what_it_needs(start: Start, tmp_path: Path) -> None:
    task, out = written(tmp_path, hangs=False, isolated=True), tmp_path / "run"
    more = ["--set=warm.episodes=10", "--set=warm.steps=5"]
    driver = start("parity_cot", f"--set=task.id={task}", "--set=task.difficulties=[]", "--out", out, *TINY, *more)
    assert driver.wait() == 2
    assert "hangs-v0 has neither `solve` nor `gold`" in " ".join(driver.told.split())
    assert not out.exists()
