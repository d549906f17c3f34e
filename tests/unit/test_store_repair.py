"""Damaged logs and blocks are found, restored to what was acknowledged, and gone on from."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyspiel
import pytest

from selfplay import store
from selfplay.cli.main import call
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.errors import UserError
from selfplay.store.table import counts, log
from selfplay.store.table.closings import close_earlier
from selfplay.store.table.maintenance import compact, vacuum
from selfplay.store.table.repair import carry_out, is_damaged, plan
from selfplay.store.table.table import episodes_uri
from selfplay.store.verify.verify import uncommitted, verify_corpus

GAME = pyspiel.load_game("tic_tac_toe")
RULES = "a" * 64


def block(uri: str, number: int, epoch: int, slot: str = "a0", count: int = 2) -> store.Block:
    provenance = Provenance("run", "tic_tac_toe-v0", 0, RULES, "b" * 64, "0.1.0", "here", "CC0-1.0")
    numbers = range((number + 1) * count)
    played = [random_episode(GAME, n, provenance, slot=slot, epoch=epoch, number=n) for n in numbers]
    began = 17 * 10**14 + 10**9 * epoch + 10**6 * int(slot[1:])  # sealed again, they are the same
    played = [dataclasses.replace(one, started_at=began + one.number, wall_ms=1) for one in played]
    return store.write_block(uri, to_batch(played).slice(number * count), slot, epoch, number)


def ids(uri: str) -> list[str]:
    return sorted(store.open(uri).to_arrow(columns=["episode_id"])["episode_id"].to_pylist())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A corpus with 105 versions, two of them with blocks of two slots, and the ids of all that was acknowledged."""
    uri = str(tmp_path_factory.mktemp("whole") / "corpus")
    committer = store.Committer(uri, "run", 1)
    for slot in ("a0", "a1"):
        committer.register(slot)
    store.append(uri, "runs", [{"run_id": "run", "epoch": 1}])
    store.append(uri, "runs", [{"run_id": "run", "epoch": 2}])
    for number in range(3):
        committer.commit([block(uri, number, 1000, slot) for slot in ("a0", "a1")])
    for _ in range(98):
        committer.commit([])
    for number in range(3, 6):
        committer.commit([block(uri, number, 1000, slot) for slot in ("a0", "a1")])
    assert committer.table_version == 105 and log.last_checkpoint(episodes_uri(uri)) == 99
    return Path(uri), ids(uri)


def entry(corpus: Path, version: int, table: str = "episodes") -> Path:
    return corpus / table / "_delta_log" / log.entry_name(version)


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def checkpoint(corpus: Path) -> Path:
    return corpus / "episodes" / "_delta_log" / log.checkpoint_name(99)


def hint(corpus: Path) -> Path:
    return corpus / "episodes" / "_delta_log" / log.HINT


def all_entries(corpus: Path) -> None:
    shutil.rmtree(corpus / "episodes" / "_delta_log")


def first_lines(corpus: Path) -> None:
    """As if it were cut exactly between two lines: what is left is good JSON."""
    entry(corpus, 105).write_bytes(entry(corpus, 105).read_bytes().split(b"\n")[0])


def turned(corpus: Path, before: bytes, offset: int, version: int = 104) -> None:
    """One bit of an entry, behind the first place where `before` stands: it stays good JSON."""
    data = bytearray(entry(corpus, version).read_bytes())
    data[data.index(before) + len(before) + offset] ^= 1
    entry(corpus, version).write_bytes(data)


def exchanged(corpus: Path, one: int, other: int) -> None:
    first, second = entry(corpus, one).read_bytes(), entry(corpus, other).read_bytes()
    entry(corpus, one).write_bytes(second)
    entry(corpus, other).write_bytes(first)


def copied(corpus: Path, version: int, table: str, to: int = 104) -> None:
    """What another entry, or one of another table, says."""
    entry(corpus, to).write_bytes(entry(corpus, version, table).read_bytes())


def early(corpus: Path) -> None:
    """Power went before the first checkpoint."""
    for version in range(98, 106):
        entry(corpus, version).unlink()
    checkpoint(corpus).unlink()
    hint(corpus).unlink()
    for version in (0, 3):
        entry(corpus, version).write_bytes(b"")


