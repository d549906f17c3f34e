"""How many of a release's episodes are different, counted by environment: repeated ones teach little more than one.

An opening is the first so many plies, chance and forced openings included. Sequences are compared by 64-bit hashes, so
that of a billion different ones about one pair is counted as the same in every other release.
"""

from __future__ import annotations

from typing import Any

from selfplay.store.corpus.query import query
from selfplay.store.table.snapshot import Snapshot

#: Lengths of the openings that are counted, plies.
PLIES = (4, 8, 16)

_MOVES = "list_transform(game.steps, lambda s: {'action': s.action, 'joint': s.joint})"
_SAID = "list_transform(list_filter(reasoning.turns, lambda t: t.role = 'assistant'), lambda t: t.text)"
_GAMES = f"""
    SELECT env_id, count(*) AS episodes, count(DISTINCT hash(moves)) AS different,
           {", ".join(f"count(DISTINCT hash(list_slice(moves, 1, {n}))) AS openings_{n}" for n in PLIES)}
    FROM (SELECT env_id, {_MOVES} AS moves FROM episodes WHERE kind = 'game') GROUP BY 1 ORDER BY 2 DESC, 1"""
_DIALOGUES = f"""
    SELECT env_id, count(*) AS episodes, count(DISTINCT hash(problem, said)) AS different,
           count(DISTINCT problem) AS prompts, count(DISTINCT hash(problem, answer)) AS answers
    FROM (SELECT env_id, reasoning.problem_digest AS problem, reasoning.answer AS answer, {_SAID} AS said
          FROM episodes WHERE kind = 'reasoning') GROUP BY 1 ORDER BY 2 DESC, 1"""
_CONTROL = """
    SELECT env_id, count(*) AS episodes, count(DISTINCT hash(control.actions, control.observations)) AS different
    FROM episodes WHERE kind = 'control' GROUP BY 1 ORDER BY 2 DESC, 1"""


def diversity(corpus: Snapshot) -> dict[str, list[dict[str, Any]]]:
    """By kind, a row for each environment: `episodes`, and how many are `different`.

    Games are different by their moves; dialogues by their problem and all that was answered; control by observations
    and actions. openings_N: different openings of N plies. prompts: different problems. answers: different pairs of
    a problem and the last answer to it.
    """
    return {kind: _rows(corpus, sql) for kind, sql in
            (("game", _GAMES), ("reasoning", _DIALOGUES), ("control", _CONTROL))}  # fmt: skip


def _rows(corpus: Snapshot, sql: str) -> list[dict[str, Any]]:
    names, rows = query(corpus, sql)
    return [dict(zip(names, row, strict=True)) for row in rows]
