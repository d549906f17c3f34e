#!/usr/bin/env python3
"""Makes .venv and installs this project and what it needs, as pinned in constraints.txt. Standard library only.

    python3 .ci/bootstrap.py factory          to run
    python3 .ci/bootstrap.py factory dev      to run, test and lint

Does nothing, in a moment, where .venv is up to date. Exit codes: 0 done; 1 pip failed; 2 this Python cannot be used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11
    tomllib = None  # type: ignore[assignment]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "bootstrap-stamp")
LOG = os.path.join(VENV, "install.log")
OLDEST, NEWEST = (3, 11), (3, 13)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = ("factory", "dev")

#: Megabytes downloaded into an empty environment, measured; torch apart because it depends on the build.
DOWNLOAD_MB = {"factory": 400, "dev": 165}
TORCH_MB = {"cpu": 190, "cuda": 3000}
#: What a downloaded megabyte becomes on the disk, roughly.
UNPACKED = 4.0


def main() -> int:
    # One installation at a time: a second one waits and then finds the work done.
    lock = os.open(os.path.join(ROOT, ".ci"), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another installation into .venv is under way; waiting for it …", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return bootstrap()


def bootstrap() -> int:
    extras = sys.argv[1:] or list(EXTRAS)
    unknown = [extra for extra in extras if extra not in EXTRAS]
    if unknown:
        return fail("there is no extra named {}; say {}".format(unknown[0], " or ".join(EXTRAS)), 2)
    if installed() >= set(extras):
        return 0
    python = suitable_python()
    if python is None:
        have = ".".join(map(str, sys.version_info[:2]))
        return fail(f"Python 3.11 to 3.13 is needed, this is {have}; name one: make PYTHON=/path/to/python3.11", 2)
    if subprocess.run([python, "-c", "import venv, ensurepip"], stderr=subprocess.DEVNULL).returncode:
        return fail("this Python lacks the venv module; install it (on Debian and Ubuntu: apt install python3-venv)", 2)
    return install(python, sorted(set(extras) | installed_before()))


def installed() -> set:
    """The extras that are in place and up to date."""
    try:
        with open(STAMP) as file:
            digest, _, extras = file.read().strip().partition(" ")
    except OSError:
        return set()
    return set(extras.split()) if digest == wanted() and os.path.exists(VENV_PYTHON) else set()


def installed_before() -> set:
    """The extras of an installation that is out of date, which an update keeps."""
    try:
        with open(STAMP) as file:
            return set(file.read().split()[1:]) & set(EXTRAS)
    except OSError:
        return set()


def wanted() -> str:
    """Changes when an installation would: with the pins, the project and the place (a .venv cannot be moved)."""
    digest = hashlib.sha256(ROOT.encode())
    with open(os.path.join(ROOT, "constraints.txt"), "rb") as file:
        digest.update(file.read())
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        text = file.read()
    if tomllib is not None:  # the settings of linters do not count
        data = tomllib.loads(text.decode())
        installed = [data["build-system"], data["project"], data["tool"]["setuptools"]]
        text = json.dumps(installed, sort_keys=True).encode()
    digest.update(text)
    return digest.hexdigest()


def suitable_python() -> str | None:
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            return found
    return None


def install(python: str, extras: list) -> int:
    start = time.monotonic()
    gpu = has_nvidia_gpu()
    cpu_index = not gpu and answers(CPU_INDEX + "/", 3.0)
    size = sum(DOWNLOAD_MB[extra] for extra in extras) + TORCH_MB["cuda" if gpu else "cpu"]
    print(f"Installing into .venv; about {megabytes(size)} to download.")
    if gpu:
        print("This machine has an NVIDIA GPU: torch comes with CUDA.")
    elif cpu_index:
        print("No NVIDIA GPU here: torch comes as its CPU build.")
    else:
        print("No NVIDIA GPU here, but download.pytorch.org does not answer: torch comes from pip's own index, whose")
        print("build may bring CUDA libraries ({} more).".format(megabytes(TORCH_MB["cuda"] - TORCH_MB["cpu"])))
    sys.stdout.flush()

    works = os.path.exists(VENV_PYTHON) and subprocess.run([VENV_PYTHON, "-c", "import pip"], capture_output=True)
    if not works or works.returncode:
        made = subprocess.run([python, "-m", "venv", "--clear", VENV], capture_output=True, text=True)
        if made.returncode:
            lines = (made.stderr or made.stdout).strip().splitlines()
            return fail("python -m venv failed: {}".format(lines[-1] if lines else "no reason given"), 2)
    with open(LOG, "w"):
        pass
    pins = ["-c", os.path.join(ROOT, "constraints.txt")]
    if cpu_index:
        # From torch's own index comes torch alone; everything else from the usual one.
        code = pip(["--no-deps", "--index-url", CPU_INDEX, *pins, "torch"], TORCH_MB["cpu"])
        if code == 130:
            return code
        if code == 0:
            size -= TORCH_MB["cpu"]
    code = pip([*pins, "-e", "{}[{}]".format(ROOT, ",".join(extras))], size)
    if code:
        return code
    if "factory" in extras:
        print("Compiling the search, once …")
        sys.stdout.flush()
        with open(LOG, "a") as log:
            subprocess.run([VENV_PYTHON, "-m", "selfplay.search.warm"], cwd=ROOT, stdout=log, stderr=log)
    with open(STAMP, "w") as file:
        file.write("{} {}\n".format(wanted(), " ".join(extras)))
    print(f"Installed in {clock(time.monotonic() - start)}.")
    return 0


def pip(arguments: list, expected_mb: float) -> int:
    """Installs, with one line of progress; the whole output goes to .venv/install.log."""
    downloads = tempfile.mkdtemp(prefix="downloads-", dir=VENV)  # pip keeps what it downloads here until it is done
    environment = dict(os.environ, TMPDIR=downloads, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PROGRESS_BAR="off")
    command = [VENV_PYTHON, "-m", "pip", "install", "--no-input", *arguments]
    try:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines: list = []
        reader = threading.Thread(target=read, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            show_progress(process, lines, downloads, expected_mb)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            print()
            return fail("stopped; the same command goes on from here", 130)
        reader.join()
    finally:
        shutil.rmtree(downloads, ignore_errors=True)
    if process.returncode:
        errors = [line for line in lines if line.lower().startswith("error:")] or lines[-1:]
        return fail("pip failed: {} (all it said is in .venv/install.log)".format(errors[0] if errors else "?"), 1)
    return 0


def read(stream, lines: list) -> None:
    with open(LOG, "a") as log:
        for line in stream:
            log.write(line)
            log.flush()
            lines.append(line.strip())


def show_progress(process, lines: list, downloads: str, expected_mb: float) -> None:
    """One line, rewritten on a terminal; elsewhere a line every ten seconds."""
    start = shown = time.monotonic()
    terminal = sys.stdout.isatty()
    used = 0
    while process.poll() is None:
        time.sleep(0.25 if terminal else 0.1)
        now = time.monotonic()
        if not terminal and now - shown < 10:
            continue
        shown = now
        if any(line.startswith("Installing collected packages") for line in list(lines)):
            used = used or shutil.disk_usage(VENV).used
            done, of, name = (shutil.disk_usage(VENV).used - used) / 1e6, expected_mb * UNPACKED, "unpacking"
        else:
            done, of, name = folder_mb(downloads), expected_mb, collecting(list(lines))
        text = progress(done, of, name, now - start)
        width = shutil.get_terminal_size().columns - 1
        print("\r\033[K" + text[:width] if terminal else text, end="" if terminal else "\n")
        sys.stdout.flush()
    if terminal:
        print("\r\033[K", end="")
        sys.stdout.flush()


def collecting(lines: list) -> str:
    """The package that pip names last."""
    names = [match.group(1) for match in map(re.compile(r"Collecting ([\w.\-]+)").match, lines) if match]
    return names[-1] if names else "asking the index"


def progress(done_mb: float, of_mb: float, name: str, elapsed: float) -> str:
    full = round(24 * min(1.0, max(0.0, done_mb / of_mb)))
    bar = "█" * full + "░" * (24 - full)
    return f"  {bar} {megabytes(max(0.0, done_mb))} of about {megabytes(of_mb)}  {clock(elapsed)}  {name}"


def folder_mb(folder: str) -> float:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except OSError:
                pass  # pip has just moved it
    return total / 1e6


def has_nvidia_gpu() -> bool:
    if sys.platform != "linux":
        return False
    if os.path.exists("/proc/driver/nvidia/version"):
        return True
    tool = shutil.which("nvidia-smi")
    return bool(tool) and subprocess.run([tool, "-L"], capture_output=True).returncode == 0


def answers(url: str, seconds: float) -> bool:
    """Whether something answers within the time, name resolution included."""
    found: list = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as reply:
                found.append(reply.status)
        except Exception:
            pass  # whatever it is, there is no index to use

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found == [200]


def megabytes(number: float) -> str:
    return f"{number / 1000:.1f} GB" if number >= 1000 else f"{number:.0f} MB"


def clock(seconds: float) -> str:
    return "{}:{:02}".format(*divmod(round(seconds), 60))


def fail(sentence: str, code: int) -> int:
    sys.stdout.flush()
    print("error: " + sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
