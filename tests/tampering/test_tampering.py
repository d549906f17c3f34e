"""Every column of every table, edited so that no digest gives it away: what is said of it is what is written down.

A column without a case fails. Cases are data: `rows`, `games`, `dialogues` and `tables`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import timedelta
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pytest

pytest.importorskip("torch")

from selfplay.episode.schema import EPISODES, SCHEMA_VERSION  # noqa: E402
from selfplay.store.coverage import GAPS, RUN, TIMES  # noqa: E402
from selfplay.store.release.verifier.dialogues import Tokenizers  # noqa: E402
from selfplay.store.release.verifier.games import Rules as Strangers  # noqa: E402
from selfplay.store.release.verifier.neighbours import Neighbours  # noqa: E402
from selfplay.store.release.verifier.program import Report  # noqa: E402
from selfplay.store.release.verifier.searches import settings_of  # noqa: E402
from selfplay.store.table.table import SIDE_TABLES  # noqa: E402
from selfplay.store.verify.described import Described  # noqa: E402
from selfplay.store.verify.episode import Rules  # noqa: E402
from selfplay.store.verify.neighbours import Deleted, Survey, survey  # noqa: E402
from selfplay.store.verify.verify import Check, verify_rows  # noqa: E402
from tests.tampering import dialogues, games, rows, tables  # noqa: E402
from tests.tampering.cases import FALSE, NOT_CHECKABLE, TRUE, Case, leaves  # noqa: E402
from tests.tampering.corpus import EPOCH, Honest, honest, sealed  # noqa: E402

#: Of episodes.
CASES = [*rows.CASES, *games.CASES, *dialogues.CASES]


@pytest.fixture(scope="module")
def corpus() -> Honest:
    return honest()


def together(
    batch: pa.RecordBatch | pa.Table, side: Mapping[str, list[dict[str, Any]]], deleted: Deleted | None = None
) -> Survey:
    """What the episodes, and the side tables, say of each other."""
    table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch

    def scan(columns: Mapping[str, pc.Expression], where: pc.Expression | None) -> Iterator[pa.RecordBatch]:
        yield from pads.dataset(table).to_batches(columns=dict(columns), filter=where)

    return survey(scan, Described(side["runs"], side["policies"], side["environments"]), deleted)


def rules_of(corpus: Honest) -> Rules:
    files = {row["digest"]: row["files"] for row in corpus.tables["tokenizers"]}
    return Rules(corpus.tables["environments"], corpus.tables["runs"], files)


def alone(row: dict[str, Any], rules: Strangers, corpus: Honest) -> str:
    """What the one-file verifier says of a row."""
    time = pa.scalar(row["started_at"], pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py()
    schema = EPISODES.set(EPISODES.get_field_index("started_at"), pa.field("started_at", pa.int64()))
    report = Report(Tokenizers({one["digest"]: one["files"] for one in corpus.tables["tokenizers"]}))
    report.row({**row, "started_at": time}, schema, rules, SCHEMA_VERSION)
    return FALSE if report.false else NOT_CHECKABLE if report.unknown else TRUE


def strangers(corpus: Honest) -> Strangers:
    names = ("env_id", "ruleset_digest", "game_string", "package")
    rulesets = [{name: row[name] for name in names} for row in corpus.tables["environments"]]
    found = Strangers({"packages": {"open_spiel": metadata.version("open_spiel")}, "rulesets": rulesets})
    found.searches = settings_of(corpus.tables["runs"])
    return found


def test_nothing_honest_is_false(corpus: Honest) -> None:
    found = together(corpus.batch, corpus.tables)
    assert not found.lies and not found.uncovered
    rules, others = rules_of(corpus), strangers(corpus)
    checks = list(verify_rows(corpus.batch, rules, SCHEMA_VERSION))
    assert {check.subject: check.reason for check in checks if check.state == FALSE} == {}
    assert {check.why for check in checks if check.state == NOT_CHECKABLE} == {"no verifier"}  # of walks
    assert {alone(row, others, corpus) for row in corpus.rows()} <= {TRUE, NOT_CHECKABLE}


def test_every_edit_is_called_what_is_written_down(corpus: Honest) -> None:
    whole = corpus.rows()
    edited = [deepcopy(whole[corpus.victims[case.victim]]) for case in CASES]
    for case, row in zip(CASES, edited, strict=True):
        case.edit(row)
    batch = sealed(edited)
    rules, others = rules_of(corpus), strangers(corpus)
    wrong = []
    for i, (case, row) in enumerate(zip(CASES, batch.to_pylist(), strict=True)):
        (check,) = verify_rows(batch.slice(i, 1), rules, SCHEMA_VERSION)
        if check.state != FALSE:
            place = corpus.victims[case.victim]
            parts = [corpus.batch.slice(0, place), batch.slice(i, 1), corpus.batch.slice(place + 1)]
            lies = together(pa.Table.from_batches(parts), corpus.tables).lies
            if lies:
                check = Check(check.subject, FALSE, "; ".join(lie.reason for lie in lies))
        said = (check.state, alone(row, others, corpus))
        if said != (case.package, case.one_file) or case.words not in check.reason:
            wrong.append((i, case.column, said, (case.package, case.one_file), check.reason))
    assert not wrong, "\n".join(map(str, wrong))


def test_edits_of_side_tables_are_called_what_is_written_down(corpus: Honest) -> None:
    wrong = []
    for case in tables.CASES:
        name, place = case.column.split(".")[0], int(case.victim)
        side = {key: [dict(row) for row in some] for key, some in corpus.tables.items()}
        case.edit(side[name][place])
        lies = together(corpus.batch, side).lies
        said, reason = FALSE if lies else TRUE, "; ".join(lie.reason for lie in lies)
        if said != case.package or case.words not in reason:
            wrong.append((case.column, said, case.package, reason))
    assert not wrong, "\n".join(map(str, wrong))


def test_every_column_of_every_table_has_a_case() -> None:
    needed = set(leaves(EPISODES)) - {"content_digest"}  # that is made anew with every edit
    needed |= {f"{name}.{path}" for name, table in SIDE_TABLES.items() for path in leaves(table.schema)}
    given = {case.column for case in (*CASES, *tables.CASES)} | set(tables.LEFT)
    assert sorted(needed - given) == []
    assert sorted(given - needed) == []


def test_what_is_taken_away_or_doubled_is_noticed(corpus: Honest) -> None:
    table = pa.Table.from_batches([corpus.batch])
    where = corpus.victims["game"]
    rest = pa.concat_tables([table.slice(0, where), table.slice(where + 1)])
    (lie,) = together(rest, corpus.tables).lies
    assert lie.subject == "run gumbel: slot p0000, epoch 1000" and "is missing, and later ones are there" in lie.reason
    mine = [i for i, one in enumerate(corpus.episodes) if one.provenance.run_id == "gumbel"]
    again = corpus.rows()[where] | {"number": len(mine), "episode_id": f"gumbel/p0000/1000/{len(mine)}"}
    lies = together(pa.concat_tables([table, pa.Table.from_batches([sealed([again])])]), corpus.tables).lies
    assert {lie.subject for lie in lies} >= {again["episode_id"]}
    assert any("again, under another name" in lie.reason for lie in lies)
    lost = [i for i, one in enumerate(corpus.episodes) if one.provenance.run_id == "words" and one.number in (3, 4)]
    kept = [i for i in range(len(corpus.episodes)) if i not in lost]
    lies = together(table.take(kept), corpus.tables).lies
    assert any("are missing" in lie.reason for lie in lies)


def test_what_was_taken_out_with_an_entry_is_not_missing(corpus: Honest) -> None:
    table = pa.Table.from_batches([corpus.batch])
    numbers = [1, 2, 5]
    mine = {i for i, one in enumerate(corpus.episodes) if one.provenance.run_id == "gumbel" and one.number in numbers}
    rest = table.take([i for i in range(len(corpus.episodes)) if i not in mine])
    writer = f"gumbel/p0000/{EPOCH}"
    assert not together(rest, corpus.tables, Deleted({writer: [(5, 5), (0, 2)]})).lies
    assert len(together(rest, corpus.tables, Deleted({writer: [(1, 1), (5, 5)]})).lies) == 1
    found = together(rest, corpus.tables, Deleted(runs=frozenset({"gumbel"})))
    assert not found.lies and GAPS in found.uncovered["gumbel"]


def test_no_game_is_longer_than_one_that_was_cut(corpus: Honest) -> None:
    """Whatever the limit was: where a configuration leaves it to the environment, the corpus does not say it."""
    rows = corpus.rows()
    row = rows[corpus.victims["game"]]
    row.update(status="truncated", n_steps=5)
    row["game"].update(ended_by="ply_limit")
    plain = Neighbours()
    for one in rows:
        plain.add(one | {"started_at": 0})
    for found in (
        [(lie.subject, lie.reason) for lie in together(sealed(rows), corpus.tables).lies],
        list(plain.lies(corpus.tables, {})),
    ):
        assert [subject for subject, reason in found if "it was cut after 5 moves" in reason] == [row["episode_id"]]


def test_a_clock_that_is_set_is_told_and_not_false(corpus: Honest) -> None:
    def moved(hours: float) -> tuple[Survey, Neighbours, list[tuple[str, str]]]:
        """By the clock of that time the second half of each writer's episodes was so much earlier."""
        rows = corpus.rows()
        for row in rows:
            row["started_at"] -= timedelta(hours=hours) if row["number"] % 20 > 9 else timedelta(0)
        batch, plain = sealed(rows), Neighbours()
        column = batch.column("started_at").cast(pa.int64())
        for row in batch.set_column(batch.schema.get_field_index("started_at"), "started_at", column).to_pylist():
            plain.add(row)
        return together(batch, corpus.tables), plain, list(plain.lies(corpus.tables, {}))

    found, plain, lies = moved(1)
    assert not found.lies and not lies
    assert TIMES in found.uncovered["gumbel"] and "gumbel" in plain.set
    found, plain, lies = moved(30)
    assert len(found.lies) > 3 and len(lies) > 3
    found, plain, lies = moved(0)
    assert not found.uncovered and not plain.set and not lies


def test_what_is_not_described_is_said(corpus: Honest) -> None:
    found = together(corpus.batch, {name: [] for name in corpus.tables})
    assert not found.lies and all(RUN in uncovered for uncovered in found.uncovered.values()) and found.uncovered


def test_a_case_says_what_catches_it() -> None:
    with pytest.raises(ValueError, match="says what catches it"):
        Case("seed", "game", print, TRUE, TRUE)
