"""What holds for a confined process, what goes on working in it, and that nothing of it outlives its server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfplay import sandbox
from selfplay.cli.doctor_sandbox import findings
from selfplay.sandbox import Confinement, Description, Namespaces, landlock, namespaces, seccomp
from selfplay.sandbox.attacks import ATTACKS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are confined on Linux only")

#: Runs CODE in a confined copy of a server; what it prints goes to a pipe.
CONFINED = """
import os, sys, time
from selfplay import sandbox
from selfplay.sandbox import landlock, namespaces, seccomp
{before}
{namespaces}
copy = os.fork()
if copy == 0:
    try:
        held = sandbox.confine()
        {code}
    except BaseException as error:
        print(f"{{type(error).__name__}}: {{error}}", flush=True)
    os._exit(0)
os.waitpid(copy, 0)
"""


def confined(code: str, before: str = "", own: bool = True, **options: object) -> str:
    """What code prints in a confined copy. own: in namespaces of its own. options: of `subprocess.run`."""
    script = CONFINED.format(code=code, before=before, namespaces="sandbox.enter_namespaces()" if own else "")
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, **options)  # type: ignore[call-overload]
    return str(done.stdout.decode().strip())


@pytest.mark.parametrize("own", [True, False], ids=["own namespaces", "no namespaces"])
def test_every_attack_is_refused(own: bool) -> None:
    found = sandbox.describe(own)
    assert found.confinement is not None, found.reason
    assert found.succeeded == () and set(found.refused) == set(ATTACKS)
    assert [finding.level for finding in findings(found)][0] == "ok"


NO_LANDLOCK = "landlock.version = lambda: 0"


def test_without_landlock_namespaces_close_other_processes_and_the_record_says_so() -> None:
    code = (
        "print(held.landlock, held.namespaces.user, sorted(os.listdir('/proc/self/task')) and os.listdir('/proc')[:0])"
    )
    if confined("print(held.namespaces.user)") != "True":
        pytest.skip("there are no user namespaces here")
    assert confined(code, NO_LANDLOCK) == "0 True []"
    outside = os.getpid()
    for secret in ("environ", "mem"):
        said = confined(f"print(open('/proc/{outside}/{secret}', 'rb'))", NO_LANDLOCK)
        assert "FileNotFoundError" in said or "PermissionError" in said, said
        assert "PermissionError" in confined(f"print(open('/proc/1/{secret}', 'rb'))", NO_LANDLOCK)
    assert "PermissionError" in confined("print(open('/proc/1/fd/0', 'rb'))", NO_LANDLOCK)


@pytest.mark.parametrize(
    ("before", "own", "reason"),
    [
        (NO_LANDLOCK, False, "it could read the memory and the environment of other processes"),
        ("seccomp.sys.platform = 'darwin'", False, "it needs Linux"),
        ("seccomp.platform.machine = lambda: 'riscv64'", True, "a filter for x86_64 and aarch64, and this is riscv64"),
        ("seccomp._SET_MODE_FILTER = 9", True, "the kernel does not filter system calls: Invalid argument"),
        ("seccomp._LAID = dict.fromkeys(seccomp._LAID, seccomp._step(6, seccomp.ALLOW))", True, "does not apply it"),
    ],
)
def test_where_it_does_not_hold_nothing_goes_on(before: str, own: bool, reason: str) -> None:
    said = confined("print('went on')", before, own)
    assert said.startswith("Unconfined: ") and reason in said


def test_a_process_of_several_threads_is_not_confined() -> None:
    before = "import threading"
    code = "pass"
    script = CONFINED.format(code=code, before=before, namespaces="").replace(
        "held = ", "threading.Thread(target=time.sleep, args=(5,), daemon=True).start(); held = "
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("Unconfined: it has 2 threads")


def test_limits_hold() -> None:
    said = confined("import resource; print(dict(held.limits), resource.getrlimit(resource.RLIMIT_FSIZE))")
    assert "'RLIMIT_NOFILE': 64" in said and "'RLIMIT_NPROC': 0" in said and said.endswith("(0, 0)")
    script = CONFINED.format(code="exec('while True: pass')", before="", namespaces="sandbox.enter_namespaces()")
    script = script.replace("confine()", "confine(cpu_s=1)") + "\nprint(os.times().children_user < 5)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True"


WORK = """
        import statistics, zoneinfo, decimal, numpy, sympy, math_verify
        rng = numpy.random.default_rng(0)
        matrix = rng.normal(size=(300, 300))
        assert numpy.allclose(numpy.linalg.inv(matrix) @ matrix, numpy.eye(300))
        assert sympy.integrate(sympy.Symbol("x"), sympy.Symbol("x")) is not None
        pair = math_verify.parse("$1/2$", parsing_timeout=None), math_verify.parse("$0.5$", parsing_timeout=None)
        assert math_verify.verify(*pair, timeout_seconds=None)
        assert zoneinfo.ZoneInfo("Europe/Berlin")
        print("worked")
