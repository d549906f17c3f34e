"""What a person sees of a run: screens drawn from made-up statuses, and the terminal that nobody else writes to."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import struct
import subprocess
import sys
import termios
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from selfplay.cli import screen, terminal
from selfplay.cli.display import LineDisplay, progress
from selfplay.cli.farewell import farewell
from trainers.alphazero.status import (
    BaselineRow,
    Candidate,
    LastGame,
    LostGames,
    MistakesRow,
    RatingPoint,
    Status,
    StrengthRow,
    Summary,
)
from trainers.reasoning.status import ReasoningStatus, ReasoningSummary

BOARD = """  [grey42]╭───────────────╮[/]
6 [grey42]│[/] · · · · · · · [grey42]│[/]
5 [grey42]│[/] · · · · · · · [grey42]│[/]
4 [grey42]│[/] · · · [bold red]●[/] · · · [grey42]│[/]
3 [grey42]│[/] · · · [bold yellow]●[/] · · · [grey42]│[/]
2 [grey42]│[/] · · [bold red]●[/] [bold red]●[/] · [bold yellow]●[/] · [grey42]│[/]
1 [grey42]│[/] [bold yellow]●[/] · [bold yellow]●[/] [bold red]●[/] [bold red]● ● ●[/] [grey42]│[/]
  [grey42]╰───────────────╯[/]
    [grey42]1 2 3 4 5 6 7[/]"""

GAME = LastGame(
    board=BOARD,
    caption="last decision, red to move",
    result="first player wins",
    plies=13,
    candidates=tuple(
        Candidate(str(i + 1), visits, prior, q, chosen=i == 6)
        for i, (visits, prior, q) in enumerate(
            [(1, 0.03, -0.4), (0, 0.01, None), (2, 0.05, -0.1), (6, 0.30, 0.02), (3, 0.1, 0.11), (1, 0.01, -0.7),
             (19, 0.5, 0.97)]
        )  # fmt: skip
    ),
)


def wrong(version: int, player: str, random: float, quiet: float) -> tuple[MistakesRow, ...]:
    """Mistakes on both kinds of positions."""
    return tuple(
        MistakesRow(kind, player, version, share, 1200, share - 0.01, share + 0.01,
                    (("12 plies", share + 0.02), ("24 plies", share - 0.02)), safe)
        for kind, share, safe in (("random positions", random, 0.42), ("quiet positions", quiet, 0.55))
    )  # fmt: skip


def playing() -> Status:
    """Four minutes into ten of connect four."""
    return Status(
        recipe="connect_four",
        env="connect_four-v0",
        out="runs/connect_four",
        corpus="runs/connect_four/corpus",
        phase="playing",
        elapsed_s=252,
        total_s=600,
        episodes=12_403,
        positions=298_115,
        positions_per_s=1217.4,
        version=17,
        learner_steps=2400,
        window_rows=81_234,
        window_capacity=81_234,
        policy_loss=1.213,
        value_loss=0.712,
        loss_history=tuple((2.0 / (1 + i / 10), 0.7 + 0.3 / (1 + i)) for i in range(40)),
        strength=(
            StrengthRow("random", 16, 40, 0, 0, 1.0, 0.91, 1.0, 240.0),
            StrengthRow("mcts100", 16, 36, 1, 3, 0.913, 0.79, 0.965, 240.0),
            StrengthRow("mcts1000", 14, 24, 2, 14, 0.625, 0.47, 0.76, 215.0),
            StrengthRow("version 8", 16, 29, 2, 9, 0.75, 0.60, 0.86, 244.0),
        ),
        first_strength=(
            StrengthRow("random", 0, 22, 0, 18, 0.55, 0.40, 0.69, 4.0),
            StrengthRow("mcts100", 0, 3, 0, 37, 0.075, 0.03, 0.2, 4.0),
            StrengthRow("mcts1000", 0, 0, 0, 40, 0.0, 0.0, 0.09, 4.0),
        ),
        mistakes=(*wrong(15, "64 simulations", 0.031, 0.057), *wrong(15, "raw policy", 0.052, 0.098)),
        first_mistakes=(*wrong(0, "64 simulations", 0.11, 0.157), *wrong(0, "raw policy", 0.2, 0.29)),
        baselines=tuple(
            BaselineRow(kind, player, share, 1200, share - 0.01, share + 0.01)
            for kind, factor in (("random positions", 1.0), ("quiet positions", 1.6))
            for player, share in (("random moves", 0.39 * factor), ("MCTS-1000", 0.038 * factor))
        ),
        ratings=tuple(RatingPoint(v, 40.0 * v, 40.0 * v - 60, 40.0 * v + 60) for v in range(17)),
        last_game=GAME,
        lost=LostGames(128, 1920),
        sizing="2 cores, no GPU: 1 self-play actor of 128 games, 1 learner, evaluation within 10%; bfloat16",
        messages=("an actor died and was started again; 128 games in flight were lost",),
    )


def finished() -> Summary:
    return Summary("connect_four-1a2b", "time", replace(playing(), phase="finished", elapsed_s=600.0))


def drawn(renderable: object, width: int = 120, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(200, 60), (120, 36), (100, 30), (80, 50)])
def test_the_screen_shows_everything_and_fits(width: int, height: int) -> None:
    text = drawn(screen.screen(playing(), width, height), width, height)
    lines = text.splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    for part in ("12,403", "298,115", "1,217/s", "version 17", "81,234", "1.213", "0.712", "5:48", "mcts1000", "91%",
                 "24-2-14", "quiet, 64 simulations",
                 "3.1%", "5.7%", "●", "first player wins", "+0.97", "Ctrl-C", "an actor died"):  # fmt: skip
        assert part in text, part


def test_a_small_terminal_keeps_the_board_and_the_strength() -> None:
    text = drawn(screen.screen(playing(), 80, 24), 80, 24)
    assert len(text.splitlines()) <= 24
    for part in ("first player wins", "12,403", "mcts1000", "Ctrl-C"):
        assert part in text


def test_the_screen_before_anything_has_happened() -> None:
    status = Status("connect_four", "connect_four-v0", "runs/x", "", activity="loading torch and ray")
    text = drawn(screen.screen(status, 100, 30))
    assert "loading torch and ray" in text and "the first game is being played" in text


@pytest.mark.parametrize("name", ["[3,4]", "[/oops", "[bold]x"])
def test_a_board_that_is_no_markup_is_drawn_as_it_is(name: str) -> None:
    assert screen.markup(name) is not None
    drawn(screen.newest_game(replace(GAME, board=name), 5, side_by_side=True))


def test_farewell_compares_the_nets_and_says_what_next() -> None:
    text = drawn(farewell(finished()), 130)
    for part in ("v0 7.5%", "v16 91%", "v0 11%", "v0 16%", "v15 5.7%", "moves that lose, quiet, 64 simulations",
                 "12 plies 7.7, 24 plies 3.7", "55% cannot be misplayed", "MCTS-1000 6.1%", "+640 Elo",
                 "runs/connect_four/corpus",
                 "selfplay play runs/connect_four", "selfplay run --out runs/connect_four", "10:00"):  # fmt: skip
        assert part in text, part
    interrupted = replace(finished(), ended_by="interrupted")
    assert "everything is saved" in drawn(farewell(interrupted), 130)


def test_farewell_of_a_run_stopped_at_once() -> None:
    status = Status("connect_four", "connect_four-v0", "runs/x y", "runs/x y/corpus", phase="finished")
    text = drawn(farewell(Summary("id", "interrupted", status)))
    assert "selfplay run --out 'runs/x y'" in text and "selfplay play" not in text, "there is nothing to look at yet"
    assert "selfplay play 'runs/x y'" in drawn(farewell(Summary("id", "interrupted", replace(status, episodes=1))))


def test_a_line_has_one_clock() -> None:
    status = Status("a", "a-v0", "o", "c", phase="playing", activity="saving", activity_s=12.0, total_s=90.0)
    assert progress(status).startswith("saving, ") and "0:12" not in progress(status)


def test_commands_of_a_game_in_a_file_name_it_or_trust_it() -> None:
    text = drawn(farewell(finished(), "/home/ana/my games/hex.py"), 200)
    for part in ("selfplay play runs/connect_four --trust ", "selfplay run --out runs/connect_four --trust ",
                 "selfplay corpus show latest runs/connect_four/corpus --env '/home/ana/my games/hex.py'",
                 "selfplay corpus verify runs/connect_four/corpus --env '/home/ana/my games/hex.py'"):  # fmt: skip
        assert part in text, part
    assert "--trust" not in drawn(farewell(finished()), 200) and "--env" not in drawn(farewell(finished()), 200)


def test_summary_is_json() -> None:
    assert json.loads(json.dumps(finished().to_dict()))["status"]["episodes"] == 12_403


def test_lines_for_a_pipe() -> None:
    out = io.StringIO()
    display = LineDisplay(out, final=True, every_s=0.0)
    first = replace(playing(), last_game=None, strength=(), mistakes=(), baselines=(), messages=())
    display.update(first)
    display.update(replace(first, last_game=GAME))
    display.update(playing())
    display.update(playing())
    display.finish(finished())
    text = out.getvalue()
    assert text.count("the first game is finished") == 1 and "●" in text
    assert text.count("version 16 against mcts100: 36-1-3, 91% of the points (79–96)") == 1
    assert text.count("version 15, quiet positions, 64 simulations: 5.7% of the moves lose value (4.7–6.7)") == 1
    drawn = "quiet positions (1,200 of them, where no move ends the game; 55% cannot be misplayed)"
    assert text.count(drawn) == 2  # when it was measured first, and at the end
    assert text.count("an actor died") == 2  # once when it happened, once at the end
    assert "12,403 games, 298,115 positions at 1,217/s, net 17" in text
    assert "\x1b" not in text


def test_numbers_for_people() -> None:
    assert [screen.clock(s) for s in (0, 75, 3675)] == ["0:00", "1:15", "1:01:15"]
    assert [screen.count(n) for n in (7, 12_345, 1_234_567)] == ["7", "12,345", "1.23M"]
    assert [screen.percent(p) for p in (0.0, 0.057, 0.0996, 1.0)] == ["0.0%", "5.7%", "10%", "100%"]
    assert screen.spark([1.0, 2.0, 3.0], 8) == "▁▅█" and screen.spark([], 8) == ""
    for share in (-1.0, 0.0, 0.03, 0.5, 0.999, 1.0, 2.0):
        assert len(screen.bar(share, 10).plain) == 10


TAKEN = r"""
    import os, sys
    from pathlib import Path
    from selfplay.cli.terminal import taken
    print("before")
    try:
        with taken(Path(sys.argv[1]) / "logs" / "run.log") as terminal:
            print("python noise")
            print("python error noise", file=sys.stderr)
            os.system("echo child noise; echo child error noise >&2")
            os.write(1, b"raw noise\n")
            terminal.out.write("the display\n")
            if sys.argv[2] == "crash":
                raise RuntimeError("on purpose")
    except RuntimeError:
        pass
    print("after")
    os.system("echo child after")
