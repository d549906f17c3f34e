"""Each writer's episodes are a chain: what is removed, reordered or put in between shows; honest corpora are true."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyspiel
import pytest
from deltalake.transaction import AddAction, RemoveAction
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.environments import registry
from selfplay.environments.playthrough import ruleset_digest
from selfplay.episode import Episode, Provenance, content_digests, from_batch, random_episode, to_batch
from selfplay.episode.schema import EPISODES, PARTITION_BY
from selfplay.errors import UserError
from selfplay.store.coverage import END
from selfplay.store.release.redacted import release_redacted
from selfplay.store.release.verifier.chain import Chains
from selfplay.store.table import chain, closings, deletions, maintenance
from selfplay.store.table.closings import Ledger
from selfplay.store.table.repair import carry_out, plan
from selfplay.store.table.table import open_table
from selfplay.store.table.write import write_file
from selfplay.store.verify.verify import verify_corpus

GAME = pyspiel.load_game("tic_tac_toe")
SPEC = registry.find("tic_tac_toe")
RULES = ruleset_digest(SPEC)


class Run:
    """One incarnation of a driver, with a writer for each slot."""

    def __init__(self, uri: str, run_id: str = "run", epoch: int = 1, slots: tuple[str, ...] = ("a", "b")) -> None:
        self.uri, self.run_id, self.epoch = uri, run_id, epoch
        self.committer, self.ledger = store.Committer(uri, run_id, epoch), Ledger()
        store.append(uri, "runs", [{"run_id": run_id, "epoch": epoch}])
        closings.close_earlier(uri, run_id, epoch)
        self.writers = {slot: store.Writer(uri, slot, self.committer.register(slot).epoch) for slot in slots}
        self.numbers = dict.fromkeys(slots, 0)
        self.provenance = Provenance(run_id, SPEC.id, 0, RULES, "b" * 64, "0.1.0", "here", "CC0-1.0", None, "random")

    def play(self, slot: str, count: int) -> None:
        """A block of some games."""
        writer, first = self.writers[slot], self.numbers[slot]
        games = [
            random_episode(GAME, n, self.provenance, slot=slot, epoch=writer.epoch, number=n)
            for n in range(first, first + count)
        ]
        self.numbers[slot] += count
        block, _ = writer.write(games)
        (receipt,) = self.committer.commit([block])
        self.ledger.archived(block, receipt)

    def close(self) -> None:
        store.append(self.uri, "closings", [self.ledger.closing(self.run_id, self.epoch, "finished", 0)])


@dataclasses.dataclass
class Ended:
    """The corpus of a run that has ended."""

    uri: str


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slot a with three blocks and slot b with one."""
    place = tmp_path_factory.mktemp("once") / "corpus"
    run = Run(str(place))
    for slot, count in (("a", 3), ("b", 4), ("a", 2), ("a", 3)):
        run.play(slot, count)
    run.close()
    return place


@pytest.fixture
def ended(once: Path, tmp_path: Path) -> Ended:
    """A copy of it."""
    return Ended(str(shutil.copytree(once, tmp_path / "corpus")))


def replace_rows(uri: str, change: Callable[[pa.Table], pa.Table | None], run_id: str = "run") -> None:
    """Writes the rows of a run anew as a forger would who knows the format: properly committed."""
    table = open_table(f"{uri}/episodes")
    order = [("slot", "ascending"), ("number", "ascending")]
    rows = store.open(uri).to_arrow(pc.field("run_id") == run_id).sort_by(order)
    left = change(rows)
    gone = [RemoveAction(f["path"], True, 0, f["size_bytes"], {"kind": f["partition.kind"], "run_id": run_id})
            for f in store.open(uri).files() if f["partition.run_id"] == run_id]  # fmt: skip
    adds = []
    if left is not None and left.num_rows:
        (batch,) = left.combine_chunks().to_batches()
        file = write_file(uri, batch)
        adds = [AddAction(file.path, file.size, {"kind": "game", "run_id": run_id}, 0, True, file.stats)]
    table.create_write_transaction([*gone, *adds], "append", table.schema(), PARTITION_BY)


