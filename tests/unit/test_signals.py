"""Ctrl-C once, twice and again, also where the main thread hangs in a call that no signal ends; and one last word."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from trainers import cluster, ray_guard

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

class Display:
    def stopping(self):
        pass

def abort():
    print("aborted", flush=True)
    os._exit(130)

with signals.stopping(threading.Event(), Display(), abort):
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


@pytest.mark.parametrize("taken", [False, True])
def test_there_is_one_last_word(taken: bool) -> None:
    command = [sys.executable, "-I", "-S", ray_guard.__file__, "0", "the run was ended; it goes on"]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    words = cluster.LastWords(2, "it goes on", lambda sentence: None, guard)
    if taken:
        words.taken()
    _, told = guard.communicate()  # as when this process has ended
    assert told == (b"" if taken else b"error: the run was ended; it goes on\n")
    words.taken()  # too late, and harmless


def test_a_run_that_was_asked_to_end_says_so_where_ray_ends_with_it() -> None:
    """A signal to the whole process group reaches the processes of Ray, too."""
    said: list[str] = []
    stop = threading.Event()
    words = cluster.LastWords(2, "it goes on", said.append, stop=stop)
    cluster._died(words, "the node manager (raylet)")
    assert "Ray has died under the run: the node manager (raylet) has ended" in said.pop()
    stop.set()
    cluster._died(words, "the node manager (raylet)")
    assert said == ["the run was asked to end, and Ray was ended with it, before everything could be saved in order; "
                    "it goes on"]  # fmt: skip
