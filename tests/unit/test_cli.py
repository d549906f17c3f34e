"""The command line: bad input ends in one sentence and code 2, never in a traceback; verbs load when they are used."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from selfplay.cli import main
from selfplay.cli.play import Match
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.errors import UserError
from trainers.alphazero.status import Status, Summary


def test_help_names_every_verb_and_loads_none() -> None:
    code = "import sys; from selfplay.cli.main import call; call(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in main.VERBS:
        assert verb in done.stdout
    modules = done.stdout.splitlines()[-1]
    for heavy in ("'torch'", "'ray'", "'numba'", "'pyspiel'", "'pyarrow'", "'pydantic'", "'numpy'"):
        assert heavy not in modules


@pytest.mark.parametrize("verb", ["run", "play", "recipes", "envs", "doctor"])
def test_each_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call([verb, "--help"]) == 0
    assert "Usage: selfplay " + verb in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["rnu"], "did you mean 'run'"),
        (["run"], "say what to run"),
        (["run", "conect_four"], "did you mean connect_four"),
        (["run", "openspiel:kuhn_poker"], "chance"),
        (["run", "connect_four", "--set", "nonsense=3"], "nonsense"),
        (["run", "connect_four", "--set", "lr=fast"], 'learner.lr = "fast", expected a number'),
        (["run", "connect_four", "--minutes", "soon"], "minutes"),
        (["run", "connect_four", "--minutes", "-1"], "run.minutes"),
        (["run", "--out", "nowhere"], "no run in nowhere"),
        (["recipes", "--nonsense"], "see `selfplay recipes --help`"),
        (["play", "nowhere"], "holds no run"),
        (["play", "nowhere", "--seat", "third"], "first or second"),
    ],
)
def test_bad_input_is_a_sentence(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.call(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert part.lower() in printed.err.lower()
    assert list(tmp_path.iterdir()) == []


def test_recipes_and_envs_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["recipes", "connect_four", "--set", "seed=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["seed"] == 3
    assert main.call(["envs", "--json"]) == 0
    assert "connect_four-v0" in [row["id"] for row in json.loads(capsys.readouterr().out)]
    assert main.call(["recipes", "--keys"]) == 0 and main.call(["recipes"]) == 0


def test_doctor_finds_this_installation_sound(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main.call(["doctor", "--json", "--out", str(tmp_path)]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert any("side by side" in finding["text"] for finding in findings)


def test_doctor_notices_a_foreign_package(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").touch()
    code = "from selfplay.cli.main import call; raise SystemExit(call(['doctor', '--json']))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1 and "another distribution named envs hides ours" in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (UserError("the corpus is newer"), 2, "error: the corpus is newer\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 2, "the disk is full: /x"),
        (RuntimeError("Generic error\n at /x/y: No space left on device (os error 28)"), 2, "the disk is full: /x/y\n"),
        (RuntimeError("on purpose\nmore"), 1, "RuntimeError: on purpose (the traceback is in "),
        (KeyboardInterrupt(), 130, "aborted"),
        (ModuleNotFoundError("No module named 'ray'", name="ray"), 2, "[factory]'"),
    ],
)
def test_whatever_breaks_is_a_sentence(
    error: BaseException, code: int, part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def verb() -> None:
        raise error

    monkeypatch.setitem(main.VERBS, "doctor", main.Verb("breaks", lambda: verb))
    assert main.call(["doctor"]) == code
    printed = capsys.readouterr().err
    assert part in printed and "Traceback" not in printed and printed.count("\n") == 1


# `selfplay run` around a trainer that is not there.

RunFunction = Callable[..., Summary]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[RunFunction], None]]:
    """Puts a function in the place of `trainers.launch.run`."""
    import trainers

    def put(function: RunFunction) -> None:
        module = ModuleType("trainers.launch")
        module.run = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "trainers.launch", module)
        monkeypatch.setattr(trainers, "launch", module, raising=False)

    yield put


def quick(config: Any, spec: Any, out: str, on_status: Any, stop: threading.Event, **_: Any) -> Summary:
    status = Status(config.name, spec.id, out, f"{out}/corpus", phase="finished", episodes=3)
    on_status(status)
    print("a line of ray")
    os.write(1, b"a line from below python\n")
    return Summary("id", "interrupted" if stop.is_set() else "time", status)


def test_run_json_is_the_last_line(
    trainer: Callable[[RunFunction], None], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trainer(quick)
    out = tmp_path / "run"
    assert main.call(["run", "tic_tac_toe", "--out", str(out), "--json"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["status"]["episodes"] == 3
    assert "a line" not in printed.out + printed.err
    (log,) = (out / "logs").iterdir()
    assert "a line of ray" in log.read_text() and "a line from below python" in log.read_text()


def test_the_log_is_in_the_folder_of_the_run_however_that_is_written(
    trainer: Callable[[RunFunction], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer(quick)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))  # a shell leaves --out=~/run as it is
    for out in ("~/home", f"file://{tmp_path}/uri", "../above"):
        assert main.call(["run", "tic_tac_toe", f"--out={out}", "--json"]) == 0
    assert {log.parent.parent.name for log in tmp_path.glob("*/logs/*.log")} == {"home", "uri", "above"}
    assert not list((tmp_path / "here").iterdir())


def test_run_ends_with_the_last_screen(
    trainer: Callable[[RunFunction], None], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trainer(quick)
    assert main.call(["run", "tic_tac_toe", "--out", str(tmp_path / "run"), "--minutes", "1"]) == 0
    assert f"selfplay play {tmp_path}/run" in capfd.readouterr().out


@pytest.mark.parametrize(("out", "why"), [("file/run", "a file is where a folder must be"), ("loop", "leads back")])
def test_a_run_that_can_have_no_folder_is_refused(
    out: str, why: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("loop").symlink_to("loop")
    assert main.call(["run", "tic_tac_toe", "--out", out]) == 2
    assert why in capfd.readouterr().err
    assert Path("file").read_text() == "mine"


def test_a_refused_run_leaves_nothing(
    trainer: Callable[[RunFunction], None], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(**arguments: Any) -> Summary:
        raise UserError("held by another driver")

    trainer(refuse)
    out = tmp_path / "run"
    assert main.call(["run", "tic_tac_toe", "--out", str(out)]) == 2
    assert capfd.readouterr().err == "error: held by another driver\n"
    assert not out.exists()


def test_a_broken_run_names_its_log(
    trainer: Callable[[RunFunction], None], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(**arguments: Any) -> Summary:
        raise RuntimeError("on purpose")

    trainer(broken)
    assert main.call(["run", "tic_tac_toe", "--out", str(tmp_path / "run")]) == 1
    printed = capfd.readouterr().err
    (log,) = (tmp_path / "run" / "logs").iterdir()
    assert "RuntimeError: on purpose" in printed and str(log) in printed and "Traceback" not in printed
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(("presses", "code"), [(1, 0), (2, 130)])
def test_ctrl_c_once_drains_twice_aborts(presses: int, code: int, tmp_path: Path) -> None:
    program = f"""
