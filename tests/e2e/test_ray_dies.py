"""Processes of Ray itself are killed, a run's folder vanishes, Ray hangs: one sentence, soon, and the run goes on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

pytestmark = pytest.mark.slow
Start = Callable[..., Any]
Sound = Callable[..., pa.Table]


def one_sentence(driver: Any, code: int) -> str:
    """The only error that was told, with this exit code."""
    assert driver.wait() == code, driver.told
    (sentence,) = [line for line in driver.told.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in driver.told and "\x1b[36m" not in sentence, driver.told
    return str(sentence)


def of_ray(driver: Any, part: str) -> psutil.Process:
    """A process of the driver's Ray, by its name or the program that it runs."""
    for process in driver.alive():
        words = process.cmdline()
        if words and (words[0].endswith(part) or any(word.endswith(part) for word in words[:3])):
            return process
    raise AssertionError(f"no {part}: {[p.cmdline()[:3] for p in driver.alive()]}")


@pytest.mark.parametrize("part", ["/gcs_server", "/raylet", "RuntimeEnvAgent", "DashboardAgent"])
def test_a_process_of_ray_dies(part: str, start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "run"
    command = ["tic_tac_toe", "--out", out, *quick]
    driver = start(*command, "--minutes", "30")
    driver.until_archived(out, 50)
    of_ray(driver, part).kill()
    began = time.monotonic()
    sentence = one_sentence(driver, 1)
    assert time.monotonic() - began < 20
    assert "Ray has died under the run" in sentence and f"`selfplay run --out {out}` goes on" in sentence
    before = set(sound(out)["episode_id"].to_pylist())
    assert len(before) >= driver.games_told
    if part == "/gcs_server":
        driver = start(*command, "--minutes", "0.1")
        assert driver.wait() == 0, driver.told
        assert before < set(sound(out)["episode_id"].to_pylist())


def test_a_killed_driver_has_a_last_word(start: Start, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "run"
    driver = start("tic_tac_toe", "--out", out, *quick, "--minutes", "30")
    driver.until_archived(out)
    driver.kill()
    driver.until_gone()
    (sentence,) = [line for line in driver.told.splitlines() if line.startswith("error: ")]
    assert "ended from outside" in sentence and f"`selfplay run --out {out}` goes on" in sentence


def test_ctrl_c_is_heard_while_ray_hangs(start: Start, sound: Sound, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "run"
    driver = start("tic_tac_toe", "--out", out, *quick, "--minutes", "30")
    driver.until_archived(out)
    hung = [of_ray(driver, "/gcs_server"), of_ray(driver, "/raylet")]
    for process in hung:
        process.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    began = time.monotonic()
    driver.interrupt()
    time.sleep(1.0)
    os.kill(driver.process.pid, signal.SIGINT)
    assert driver.process.wait(60) == 130, driver.told
    assert time.monotonic() - began < 30
    driver.until_gone()
    sound(out)


def test_the_folder_vanishes(start: Start, tmp_path: Path, quick: list[str]) -> None:
    out = tmp_path / "place" / "run"
    driver = start("tic_tac_toe", "--out", out, *quick, "--minutes", "30")
    driver.until_archived(out)
    shutil.rmtree(out, ignore_errors=True)
    sentence = one_sentence(driver, 2)
    assert str(out) in sentence and "has vanished" in sentence and "goes on" not in sentence
    assert not out.exists(), [str(path) for path in out.rglob("*")]
