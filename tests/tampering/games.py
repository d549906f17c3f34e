"""Edits of games: of their steps, of what their searches say, and of their end."""

from __future__ import annotations

from typing import Any

from tests.tampering.cases import FALSE, TRUE, WEIGHTS, Case, put


def _searched(row: dict[str, Any]) -> dict[str, Any]:
    """The first full search of the game."""
    found: dict[str, Any] = next(step for step in row["game"]["steps"] if step["full_search"])
    return found


def at_search(path: str, value: Any) -> Any:
    """An edit of the first full search of the game; path: below its step."""
    return lambda row: put(path, value)(_searched(row))


def _swap_visits(row: dict[str, Any]) -> None:
    """The best and the worst candidate exchange what the search saw in them."""
    some = sorted(_searched(row)["candidates"], key=lambda one: one["visits"])
    for name in ("visits", "q"):
        some[0][name], some[-1][name] = some[-1][name], some[0][name]


def _no_visits(row: dict[str, Any]) -> None:
    for one in _searched(row)["candidates"]:
        one["visits"], one["q"] = 0, None


def _negated(row: dict[str, Any]) -> None:
    for one in _searched(row)["candidates"]:
        one["q"] = None if one["q"] is None else -one["q"]


def _reversed_priors(row: dict[str, Any]) -> None:
    some = _searched(row)["candidates"]
    for one, prior in zip(some, [one["prior"] for one in reversed(some)], strict=True):
        one["prior"] = prior


def _other_value(row: dict[str, Any]) -> None:
    """Another raw value, and the root's value that follows from it."""
    step = _searched(row)
    way = -1 if step["raw_value"] > 0 else 1
    step["raw_value"] += way * 50 * (1 + step["simulations"])
    step["root_value"] += way * 50


CASES = [
    Case("game.game_string", "game", put("game.game_string", "connect_four()"), FALSE, FALSE, "it names the game"),
    Case("game.value_scale", "game", put("game.value_scale", 64.0), FALSE, FALSE, "in units of 64"),
    Case("game.replay_digest", "game", put("game.replay_digest", "0" * 64), FALSE, FALSE, "replayed"),
    Case("game.ended_by", "game", put("game.ended_by", "ply_limit"), FALSE, FALSE, "it ended by"),
    Case("game.ended_by", "cut game", put("game.ended_by", "aborted"), FALSE, FALSE, "it ended by"),
    Case("game.resigned_seat", "game", put("game.resigned_seat", 0), FALSE, FALSE, "resigned seat"),
    Case("game.would_have_resigned_seat", "game", put("game.would_have_resigned_seat", 0), FALSE, FALSE,
         "would have resigned"),
    Case("game.played_on_after_resignation", "game", put("game.played_on_after_resignation", True), FALSE, FALSE,
         "nobody resigns in its run"),
    Case("game.steps[].seat", "game", put("game.steps.0.seat", lambda seat: 1 - seat), FALSE, FALSE, "policy span"),
    Case("game.steps[].action", "opened game", put("game.steps.0.action", 77), FALSE, FALSE, "is not legal"),
    Case("game.steps[].action", "game", at_search("action", 77), FALSE, FALSE, "not among its candidates"),
    Case("game.steps[].joint[]", "game", put("game.steps.0.joint", [1, 2]), FALSE, FALSE, "joint action"),
    Case("game.steps[].source", "game", at_search("source", "human"), FALSE, FALSE, "are another's"),
    Case("game.steps[].source", "game", at_search("source", "random"), FALSE, FALSE, "nobody searched"),
    Case("game.steps[].source", "game", at_search("source", "Stock Fish"), FALSE, FALSE, "its source is no name"),
    Case("game.steps[].simulations", "game", at_search("simulations", 3), FALSE, FALSE, "made 3 simulations"),
    Case("game.steps[].full_search", "game", at_search("full_search", False), FALSE, FALSE, "cheap searches"),
    Case("game.steps[].root_value", "game", at_search("root_value", lambda one: -one), FALSE, FALSE, "not the mean"),
    Case("game.steps[].raw_value", "game", at_search("raw_value", 32767), FALSE, FALSE, "not the mean"),
    Case("game.steps[].raw_value", "puct game", _other_value, TRUE, TRUE, caught=WEIGHTS),
    Case("game.steps[].surprise", "game", at_search("surprise", 9.0), FALSE, FALSE, "its surprise is 9"),
    Case("game.steps[].surprise", "puct game", at_search("surprise", 9.0), FALSE, FALSE, "its surprise is 9"),
    Case("game.steps[].seat_values[]", "game", at_search("seat_values", [1.0, -1.0]), FALSE, FALSE, "of both seats"),
    Case("game.steps[].candidates[].action", "game", at_search("candidates.0.action", 77), FALSE, FALSE, "candidates"),
    Case("game.steps[].candidates[].visits", "game", _swap_visits, FALSE, FALSE),
    Case("game.steps[].candidates[].visits", "puct game", _swap_visits, FALSE, FALSE),
    Case("game.steps[].candidates[].visits", "game", _no_visits, FALSE, FALSE, "the visits sum to 0"),
    Case("game.steps[].candidates[].prior", "game", at_search("candidates.0.prior", 0), FALSE, FALSE, "the priors"),
    Case("game.steps[].candidates[].prior", "game", _reversed_priors, FALSE, FALSE, "its surprise is"),
    Case("game.steps[].candidates[].q", "game", at_search("candidates.0.q", lambda q: None if q else 9), FALSE, FALSE,
         "visits"),
    Case("game.steps[].candidates[].q", "game", _negated, FALSE, FALSE, "not the mean"),
]  # fmt: skip