"""


@pytest.mark.parametrize("how", ["normal", "crash"])
def test_nobody_else_writes_to_the_terminal(how: str, tmp_path: Path) -> None:
    code = textwrap.dedent(TAKEN)
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), how], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines() == ["before", "the display", "after", "child after"]
    assert done.stderr == ""
    log = (tmp_path / "logs" / "run.log").read_text()
    for line in ("python noise", "python error noise", "child noise", "child error noise", "raw noise"):
        assert line in log


LIVE = """
    import os, sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_display import finished, playing
    from selfplay.cli.display import make
    from selfplay.cli.terminal import taken
    with taken(Path(sys.argv[2])) as terminal:
        display = make(terminal.out, terminal.err, as_json=False)
        try:
            display.update(playing())
            print("a line of ray")
            os.system("echo a line of a child")
            time.sleep(0.6)
            display.stopping()
            time.sleep(0.6)
            if sys.argv[3] == "crash":
                raise SystemExit(3)
            display.finish(finished())
        finally:
            display.close()
"""


@pytest.mark.parametrize("how", ["normal", "crash"])
def test_a_live_screen_on_a_terminal(how: str, tmp_path: Path) -> None:
    """On a pseudo-terminal: the alternate screen is entered and left, and holds nothing but the display."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    arguments = [sys.executable, "-c", textwrap.dedent(LIVE), str(Path(__file__).parent), str(tmp_path / "log"), how]
    environment = dict(os.environ, TERM="xterm-256color")
    process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # Linux ends a pseudo-terminal with an error
        while data := os.read(ours, 65536):
            seen += data
    os.close(ours)
    assert process.wait() == (0 if how == "normal" else 3)
    text = seen.decode()
    assert text.count("\x1b[?1049h") == 1 and text.count("\x1b[?1049l") == 1
    assert "a line of" not in text and "playing and learning" in text and "games are sealed and saved" in text
    after = text.split("\x1b[?1049l")[1]
    assert ("selfplay play runs/connect_four" in after) == (how == "normal")
    assert "a line of ray" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("width", [30, 60, 130])