#: How a log is damaged -> whether delta-rs opens the table all the same, and says nothing.
DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty at the end": lambda c: entry(c, 105).write_bytes(b""),
    "three empty at the end": lambda c: [entry(c, v).write_bytes(b"") for v in (103, 104, 105)],
    "empty in the middle": lambda c: entry(c, 103).write_bytes(b""),
    "half": lambda c: cut(entry(c, 105)),
    "zeros": lambda c: entry(c, 104).write_bytes(bytes(entry(c, 104).stat().st_size)),
    "some lines": first_lines,
    "a gap": lambda c: entry(c, 104).unlink(),
    "checkpoint empty": lambda c: checkpoint(c).write_bytes(b""),
    "checkpoint half": lambda c: cut(checkpoint(c)),
    "checkpoint gone": lambda c: checkpoint(c).unlink(),
    "hint half": lambda c: cut(hint(c)),
    "the first before a checkpoint": early,
    "no log at all": all_entries,
    "side table": lambda c: entry(c, 2, "runs").write_bytes(b""),
    "a side table without a log": lambda c: shutil.rmtree(c / "runs" / "_delta_log"),
    "a name turned": lambda c: turned(c, b"run_id=run/", 5),
    "a size turned": lambda c: turned(c, b'"size":', 0),
    "a number of rows turned": lambda c: turned(c, b"numRecords", -3),
    "a counter turned": lambda c: turned(c, b'"run","version":', 5, 105),
    "an entry twice": lambda c: copied(c, 103, "episodes"),
    "two exchanged": lambda c: exchanged(c, 103, 104),
    "an entry of another table": lambda c: copied(c, 2, "runs"),
    "one far beyond": lambda c: copied(c, 105, "episodes", 99_999_999),
}
#: delta-rs itself is not misled by these, or they are not in the way of a reader.
HARMLESS = ("hint half", "some lines", "no log at all", "side table", "a side table without a log")
#: Only a look into the entries finds these, and a reader that opens the newest version looks at their ends.
INSIDE = (
    "a name turned", "a size turned", "a number of rows turned", "a counter turned", "an entry twice", "two exchanged",
)  # fmt: skip


#: Kinds of which another is tried in the quick tests.
MORE = ("a size turned", "a number of rows turned", "a counter turned", "two exchanged")
SLOW = pytest.mark.slow