import os, signal, sys, time, types
import trainers
from trainers.alphazero.status import Status, Summary
def run(config, spec, out, address, on_status, stop, words):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as ray.init does
    status = Status(config.name, spec.id, out, out + "/corpus", phase="playing")
    on_status(status)
    for _ in range({presses}):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
    assert stop.is_set()
    return Summary("id", "interrupted", status)
module = types.ModuleType("trainers.launch")
module.run = run
sys.modules["trainers.launch"] = trainers.launch = module
from selfplay.cli.main import call
raise SystemExit(call(["run", "tic_tac_toe", "--out", sys.argv[1]]))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ("everything is saved" in done.stdout) == (presses == 1)


# `selfplay play` with an opponent that takes the first legal move.


class FirstMove:
    def __init__(self) -> None:
        self.game = load(registry.find("tic_tac_toe-v0"))

    def search(self, state: Any, simulations: int) -> Any:
        import numpy as np

        actions = np.array(state.legal_actions(), np.int32)
        result = ModuleType("result")
        result.actions, result.visits = actions, np.full(len(actions), 2, np.int32)  # type: ignore[attr-defined]
        result.prior = np.full(len(actions), 1 / len(actions), np.float32)  # type: ignore[attr-defined]
        result.q = np.full(len(actions), np.nan, np.float32)  # type: ignore[attr-defined]
        result.action, result.root_value = int(actions[0]), 0.25  # type: ignore[attr-defined]
        return result


def played(lines: list[str], seat: int = 0) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False)
    rest = iter(lines)
    Match(FirstMove(), console, lambda: next(rest, None), 8, seat).play()  # type: ignore[arg-type]
    return out.getvalue()


def moves(*actions: int) -> list[str]:
    """What a person types for these actions of a game against `FirstMove` (x begins)."""
    game = load(registry.find("tic_tac_toe-v0"))
    state = game.new_initial_state()
    texts = []
    for action in actions:
        texts.append(game.action_text(state, action))
        state.apply_action(action)
        if not state.is_terminal():
            state.apply_action(state.legal_actions()[0])
    return texts


def test_a_person_wins_and_loses() -> None:
    assert "you win" in played(moves(4, 2, 6))
    assert "it plays" in played(moves(4, 2, 6))
    assert "you lose" in played(moves(3, 4, 8))


def test_hints_undo_and_nonsense() -> None:
    text = played(["hint", "nonsense", "moves", *moves(4), "undo", *moves(4, 2, 6)])
    assert "you stand at +0.25" in text and "nonsense is not a move here" in text and "you win" in text


def test_the_end_of_input_ends_the_game() -> None:
    assert "until next time" in played(moves(4))
    assert "it plays" in played(["quit"], seat=1)
