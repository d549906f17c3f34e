"""A run that never was, for the tests of the display."""

from __future__ import annotations

from trainers.status import Candidate, ExactRow, LastGame, LostGames, RatingPoint, Status, StrengthRow, Summary

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
        exact=(ExactRow("64 simulations", 15, 0.057, 1200), ExactRow("raw policy", 15, 0.098, 1200)),
        first_exact=(ExactRow("64 simulations", 0, 0.157, 1200), ExactRow("raw policy", 0, 0.29, 1200)),
        ratings=tuple(RatingPoint(v, 40.0 * v, 40.0 * v - 60, 40.0 * v + 60) for v in range(17)),
        last_game=GAME,
        lost=LostGames(128, 1920),
        sizing="2 cores, no GPU: 1 self-play actor of 128 games, 1 learner, evaluation within 10%; bfloat16",
        messages=("an actor died and was started again; 128 games in flight were lost",),
    )


def finished() -> Summary:
    from dataclasses import replace

    return Summary("connect_four-1a2b", "time", replace(playing(), phase="finished", elapsed_s=600.0))