def resealed(rows: pa.Table, column: str, values: list[Any]) -> pa.Table:
    """With a column changed and the digests made anew, row by row."""

    def put(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
        field = EPISODES.field(name)
        return rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))

    rows = put(rows, column, values)
    digests = content_digests({name: rows.column(name).combine_chunks() for name in EPISODES.names})
    return put(rows, "content_digest", digests)


def lies(uri: str) -> list[str]:
    """What is false of chains; nothing else is, where chains are whole.

    The forgers above leave the counters of the log: those are another check. The one file that a release carries must
    find as many faults of chains.
    """
    corpus = store.open(uri)
    found = {check.subject: f"{check.subject}: {check.reason}" for check in chain.account(corpus).lies}
    if not found:
        assert {check.subject for check in verify_corpus(corpus) if check.state == "false"} <= {"run run"}
    plain = Chains()
    for row in corpus.to_arrow().to_pylist():
        plain.add(row)
    tables = {name: corpus.table(name).to_pylist() for name in ("closings", "deletions", "runs")}
    assert len(list(plain.lies(tables, corpus.version))) == len(found)
    return sorted(found.values())


def without(*numbers: int, slot: str = "a") -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        gone = pc.and_(pc.equal(rows["slot"], slot), pc.is_in(rows["number"], pa.array(numbers, pa.int64())))
        return rows.filter(pc.invert(gone))

    return change


def test_an_honest_run_is_true_also_compacted_and_vacuumed(ended: Ended) -> None:
    assert lies(ended.uri) == []
    maintenance.compact(ended.uri)
    maintenance.vacuum(ended.uri, 0.0, dry_run=False)
    assert lies(ended.uri) == []
    assert {check.state for check in verify_corpus(store.open(ended.uri), sample=5)} == {"true"}
    rows = store.open(ended.uri).to_arrow(columns=["slot", "number", "content_digest", "previous_digest"]).to_pylist()
    digests = {(row["slot"], row["number"]): row["content_digest"] for row in rows}
    assert all(row["previous_digest"] == digests.get((row["slot"], row["number"] - 1)) for row in rows)


def test_what_is_removed_shows(ended: Ended) -> None:
    maintenance.compact(ended.uri)
    before = store.open(ended.uri).version
    for change, said in (
        (without(4), "episode 4 is missing, and the table of deletions does not say why"),
        (without(0, 1), "episodes 0 to 1 are missing, and the table of deletions does not say why"),
        (without(6, 7), "it ended with 8 episodes, and 6 are there"),
        (without(*range(8)), "it ended with 8 episodes, and 0 are there"),
    ):
        replace_rows(ended.uri, change)
        assert lies(ended.uri) == [f"run run: slot a, epoch 1000: {said}"]
        told = [check.reason for check in verify_corpus(store.open(ended.uri)) if "slot a" in check.subject]
        assert len(told) == 1 and told[0].split(",")[0] == said.split(",")[0], "once"
        open_table(f"{ended.uri}/episodes").restore(before)


def test_what_is_edited_reordered_or_inserted_shows(ended: Ended) -> None:
    def edited(rows: pa.Table) -> pa.Table:
        values = rows["wall_ms"].to_pylist()
        values[4] += 1
        return resealed(rows, "wall_ms", values)

    def swapped(rows: pa.Table) -> pa.Table:
        seeds = from_batch(rows.slice(0, 8))
        seeds[2], seeds[5] = (
            dataclasses.replace(seeds[5], number=2, previous_digest=seeds[2].previous_digest),
            dataclasses.replace(seeds[2], number=5, previous_digest=seeds[5].previous_digest),
        )
        return pa.concat_tables([pa.Table.from_batches([to_batch(seeds)]), rows.slice(8)])

    def inserted(rows: pa.Table) -> pa.Table:
        more = dataclasses.replace(from_batch(rows.slice(0, 1))[0], number=8)
        head = rows["content_digest"][7].as_py()
        return pa.concat_tables([rows, pa.Table.from_batches([to_batch([more], head)])])

    before = store.open(ended.uri).version
    for change, said in (
        (edited, ["run/a/1000/5: it is linked to another episode"]),
        (swapped, ["run/a/1000/3: it is linked to another episode", "run/a/1000/6: it is linked to another episode"]),
        (inserted, ["run run: slot a, epoch 1000: it ended with 8 episodes, and 1 more are there"]),
    ):
        replace_rows(ended.uri, change)
        found = lies(ended.uri)
        assert len(found) == len(said), found
        assert all(one.startswith(start) for one, start in zip(found, said, strict=True)), found
        open_table(f"{ended.uri}/episodes").restore(before)
    assert lies(ended.uri) == []


