"""Late labels: what is said of episodes after they were sealed, by whom, when, and by which tool.

Labels are added, never changed: who thinks otherwise later adds another, and the newest of an author counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selfplay.errors import UserError
from selfplay.store.table.snapshot import Snapshot, itself, open
from selfplay.store.table.table import Outdated, append, check_name


@dataclass(frozen=True)
class Label:
    """One thing said of an episode, or of one of its steps (`step`, from 0). value: anything that JSON can hold."""

    episode_id: str
    name: str
    value: Any
    step: int | None = None


def annotate(uri: str, labels: Iterable[Label], author: str, source: str) -> int:
    """Adds labels to a corpus, all or none. Returns how many: 0 where they repeat what `author` said last.

    source: the tool that found them, with its version. Raises `UserError` for an episode or step that is not there,
    and where `uri` leads to a corpus elsewhere.
    """
    corpus, given = open(itself(uri)), list(labels)
    if not author.strip() or not source.strip():
        raise UserError("a label needs an author and a source")
    _check(corpus, given)
    said = [(one.episode_id, one.step, one.name, json.dumps(one.value, sort_keys=True)) for one in given]
    while True:
        newest, known = _newest(corpus, author)
        if all(newest.get((episode_id, step, name)) == value for episode_id, step, name, value in said):
            return 0
        now = datetime.now(UTC)
        rows = [
            {
                "episode_id": episode_id,
                "step": step,
                "name": name,
                "value": value,
                "author": author,
                "source": source,
                "recorded_at": now,
            }
            for episode_id, step, name, value in said
        ]
        try:
            return append(corpus.uri, "annotations", rows, known)
        except Outdated:
            continue


def _newest(corpus: Snapshot, author: str) -> tuple[dict[tuple[str, int | None, str], str], int]:
    """What an author said last of each episode, step and name; and how many labels are from him."""
    table = corpus.table("annotations")
    rows = table.filter(pc.equal(table["author"], author)).sort_by("recorded_at").to_pylist()
    return {(row["episode_id"], row["step"], row["name"]): row["value"] for row in rows}, len(rows)


def _check(corpus: Snapshot, labels: list[Label]) -> None:
    for label in labels:
        check_name("label", label.name)
    wanted = pa.array(sorted({label.episode_id for label in labels}), pa.string())
    there = corpus.to_arrow(pc.field("episode_id").isin(wanted), ["episode_id", "n_steps"])
    steps = dict(zip(there["episode_id"].to_pylist(), there["n_steps"].to_pylist(), strict=True))
    for label in labels:
        if label.episode_id not in steps:
            raise UserError(f"episode {label.episode_id} is not in {corpus.uri}; nothing was added")
        if label.step is not None and not 0 <= label.step < steps[label.episode_id]:
            raise UserError(
                f"episode {label.episode_id} has steps 0 to {steps[label.episode_id] - 1}, not {label.step}; "
                "nothing was added"
            )


def read_labels(lines: Iterable[str], where: str) -> Iterator[Label]:
    """Labels from JSON, one object a line: episode_id, name, value and, where it is of a step, step.

    Raises `UserError` with the number of the first line that is none.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a label is an object")
            extra = set(row) - {"episode_id", "name", "value", "step"}
            if extra:
                raise ValueError(f"{', '.join(sorted(extra))} is no field of a label")
            step = row.get("step")
            if not isinstance(row["episode_id"], str) or not isinstance(row["name"], str):
                raise ValueError("episode_id and name must be text")
            if step is not None and not isinstance(step, int):
                raise ValueError("step must be a whole number")
            row["episode_id"].encode()  # lone surrogates are a ValueError
            yield Label(row["episode_id"], row["name"], row["value"], step)
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{where}, line {number}: {error}") from None
        except KeyError as error:
            raise UserError(f"{where}, line {number}: a label needs {error.args[0]}") from None


def labels_of(corpus: Snapshot, episode_id: str) -> list[dict[str, Any]]:
    """The rows of the table `annotations` about one episode, oldest first."""
    table = corpus.table("annotations")
    mine = table.filter(pc.equal(table["episode_id"], episode_id)).sort_by("recorded_at")
    return list(mine.to_pylist())
