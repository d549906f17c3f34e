"""Runs pip with one line of progress; all that it prints goes to a log. Standard library only."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

_COLLECTED = re.compile(r"(?:Collecting|Requirement already satisfied:) ([\w.\-]+)")
_DOWNLOAD = re.compile(r"\s*Downloading \S+ \(([\d.]+) ([kMG]?B)\)")
_UNITS = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}


def run_pip(python: str, arguments: list[str], venv: str, log: str, lock: int, expected_mb: float | None = None) -> int:
    """Installs; returns pip's exit status.

    lock: a descriptor that pip inherits, so that a lock on it is held until pip itself has ended, however this
    process ends. expected_mb: the size of the download, where the number of packages is not known.
    """
    downloads = tempfile.mkdtemp(prefix="downloads-", dir=venv)  # pip keeps what it downloads here until it is done
    environment = dict(os.environ, TMPDIR=downloads, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PROGRESS_BAR="off")
    environment["PYTHONUNBUFFERED"] = "1"
    command = [python, "-m", "pip", "install", "--no-input", *arguments]
    with open(log, "ab") as file:
        begin = file.tell()
        process = subprocess.Popen(
            command, cwd=os.path.dirname(venv), env=environment, stdout=file, stderr=file, pass_fds=[lock]
        )
    try:
        _show(process, log, begin, downloads, packages_in(arguments), expected_mb)
    except BaseException:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    finally:
        shutil.rmtree(downloads, ignore_errors=True)
    return process.returncode


def packages_in(arguments: list[str]) -> int:
    """How many packages the requirements files among pip's arguments name."""
    count = 0
    for place, option in enumerate(arguments):
        if option == "-r":
            with open(arguments[place + 1]) as file:
                count += sum("==" in line for line in file)
    return count


def _show(process, log: str, begin: int, downloads: str, packages: int, expected_mb: float | None) -> None:
    """One line, rewritten on a terminal; elsewhere a line every ten seconds."""
    start = shown = time.monotonic()
    since = time.time()
    terminal = sys.stdout.isatty()
    while process.poll() is None:
        time.sleep(0.25 if terminal else 0.1)
        now = time.monotonic()
        if not terminal and now - shown < 10:
            continue
        shown = now
        with open(log, "rb") as file:
            file.seek(begin)
            lines = file.read().decode(errors="replace").splitlines()
        width = shutil.get_terminal_size().columns - 1 if terminal else 100
        text = line(lines, packages, expected_mb, folder_mb(downloads), unpacked(lines, downloads, since), width)
        text = f"{text}  {clock(now - start)}"[:width]
        print("\r\033[K" + text if terminal else text, end="" if terminal else "\n")
        sys.stdout.flush()
    if terminal:
        print("\r\033[K", end="")
        sys.stdout.flush()


def line(lines: list[str], packages: int, expected_mb: float | None, fetched_mb: float, done: int, width: int) -> str:
    """What pip is doing, from what it has printed.

    packages: that were asked for, 0 where only `expected_mb` tells how much there is to do. done: packages unpacked.
    """
    names = to_unpack(lines)
    if names:
        return f"  {bar(done / len(names), width)} {done} of {len(names)} unpacked"
    collected = [match.group(1) for match in map(_COLLECTED.match, lines) if match]
    name = collected[-1] if collected else "asking the index"
    if packages:
        here = packages - sum(text.startswith("Ignoring ") for text in lines)  # the others are for other platforms
        share = len(collected) / max(1, here)
        return f"  {bar(share, width)} {len(collected)} of {here} packages  {megabytes(fetched_mb)}  {name}"
    announced = sum(float(m.group(1)) * _UNITS[m.group(2)] for m in map(_DOWNLOAD.match, lines) if m)
    of_mb = max(expected_mb or 0.0, announced, fetched_mb)
    share = fetched_mb / of_mb if of_mb else 0.0
    return f"  {bar(share, width)} {megabytes(fetched_mb)} of about {megabytes(of_mb)}  {name}"


def to_unpack(lines: list[str]) -> list[str]:
    """The packages that pip is about to unpack, once it knows."""
    start = "Installing collected packages: "
    return next((text[len(start) :].split(", ") for text in lines if text.startswith(start)), [])


def unpacked(lines: list[str], downloads: str, since: float) -> int:
    """How many of them are complete: pip writes a package's RECORD last."""
    names = {re.sub(r"[-_.]+", "_", name).lower() for name in to_unpack(lines)}
    if not names:
        return 0
    done = set()
    pattern = os.path.join("lib", "python3*", "site-packages", "*.dist-info", "RECORD")
    for record in glob.glob(os.path.join(glob.escape(os.path.dirname(downloads)), pattern)):
        name = re.sub(r"[-_.]+", "_", os.path.basename(os.path.dirname(record)).split("-")[0]).lower()
        try:
            if name in names and os.path.getmtime(record) >= since - 1.0:
                done.add(name)
        except OSError:
            pass  # pip is just replacing it
    return len(done)


def bar(share: float, width: int) -> str:
    cells = max(4, min(24, width // 5))
    full = round(cells * min(1.0, max(0.0, share)))
    return "█" * full + "░" * (cells - full)


def folder_mb(folder: str) -> float:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except OSError:
                pass  # pip has just moved it
    return total / 1e6


def megabytes(number: float) -> str:
    return f"{number / 1000:.1f} GB" if number >= 1000 else f"{number:.0f} MB"


def clock(seconds: float) -> str:
    return "{}:{:02}".format(*divmod(round(seconds), 60))
