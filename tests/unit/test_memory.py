"""What a run weighs, its children included."""

from __future__ import annotations

import subprocess
import sys

from trainers.run.process_memory import proportional_bytes


def test_children_count() -> None:
    before = proportional_bytes()
    code = "held = bytearray(b'x') * (200 << 20); print('ready', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    with_child = proportional_bytes()
    child.communicate("\n")
    assert with_child - before > 190 << 20
    assert proportional_bytes() < with_child - (150 << 20)
