"""Edits of what every episode has, whatever its kind."""

from __future__ import annotations

from typing import Any

from tests.tampering.cases import CHAIN, FALSE, FREELY, NOT_CHECKABLE, TRUE, Case, both, put


def _later(hours: float) -> Any:
    from datetime import timedelta

    return put("started_at", lambda time: time + timedelta(hours=hours))


def _renumbered(number: int) -> Any:
    def edit(row: dict[str, Any]) -> None:
        row["number"] = number
        row["episode_id"] = f"{row['run_id']}/{row['slot']}/{row['epoch']}/{number}"

    return edit


def _named(column: str, value: Any) -> Any:
    def edit(row: dict[str, Any]) -> None:
        row[column] = value
        row["episode_id"] = f"{row['run_id']}/{row['slot']}/{row['epoch']}/{row['number']}"

    return edit


CASES = [
    Case("previous_digest", "game", put("previous_digest", "0" * 64), TRUE, TRUE, caught=CHAIN),
    Case("episode_id", "game", put("episode_id", "gumbel/p0000/1000/77"), FALSE, FALSE, "its id, kind"),
    Case("kind", "game", put("kind", "control"), FALSE, FALSE, "its id, kind"),
    Case("run_id", "game", _named("run_id", "puct"), FALSE, TRUE, ""),
    Case("run_id", "game", _named("run_id", "elsewhere"), FALSE, TRUE, "missing"),
    Case("schema_version", "game", put("schema_version", 9), FALSE, FALSE, "its schema version is 9"),
    Case("schema_version", "game", put("schema_version", 0), FALSE, FALSE, "its schema version is 0"),
    Case("slot", "game", _named("slot", "p0001"), FALSE, TRUE, "missing"),
    Case("epoch", "game", _named("epoch", 1001), FALSE, TRUE, "missing"),
    Case("epoch", "game", _named("epoch", 2000), FALSE, TRUE, ""),
    Case("number", "game", _renumbered(500), FALSE, TRUE, "missing"),
    Case("number", "game", _renumbered(-1), FALSE, FALSE, ""),
    Case("status", "game", put("status", "error"), FALSE, FALSE, "its status is error"),
    Case("status", "cut game", put("status", "ok"), FALSE, FALSE, "its status is ok"),
    Case("status", "dialogue", put("status", "aborted"), FALSE, FALSE, "trainable"),
    Case("trainable", "game", put("trainable", False), FALSE, FALSE, "not marked trainable"),
    Case("trainable", "aborted game", put("trainable", True), FALSE, FALSE, "trainable"),
    Case("error.kind", "game", put("error", {"kind": "x", "message": "y"}), FALSE, FALSE, "an error is told"),
    Case("error.message", "game", put("error", {"kind": "x", "message": "y"}), FALSE, FALSE, "an error is told"),
    Case("origin", "game", put("origin", "human"), FALSE, FALSE, "nobody such made a move"),
    Case("origin", "game", put("origin", "random"), FALSE, FALSE, "its origin is random play"),
    Case("origin", "game", put("origin", "evaluation"), FALSE, FALSE, "of an evaluation"),
    Case("parents[].episode_id", "game", put("parents", [{"episode_id": "gumbel/p0000/1000/900", "relation": "fork"}]),
         FALSE, TRUE, "names the parent"),
    Case("parents[].episode_id", "game", put("parents", [{"episode_id": "other/p0000/1000/9", "relation": "fork"}]),
         TRUE, TRUE, caught=CHAIN),
    Case("parents[].relation", "game", put("parents", [{"episode_id": "gumbel/p0000/1000/0", "relation": "x"}]),
         FALSE, FALSE, "known are fork"),
    Case("licence", "game", put("licence", "proprietary"), TRUE, TRUE, caught=FREELY),
    Case("env_id", "game", put("env_id", "connect_four-v0"), FALSE, FALSE, ""),
    Case("env_id", "game", put("env_id", "unknown_game-v0"), FALSE, FALSE, "env_id"),
    Case("env_version", "game", put("env_version", 5), FALSE, FALSE, "and its version 5"),
    Case("ruleset_digest", "game", put("ruleset_digest", "0" * 64), FALSE, FALSE, "the table of environments has no"),
    Case("ruleset_digest", "walk", put("ruleset_digest", "0" * 64), FALSE, NOT_CHECKABLE, "the table of environments"),
    Case("seed", "game", put("seed", lambda seed: seed + 1), FALSE, TRUE, "its seed is none"),
    Case("seed", "dialogue", put("seed", lambda seed: seed + 1), FALSE, FALSE, "its seed is"),
    Case("seed", "game", put("seed", -7), FALSE, FALSE, "its seed is -7"),
    Case("code_commit", "game", put("code_commit", "the newest"), FALSE, FALSE, "no commit"),
    Case("code_commit", "game", put("code_commit", "d" * 40), FALSE, TRUE, "its code_commit is"),
    Case("config_digest", "game", put("config_digest", "d" * 64), FALSE, TRUE, "its config_digest is"),
    Case("package_version", "game", put("package_version", "9.9"), FALSE, TRUE, "its package_version is"),
    Case("host", "game", put("host", "elsewhere"), TRUE, TRUE, caught=FREELY),
    Case("started_at", "game", _later(-30), FALSE, TRUE, "before"),
    Case("started_at", "game", _later(-3), TRUE, TRUE, caught=CHAIN),
    Case("started_at", "dialogue", _later(30), FALSE, NOT_CHECKABLE, "later than"),
    Case("started_at", "game", _later(-24 * 365 * 20), FALSE, FALSE, "before 2020"),
    Case("started_at", "game", _later(0.05), TRUE, TRUE, caught=CHAIN),
    Case("wall_ms", "game", put("wall_ms", 10**8), FALSE, TRUE, "later than"),
    Case("wall_ms", "game", put("wall_ms", -5), FALSE, FALSE, "it took -5 milliseconds"),
    Case("seats", "game", put("seats", 3), FALSE, FALSE, ""),
    Case("seats", "dialogue", put("seats", 0), FALSE, FALSE, ""),
    Case("n_steps", "game", put("n_steps", 99), FALSE, FALSE, "number of steps"),
    Case("returns[]", "game", put("returns", lambda returns: [-one if one else 1.0 for one in returns]), FALSE, FALSE,
         "its returns are"),
    Case("returns[]", "dialogue", put("returns.0", lambda one: 1 - one), FALSE, FALSE, "has the return"),
    Case("returns[]", "walk", put("returns.0", 9.0), FALSE, FALSE, "its return is"),
    Case("policy_spans[].seat", "game", put("policy_spans.0.seat", 5), FALSE, FALSE, "of seat 5"),
    Case("policy_spans[].seat", "game", put("policy_spans.0.seat", lambda seat: 1 - seat), FALSE, FALSE, "policy span"),
    Case("policy_spans[].first_step", "game", put("policy_spans.0.first_step", -1), FALSE, FALSE, ""),
    Case("policy_spans[].first_step", "game", put("policy_spans.-1.first_step", lambda step: step + 1), FALSE, FALSE,
         "a policy span begins or ends at a step of another seat"),
    Case("policy_spans[].last_step", "game", put("policy_spans.0.last_step", 99), FALSE, FALSE, ""),
    Case("policy_spans[].policy_id", "game", put("policy_spans.-1.policy_id", "stockfish"), FALSE, TRUE,
         "the table of policies has no version"),
    Case("policy_spans[].policy_id", "game", put("policy_spans.-1.policy_id", "random"), FALSE, FALSE, "names weights"),
    Case("policy_spans[].policy_id", "opened game", put("policy_spans.0.policy_id", "book"), FALSE, FALSE,
         "random moves"),
    Case("policy_spans[].policy_id", "game", put("policy_spans", []), FALSE, FALSE, "in no policy span"),
    Case("policy_spans[].policy_id", "dialogue", put("policy_spans.0.policy_id", "teacher"), FALSE, NOT_CHECKABLE,
         "has none"),
    Case("policy_spans[].version", "game", put("policy_spans.-1.version", 99), FALSE, TRUE, "has no version 99"),
    Case("policy_spans[].version", "dialogue", both(put("policy_spans.0.version", 2),
         put("policy_spans.0.digest", "2" * 64)), FALSE, NOT_CHECKABLE, "sealed before"),
    Case("policy_spans[].digest", "game", put("policy_spans.-1.digest", "d" * 64), FALSE, FALSE, "two digests"),
    Case("policy_spans[].digest", "game", put("policy_spans.-1.digest", None), FALSE, FALSE, "two digests"),
]  # fmt: skip
