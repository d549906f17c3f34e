"""What hangs, dies, prints, or is another in another process: check-env says so, with the place, and never waits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfplay.cli.main import call
from selfplay.environments.checks.report import Report, TaskReport
from selfplay.environments.checks.watch import examine

LEGAL = "        return [int(square) for square in np.flatnonzero(self.board == -1)]"
FIVE = "        if (self.board >= 0).sum() == 5:\n            {}\n"
OVER = "    def is_terminal(self):\n"
NUMBER = 'Random(f"digit sum {seed} {digits}")'
SAME = "the same in another process"


def examined(folder: Path, text: str, limit: float = 5.0) -> Report | TaskReport:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return examine(str(path), limit)


def problems(report: Report | TaskReport) -> dict[str, str]:
    return {finding.name: finding.problem for finding in report.findings if finding.problem is not None}


def changed(text: str, *changes: tuple[str, str]) -> str:
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def test_what_hangs_is_named_with_its_line_and_the_moves(
    tmp_path: Path, readme_game: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = changed(readme_game, (LEGAL, FIVE.format("__import__('time').sleep(1e6)") + LEGAL))
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    line = text[: text.index("sleep(1e6)")].count("\n") + 1
    assert call(["check-env", str(path), "--limit", "5", "--json"]) == 1
    report = json.loads(capfd.readouterr().out)
    (found,) = (one for one in report["findings"] if one["problem"] is not None)
    assert found["problem"].startswith("legal_actions took longer than 5 s; it stood in ")
    assert f"mine.py, line {line}, in _legal_actions; " in found["problem"]
    assert found["where"] == "game 0, moves: 22 20 18 11 5"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("while True: pass", "legal_actions took longer than 5 s"),
        ("sum(range(10**14))", "legal_actions took longer than 5 s"),
        ("__import__('os')._exit(3)", "its code killed its process (exit status 3)"),
        ("__import__('ctypes').string_at(1)", "legal_actions killed its process (SIGSEGV); it stood in"),
    ],
)
def test_loops_without_end_and_sudden_ends_are_found(
    tmp_path: Path, readme_game: str, statement: str, problem: str
) -> None:
    report = examined(tmp_path, changed(readme_game, (LEGAL, FIVE.format(statement) + LEGAL)))
    (found,) = (one for one in report.findings if one.problem is not None)
    assert problem in (found.problem or "") and found.where == "game 0, moves: 22 20 18 11 5"


def test_a_file_whose_import_hangs_is_told(tmp_path: Path) -> None:
    report = examined(tmp_path, "import time\n\ntime.sleep(1e6)\n")
    (found,) = problems(report).values()
    assert found.startswith("importing the file took longer than 5 s; it stood in ") and "line 3, in <module>" in found


def test_prints_are_counted_and_a_clock_is_found(
    tmp_path: Path, readme_task: str, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = 'Random(f"digit sum {seed} {digits} {datetime.date.today()} {print(seed)}")'
    report = examined(
        tmp_path, changed(readme_task, (NUMBER, clock), ("\ndef sample", "\nimport datetime\n\ndef sample"))
    )
    found = problems(report)
    assert list(found) == [SAME]
    assert found[SAME].startswith("seed 0, difficulty 4: the prompt differs: user: Add up the digits of ")
    assert found[SAME].endswith(", at another time; read no clock")
    note = next(one.note for one in report.findings if one.name == "prints nothing")
    assert note is not None and note.startswith("prints '0' (") and "in sample), " in note
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "how"),
    [
        ("Random(hash(str(seed)))", "with another order of sets (PYTHONHASHSEED)"),
        ("Random(f'{__import__(\"os\").getcwd()} {seed}')", "in another folder, with another HOME"),
        ("Random(MADE.setdefault((seed, digits), len(MADE)))", "after other calls in another order"),
        ("Random(MADE.setdefault((seed, digits), Random().random()))", "in another process; seed every random"),
    ],
)
def test_what_makes_another_problem_is_named(tmp_path: Path, readme_task: str, seed: str, how: str) -> None:
    text = changed(readme_task, (NUMBER, seed), ("\ndef sample", "\nMADE = {}\n\n\ndef sample"))
    assert how in problems(examined(tmp_path, text))[SAME]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "how"),
    [
        ("time.monotonic() - BEGAN > 3600", "at another time"),
        ("datetime.datetime.now() > BORN + datetime.timedelta(days=1)", "at another time"),
        ("len(PLAYED) > 1500", "after other calls in another order"),
    ],
)
def test_a_game_that_ends_by_the_clock_or_after_other_games_is_found(
    tmp_path: Path, readme_game: str, condition: str, how: str
) -> None:
    began = "import datetime\nimport time\n\nPLAYED, BEGAN, BORN = [], time.monotonic(), datetime.datetime.now()\n"
    text = changed(
        readme_game,
        ("class State(", f"{began}\n\nclass State("),
        (
            "        self.board.flat[action] = self.seat\n",
            "        self.board.flat[action] = self.seat\n        PLAYED.append(action)\n",
        ),
        (OVER, f"{OVER}        if {condition}:\n            return True\n"),
    )
    assert how in problems(examined(tmp_path, text))[SAME]


def test_no_limit_is_taken_for_a_mistake_of_the_task(tmp_path: Path, readme_task: str) -> None:
    """A good file passes, from whatever folder, and says how often a constant answer is right."""
    report = examined(tmp_path, readme_task)
    assert isinstance(report, TaskReport) and report.ok and report.example[0].startswith("Add up the digits of")
    assert TaskReport.of(json.loads(json.dumps(report.as_dict()))) == report