@pytest.mark.parametrize("damage", [pytest.param(name, marks=SLOW if name in MORE else ()) for name in DAMAGES])
def test_damage_of_the_log_is_found_and_repaired(damage: str, whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    DAMAGES[damage](corpus)
    uri = str(corpus)
    if damage in INSIDE:
        assert any("_delta_log/" in falsehood for falsehood in falsehoods(uri))
    elif damage not in HARMLESS:
        advice = "plainly inside" if "another table" in damage else r"(?s)_delta_log/.*`selfplay repair .*corpus` shows"
        with pytest.raises(UserError, match=advice):
            store.open(uri)
    if damage not in HARMLESS:
        with pytest.raises(UserError, match="plainly inside" if "another table" in damage else "selfplay repair"):
            vacuum(uri, 0, dry_run=False)
    assert is_damaged(uri)
    before = {p: p.read_bytes() for p in corpus.rglob("*") if p.is_file()}
    repair = plan(uri)
    assert repair.steps and {p: p.read_bytes() for p in corpus.rglob("*") if p.is_file()} == before, "only looked"
    carry_out([repair])
    assert not plan(uri).steps and not is_damaged(uri)
    check(uri, whole[1])
    go_on(uri)


#: Of these a committer is tried in the quick tests, too; of all in the slow ones.
QUICK = ("empty in the middle", "the first before a checkpoint", "no log at all", "side table")


@pytest.mark.parametrize("damage", [pytest.param(name, marks=() if name in QUICK else SLOW) for name in DAMAGES])
def test_a_committer_repairs_the_log_itself(damage: str, whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    DAMAGES[damage](corpus)
    same = store.Committer(str(corpus), "run", 1)
    assert same.mended
    check(str(corpus), whole[1])
    assert same.register("a0", resume=1000).next_number == 6
    receipts = same.commit([block(str(corpus), n, 1000) for n in (5, 6)])
    assert [receipt.status for receipt in receipts] == ["already", "committed"], "offered again, as after a crash"
    assert not store.Committer(str(corpus), "run", 2).mended


@pytest.mark.parametrize("steps", [pytest.param(1, marks=SLOW), 2, pytest.param(3, marks=SLOW)])
def test_a_repair_that_was_killed_is_taken_up(steps: int, whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    go_on(str(corpus))  # a newer driver: only the damage tells that blocks of the old one may have been committed
    entry(corpus, 105).write_bytes(b"")
    entry(corpus, 2, "runs").write_bytes(b"")
    under_way = plan(str(corpus)).carry_out()
    for _ in range(steps):
        next(under_way)
    del under_way  # killed
    assert is_damaged(str(corpus))
    assert store.Committer(str(corpus), "run", 3).mended
    assert not is_damaged(str(corpus)) and not plan(str(corpus)).steps
    assert sorted({*ids(str(corpus))} - {*whole[1]}) == ["run/a0/2000/0", "run/a0/2000/1"]
    assert {*whole[1]} <= {*ids(str(corpus))} and len(ids(str(corpus))) == len(whole[1]) + 2
    assert sorted(store.open(str(corpus)).table("runs")["epoch"].to_pylist()) == [1, 2]


def unsealed(corpus: Path, version: int) -> None:
    """The entry as an older version of the package wrote it."""
    lines = entry(corpus, version).read_text().splitlines()
    about = json.loads(lines[0])
    about["commitInfo"] = {k: v for k, v in about["commitInfo"].items() if not k.startswith("selfplay_")}
    entry(corpus, version).write_text("\n".join([json.dumps(about), *lines[1:]]))


@pytest.mark.parametrize("lost", ["an entry", "a name"])
def test_acknowledged_blocks_are_found_without_a_seal(
    lost: str, whole: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    for version in range(100, 106):
        unsealed(corpus, version)
    if lost == "an entry":
        copied(corpus, 103, "episodes")  # it says again what is there, and nobody sees that
    else:
        turned(corpus, b"run_id=run/", 5)
    go_on(str(corpus))  # under a newer driver
    assert call(["corpus", "verify", str(corpus)]) == 1
    assert ("selfplay repair" if lost == "an entry" else "the file is missing") in capsys.readouterr().out
    repair = plan(str(corpus))
    assert not any("lost" in step.result for step in repair.steps) and not repair.untouched
    carry_out([repair])
    assert not plan(str(corpus)).steps
    assert sorted({*ids(str(corpus))} - {*whole[1]}) == ["run/a0/2000/0", "run/a0/2000/1"]
    assert len(ids(str(corpus))) == len(whole[1]) + 2, "each once"
    assert not falsehoods(str(corpus))


def test_a_whole_block_stays_whatever_size_the_log_states(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    unsealed(corpus, 104)
    turned(corpus, b'"size":', 0)
    assert not plan(str(corpus)).steps
    check(str(corpus), whole[1])


def check(uri: str, acknowledged: list[str]) -> None:
    found = ids(uri)
    assert found == acknowledged, "each once, none lost"
    assert not falsehoods(uri)
    assert sorted(store.open(uri).table("runs")["epoch"].to_pylist()) == [1, 2]


def falsehoods(uri: str) -> list[str]:
    """What `corpus verify` says to be false."""
    try:
        return [f"{c.subject}: {c.reason}" for c in verify_corpus(store.open(uri)) if c.state == "false"]
    except UserError as error:
        return [str(error)]


def go_on(uri: str) -> None:
    committer = store.Committer(uri, "run", 2)
    assert not committer.mended
    close_earlier(uri, "run", 2)
    slot = committer.register("a0")
    assert (slot.epoch, slot.next_number) == (2000, 0)
    assert committer.commit([block(uri, 0, 2000)])[0].status == "committed"
    assert store.open(uri).version == committer.table_version


def test_a_damaged_block_is_taken_out_and_kept(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    first, second, third = (corpus / "episodes" / file["path"] for file in store.open(str(corpus)).files()[:3])
    cut(first)
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(data)
    third.unlink()
    assert call(["repair", str(corpus), "--yes"]) == 0
    left = ids(str(corpus))
    assert len(left) == len(whole[1]) - 6 and set(left) < set(whole[1])
    kept = [p for p in (corpus / "_damaged").rglob("*.parquet")]
    assert {p.name for p in kept} == {first.name, second.name} and not first.exists()
    compact(str(corpus))
    assert not [c for c in verify_corpus(store.open(str(corpus))) if c.state == "false"]
    go_on(str(corpus))


def test_the_verb_shows_then_does(
    whole: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run / "corpus")
    assert call(["repair", str(run)]) == 0
    assert "nothing to repair" in capsys.readouterr().out
    entry(run / "corpus", 105).write_bytes(b"")
    assert call(["corpus", "verify", str(run)]) == 2
    assert f"{log.entry_name(105)} (version 105) is empty" in capsys.readouterr().err
    assert call(["repair", str(run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [step["action"] for step in shown["steps"]] == ["set aside", "replace", "commit again"]
    assert not shown["done"] and entry(run / "corpus", 105).stat().st_size == 0
    assert call(["repair", str(run), "--yes"]) == 0
    assert "--yes" not in capsys.readouterr().out
    assert ids(str(run)) == whole[1]
    assert call(["repair", str(tmp_path / "nothing")]) == 2


def test_damage_older_than_a_checkpoint_is_found_where_it_matters(
    whole: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readers need nothing of it; a vacuum might take a lost block for one that nobody committed."""
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    entry(corpus, 3).write_bytes(b"")
    assert ids(str(corpus)) == whole[1]
    assert call(["corpus", "verify", str(corpus)]) == 1
    assert f"{log.entry_name(3)}: the file is empty" in "".join(capsys.readouterr().out.split("\n"))
    with pytest.raises(log.DamagedLog, match="version 3"):
        vacuum(str(corpus), 0, dry_run=False)
    assert store.Committer(str(corpus), "run", 2).mended
    check(str(corpus), whole[1])


def test_blocks_that_nobody_committed_stay_out(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Of a writer that was killed and replaced; a living writer's next block may be committed by a repair."""
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    uri = str(corpus)
    block(uri, 6, 1000)
    (step,) = plan(uri).steps
    assert step.action == "commit again" and not is_damaged(uri)
    assert len(uncommitted(store.open(uri))) == 1
    committer = store.Committer(uri, "run", 2)
    assert not committer.mended and not plan(uri).steps and ids(uri) == whole[1]
    committer.commit([block(uri, 0, committer.register("a0").epoch)])
    assert not plan(uri).steps


def test_an_entry_that_this_process_saw_whole_is_looked_at_again(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(whole[0], corpus)
    committer = store.Committer(str(corpus), "run", 1)
    store.open(str(corpus))
    os.truncate(entry(corpus, 105), 0)
    with pytest.raises(log.DamagedLog, match="version 105"):
        store.open(str(corpus))
    entry(corpus, 105).write_bytes(entry(whole[0], 105).read_bytes())
    entry(corpus, 107).write_bytes(b"")
    with pytest.raises(log.DamagedLog, match="version 107"):
        committer.commit([block(str(corpus), 6, 1000)])


@pytest.mark.parametrize(
    "target_bytes", [pytest.param(2**26, marks=pytest.mark.slow), 120_000], ids=["one file", "files that overlap"]
)
def test_a_lost_compaction_before_a_later_one_doubles_nothing(tmp_path: Path, target_bytes: int) -> None:
    """The files that the lost one had replaced would be there again, beside the file that the later one made."""
    uri = str(tmp_path / "corpus")
    committer = store.Committer(uri, "run", 1)
    for slot in ("a0", "a1"):
        committer.register(slot)

    def play(numbers: range) -> None:
        for number in numbers:
            committer.commit([block(uri, number, 1000, slot, 3) for slot in ("a0", "a1")])

    play(range(4))
    compact(uri, target_bytes)
    lost = store.open(uri).version
    play(range(4, 6))
    compact(uri, 2**26)
    wanted, told = ids(uri), {file["path"] for file in store.open(uri).files()}
    entry(tmp_path / "corpus", lost).write_bytes(b"")
    with pytest.raises(UserError, match="repair"):
        store.open(uri)
    assert [step.action for step in plan(uri).steps][-1] == "take out"
    carry_out([plan(uri)])
    assert ids(uri) == wanted, "each once"
    assert {file["path"] for file in store.open(uri).files()} >= told, "the later one's work is kept"
    assert not plan(uri).steps and not [check for check in verify_corpus(store.open(uri)) if "times" in check.reason]
    again = store.Committer(uri, "run", 2)
    assert again.register("a0").next_number == 0 and counts.archived_by(store.open(uri), "run").episodes == len(wanted)


def test_doubled_episodes_are_mended_however_they_came(tmp_path: Path) -> None:
    uri = str(tmp_path / "corpus")
    committer = store.Committer(uri, "run", 1)
    epoch = committer.register("a0").epoch
    provenance = Provenance("run", "tic_tac_toe-v0", 0, RULES, "b" * 64, "0.1.0", "here", "CC0-1.0")
    played = [random_episode(GAME, n, provenance, slot="a0", epoch=epoch, number=n) for n in range(5)]
    rows, other = to_batch(played), to_batch([dataclasses.replace(played[4], seed=99)])
    for number, some in enumerate((rows.slice(0, 3), rows.slice(1, 3), rows.slice(4, 1), other)):
        committer.commit([store.write_block(uri, some, "a0", epoch, number)])
    found = plan(uri)
    assert len(found.steps) == 1 and "2 episodes are there more than once" in found.steps[0].reason
    assert len(found.untouched) == 2 and "with different content" in found.untouched[0]
    carry_out([found])
    assert ids(uri) == [f"run/a0/{epoch}/{number}" for number in (0, 1, 2, 3, 4, 4)]
    assert not plan(uri).steps
