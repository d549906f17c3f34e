"""Ctrl-C in a run: the first ends it in order, the second at once, whatever the main thread is doing.

Python runs a signal's handler in the main thread, and only between two steps of Python: not while a call into Ray
hangs. But it writes the signal's number to a descriptor at once, and another thread reads that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How long the main thread may take to answer to the second signal before the process is ended without it.
ANSWER_S = 5.0
#: What comes sooner after the first was not pressed by a person: a child that has been forked and has not yet begun its
#: own program hears Ctrl-C, too, and writes to the same descriptor.
_SAME_PRESS_S = 0.5


@contextlib.contextmanager
def stopping(asked: Callable[[], None], abort: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """The first Ctrl-C (or SIGTERM, or the terminal closing) calls `asked`, the second raises KeyboardInterrupt.

    asked: may be called again, by another thread or within a handler, and returns at once. abort: ends the process: at
    the third, and where the main thread does not answer to the second for a few seconds; then it is called by another
    thread. Gives a function that puts the handlers back in place: `ray.init` takes SIGTERM for itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    times = 0
    answered = threading.Event()  # the second was handled

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal times
        times += 1
        if times == 1:
            asked()
        elif times == 2:
            answered.set()
            raise KeyboardInterrupt
        else:
            abort()

    def listen() -> None:
        heard, last = 0, -_SAME_PRESS_S
        while numbers := os.read(reader, 64):
            now = time.monotonic()
            if any(number in SIGNALS for number in numbers) and now - last >= _SAME_PRESS_S:
                heard, last = heard + 1, now
            if heard >= 1:  # the main thread may be busy: a person is to see that it was heard
                asked()
            if heard >= 2 and not answered.wait(ANSWER_S):
                abort()

    def arm() -> None:
        for number in SIGNALS:
            if signal.getsignal(number) is not handle:
                signal.signal(number, handle)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.register_at_fork(after_in_child=_hears_nothing)
    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    arm()
    try:
        yield arm
    finally:
        signal.set_wakeup_fd(woken)
        for number, old in before.items():
            signal.signal(number, old)
        os.close(writer)
        thread.join()
        os.close(reader)


def _hears_nothing() -> None:
    """In a forked child: its signals are not those of this process."""
    with contextlib.suppress(ValueError):  # forked by another thread
        signal.set_wakeup_fd(-1)
