"""Edits of games: of their steps, of what their searches say, and of their end."""

from __future__ import annotations

from typing import Any

from tests.tampering.cases import CHAIN, FALSE, TRUE, WEIGHTS, Case, put


def at_search(path: str, value: Any) -> Any:
    """An edit of the first full search of the game with visits; path: below its step."""

    def edit(row: dict[str, Any]) -> None:
        steps = row["game"]["steps"]
        put(path, value)(next(step for step in steps if step["full_search"] and step["simulations"]))

    return edit


def _swap_visits(row: dict[str, Any]) -> None:
    """The best and the worst candidate exchange what the search saw in them."""
    step = next(step for step in row["game"]["steps"] if step["full_search"] and len(step["candidates"]) > 1)
    some = sorted((one for one in step["candidates"]), key=lambda one: one["visits"])
    for name in ("visits", "q"):
        some[0][name], some[-1][name] = some[-1][name], some[0][name]


CASES = [
    Case("game.game_string", "game", put("game.game_string", "connect_four()"), FALSE, FALSE, "it names the game"),
    Case("game.value_scale", "game", put("game.value_scale", 64.0), TRUE, TRUE, caught=CHAIN),
    Case("game.replay_digest", "game", put("game.replay_digest", "0" * 64), FALSE, FALSE, "replayed"),
    Case("game.ended_by", "game", put("game.ended_by", "ply_limit"), FALSE, FALSE, "it ended by"),
    Case("game.resigned_seat", "game", put("game.resigned_seat", 0), FALSE, FALSE, "resigned seat"),
    Case("game.would_have_resigned_seat", "game", put("game.would_have_resigned_seat", 0), TRUE, TRUE, caught=CHAIN),
    Case("game.played_on_after_resignation", "game", put("game.played_on_after_resignation", True), TRUE, TRUE,
         caught=CHAIN),
    Case("game.steps[].seat", "game", put("game.steps.0.seat", 1), FALSE, FALSE, "is to move"),
    Case("game.steps[].action", "game", put("game.steps.0.action", 77), FALSE, FALSE, "is not legal"),
    Case("game.steps[].joint[]", "game", put("game.steps.0.joint", [1, 2]), TRUE, TRUE, caught=CHAIN),
    Case("game.steps[].source", "game", at_search("source", "human"), TRUE, TRUE, caught=CHAIN),
    Case("game.steps[].simulations", "game", at_search("simulations", 3), FALSE, FALSE, "more than the 3"),
    Case("game.steps[].full_search", "game", at_search("full_search", False), TRUE, TRUE, caught=CHAIN),
    Case("game.steps[].root_value", "game", at_search("root_value", lambda one: -one), TRUE, TRUE, caught=WEIGHTS),
    Case("game.steps[].raw_value", "game", at_search("raw_value", 32767), TRUE, TRUE, caught=WEIGHTS),
    Case("game.steps[].surprise", "game", at_search("surprise", 9.0), TRUE, TRUE, caught=CHAIN),
    Case("game.steps[].seat_values[]", "game", at_search("seat_values", [1.0, -1.0]), TRUE, TRUE, caught=CHAIN),
    Case("game.steps[].candidates[].action", "game", at_search("candidates.0.action", 77), FALSE, FALSE, "candidates"),
    Case("game.steps[].candidates[].visits", "game", _swap_visits, TRUE, TRUE, caught=WEIGHTS),
    Case("game.steps[].candidates[].prior", "game", at_search("candidates.0.prior", 0), FALSE, FALSE, "the priors"),
    Case("game.steps[].candidates[].q", "game", at_search("candidates.0.q", lambda q: None if q else 9), FALSE, FALSE,
         "visits"),
]  # fmt: skip