def test_a_chain_made_anew_is_told_by_its_closing(ended: Ended) -> None:
    def forged(rows: pa.Table) -> pa.Table:
        games = [dataclasses.replace(one, previous_digest=None) for one in from_batch(rows.slice(0, 8))]
        games[3] = dataclasses.replace(games[3], wall_ms=games[3].wall_ms + 1)
        return pa.concat_tables([pa.Table.from_batches([to_batch(games)]), rows.slice(8)])

    replace_rows(ended.uri, forged)
    said = "its last episode is another than the one that it ended with"
    assert lies(ended.uri) == [f"run run: slot a, epoch 1000: {said}"]


def test_links_that_are_left_out_show(ended: Ended) -> None:
    replace_rows(ended.uri, lambda rows: resealed(rows, "previous_digest", [None] * rows.num_rows))
    assert sum("it is linked to no episode" in one for one in lies(ended.uri)) == 10


def test_a_driver_that_was_killed_is_closed_by_the_next(tmp_path: Path) -> None:
    uri = str(tmp_path)
    first = Run(uri)
    first.play("a", 3)
    first.play("b", 2)
    second = Run(uri, epoch=2)  # the first was killed
    second.play("a", 2)
    assert lies(uri) == []
    (row,) = store.open(uri).table("closings").to_pylist()
    assert (row["how"], row["epoch"], row["episodes"]) == ("taken over", 1, 5)
    first.ledger.table_version = row["table_version"]
    mine = first.ledger.closing("run", 1, "taken over", None)
    assert [{**one} for one in row["writers"]] == mine["writers"], "rows and receipts tell the same"
    second.close()
    replace_rows(uri, without(0, 1, slot="b"))
    assert lies(uri) == ["run run: slot b, epoch 1000: it ended with 2 episodes, and 0 are there"]


def test_a_closing_that_is_removed_shows_but_for_the_last(tmp_path: Path) -> None:
    uri = str(tmp_path / "corpus")
    for epoch in (1, 2, 3):  # the second was killed
        run = Run(uri, epoch=epoch)
        run.play("a", epoch)
        if epoch != 2:
            run.close()
    assert lies(uri) == []
    rows = store.open(uri).table("closings").to_pylist()

    def left(*epochs: int) -> tuple[list[str], int]:
        """What is false, and how many episodes are told to have no known end, where only these closings are there."""
        shutil.rmtree(Path(uri, "closings"))
        store.append(uri, "closings", [row for row in rows if row["epoch"] in epochs])
        told = [check for check in verify_corpus(store.open(uri)) if END in check.uncovered]
        return lies(uri), len(told)

    missing = "closings of run run, epoch {}: it is missing, though a later driver of the run has gone on, which writes"
    assert left(1, 2) == ([], 3), "the last driver: it may be at work"
    for epochs, false in (((2, 3), [1]), ((1, 3), [2]), ((3,), [1, 2]), ((), [1, 2])):
        found, _ = left(*epochs)
        assert [one.startswith(missing.format(driver)) for one, driver in zip(found, false, strict=True)], found
    shutil.rmtree(Path(uri, "runs"))
    assert left() == ([], 6), "another program may write without closings"


def test_where_a_file_cannot_be_read_the_closing_says_that_nobody_counted(tmp_path: Path) -> None:
    first = Run(str(tmp_path))
    first.play("a", 3)
    first.play("b", 2)
    victim = next(Path(first.uri, "episodes").rglob("*.parquet"))
    whole = victim.read_bytes()
    victim.write_bytes(b"PAR1")
    second = Run(first.uri, epoch=2)
    victim.write_bytes(whole)  # a disk that failed, and does not any more
    second.play("a", 2)
    second.close()
    assert lies(first.uri) == []
    told = store.open(first.uri).table("closings").sort_by("epoch")
    assert told["how"].to_pylist() == ["not counted", "finished"] and told["episodes"].to_pylist() == [0, 2]
    uncovered = [check.subject for check in verify_corpus(store.open(first.uri)) if END in check.uncovered]
    assert len(uncovered) == 5, "of the first driver"


