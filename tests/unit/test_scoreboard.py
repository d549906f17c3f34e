"""Which exam comes next, and what the results say together."""

from __future__ import annotations

import pytest

from selfplay.actors.examiner import Exam, Marks
from selfplay.evaluation.match import wilson
from trainers.alphazero import scoreboard
from trainers.alphazero.config import EvaluationConfig
from trainers.alphazero.scoreboard import QUICK_GAMES, Scoreboard
from trainers.alphazero.state import State

OPPONENTS = ("random", "mcts100", "checkpoints")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(scoreboard, "time", clock)
    return clock


def board(state: State | None = None, has_exact: bool = True, cores: int = 2, **settings: object) -> Scoreboard:
    config = EvaluationConfig(**({"opponents": OPPONENTS, "every_s": 1.0} | settings))  # type: ignore[arg-type]
    return Scoreboard(config, state if state is not None else State(), has_exact, cores)


def take(one: Scoreboard, clock: Clock, version: int, versions: list[int], cpu_s: float = 0.0) -> Exam | None:
    """One exam, won to the last game; the clock runs until the next may begin."""
    exam = one.next(version, versions)
    if exam is not None:
        one.begun()
        assert one.next(version, versions) is None
        mistakes = (("12 plies", 0.1, exam.positions),) if exam.opponent == "exact" else ()
        one.record(Marks(exam, wins=exam.games, mistakes=mistakes, cpu_s=cpu_s), 10.0, 1.0)
        clock.now += 100.0
    return exam


def test_every_subject_has_its_turn_and_first_looks_are_short(clock: Clock) -> None:
    one = board(games=40, exact_positions=300)
    exams = [take(one, clock, version, list(range(version + 1))) for version in range(1, 9)]
    assert [e.opponent for e in exams if e] == [
        "random", "mcts100", "version 2", "exact", "random", "mcts100", "version 4", "exact",
    ]  # fmt: skip
    assert [e.version for e in exams if e] == list(range(1, 9))
    assert [e.games for e in exams if e] == [QUICK_GAMES] * 4 + [40] * 4
    assert exams[3] and exams[3].positions == 100 and exams[7] and exams[7].positions == 300
    assert all(e.simulations == 64 for e in exams if e)


def test_a_version_is_not_examined_twice_by_the_same(clock: Clock) -> None:
    one = board(opponents=("mcts100", "checkpoints"))
    assert [e.opponent for e in (take(one, clock, 0, [0]), take(one, clock, 0, [0])) if e] == ["mcts100", "exact"]
    assert one.next(0, [0]) is None
    exam = one.next(1, [0, 1])  # version 0 is untrained and no opponent
    assert exam and exam.opponent == "mcts100"


def test_games_cut_by_the_ply_limit_count_as_examined(clock: Clock) -> None:
    """A match may end without one result; it is not played again and again for that."""
    one = board(opponents=("mcts100",), has_exact=False, games=10)
    exam = one.next(3, [3])
    assert exam is not None
    one.record(Marks(exam, cut=10), 0.0, 0.0)
    clock.now += 100
    assert one.next(3, [3]) is None and one.final(3) == []


def test_the_final_exam_is_at_full_length(clock: Clock) -> None:
    """A first look of a few games or positions at the last version does not stand for it."""
    state = State()
    one = board(state, games=40, exact_positions=300)
    for _ in range(3):
        take(one, clock, 5, [5])
    assert [(e.opponent, e.games, e.positions) for e in one.final(5)] == [
        ("random", 40, 300), ("mcts100", 40, 300), ("exact", 40, 300),
    ]  # fmt: skip
    for exam in one.final(5):
        found = (("12 plies", 0.02, 250),) if exam.opponent == "exact" else ()  # fewer than asked for exist
        one.record(Marks(exam, wins=30, draws=6, cut=2, mistakes=found), 0.0, 0.0)
    assert one.final(5) == []
    assert len(one.final(6)) == 3
    assert [(row.label, row.mistakes, row.positions) for row in one.exact()] == [("12 plies", 0.02, 250)]


def test_exams_keep_to_their_share_of_the_processor(clock: Clock) -> None:
    """4 s of processor time at a tenth of 2 cores: the next exam begins 20 s after this one did."""
    one = board(cpu_share=0.1, cores=2)
    exam = one.next(1, [1])
    assert exam is not None
    one.begun()
    clock.now += 1e6
    assert one.next(1, [1]) is None  # only one at a time
    one.record(Marks(exam, wins=1, cpu_s=4.0), 0.0, seconds=6.0)
    clock.now += 13.9
    assert one.next(1, [1]) is None
    clock.now += 0.2
    assert one.next(1, [1]) is not None


