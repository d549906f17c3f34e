"""What a run must reach: tic-tac-toe is played perfectly after ninety seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from selfplay.agent import Agent
from selfplay.evaluation import exact
from selfplay.evaluation.match import play_match
from selfplay.evaluation.openings import all_openings
from selfplay.evaluation.players import exact_player


@pytest.mark.slow
def test_tic_tac_toe_keeps_the_exact_value(tmp_path: Path) -> None:
    """From every opening of 0 to 3 plies, on both sides, against perfect play; and the raw policy everywhere."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "selfplay.cli.main", "run", "tic_tac_toe", "--out", str(out), "--minutes", "1.5"]
    subprocess.run(command, check=True, timeout=400, stdout=subprocess.DEVNULL)
    agent = Agent.load(str(out))
    game = agent.game
    assert game.spec.exact is not None
    solver = game.spec.exact()
    listed = all_openings(game, 3, solver)
    assert len(listed) >= 100
    perfect = exact_player(solver, 1)
    match = play_match(game, lambda states: agent.act_many(states, 64), perfect, [o.line for o in listed])
    for played in match.games:
        value = listed[played.opening].value
        assert value is not None
        expected = value if played.seat == 0 else -value
        assert played.utility is not None and played.utility >= expected, (listed[played.opening], played)
    (every,) = exact.test_sets(game)
    (raw,) = exact.mistakes(game, lambda states: agent.act_many(states, 0), every)
    assert raw.share < 0.01