def test_commands_can_be_copied_from_a_terminal_of_any_width(width: int) -> None:
    place = "/somewhere/with a long name/connect_four"
    status = Status("connect_four", "connect_four-v0", place, f"{place}/corpus", phase="finished", episodes=1)
    answers = ReasoningStatus("parity", "parity-v0", place, f"{place}/corpus", phase="finished", episodes=1)
    for summary in (Summary("id", "time", status), ReasoningSummary("id", "time", answers)):
        out = io.StringIO()
        console = Console(file=out, width=width, highlight=False)
        console.print(farewell(summary), crop=False)
        lines = out.getvalue().splitlines()
        for command in (f"selfplay run --out '{place}'", f"selfplay corpus verify '{place}/corpus'"):
            assert sum(command in line for line in lines) == 1, command
        assert any(f"corpus: {place}/corpus" in line for line in lines)


def test_a_large_log_goes_on_in_a_new_file(tmp_path: Path) -> None:
    script = """
import subprocess, sys
from pathlib import Path
from selfplay.cli import terminal
terminal.LOG_BYTES, terminal.LOGS_KEPT = 100, 3
with terminal.taken(Path(sys.argv[1]) / "logs" / "run.log") as kept:
    for number in range(12):
        print(f"line {number} " + "x" * 120)
        kept.rotate()
    subprocess.run(["echo", "a child"])
    print("the end")
print("shown")
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "shown\n" and not done.stderr
    logs = {path.name: path.read_text().split()[1] for path in (tmp_path / "logs").iterdir()}
    assert logs == {"run.10.log": "9", "run.11.log": "10", "run.12.log": "11", "run.log": "child"}


def test_logs_of_former_sessions_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "SESSIONS_KEPT", 4)
    for number in range(9):
        (tmp_path / f"{number}.log").write_text("")
        os.utime(tmp_path / f"{number}.log", (number, number))
    (tmp_path / "notes.txt").write_text("mine")
    terminal.forget_logs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5.log", "6.log", "7.log", "8.log", "notes.txt"]