def test_a_run_does_not_go_back_to_an_older_schema(tmp_path: Path) -> None:
    uri = str(tmp_path)
    first = Run(uri)
    first.play("a", 3)
    second = Run(uri, epoch=2)
    second.play("b", 2)
    second.close()

    def older(*epochs: int) -> Callable[[pa.Table], pa.Table]:
        def change(rows: pa.Table) -> pa.Table:
            games = from_batch(rows.combine_chunks().to_batches()[0])
            old = [one for one in games if one.epoch in epochs]
            made = [dataclasses.replace(one, schema_version=1, previous_digest=None) for one in old]
            kept = rows.filter(pc.invert(pc.is_in(rows["epoch"], pa.array(epochs, pa.int64()))))
            return pa.concat_tables([kept, pa.Table.from_batches([to_batch(made)])])

        return change

    before = store.open(uri).version
    replace_rows(uri, older(1000))
    heads = {check.reason for check in chain.account(store.open(uri)).lies}
    assert heads == {"its last episode is another than the one that it ended with"}, "a run begun by old code goes on"
    open_table(f"{uri}/episodes").restore(before)
    replace_rows(uri, older(2000))
    shutil.rmtree(tmp_path / "closings")
    shutil.rmtree(tmp_path / "runs")
    assert lies(uri) == [
        "run run: slot b, epoch 2000: its episodes have schema version 1, and its run had gone on to a later one"
    ]
    store.append(uri, "closings", [second.ledger.closing("run", 2, "interrupted", 0)])
    open_table(f"{uri}/episodes").restore(before)
    replace_rows(uri, older(1000, 2000))
    assert any("and its driver wrote its own closing" in one for one in map(str, chain.account(store.open(uri)).lies))


@pytest.mark.slow
def test_what_is_counted_while_files_move_is_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(str(tmp_path))
    run.play("a", 3)
    run.play("a", 2)
    store.Committer(run.uri, "run", 2)
    stale = store.open(run.uri)
    maintenance.compact(run.uri)
    maintenance.vacuum(run.uri, 0.0, dry_run=False)
    with pytest.raises(deletions.Moved):
        deletions.enter(stale, "run", {file["path"] for file in stale.files()}, "a test", "delete-run")
    monkeypatch.setattr(closings, "open", lambda uri: stale)
    assert closings.close_earlier(run.uri, "run", 2) == 1
    (row,) = store.open(run.uri).table("closings").to_pylist()
    assert row["episodes"] == 5 and row["writers"][0]["head"] == run.writers["a"].head


def test_a_deleted_run_is_explained_and_may_go_on(ended: Ended) -> None:
    done = maintenance.delete_run(ended.uri, "run", "wrong rules")
    assert done.episodes == 12 and store.open(ended.uri).count() == 0 and lies(ended.uri) == []
    (entry,) = store.open(ended.uri).table("deletions").to_pylist()
    assert (entry["reason"], entry["command"], entry["episodes"]) == ("wrong rules", "delete-run", 12)
    assert [(one["slot"], one["first"], one["last"]) for one in entry["writers"]] == [("a", 0, 7), ("b", 0, 3)]
    told = CliRunner().invoke(app, ["verify", ended.uri])
    assert "12 episodes of run run are entered as taken out by delete-run: wrong rules" in told.output


@pytest.mark.parametrize("first, last", [(-1, 3), (3, 2), (-(2**63), 2**63 - 1), (4, 5)])
def test_an_entry_excuses_no_more_than_it_counts(ended: Ended, first: int, last: int) -> None:
    replace_rows(ended.uri, without(4))
    writer = {"slot": "a", "epoch": 1000, "first": first, "last": last, "head": None}
    row = {"run_id": "run", "table_version": 1, "episodes": 1, "writers": [writer], "reason": "x", "command": "x"}
    store.append(ended.uri, "deletions", [row])
    assert any("it names more episodes than it counts" in lie for lie in lies(ended.uri))


