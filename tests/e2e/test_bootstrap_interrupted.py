"""`.ci/bootstrap.py` with real pip in a real environment, interrupted in every way, for a small project."""

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = 4000
BACKEND = """
import zipfile

def get_requires_for_build_editable(config_settings=None):
    return []

def build_editable(folder, config_settings=None, metadata_directory=None):
    name, info = "selfplay_factory-1-py3-none-any.whl", "selfplay_factory-1.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("project.pth", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: selfplay-factory\\nVersion: 1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", f"project.pth,,\\n{info}/METADATA,,\\n{info}/WHEEL,,\\n{info}/RECORD,,\\n")
    return name
"""


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> str:
    """Writes NAME-1 with these files; returns its line of a requirements file."""
    path, info = folder / f"{name}-1-py3-none-any.whl", f"{name}-1.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for place, content in files.items():
            wheel.writestr(place, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{place},sha256={digest},{len(content)}\n"
        wheel.writestr(f"{info}/RECORD", record)
    return f"{name}==1 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project like this one, of five tiny packages and one of many files."""
    root, wheels = tmp_path / "project", tmp_path / "wheels"
    wheels.mkdir()
    lists = root / ".ci" / "requirements"
    lists.mkdir(parents=True)
    for source in ("bootstrap.py", "leftovers.py", "pip_progress.py"):
        shutil.copy(ROOT / ".ci" / source, root / ".ci")
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "selfplay-factory"\nversion = "1"\n[tool.setuptools]\n'
    )
    (root / "constraints.txt").write_text("torch==1\n")
    make_wheel(wheels, "torch", {"torch.py": b""})
    (lists / "build.txt").write_text(make_wheel(wheels, "builder", {"builder.py": b""}))
    big = {f"big/part{i}.txt": b"x" * 2000 for i in range(FILES)}
    (lists / "factory.txt").write_text(make_wheel(wheels, "big", big) + make_wheel(wheels, "small", {"small.py": b""}))
    (lists / "dev.txt").write_text(make_wheel(wheels, "tool", {"tool.py": b""}))
    return root


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(project: Path) -> Iterator[Start]:
    """Starts the bootstrap in a process group of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(project.parent / "wheels"),
    }
    started = []

    def begin(*extras: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(project / ".ci" / "bootstrap.py"), *extras]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=environment, **output, text=True, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_half_unpacked(project: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if any(len(os.listdir(folder)) > 50 for folder in site(project, "big")):
            return
        time.sleep(0.002)
    raise AssertionError("pip never unpacked the package of many files")


def site(project: Path, name: str) -> list[Path]:
    return list(project.glob(f".venv/lib/python3*/site-packages/{name}"))


def assert_whole(project: Path) -> None:
    [folder] = site(project, "big")
    assert len(list(folder.iterdir())) == FILES
    assert not list(project.glob(".venv/downloads-*")) and not list(project.glob(".venv/*.begun"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_installation_is_completed_by_the_next(project: Path, start: Start, how: signal.Signals) -> None:
    assert start("factory").wait(120) == 0
    assert_whole(project)
    # Its largest package is damaged; the next one, interrupted while it repairs that, should bring the linters, too.
    [info] = site(project, "big-1.dist-info")
    shutil.rmtree(info.parent / "big")
    interrupted = start("factory", "dev")
    wait_until_half_unpacked(project)
    if how == signal.SIGKILL:
        os.killpg(interrupted.pid, how)
    else:
        interrupted.send_signal(how)
    said, _ = interrupted.communicate(timeout=60)
    assert interrupted.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    assert how == signal.SIGKILL or "goes on from here" in said
    assert not (project / ".venv" / "bootstrap-stamp").exists()
    assert not how == signal.SIGKILL or list(project.glob(".venv/downloads-*"))
    # `make run` after an interrupted `make test` completes both.
    assert start("factory").wait(120) == 0
    assert_whole(project)
    assert site(project, "tool.py")
    again = start("factory", "dev")
    assert again.communicate(timeout=20)[0] == "" and again.returncode == 0


@pytest.mark.slow
def test_pip_that_outlives_its_bootstrap_is_waited_for(project: Path, start: Start) -> None:
    killed = start("factory")
    wait_until_half_unpacked(project)
    killed.kill()
    killed.wait()
    next_one = start("factory")
    said, _ = next_one.communicate(timeout=120)
    assert "Another installation into .venv is under way" in said and next_one.returncode == 0
    assert_whole(project)


@pytest.mark.slow
def test_a_package_with_another_hash_is_refused(project: Path, start: Start) -> None:
    make_wheel(project.parent / "wheels", "small", {"small.py": b"import os"})
    process = start("factory")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "DO NOT MATCH THE HASHES" in said and said.count("error: ") == 1
    assert not site(project, "small.py") and not (project / ".venv" / "bootstrap-stamp").exists()
