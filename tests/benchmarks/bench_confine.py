"""Processor time of a confined copy beside that of a bare one: `python tests/benchmarks/bench_confine.py [COPIES]`.

A copy is forked from a small server, confined, and ends. What it costs beyond a fork alone is what confinement costs a
verdict; a server that has loaded more pays more for the fork, and the same for the confinement.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable

from selfplay import sandbox


def per_copy_ms(what: Callable[[], object], copies: int) -> float:
    """Processor time of server and copies together, ms a copy."""
    before = _used_s()
    for _ in range(copies):
        copy = os.fork()
        if copy == 0:
            try:
                what()
            finally:
                os._exit(0)
        os.waitpid(copy, 0)
    return 1e3 * (_used_s() - before) / copies


def _used_s() -> float:
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def main() -> None:
    copies = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    sandbox.enter_namespaces()
    os.environ.clear()
    sandbox.prepare()
    for _ in range(2):
        bare, limited, confined = (
            per_copy_ms(what, copies) for what in (lambda: None, sandbox.limit, lambda: sandbox.confine(10.0))
        )
        print(
            f"{bare:.2f} ms a fork, {limited:.2f} limited, {confined:.2f} confined: {confined / bare:.1f} times",
            flush=True,
        )


if __name__ == "__main__":
    main()
