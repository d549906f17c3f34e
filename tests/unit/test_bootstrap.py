"""Installation: wrong Pythons, wrong arguments and broken downloads are sentences; nothing to do takes a moment."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`.ci/bootstrap.py` for a project in a folder of its own."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / ".ci" / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / ".ci" / "requirements").mkdir(parents=True)
    lists = [f".ci/requirements/{name}.txt" for name in ("build", "factory", "dev")]
    for name in ("pyproject.toml", "constraints.txt", *lists):
        (tmp_path / name).write_text((ROOT / name).read_text())
    venv = tmp_path / ".venv"
    for name, value in (
        ("ROOT", str(tmp_path)),
        ("VENV", str(venv)),
        ("VENV_PYTHON", str(venv / "bin" / "python")),
        ("STAMP", str(venv / "bootstrap-stamp")),
        ("LOG", str(venv / "install.log")),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "factory"])
    return module


def installed(bootstrap: ModuleType, extras: str) -> None:
    python = Path(bootstrap.VENV_PYTHON)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    Path(bootstrap.STAMP).write_text(f"{bootstrap.wanted()} {extras}\n")


def test_nothing_to_do(bootstrap: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    installed(bootstrap, "dev factory")
    assert bootstrap.main() == 0
    assert capsys.readouterr().out == ""


def test_what_calls_for_an_installation(bootstrap: ModuleType) -> None:
    installed(bootstrap, "factory")
    assert bootstrap.installed() == {"factory"}
    project = Path(bootstrap.ROOT) / "pyproject.toml"
    project.write_text(project.read_text().replace("line-length = 120", "line-length = 121"))
    assert bootstrap.installed() == {"factory"}, "a linter's setting does not"
    pins = Path(bootstrap.ROOT) / "constraints.txt"
    pins.write_text(pins.read_text() + "new==1\n")
    assert bootstrap.installed() == set() and bootstrap.installed_before() == {"factory"}


def test_a_wrong_python_is_a_sentence(
    bootstrap: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "OLDEST", (3, 99))
    monkeypatch.setattr(bootstrap, "NEWEST", (3, 98))
    assert bootstrap.main() == 2
    assert "Python 3.11 to 3.13 is needed" in capsys.readouterr().err
    assert not Path(bootstrap.VENV).exists()


def test_an_unknown_extra_is_a_sentence(
    bootstrap: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "gpu"])
    assert bootstrap.main() == 2
    assert "no extra named gpu" in capsys.readouterr().err


def test_a_missing_package_calls_for_an_installation(bootstrap: ModuleType) -> None:
    installed(bootstrap, "factory")
    info = Path(bootstrap.VENV, "lib", "python3.11", "site-packages", "thing-1.dist-info")
    info.mkdir(parents=True)
    (info / "RECORD").write_text("")
    with open(bootstrap.STAMP, "a") as stamp:
        stamp.write(f"{info.relative_to(bootstrap.VENV)}\n")
    assert bootstrap.installed() == {"factory"}
    (info / "RECORD").unlink()
    assert bootstrap.installed() == set()


def test_a_changed_hash_calls_for_an_installation(bootstrap: ModuleType) -> None:
    installed(bootstrap, "factory")
    with open(bootstrap.requirements("factory"), "a") as file:
        file.write("new==1 --hash=sha256:00\n")
    assert bootstrap.installed() == set()


def test_what_pip_says_is_told(
    bootstrap: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(bootstrap.VENV).mkdir()
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", sys.executable)
    with open(bootstrap.LOG, "w") as lock:
        assert bootstrap.pip(["--no-index", "no-such-package-anywhere"], lock.fileno()) == 1
    printed = capsys.readouterr().err
    assert "no-such-package-anywhere" in printed and "install.log" in printed and printed.count("\n") == 1
    assert "no-such-package-anywhere" in Path(bootstrap.LOG).read_text()
    assert [path.name for path in Path(bootstrap.VENV).iterdir()] == ["install.log"]


def test_progress_counts_what_there_is_to_do(bootstrap: ModuleType) -> None:
    line = sys.modules["pip_progress"].line
    said = ["Ignoring pywin32: markers 'win32' don't match your environment", "Collecting ray==2.60.0 (from -r x)"]
    assert line(said, 5, None, 31.0, 0, 80).endswith(" 1 of 4 packages  31 MB  ray")
    said += ["Requirement already satisfied: rich==15 in y", "Collecting a==1", "Collecting b==1"]
    assert "░" not in line(said, 5, None, 31.0, 0, 80)
    said += ["Installing collected packages: ray, a, b"]
    assert line(said, 5, None, 31.0, 2, 80).endswith(" 2 of 3 unpacked")
    # Where only an estimate tells how much there is, it gives way to what pip announces and to what has come.
    assert line([], 0, 190.0, 95.0, 0, 80).startswith("  ████████░░░░░░░░ 95 MB of about 190 MB")
    assert "of about 205 MB" in line(["  Downloading torch-2.whl (205.0 MB)"], 0, 190.0, 95.0, 0, 80)
    assert "250 MB of about 250 MB" in line([], 0, 190.0, 250.0, 0, 80)
    assert len(line(said, 5, None, 31.0, 2, 40)) < 35


def test_leftovers_of_an_interrupted_pip_are_removed(bootstrap: ModuleType) -> None:
    site = Path(bootstrap.VENV, "lib", "python3.11", "site-packages")
    for name, record in (("whole", "whole.py,sha256=x,3"), ("empty", "empty.py,sha256=x,3"), ("early", None)):
        (site / f"{name}-1.dist-info").mkdir(parents=True)
        (site / f"{name}.py").write_text("" if name == "empty" else "x=1")
        if record:
            (site / f"{name}-1.dist-info" / "RECORD").write_text(f"{record}\n{name}-1.dist-info/RECORD,,\n")
    (site / "~hole").mkdir()
    (Path(bootstrap.VENV) / "downloads-abc").mkdir()
    assert bootstrap.clean(bootstrap.VENV) == ["early", "empty"]
    assert sorted(path.name for path in site.glob("*[!y]")) == ["whole-1.dist-info"]
    assert [path.name for path in Path(bootstrap.VENV).iterdir()] == ["lib"]


def test_the_lists_hold_every_pin(bootstrap: ModuleType) -> None:
    """Renewed after the last change of constraints.txt, and never an installation without a hash."""
    lists = [Path(bootstrap.requirements(name)).read_text() for name in ("build", "factory", "dev")]
    listed = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", "\n".join(lists), re.MULTILINE))
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    assert set(pins) - set(listed) == {"torch"}
    assert {name: version for name, version in pins.items() if name != "torch" and listed[name] != version} == {}
    blocks = re.findall(r"^[\w.-]+==.*(?:\n[ \t]+.*)*", "\n".join(lists), re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks)


def test_an_index_that_does_not_answer(bootstrap: ModuleType) -> None:
    assert not bootstrap.answers("http://127.0.0.1:9/", 1.0)
