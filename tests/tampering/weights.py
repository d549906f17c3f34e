"""Edits that only the weights give away: everything else in the row still fits.

Each is of one episode; its content digest is made anew. `column` as in the schema, elements of lists as "[]".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

#: A unit of stored values and priors.
UNIT = 1 / 32767


@dataclass(frozen=True)
class WeightCase:
    """victim: "game", "puct game" or "dialogue". edit: changes a row, a plain dict, in place. words: of the reason."""

    column: str
    victim: str
    edit: Callable[[Row], None]
    words: str


def _searched(row: Row) -> Row:
    """The last search of a game that weighed several moves: whatever came before is as it was."""
    steps = [one for one in row["game"]["steps"] if one["source"] == "search" and len(one["candidates"]) > 2]
    step: Row = steps[-1]
    return step


def _root(step: Row) -> None:
    """The root value that follows from the others."""
    total = sum(one["visits"] * (one["q"] or 0) for one in step["candidates"])
    step["root_value"] = round((step["raw_value"] + total) / (1 + sum(one["visits"] for one in step["candidates"])))


def _raw_value(row: Row) -> None:
    step = _searched(row)
    step["raw_value"] += 4000 if step["raw_value"] < 0 else -4000
    _root(step)


def _priors(row: Row) -> None:
    step = _searched(row)
    order = [one["prior"] for one in step["candidates"]]
    for one, prior in zip(step["candidates"], order[1:] + order[:1], strict=True):
        one["prior"] = prior


def _visits(row: Row) -> None:
    """Visits and values of the most and the least visited move change places, in the last search that has both."""
    for step in row["game"]["steps"]:
        visited = sorted((one for one in step["candidates"] if one["visits"]), key=lambda one: one["visits"])
        if visited and visited[0]["visits"] < visited[-1]["visits"]:
            low, high = visited[0], visited[-1]
    for name in ("visits", "q"):
        low[name], high[name] = high[name], low[name]


def _values(row: Row) -> None:
    step = _searched(row)
    for one in step["candidates"]:
        one["q"] = None if one["q"] is None else -one["q"]
    _root(step)


def _version(row: Row) -> None:
    """The other version that there is, whole: number and digest."""
    spans = [one for one in row["policy_spans"] if one["digest"]]
    for one in spans:
        one["version"], one["digest"] = OTHER[one["digest"]]


def _digest(row: Row) -> None:
    for one in row["policy_spans"]:
        if one["digest"]:
            one["digest"] = OTHER[one["digest"]][1]


def _seed(row: Row) -> None:
    row["seed"] = row["seed"] ^ 1


def _logprobs(value: float) -> Callable[[Row], None]:
    def edit(row: Row) -> None:
        for turn in row["reasoning"]["turns"]:
            if turn["logprobs"]:
                turn["logprobs"] = [value] * len(turn["logprobs"])

    return edit


def _tokens(row: Row) -> None:
    turn = row["reasoning"]["turns"][-1]
    turn["token_ids"] = [turn["token_ids"][0] ^ 1, *turn["token_ids"][1:]]


def _strange_token(row: Row) -> None:
    row["reasoning"]["turns"][-1]["token_ids"][0] = 1_000_000


def _temperature(row: Row) -> None:
    row["reasoning"]["temperature"] = 0.5


#: digest -> (version, digest) of another one that is in the table of policies; filled by who makes the corpus.
OTHER: dict[str, tuple[int, str]] = {}

CASES = (
    WeightCase("game.steps[].raw_value", "game", _raw_value, "its raw value is"),
    WeightCase("game.steps[].candidates[].prior", "game", _priors, "a prior is"),
    WeightCase("game.steps[].candidates[].visits", "game", _visits, "made again with version"),
    WeightCase("game.steps[].candidates[].visits", "puct game", _visits, ""),
    WeightCase("game.steps[].candidates[].q", "game", _values, "made again with version"),
    WeightCase("policy_spans[].version", "game", _version, "its raw value is"),
    WeightCase("policy_spans[].digest", "puct game", _digest, "its raw value is"),
    WeightCase("seed", "game", _seed, ""),
    WeightCase("reasoning.turns[].logprobs[]", "dialogue", _logprobs(-0.001), "has the log-probability -0.0010"),
    WeightCase("reasoning.turns[].logprobs[]", "dialogue", _logprobs(-9.0), "has the log-probability -9.0000"),
    WeightCase("reasoning.turns[].token_ids[]", "dialogue", _tokens, "has the log-probability"),
    WeightCase("reasoning.turns[].token_ids[]", "dialogue", _strange_token, "none of its model's"),
    WeightCase("reasoning.temperature", "dialogue", _temperature, "has the log-probability"),
    WeightCase("policy_spans[].version", "dialogue", _version, "has the log-probability"),
)
