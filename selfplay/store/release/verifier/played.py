"""Whether the row of a game agrees with itself, whatever its rules: steps, spans, end, and where it is from."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np

from selfplay.store.release.verifier.rows import CHANCE, SIMULTANEOUS, STATUS_OF, UNITS, Lie, Row
from selfplay.store.release.verifier.searches import SLACK, UNSEARCHED, is_name, search_lies, step_lies

#: Microseconds since 1970: the beginnings of 2020 and of 2100.
EARLIEST, LATEST = 1_577_836_800_000_000, 4_102_444_800_000_000
RELATIONS = ("fork", "reanalysis", "retry", "critique")
SHA256 = re.compile("[0-9a-f]{64}")


def played_lies(row: Row, settings: Row | None) -> None:
    """Raises `Lie` where a game contradicts itself, or the settings of its run (None: they are not known)."""
    origin_lies(row)
    ending_lies(row)
    spans_lie(row)
    opened = False
    for ply, step in enumerate(row["game"]["steps"]):
        step_lies(ply, step, row["seats"])
        if step["candidates"]:
            search_lies(ply, step, settings)
        if step["source"] == "opening" and opened:
            raise Lie(f"step {ply}: an opening move comes after a move that is none")
        opened = opened or step["source"] not in ("opening", "chance")
    teaching_lies(row, settings)


def origin_lies(row: Row) -> None:
    named = re.fullmatch(r"[a-z][a-z0-9_]*(?:/[a-z0-9][a-z0-9_]*)?-v(0|[1-9][0-9]{0,8})", row["env_id"])
    if named is None or named[1] != str(row["env_version"]):
        raise Lie(f"its environment is {row['env_id']}, and its version {row['env_version']}")
    for name in ("ruleset_digest", "config_digest"):
        if not SHA256.fullmatch(row[name] or "") and (row[name] is not None or name == "ruleset_digest"):
            raise Lie(f"its {name} is no sha256")
    for name in ("licence", "package_version", "host"):
        if row[name] is None:
            raise Lie(f"it has no {name}")
    if row["code_commit"] is not None and not re.fullmatch("[0-9a-f]{7,64}(-dirty)?", row["code_commit"]):
        raise Lie("its code_commit is no commit")
    if not is_name(row["origin"]):
        raise Lie("its origin is no name")
    if row["number"] < 0 or row["epoch"] < 0:
        raise Lie(f"it is number {row['number']} of epoch {row['epoch']}")
    if row["seed"] < 0 or row["wall_ms"] < 0:
        raise Lie(f"its seed is {row['seed']}, and it took {row['wall_ms']} milliseconds")
    if not EARLIEST <= row["started_at"] < LATEST:
        raise Lie("it began before 2020 or after 2099")
    for parent in row["parents"] or ():
        if parent["relation"] not in RELATIONS or parent["episode_id"].count("/") != 3:
            raise Lie(f"its parent {parent['episode_id']} is a {parent['relation']}")


def ending_lies(row: Row) -> None:
    """How it ended, as far as the row alone can tell."""
    game, status, returns, seats = row["game"], row["status"], row["returns"], row["seats"]
    ended_by, resigned, would = game["ended_by"], game["resigned_seat"], game["would_have_resigned_seat"]
    failed = status in ("timeout", "error", "invalid")
    if ended_by not in STATUS_OF or status != STATUS_OF[ended_by] and not (failed and ended_by == "aborted"):
        raise Lie(f"its status is {status}, and it ended by {ended_by}")
    if failed != (row["error"] is not None):
        raise Lie(f"its status is {status}, and {'no error' if failed else 'an error'} is told")
    if row["verdicts"] is not None:
        raise Lie("it has verdicts, and the rules of the game decide")
    if seats < 1 or not 0 < game["value_scale"] < math.inf:
        raise Lie("it has no seats, or its unit of values is no number above 0")
    if (resigned is not None) != (ended_by == "resignation"):
        raise Lie("its resigned seat contradicts how it ended")
    if ended_by in ("ply_limit", "aborted"):
        if returns is not None:
            raise Lie("it has returns without an outcome")
    elif returns is None or len(returns) != seats:
        raise Lie("it has no return for every seat")
    played_on = game["played_on_after_resignation"]
    if played_on is None or (played_on and resigned is not None):
        raise Lie("it does not say whether it was played on after a resignation, or says both")
    if would is not None and not (played_on and 0 <= would < seats):
        raise Lie(f"seat {would} would have resigned, and the game was not played on, or has no such seat")
    if resigned is None:
        return
    if not 0 <= resigned < seats or returns[resigned] != min(returns):
        raise Lie("the seat that resigned did not get the lowest return")
    last = game["steps"][-1] if game["steps"] else None
    if last and last["source"] == "search" and last["seat"] != resigned:
        raise Lie(f"seat {resigned} resigned, and the last move was that of seat {last['seat']}")
    won = [-game["value_scale"] if seat == resigned else game["value_scale"] for seat in range(seats)]
    if seats == 2 and returns != won:
        raise Lie(f"seat {resigned} resigned, and its returns are {returns}, not {won}")


def teaching_lies(row: Row, settings: Row | None) -> None:
    """What may be learned from, by whom it was made, and how long its run lets games be."""
    sources = Counter(step["source"] for step in row["game"]["steps"])
    origin, done, searches = row["origin"], row["status"] in ("ok", "truncated"), sources["search"]
    others = sum(count for name, count in sources.items() if name not in ("search", *UNSEARCHED))
    if row["trainable"] is None or (row["trainable"] and not done):
        raise Lie(f"it is marked trainable with status {row['status']}")
    if row["trainable"] and (not searches or origin == "evaluation"):
        raise Lie("it is marked trainable, and has no search that could be learned from, or is of an evaluation")
    if origin == "self_play" and searches and done and not row["trainable"]:
        raise Lie("it is a finished game of self-play, and not marked trainable")
    if origin == "self_play" and others:
        raise Lie("its origin is self-play, and some of its moves are another's")
    if origin == "random" and searches + sources["opening"] + others:
        raise Lie("its origin is random play, and some of its moves are not")
    if origin in ("human", "solver") and not others:
        raise Lie(f"its origin is {origin}, and nobody such made a move")
    if origin in ("cot_rl", "teacher"):
        raise Lie("it is a game, and its origin a kind of dialogues")
    if settings is None or origin != "self_play" or not searches:
        return
    resigned = row["game"]["played_on_after_resignation"] or row["game"]["resigned_seat"] is not None
    if resigned and settings["selfplay"].get("resign_threshold", 1) is None:
        raise Lie("it tells of a resignation, and nobody resigns in its run")
    resignation_lies(row, settings)
    limit, openings = settings["selfplay"].get("ply_limit"), settings["selfplay"].get("opening_plies")
    made, cut = searches + sources["opening"], row["game"]["ended_by"] == "ply_limit"
    if limit is not None and (made > limit or (cut and made < limit)):
        raise Lie(f"it ended after {made} moves, and its run cuts a game after {limit}")
    if openings is not None and sources["opening"] > openings:
        raise Lie(f"it has {sources['opening']} opening moves, and its run makes at most {openings}")


def resignation_lies(row: Row, settings: Row) -> None:
    """A seat resigns after so many searches in a row without hope: neither the root nor the preferred move is worth
    more than -threshold. In games that are played on, which the seed draws, the first that would have is named.
    """
    game = row["game"]
    threshold, moves, share = (settings["selfplay"].get(f"resign_{name}") for name in ("threshold", "moves", "playon"))
    if threshold is None or moves is None:
        return
    played_on, named = game["played_on_after_resignation"], game["resigned_seat"]
    if share is not None:
        drawn = np.random.Generator(np.random.PCG64(row["seed"])).random() < share
        if played_on != drawn:
            raise Lie("whether it is played on after a resignation is not what its seed draws")
    if played_on:
        named = game["would_have_resigned_seat"]
    steps = game["steps"][:-1] if game["ended_by"] == "terminal" else game["steps"]
    without: dict[int, list[int]] = {}  # seat -> of its latest searches in a row surely, and perhaps, without hope
    early: tuple[int, int] | None = None  # the first seat that surely had to, and its step
    may = False
    for ply, step in enumerate(steps):
        if step["source"] != "search":
            continue
        seat, worth = step["seat"], hope(step, settings["search"]["algorithm"])
        counts = without.setdefault(seat, [0, 0])
        for i, slack in enumerate((-SLACK, SLACK)):
            counts[i] = counts[i] + 1 if worth < slack - threshold * UNITS else 0
        rightly = seat == named and counts[1] >= moves
        may = (may or rightly) if played_on else rightly
        if counts[0] >= moves and early is None and not (may and (played_on or ply == len(steps) - 1)):
            early = (seat, ply)
    if early is not None:
        raise Lie(f"step {early[1]}: seat {early[0]} was without hope for {moves} moves in a row, and did not resign")
    if named is not None and not may:
        raise Lie(f"seat {named} was not without hope for {moves} moves in a row")


def hope(step: Row, algorithm: str) -> int:
    """What a search hopes for: the better of its root's value and its preferred move's."""
    visits = [one["visits"] for one in step["candidates"]]
    if not any(visits):
        return int(step["root_value"])
    gumbel = [one for one in step["candidates"] if one["action"] == step["action"]]
    preferred = gumbel[0] if algorithm == "gumbel" else step["candidates"][visits.index(max(visits))]
    return int(max(step["root_value"], preferred["q"]))


def spans_lie(row: Row) -> None:
    """Every decision of a seat lies in one span of that seat, and the span can have made it."""
    steps, spans = row["game"]["steps"], row["policy_spans"] or []
    versions: dict[str, list[tuple[int, int, str]]] = {}
    for span in spans:
        first, last, seat = span["first_step"], span["last_step"], span["seat"]
        if not span["policy_id"] or span["version"] is None:
            raise Lie("a policy span lacks its policy or its version")
        if not 0 <= first <= last < len(steps) or not 0 <= seat < row["seats"]:
            raise Lie(f"a policy span is of seat {seat}, steps {first} to {last}")
        if span["version"] < 0 or not (span["digest"] is None or SHA256.fullmatch(span["digest"])):
            raise Lie("a policy span has a version or digest that is none")
        if span["policy_id"] == "random" and (span["version"] or span["digest"] is not None):
            raise Lie("a policy span is of random moves, and names weights")
        whole = first == 0 and last == len(steps) - 1 and span["policy_id"] == "random"
        if not whole and any(steps[end]["seat"] not in (seat, SIMULTANEOUS) for end in (first, last)):
            raise Lie("a policy span begins or ends at a step of another seat")
        versions.setdefault(span["policy_id"], []).append((first, span["version"], span["digest"] or ""))
    for known in versions.values():
        known.sort()
        for (_, before, old), (_, after, new) in zip(known, known[1:], strict=False):
            if after < before or (after == before and old != new):
                raise Lie("a later policy span names an earlier version of its policy, or other weights of the same")
    by_seat: dict[int, list[Row]] = {}
    for span in spans:
        by_seat.setdefault(span["seat"], []).append(span)
    for ply, step in enumerate(steps):
        if step["seat"] == CHANCE:
            continue
        for seat in range(row["seats"]) if step["seat"] == SIMULTANEOUS else [step["seat"]]:
            made = [span for span in by_seat.get(seat, ()) if span["first_step"] <= ply <= span["last_step"]]
            if len(made) != 1:
                raise Lie(f"step {ply} lies in {'no policy span' if not made else 'two policy spans'} of its seat")
            policy, source = made[0]["policy_id"], step["source"]
            random = {"random": ("random",), "opening": ("random", "random-evenest")}.get(source)
            if random is not None and policy not in random or random is None and policy in ("random", "random-evenest"):
                raise Lie("a policy span is of random moves and its steps are not, or the other way round")
