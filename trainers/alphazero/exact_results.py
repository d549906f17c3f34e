"""Comparisons with exact play, kept as rows of the run's state: the newest figures and the first, by set and by kind.

A row is of one version, one set of positions and one way to choose moves; its label is "SET, PLAYER", such as
"quiet, 12 plies, 64 simulations". Rows of older versions know neither what simple players do nor, before there were
quiet positions, any but random ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfplay.actors.examiner import Marks
from selfplay.evaluation.baselines import RANDOM
from selfplay.evaluation.exact import kind_of
from selfplay.evaluation.match import wilson
from trainers.alphazero.status import BaselineRow, ExactRow, MistakesRow

Row = Mapping[str, Any]


def added(rows: Sequence[Row], marks: Marks) -> list[dict[str, Any]]:
    """The rows, oldest first, and those of an exam.

    What simple players do is kept with the newest rows alone: it depends on the positions, not on the version.
    """
    sets = {one.label: one for one in marks.sets}
    fresh = []
    for label, share, count in marks.mistakes:
        row: dict[str, Any] = {
            "version": marks.exam.version,
            "label": label,
            "mistakes": share,
            "positions": count,
            "asked": marks.exam.positions,
        }
        if (one := sets.get(_parts(label)[0])) is not None:
            row["misplayable"] = one.misplayable
            row["baselines"] = {other.player: other.wrong for other in one.baselines}
        fresh.append(row)
    older = [{name: value for name, value in row.items() if not fresh or name != "baselines"} for row in rows]
    return older + fresh


def of_one_version(rows: Sequence[Row], first: bool = False) -> list[Row]:
    """Those of the newest version that was compared with exact play, or of the first; of a label the last one."""
    if not rows:
        return []
    version = rows[0 if first else -1]["version"]
    found = list(itertools.takewhile(lambda row: row["version"] == version, rows if first else reversed(rows)))
    in_order = found if first else found[::-1]
    return list({row["label"]: row for row in in_order}.values())  # the longest came last


def by_set(rows: Iterable[Row]) -> tuple[ExactRow, ...]:
    """A figure a row."""
    found = []
    for row in rows:
        ends = wilson(_wrong(row), row["positions"])
        found.append(ExactRow(row["label"], row["version"], row["mistakes"], row["positions"], *ends))
    return tuple(found)


def by_kind(rows: Iterable[Row]) -> tuple[MistakesRow, ...]:
    """The rows of one version, for each way to choose moves, with the sets of each kind of positions taken together."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        label, player = _parts(row["label"])
        if row["positions"]:
            groups.setdefault((player, kind_of(label)), []).append(row)
    found = []
    for (player, kind), some in groups.items():
        counts = [row["positions"] for row in some]
        share, low, high = _mean([_wrong(row) for row in some], counts)
        known = all("misplayable" in row for row in some)
        safe = _mean([row["positions"] - row["misplayable"] for row in some], counts)[0] if known else None
        shares = tuple((_parts(row["label"])[0].rpartition(", ")[2], row["mistakes"]) for row in some)
        found.append(MistakesRow(kind, player, some[0]["version"], share, sum(counts), low, high, shares, safe))
    return tuple(found)


def baselines(rows: Iterable[Row]) -> tuple[BaselineRow, ...]:
    """Simple players on the positions of the rows, those of each kind together; none where that is not known."""
    kinds: dict[str, dict[str, Row]] = {}
    for row in rows:
        label = _parts(row["label"])[0]
        if row.get("baselines") and row["positions"]:
            kinds.setdefault(kind_of(label), {})[label] = row
    found = []
    for kind, sets in kinds.items():
        counts = [row["positions"] for row in sets.values()]
        for player in next(iter(sets.values()))["baselines"]:
            share, low, high = _mean([row["baselines"].get(player, 0.0) for row in sets.values()], counts)
            ends = (share, share) if player == RANDOM else (low, high)  # of random moves it is known, not sampled
            found.append(BaselineRow(kind, player, share, sum(counts), *ends))
    return tuple(found)


def _mean(wrong: Sequence[float], counts: Sequence[int]) -> tuple[float, float, float]:
    """The mean of the shares wrong / counts, each of which counts the same, and its 95% interval (Wilson).

    Its variance is that of a share of so many positions as the interval is of; all of them, where sets are equal.
    """
    sets = len(counts)
    share = sum(one / count for one, count in zip(wrong, counts, strict=True)) / sets
    effective = sets * sets / sum(1 / count for count in counts)
    return share, *wilson(share * effective, effective)


def _wrong(row: Row) -> float:
    return float(row["mistakes"] * row["positions"])


def _parts(label: str) -> tuple[str, str]:
    """Label of a row -> label of its set, how moves were chosen ("" where that is not said)."""
    of_set, comma, player = label.rpartition(", ")
    return (of_set, player) if comma else (label, "")
