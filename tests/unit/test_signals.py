"""Ctrl-C once, twice and again, also where the main thread hangs in a call that no signal ends; and one last word."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from trainers.run import ray_guard, ray_session

#: Hangs, as a call into Ray may: in C, without Python's lock, and no signal ends it.
HANG = "mutex = ctypes.create_string_buffer(64); c.pthread_mutex_lock(mutex); c.pthread_mutex_lock(mutex)"
#: Ends in order, but slowly: says so at the second Ctrl-C and goes on.
SLOW = """
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(60)
"""
PROGRAM = """
import ctypes, os, threading, time
from selfplay.cli import signals
signals.ANSWER_S = 0.3
c = ctypes.CDLL(None)

def abort():
    print("aborted", flush=True)
    os._exit(130)

with signals.stopping(threading.Event().set, abort):
    print("ready", flush=True)
    {work}
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="hangs in a mutex of glibc")


def pressed(work: str, pauses: Sequence[float]) -> tuple[int, str]:
    """The exit code and what was printed after Ctrl-C at the end of each pause (s); killed where that ends nothing."""
    program = PROGRAM.format(work=work.strip().replace("\n", "\n    "))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for pause in pauses:
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
    try:
        told, _ = process.communicate(timeout=1.2)
    except subprocess.TimeoutExpired:
        process.kill()
        told, _ = process.communicate()
    return process.returncode, told


def test_while_the_main_thread_hangs_the_next_press_aborts() -> None:
    assert pressed(HANG, [0.1]) == (-signal.SIGKILL, ""), "once: ends in order, when it can"
    assert pressed(HANG, [0.1, 0.7]) == (130, "aborted\n")
    assert pressed(HANG, [0.1, 0.2]) == (-signal.SIGKILL, ""), "one press, that a forked child has heard, too"
    assert pressed(HANG, [0.1, 0.2, 0.5]) == (130, "aborted\n"), "and pressed again"


def test_a_third_press_ends_what_takes_its_time_after_the_second() -> None:
    assert pressed(SLOW, [0.1, 0.2]) == (-signal.SIGKILL, "interrupted\n")
    assert pressed(SLOW, [0.1, 0.2, 0.2]) == (130, "interrupted\naborted\n")


def guarded(*, ray: Sequence[str] = (), says: Sequence[str] = (), kills: Sequence[str] = ()) -> str:
    """What the guard says of a driver that starts processes, tells it words, kills some and ends without a word."""
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", ray_guard.__file__, "0", "it goes on"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    words = ray_session.LastWords(2, "it goes on", lambda sentence: None, guard)  # type: ignore[arg-type]
    processes = {name: subprocess.Popen(["sleep", "60"]) for name in ray}
    try:
        for name, process in processes.items():
            words.tell(f"{'agent' if 'agent' in name else 'watch'} {process.pid} {name}")
        for word in says:
            words.tell(word)
        time.sleep(0.3 if kills else 0.0)
        for name in kills:
            processes[name].kill()
            time.sleep(0.3)
        _, told = guard.communicate()
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    words.taken()  # too late, and harmless
    return str(told)


def test_there_is_one_last_word() -> None:
    outside = "error: the process of the run was ended from outside, or by Ray; it goes on\n"
    died = "error: Ray has died under the run: the raylet has ended (killed, or out of memory?); it goes on\n"
    ray = ["the store", "the raylet"]
    agent = died.replace("the raylet", "an agent")
    assert guarded(says=["said"]) == guarded(says=["bye"]) == guarded(ray=ray, says=["said"]) == ""
    assert guarded() == guarded(ray=ray) == guarded(ray=ray, says=["asked"]) == outside
    assert guarded(ray=ray, kills=["the raylet", "the store"]) == died, "the first is the cause"
    assert guarded(ray=["an agent", *ray], kills=["an agent", "the raylet"]) == agent
    assert guarded(ray=ray, says=["leaving"], kills=["the raylet"]) == outside, "it shut Ray down itself"
    asked = guarded(ray=ray, says=["asked"], kills=["the raylet"])
    assert asked.startswith("error: the run was asked to end, and Ray was ended with it")


def test_a_run_that_was_asked_to_end_says_so_where_ray_ends_with_it() -> None:
    """A signal to the whole process group reaches the processes of Ray, too."""
    said: list[str] = []
    stop = threading.Event()
    words = ray_session.LastWords(2, "it goes on", said.append, stop=stop)
    ray_session._died(words, "the node manager (raylet)")
    assert "Ray has died under the run: the node manager (raylet) has ended" in said.pop()
    stop.set()
    ray_session._died(words, "the node manager (raylet)")
    assert said == ["the run was asked to end, and Ray was ended with it, before everything could be saved in order; "
                    "it goes on"]  # fmt: skip
