"""Installation: wrong Pythons, wrong arguments and broken downloads are sentences; nothing to do takes a moment."""

from __future__ import annotations

import importlib.util
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
    (tmp_path / ".ci").mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
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


def test_what_pip_says_is_told(
    bootstrap: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(bootstrap.VENV).mkdir()
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", sys.executable)
    assert bootstrap.pip(["--no-index", "no-such-package-anywhere"], 1.0) == 1
    printed = capsys.readouterr().err
    assert "no-such-package-anywhere" in printed and "install.log" in printed and printed.count("\n") == 1
    assert "no-such-package-anywhere" in Path(bootstrap.LOG).read_text()
    assert [path.name for path in Path(bootstrap.VENV).iterdir()] == ["install.log"]


def test_progress(bootstrap: ModuleType) -> None:
    assert "████████████░" in bootstrap.progress(310.0, 620.0, "torch", 75.0)
    assert bootstrap.progress(310.0, 620.0, "torch", 75.0).endswith("310 MB of about 620 MB  1:15  torch")
    assert bootstrap.collecting(["Collecting ray[rllib]==2.60.0 (from x)", "  Using cached"]) == "ray"


def test_an_index_that_does_not_answer(bootstrap: ModuleType) -> None:
    assert not bootstrap.answers("http://127.0.0.1:9/", 1.0)