def test_a_run_that_plays_on_while_it_is_deleted(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.play("a", 3)
    maintenance.delete_run(run.uri, "run", "wrong rules")
    run.play("a", 2)
    run.play("b", 2)
    run.close()
    assert lies(run.uri) == [] and store.open(run.uri).count() == 4
    replace_rows(run.uri, without(3))
    said = "episode 3 is missing, and the table of deletions does not say why"
    assert lies(run.uri) == [f"run run: slot a, epoch 1000: {said}"]


def test_an_entry_without_its_removal_says_nothing(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(maintenance, "_commit", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            maintenance.delete_run(ended.uri, "run", "cut off")
    assert store.open(ended.uri).table("deletions").num_rows == 1
    assert lies(ended.uri) == [] and store.open(ended.uri).count() == 12


@pytest.mark.slow
def test_a_damaged_file_that_a_repair_takes_out_is_entered(ended: Ended) -> None:
    corpus = store.open(ended.uri)
    (victim,) = [file["path"] for file in corpus.files() if (file["min.slot"], file["min.number"]) == ("a", 3)]
    Path(ended.uri, "episodes", victim).write_bytes(b"PAR1")
    carry_out([plan(ended.uri)])
    assert store.open(ended.uri).count() == 10 and lies(ended.uri) == []
    (entry,) = store.open(ended.uri).table("deletions").to_pylist()
    assert (entry["command"], entry["episodes"]) == ("repair", 2) and victim in entry["reason"]
    assert entry["writers"] == [{"slot": "a", "epoch": 1000, "first": 3, "last": 4, "head": None}]


def test_a_block_beyond_the_end_of_its_writer_is_not_committed_again(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.play("a", 2)
    late, _ = run.writers["a"].write([random_episode(GAME, 2, run.provenance, slot="a", epoch=1000, number=2)])
    Run(run.uri, epoch=2, slots=()).close()  # the first was killed between writing and committing
    closed = store.open(run.uri).table("closings").sort_by("epoch")
    assert closed["episodes"].to_pylist() == [2, 0] and closed["how"].to_pylist() == ["taken over", "finished"]
    entry = Path(run.uri, "episodes/_delta_log/00000000000000000001.json")
    entry.write_bytes(entry.read_bytes()[:40])  # damage: then any block may be one that was acknowledged
    carry_out([plan(run.uri)])
    assert store.open(run.uri).count() == 2 and lies(run.uri) == []
    assert late.path not in {file["path"] for file in store.open(run.uri).files()}


@pytest.mark.slow
def test_a_redacted_copy_is_linked_like_its_original(ended: Ended, tmp_path: Path) -> None:
    more = Run(ended.uri, "another")
    more.play("a", 3)
    maintenance.delete_run(ended.uri, "another", "wrong rules, says /home/somebody/rules.txt")
    for slot in ("a", "b", "a"):
        more.play(slot, 3)
    more.close()
    there = str(tmp_path / "copy")
    release_redacted(store.open(ended.uri), "first", there)
    assert lies(there) == []
    closing = store.open(there).table("closings").filter(pc.field("run_id") == "another").to_pylist()[0]
    (entry,) = store.open(there).table("deletions").to_pylist()
    assert (entry["reason"], entry["table_version"]) == ("wrong rules, says [path]", 0)
    heads = {slot: writer.head for slot, writer in more.writers.items()}
    assert closing["table_version"] == 0 and all(one["head"] != heads[one["slot"]] for one in closing["writers"])
    replace_rows(ended.uri, without(8), "another")
    with pytest.raises(UserError, match="nothing was released"):
        release_redacted(store.open(ended.uri), "first", str(tmp_path / "holes"))


#: Edits of the table of closings, each with what is said then; none: only the signature of a release tells.
CLOSINGS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda row: row.update(run_id="other"), "ended with 8 episodes, and 0 are there"),
    (lambda row: row.update(epoch=7), "it is missing, though a later driver of the run has gone on"),
    (lambda row: row.update(how="taken over"), ""),
    (lambda row: row.update(how="not counted"), "it names writers, and says that they were not counted"),
    (lambda row: row.update(episodes=4, writers=row["writers"][1:]), "the closing of its driver does not name it"),
    (lambda row: row.update(how="not counted", episodes=0, writers=[]), ""),  # told as a run that has not ended
    (lambda row: row.update(table_version=10**6), ""),  # told as a run that has not ended
    (lambda row: row.update(episodes=11), "do not have as many episodes together as it says"),
    (lambda row: row.update(aborted=3), ""),
    (lambda row: row.update(lost=3), ""),
    (lambda row: row["writers"].pop(0), "do not have as many episodes together as it says"),
    (lambda row: row["writers"][0].update(slot="c"), "slot c, epoch 1000: it ended with 8 episodes, and 0 are there"),
    (lambda row: row["writers"][0].update(epoch=1001), "epoch 1001: it ended with 8 episodes, and 0 are there"),
    (lambda row: row["writers"][0].update(episodes=7), "it ended with 7 episodes, and 1 more are there"),
    (lambda row: row["writers"][0].update(aborted=2), ""),
    (lambda row: row["writers"][0].update(head="0" * 64), "its last episode is another than the one that it"),
    (lambda row: row["writers"][0].update(head=None), "a row of it lacks what it must say"),
]


@pytest.mark.slow
def test_an_edited_closing_shows(ended: Ended) -> None:
    corpus = store.open(ended.uri)
    (honest,) = corpus.table("closings").to_pylist()
    plain = Chains()
    for row in corpus.to_arrow().to_pylist():
        plain.add(row)
    for edit, said in CLOSINGS:
        row = copy.deepcopy(honest)
        edit(row)
        shutil.rmtree(Path(ended.uri, "closings"))
        store.append(ended.uri, "closings", [row])
        found = [f"{check.subject}: {check.reason}" for check in chain.account(corpus).lies]
        assert any(said in one for one in found) if said else not found, (said, found)
        tables = {"closings": [row], "deletions": [], "runs": []}
        assert len(list(plain.lies(tables, corpus.version))) == len(found), "so does the one file of a release"
        ignored = row["table_version"] == 10**6 or row["run_id"] != "run" or row["epoch"] == 7
        ignored = ignored or row["how"] == "not counted"
        assert chain.open_ended(corpus) == (["run"] if ignored else [])
        lacking = any(one["head"] is None for one in row["writers"])
        assert plain.unended == (12 if ignored or lacking else 0)


def test_an_older_version_is_not_held_to_later_closings(ended: Ended) -> None:
    old = store.open(ended.uri, 2)
    assert 0 < old.count() < 12
    assert not [check for check in verify_corpus(old) if check.state == "false"]


def test_spans_do_not_depend_on_the_order_of_rows(ended: Ended) -> None:
    rows = store.open(ended.uri).to_arrow(columns=list(chain.COLUMNS))
    shuffled = rows.take(pa.array([7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 6, 4]))
    assert chain.spans_in(shuffled) == chain.spans_in(rows)
    assert [(span.writer[1], span.first, span.last) for span in chain.spans_in(rows)[0]] == [("a", 0, 7), ("b", 0, 3)]


def test_episodes_of_one_writer_are_linked_when_they_are_sealed() -> None:
    provenance = Provenance("run", SPEC.id, 0, RULES, "b" * 64, "0.1.0", "here", "CC0-1.0")
    games: list[Episode] = [random_episode(GAME, n, provenance, slot="a", epoch=1, number=n) for n in range(4)]
    whole = to_batch(games)
    halves = [to_batch(games[:2])]
    halves.append(to_batch(games[2:], halves[0]["content_digest"][1].as_py()))
    assert pa.Table.from_batches(halves).combine_chunks() == pa.Table.from_batches([whole])
    old = to_batch([dataclasses.replace(game, schema_version=1) for game in games])
    assert old["previous_digest"].null_count == 4 and set(old["schema_version"].to_pylist()) == {1}
    assert content_digests(dict(zip(old.schema.names, old.columns, strict=True))) == old["content_digest"].to_pylist()