"""


@pytest.mark.parametrize("loaded", ["", "import numpy"], ids=["nothing loaded", "numpy loaded before"])
def test_imports_and_mathematics_work(loaded: str) -> None:
    pytest.importorskip("math_verify")
    script = (
        WORK.strip() if not loaded else "import numpy; print('worked', (numpy.ones((900, 900)) @ numpy.ones(900))[0])"
    )
    own = "sandbox.enter_namespaces(); " + loaded
    text = CONFINED.format(code=script, before="", namespaces=own)
    done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    assert "worked" in done.stdout.decode(), done.stdout.decode()


@pytest.mark.slow
def test_scorers_of_reasoning_gym_work() -> None:
    pytest.importorskip("reasoning_gym")
    code = """
        for name, one in made.items():
            assert one.score_answer(str(one[0]["answer"]), one[0]) == 1.0, name
        print("worked")
    """
    names = ("basic_arithmetic", "polynomial_equations", "sudoku", "knights_knaves", "simple_geometry")
    before = f"import reasoning_gym; made = {{n: reasoning_gym.create_dataset(n, size=2, seed=1) for n in {names}}}"
    assert confined(code.strip(), before) == "worked"


def readable_by_all(path: Path) -> bool:
    return all(place.stat().st_mode & 0o005 == 0o005 for place in (path, *path.parents))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("own", [True, False], ids=["own namespaces", "no namespaces"])
def test_it_holds_without_privileges_too(own: bool) -> None:
    candidates = [Path(sys.executable).resolve(), Path(f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}")]
    usable = [one for one in candidates if one.exists() and readable_by_all(one)]
    home = Path(sandbox.__file__).resolve().parents[2]
    if not usable or not readable_by_all(home):
        pytest.skip("no interpreter, or not this package, can be read by another user")
    code = f"import json; from selfplay.sandbox import describe; d = describe({own})"
    code += "; print(json.dumps([d.confinement is not None, d.reason, len(d.refused), d.succeeded]))"
    done = subprocess.run(
        [usable[0], "-c", code],
        capture_output=True,
        env={"PYTHONPATH": str(home)},
        cwd="/",
        user=65534,
        group=65534,
        extra_groups=[],
        timeout=60,
    )
    assert json.loads(done.stdout) == [True, "", len(ATTACKS), []], done


def running(tag: str) -> list[int]:
    """The processes whose command line has a tag."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if tag.encode() in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def gone(tag: str) -> bool:
    until = time.monotonic() + 10
    while running(tag) and time.monotonic() < until:
        time.sleep(0.02)
    return not running(tag)


SERVER = """
import os, sys, threading, time  # {tag}
from selfplay import sandbox
sandbox.enter_namespaces() if {own} else namespaces_refused()
if os.fork() == 0:
    sandbox.confine()
    for attempt in (os.setsid, os.fork, lambda: __import__("ctypes").CDLL(None).prctl(1, 0)):
        try:
            attempt()
        except OSError:
            pass
    print("confined", flush=True)
    while True:
        time.sleep(9)
time.sleep(60)
"""
REFUSED = """
from selfplay.sandbox import namespaces
def namespaces_refused():
    namespaces._SETS = ()
    got = sandbox.enter_namespaces()
    assert not got.pid and got.missing, got
"""


@pytest.mark.parametrize("own", [True, False], ids=["own namespaces", "namespaces refused"])
@pytest.mark.parametrize("whom", ["the process that was started", "the server"])
def test_nothing_outlives_the_server(own: bool, whom: str) -> None:
    tag = f"orphan-test-{os.getpid()}-{own}-{whom[:11].replace(' ', '_')}"
    script = SERVER.format(tag=tag, own=own).replace("sandbox.enter", REFUSED.strip() + "\nsandbox.enter", 1)
    started = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert started.stdout is not None and started.stdout.readline() == b"confined\n"
        processes = running(tag)
        assert len(processes) == (3 if own else 2)
        killed = started.pid if whom.endswith("started") else processes[-2]
        os.kill(killed, signal.SIGKILL)
        assert started.wait(10) == -signal.SIGKILL
        assert gone(tag)
    finally:
        started.kill()
        started.communicate()


def test_the_waiting_process_ends_as_the_server_does() -> None:
    script = "import sys; from selfplay import sandbox; sandbox.enter_namespaces(); sys.exit(7)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 7


def test_doctor_says_where_nothing_holds() -> None:
    nothing = Description(None, "it needs Linux", (), ())
    (finding,) = findings(nothing)
    assert finding.level == "bad" and "cannot be confined: it needs Linux" in finding.text
    half = Confinement("x86_64", 0, False, (), Namespaces(missing="the kernel refuses user namespaces"))
    levels = [one.level for one in findings(Description(half, "", ("fork",), ("connect",)))]
    assert levels == ["bad", "note"]


def test_readable_are_packages_not_the_folders_they_lie_in() -> None:
    paths = [one.path for one in landlock.needed()]
    assert any(path.endswith("/selfplay") for path in paths)
    top = str(Path(sandbox.__file__).resolve().parents[2])
    assert top not in paths and os.path.expanduser("~") not in paths and "/proc" not in paths and "/" not in paths
    assert seccomp.architecture().name and namespaces.server_pid() == 0


def test_descriptors_are_closed_without_a_try_for_every_number_that_a_container_allows() -> None:
    code = """
import os
from selfplay.sandbox.libc import close_from
os.closerange = lambda low, high: print("one by one", end=" ")
for _ in range(9):
    os.dup(1)
close_from(5)
print([n for n in range(3, 40) if os.path.exists(f"/proc/self/fd/{n}")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout in ("[3, 4]\n", "one by one [3, 4, 5, 6, 7, 8, 9, 10, 11]\n"), "the latter before Linux 5.9"
