"""The chain of each writer (run, slot, epoch): from schema version 2 on rows name the digest of the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selfplay.store.release.verifier.neighbours import DRIVER
from selfplay.store.release.verifier.rows import LINK, Row

Writer = tuple[str, str, int]


class Chains:
    """What was sealed, writer by writer: number -> (content digest, link, whether the row has a link).

    unended: after `lies`, episodes of drivers that no closing speaks of: what is missing at their end does not show.
    """

    def __init__(self) -> None:
        self.writers: dict[Writer, dict[int, tuple[str, str | None, bool]]] = {}
        self.unended = 0

    def add(self, row: Row) -> None:
        writer = (row["run_id"], row["slot"], row["epoch"])
        told = (row["content_digest"], row.get(LINK), row["schema_version"] > 1)
        self.writers.setdefault(writer, {})[row["number"]] = told

    def lies(self, tables: dict[str, list[Row]], version: int) -> Iterator[tuple[str, str]]:
        """What is false in the chains of a whole table at a version, and of what is missing: (subject, reason).

        The table `closings` says how many episodes each writer had archived when its driver ended, and the digest of
        the last; `deletions` which episodes were taken out on purpose.
        """
        ends: dict[Writer, Row] = {}
        closings: dict[tuple[str, int], Row] = {}
        for row in tables["closings"]:
            writers = row["writers"] or []
            if not whole_row(row, ("epoch", "table_version", "episodes"), ("slot", "epoch", "episodes", "head")):
                yield f"closings of run {row['run_id']}", "a row of it lacks what it must say"
            elif row["table_version"] <= version:
                closings[row["run_id"], row["epoch"]] = row
                ends |= {(row["run_id"], one["slot"], one["epoch"]): one for one in writers}
                if sum(one["episodes"] for one in writers) != row["episodes"]:
                    subject = f"closings of run {row['run_id']}, epoch {row['epoch']}"
                    yield subject, "its writers do not have as many episodes together as it says"
        gone: dict[Writer, list[Row]] = {}
        unnamed: dict[str, int] = {}
        for row in tables["deletions"]:
            if not whole_row(row, ("table_version", "episodes"), ("slot", "epoch", "first", "last")):
                yield f"deletions of run {row['run_id']}", "a row of it lacks what it must say"
                continue
            numbers = [(one["first"], one["last"]) for one in row["writers"] or []]
            if any(not 0 <= a <= b for a, b in numbers) or sum(b - a + 1 for a, b in numbers) > row["episodes"]:
                yield f"deletions of run {row['run_id']}", "it names more episodes than it counts"
                continue
            if row["writers"] is None:
                unnamed[row["run_id"]] = unnamed.get(row["run_id"], 0) + row["episodes"]
            for one in row["writers"] or []:
                gone.setdefault((row["run_id"], one["slot"], one["epoch"]), []).append(one)
        for writer in sorted({*self.writers, *ends}, key=str):
            yield from self.lies_of(writer, ends.get(writer), gone.get(writer, []), unnamed)
        yield from self.closings_lie(closings, {(row["run_id"], row["epoch"]) for row in tables["runs"]}, set(unnamed))

    def closings_lie(
        self, closings: dict[tuple[str, int], Row], began: set[tuple[str, int]], unknown: set[str]
    ) -> Iterator[tuple[str, str]]:
        """What is false of the closings of drivers. began: those that the table `runs` has.

        A driver writes those that earlier ones have left out before it plays; a program without closings has no row in
        `runs`. "not counted": a file could not be read then. unknown: runs of which nobody knows what was taken out.
        """
        self.unended = 0
        newer = {writer for writer, rows in self.writers.items() if rows[min(rows)][2]}
        for run in sorted({run for run, _, _ in self.writers}, key=str):
            mine = [writer for writer in self.writers if writer[0] == run]
            of = {writer: writer[2] // DRIVER for writer in mine}
            linked = [of[writer] for writer in mine if writer in newer]
            went_on = [driver for driver in linked if (run, driver) in began]
            went_on += [driver for (name, driver), row in closings.items() if name == run and row["writers"]]
            for driver in sorted(set(of.values())):
                end = closings.get((run, driver))
                subject = f"closings of run {run}, epoch {driver}"
                if end is None and driver < max(went_on, default=-1) and run not in unknown:
                    yield subject, "it is missing, though a later driver of the run has gone on, which writes it first"
                if end is None or end["how"] == "not counted":
                    self.unended += sum(len(self.writers[writer]) for writer in mine if of[writer] == driver)
            for writer in sorted(mine):
                end = closings.get((run, of[writer]))
                subject = f"run {run}: slot {writer[1]}, epoch {writer[2]}"
                if writer not in newer and of[writer] >= min(linked, default=of[writer] + 1):
                    yield subject, "its episodes have schema version 1, and its run had gone on to a later one"
                elif writer not in newer and end and end["how"] in ("finished", "interrupted"):
                    yield subject, "its episodes have schema version 1, and its driver wrote its own closing"
                elif end and end["how"] != "not counted" and not any(
                    (one["slot"], one["epoch"]) == writer[1:] for one in end["writers"] or []
                ):
                    yield subject, "the closing of its driver does not name it"
        for (run, driver), end in closings.items():
            if end["how"] == "not counted" and end["writers"]:
                yield f"closings of run {run}, epoch {driver}", "it names writers, and says that they were not counted"

    def lies_of(self, writer: Writer, end: Row | None, gone: list[Row], unnamed: dict[str, int]) -> Iterator[Any]:
        rows = self.writers.get(writer, {})
        run_id, slot, epoch = writer
        subject = f"run {run_id}: slot {slot}, epoch {epoch}"
        linked = any(has_link for _, _, has_link in rows.values()) or not rows
        wanted = end["episodes"] if end else 0
        missing: list[int] = []
        following = 0  # the number that comes next
        before: str | None = None  # the digest of the episode before it, as far as it is known
        waiting = sorted(gone, key=lambda one: -one["first"])
        furthest: Row | None = None  # of those that begin before what comes next
        for number in [*sorted(rows), max([wanted, *(number + 1 for number in rows)])]:
            while following < number:
                while waiting and waiting[-1]["first"] <= following:
                    one = waiting.pop()
                    furthest = one if furthest is None or one["last"] > furthest["last"] else furthest
                if furthest is None or furthest["last"] < following:
                    break
                following, before = furthest["last"] + 1, furthest["head"] if furthest["last"] < number else None
            if following < number and (linked or number == wanted):
                missing += [following, number]
                before = None
            if number not in rows:
                break
            digest, link, has_link = rows[number]
            if has_link != linked:
                yield f"{subject}, number {number}", "it has another schema version than others of its writer"
            elif not has_link and link is not None:
                yield f"{subject}, number {number}", "it has a column that its schema version does not know"
            elif has_link and (link is None) != (number == 0):
                yield f"{subject}, number {number}", "only the first episode of a writer is linked to none"
            elif has_link and before is not None and link != before:
                yield f"{subject}, number {number}", "it is linked to another episode than the one before it"
            following, before = number + 1, digest
        count = sum(missing[1::2]) - sum(missing[::2])
        if count and unnamed.get(run_id, 0) >= count:
            unnamed[run_id] -= count
        elif count:
            yield subject, f"{count:,} of its episodes are missing, from number {missing[0]} on"
        if end and rows and max(rows) >= wanted:
            yield subject, f"it ended with {wanted:,} episodes, and {max(rows) + 1 - wanted:,} more are there"
        elif end and wanted - 1 in rows and rows[wanted - 1][0] != end["head"]:
            yield subject, "its last episode is another than the one that it ended with"


def whole_row(row: Row, needed: tuple[str, ...], needed_of_writers: tuple[str, ...]) -> bool:
    """Whether a row of these tables has all that is relied on."""
    return all(row[name] is not None for name in ("run_id", *needed)) and all(
        one is not None and all(one[name] is not None for name in needed_of_writers) for one in row["writers"] or []
    )
