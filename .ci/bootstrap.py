#!/usr/bin/env python3
"""Makes .venv and installs this project and what it needs. Standard library only.

    python3 .ci/bootstrap.py factory          to run
    python3 .ci/bootstrap.py factory dev      to run, test and lint

Packages come from pip's own index (or any mirror of it) and must have the hashes in .ci/requirements. Does nothing, in
a moment, where .venv is up to date; an installation that was interrupted, even by kill -9, is completed by the next.
Exit codes: 0 done; 1 pip failed; 2 this Python cannot be used; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11
    tomllib = None  # type: ignore[assignment]

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from leftovers import clean, distributions  # noqa: E402
from pip_progress import clock, megabytes, run_pip  # noqa: E402

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


def main() -> int:
    # One installation at a time: a second one waits and then finds the work done. pip inherits the lock, so that one
    # that outlives its bootstrap is waited for, too.
    lock = os.open(os.path.join(ROOT, ".ci"), os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another installation into .venv is under way; waiting for it …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        return bootstrap(lock)
    except KeyboardInterrupt as stop:
        if sys.stdout.isatty():
            print()
        return fail("stopped; the same command goes on from here", 128 + stop.args[0])
    finally:
        os.close(lock)


def terminated(signum: int, frame: object) -> None:
    raise KeyboardInterrupt(signum)


def bootstrap(lock: int) -> int:
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
    return install(python, [extra for extra in EXTRAS if extra in set(extras) | installed_before()], lock)


def installed() -> set:
    """The extras that are in place, complete and up to date."""
    try:
        with open(STAMP) as file:
            first, *packages = file.read().splitlines()
    except (OSError, ValueError):
        return set()
    digest, *extras = first.split()
    complete = all(os.path.exists(os.path.join(VENV, package, "RECORD")) for package in packages)
    return set(extras) if digest == wanted() and complete and os.path.exists(VENV_PYTHON) else set()


def installed_before() -> set:
    """The extras of an installation that is out of date or was interrupted, which an update keeps."""
    found = set()
    for path in (STAMP, STAMP + ".begun"):
        try:
            with open(path) as file:
                found |= set(file.readline().split()) & set(EXTRAS)
        except OSError:
            pass
    return found


def wanted() -> str:
    """Changes when an installation would: with the pins, the project and the place (a .venv cannot be moved)."""
    digest = hashlib.sha256(ROOT.encode())
    for path in (os.path.join(ROOT, "constraints.txt"), *map(requirements, ("build", *EXTRAS))):
        with open(path, "rb") as file:
            digest.update(file.read())
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        text = file.read()
    if tomllib is not None:  # the settings of linters do not count
        data = tomllib.loads(text.decode())
        installed = [data["build-system"], data["project"], data["tool"]["setuptools"]]
        text = json.dumps(installed, sort_keys=True).encode()
    digest.update(text)
    return digest.hexdigest()


def requirements(name: str) -> str:
    return os.path.join(ROOT, ".ci", "requirements", f"{name}.txt")


def suitable_python() -> str | None:
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            return found
    return None


def install(python: str, extras: list, lock: int) -> int:
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
        kept = installed_before() | set(extras)
        made = subprocess.run([python, "-m", "venv", "--clear", VENV], capture_output=True, text=True)
        if made.returncode:
            lines = (made.stderr or made.stdout).strip().splitlines()
            return fail("python -m venv failed: {}".format(lines[-1] if lines else "no reason given"), 2)
        extras = [extra for extra in EXTRAS if extra in kept]
    # From here on nothing may be believed installed, until all of it is.
    write(STAMP + ".begun", " ".join(extras) + "\n")
    if os.path.exists(STAMP):
        os.unlink(STAMP)
    broken = clean(VENV)
    if broken:
        names = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        print(f"Repairing what an interrupted installation left of {names}.", flush=True)
    write(LOG, "")
    code = packages(extras, cpu_index, TORCH_MB["cuda" if gpu else "cpu"], lock)
    if code:
        return code
    broken = clean(VENV)
    if broken:
        return fail(f"{broken[0]} is not complete after its installation; is the disk full? Run the same again", 1)
    if "factory" in extras:
        print("Compiling the search, once …")
        sys.stdout.flush()
        with open(LOG, "a") as log:
            subprocess.run([VENV_PYTHON, "-m", "selfplay.search.warm"], cwd=ROOT, stdout=log, stderr=log)
    write(STAMP, "\n".join([" ".join([wanted(), *extras]), *distributions(VENV)]) + "\n")
    os.unlink(STAMP + ".begun")
    print(f"Installed in {clock(time.monotonic() - start)}.")
    return 0


def packages(extras: list, cpu_index: bool, torch_mb: float, lock: int) -> int:
    """Installs the packages and the project. The lists are complete, so that pip resolves nothing by itself."""
    hashed = ["--no-deps", "--require-hashes"]
    # The five packages without wheels are built with the setuptools of build.txt, whose hash is known.
    built_here = ["--no-build-isolation", "--use-pep517"]
    lists = [argument for extra in extras for argument in ("-r", requirements(extra))]
    code = pip([*hashed, "-r", requirements("build")], lock) or pip([*hashed, *built_here, *lists], lock)
    if code:
        return code
    # torch has no hashes, since its build depends on the machine (see .ci/renew_requirements.py).
    torch = ["-c", os.path.join(ROOT, "constraints.txt"), "torch"]
    # From torch's own index comes torch alone; its other requirements are installed by now.
    cpu_build = ["--no-deps", "--index-url", CPU_INDEX, *torch]
    if not cpu_index or run_pip(VENV_PYTHON, cpu_build, VENV, LOG, lock, torch_mb):
        code = pip(torch, lock, torch_mb)
    return code or pip(["--no-deps", *built_here, "-e", ROOT], lock)


def pip(arguments: list, lock: int, expected_mb: float | None = None) -> int:
    if run_pip(VENV_PYTHON, arguments, VENV, LOG, lock, expected_mb) == 0:
        return 0
    with open(LOG, errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")] or lines
    return fail("pip failed: {} (all it said is in .venv/install.log)".format(errors[-1] if errors else "?"), 1)


def write(path: str, text: str) -> None:
    """Atomically, and on the disk before it returns."""
    with open(path + ".new", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


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


def fail(sentence: str, code: int) -> int:
    sys.stdout.flush()
    print("error: " + sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGHUP, terminated)
    signal.signal(signal.SIGINT, terminated)  # also where it was ignored, as it is in the background of a shell
    sys.exit(main())