def test_exams_are_not_closer_than_every_s_after_the_first_round(clock: Clock) -> None:
    one = board(opponents=("mcts100", "mcts1000"), has_exact=False, every_s=30.0)
    gaps = []
    for version in range(1, 5):
        began = clock.now
        while (exam := one.next(version, [version])) is None:
            clock.now += 1.0
        gaps.append(clock.now - began)
        one.begun()
        one.record(Marks(exam, wins=1), 0.0, seconds=5.0)
    assert gaps == [0, 0, 25, 25]


def test_a_failed_exam_is_no_result(clock: Clock) -> None:
    state = State()
    one = board(state)
    assert one.next(1, [1]) is not None
    one.begun()
    one.failed()
    assert state.matches == [] and one.next(1, [1]) is None
    clock.now += 6
    assert one.next(1, [1]) is not None


def test_a_beaten_random_player_is_left_alone(clock: Clock) -> None:
    won = {"wins": 20, "draws": 0, "losses": 0, "cut": 0}
    cut, lost = won | {"cut": 1}, won | {"losses": 1}
    for rows, asked in (([won], True), ([won, won], False), ([won, cut], True), ([won, lost], True)):
        matches = [{"version": v, "opponent": "random", **row} for v, row in enumerate(rows)]
        one = board(State(matches=matches), opponents=("random",), has_exact=False)
        assert (one.next(9, [9]) is not None) == asked


def test_strength_is_the_newest_match_or_the_first(clock: Clock) -> None:
    one = board(has_exact=False)
    assert one.strength() == () and one.exact() == () and one.ratings() == ()
    for version, opponent, marks in (
        (1, "mcts100", (2, 1, 6, 1)),
        (2, "random", (10, 0, 0, 0)),
        (3, "mcts100", (8, 2, 0, 0)),
        (4, "version 2", (5, 0, 5, 0)),
        (5, "version 3", (6, 0, 4, 0)),
    ):
        wins, draws, losses, cut = marks
        one.record(Marks(Exam(version, opponent, 10, 0, 64), wins, draws, losses, cut), 7.0 * version, 0.0)
    now = [(r.opponent, r.version, r.wins, r.draws, r.losses, r.score) for r in one.strength()]
    assert now == [("random", 2, 10, 0, 0, 1.0), ("mcts100", 3, 8, 2, 0, 0.9), ("version 3", 5, 6, 0, 4, 0.6)]
    first = {r.opponent: r for r in one.strength(first=True)}
    assert set(first) == {"random", "mcts100", "version 2"}
    row = first["mcts100"]  # the cut game counts one half
    assert (row.version, row.wins, row.draws, row.losses, row.score, row.elapsed_s) == (1, 2, 2, 6, 0.3, 7.0)
    assert (row.low, row.high) == wilson(3.0, 10)


def test_ratings_order_versions_by_their_results(clock: Clock) -> None:
    one = board(has_exact=False)
    one.record(Marks(Exam(1, "random", 10, 0, 64), 12, 0, 8), 0.0, 0.0)
    one.record(Marks(Exam(2, "random", 10, 0, 64), 19, 0, 1), 0.0, 0.0)
    one.record(Marks(Exam(10, "version 2", 10, 0, 64), 15, 2, 3), 0.0, 0.0)
    points = one.ratings()
    assert [p.version for p in points] == [1, 2, 10]
    assert 0 < points[0].elo < points[1].elo < points[2].elo
    assert all(p.low < p.elo < p.high for p in points)
    assert one.ratings() is points  # nothing new, nothing computed
    one.record(Marks(Exam(10, "random", 10, 0, 64), 0, 0, 20), 0.0, 0.0)
    assert one.ratings()[2].elo < points[2].elo


def test_exact_rows_are_those_of_one_version(clock: Clock) -> None:
    one = board()
    for version, share in ((1, 0.3), (4, 0.1)):
        found = (("12 plies, 64 simulations", share, 100), ("12 plies, raw policy", 2 * share, 100))
        one.record(Marks(Exam(version, "exact", 0, 100, 64), mistakes=found), 0.0, 0.0)
    assert [(r.version, r.mistakes) for r in one.exact()] == [(4, 0.1), (4, 0.2)]
    assert [(r.version, r.mistakes) for r in one.exact(first=True)] == [(1, 0.3), (1, 0.6)]


def test_a_state_of_an_earlier_session_is_understood(clock: Clock) -> None:
    """Rows written before exams said how long they were asked to be."""
    match = {"version": 2, "opponent": "mcts100", "wins": 30, "draws": 0, "losses": 10, "cut": 0, "elapsed_s": 1.0}
    exact = {"version": 2, "label": "12 plies", "mistakes": 0.1, "positions": 100}
    one = board(State(matches=[match], exact=[exact]), opponents=("mcts100",), games=40, exact_positions=300)
    assert [e.opponent for e in one.final(2)] == ["exact"]
    assert one.next(2, [2]) is None


def test_nothing_to_measure(clock: Clock) -> None:
    assert board(opponents=(), has_exact=False).next(1, [1]) is None
    assert board(opponents=(), exact_positions=0).next(1, [1]) is None
