"""Releases, rewritten in every way: in part they contradict themselves, as a whole they are signed by another key.

The package and the one-file verifier are asked about each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from selfplay import signing, store
from selfplay.cli.main import call
from selfplay.errors import UserError
from selfplay.store import release as releases
from selfplay.store.release import merkle, proof, signature, tables
from selfplay.store.release.certificate import digest_of, merkle_root, summary
from selfplay.store.release.check import check_release, parsed, released_version
from selfplay.store.release.verifier import program, signed
from selfplay.store.release.verifier.dialogues import Tokenizers
from selfplay.store.release.verifier.table import certificate_of
from selfplay.store.table.table import SIDE_TABLES
from tests.tampering import released
from tests.tampering.released import NODES, alone, archive, episode
from tests.tampering.releases import CASES, Case


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A corpus with a signed release, `first`, and an unsigned one, `bare`; the key lies in a place of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield released.made(str(tmp_path_factory.mktemp("made") / "corpus"))


@pytest.fixture
def copy(made: str, tmp_path: Path) -> str:
    return shutil.copytree(made, tmp_path / "corpus").as_posix()


def said(uri: str, key: str | None = None, name: str = "first") -> tuple[set[str], str]:
    """What both say that is false of a release, "subject: reason", and what the package says it stands on."""
    opened, one = released_version(store.open(uri), name)
    lies, standing = check_release(opened, one, key)
    return {f"{lie.subject}: {lie.reason}" for lie in lies}, standing.said


def stands(uri: str, name: str = "first") -> list[tuple[str, str]]:
    """What the one file says that is false of a release but for its episodes."""
    data, report = Path(uri, "released", name, "certificate.json").read_bytes(), program.Report(Tokenizers({}))
    program.stand(report, uri, certificate_of(data), data, None)
    return report.lies


def test_an_honest_release_holds(made: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    own = signing.own()
    assert own is not None
    one = next(one for one in releases.released(store.open(made)) if one.name == "first")
    rows = store.open(made).to_arrow(columns=["episode_id", "content_digest"])
    pairs = sorted(zip(*(rows.column(name).to_pylist() for name in rows.column_names), strict=True))
    assert one.merkle_root == merkle.root(merkle.leaves(pairs)).hex() and one.key == own.name
    assert said(made) == (set(), f"Merkle root {one.merkle_root}; signed by {own.name} (not compared with a key that "
                                 "you gave: --key)")  # fmt: skip
    assert said(made, own.name) == (set(), f"Merkle root {one.merkle_root}; signed by {own.name}")
    assert "no signature" in said(made, name="bare")[1]
    for words in ((), ("--key", own.name)):
        told = alone(made, monkeypatch, capsys, *words)
        assert (told["code"], told["true"], told["falsehoods"], told["key"]) == (0, NODES, [], own.name)
    assert "not signed" in alone(made, monkeypatch, capsys, name="bare")["standing"]
    for wrong in (f"ed25519:{'0' * 64}",):
        assert any("not by" in lie for lie in said(made, wrong)[0])
        assert alone(made, monkeypatch, capsys, "--key", wrong)["code"] == 1
        assert any("not signed" in lie for lie in said(made, wrong, "bare")[0])
        assert alone(made, monkeypatch, capsys, "--key", wrong, name="bare")["code"] == 1
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "cryptography.exceptions", None)
        told = alone(made, monkeypatch, capsys)
        assert (told["code"], told["standing"]) == (0, "signature not checked: pip install cryptography")
        assert "pip install cryptography" in alone(made, monkeypatch, capsys, "--key", own.name)["err"]
    card = Path(made, "released/first/README.md").read_text()
    assert one.merkle_root in card and own.name in card
    assert "It is not signed" in Path(made, "released/bare/README.md").read_text()


def write(uri: str, name: str, text: str) -> None:
    Path(uri, "released", "first", name).write_text(text)


def read(uri: str, name: str) -> str:
    return Path(uri, "released", "first", name).read_text()


def rewrite_certificate(uri: str, change: Callable[[dict[str, Any]], None], row: bool, key: signing.Key | None) -> None:
    """Another certificate; with its own row; signed by `key`."""
    certificate = json.loads(read(uri, "certificate.json"))
    change(certificate)
    if key is not None:
        certificate["key"] = key.name
    text = json.dumps(certificate, indent=1) + "\n"
    write(uri, "certificate.json", text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if row:
        set_rows(uri, "releases", lambda one: one.update(certificate=summary(certificate, sha256)), "first")
    if key is not None:
        names = ("release", "table_version", "episodes", "merkle_root")
        statement = signature.Statement(*(certificate[name] for name in names), sha256)
        write(uri, "certificate.sig", json.dumps(signature.sign(statement, key)))


def set_rows(uri: str, table: str, edit: Callable[[dict[str, Any]], None], name: str = "") -> None:
    """Edits the rows of a side table, as a stranger with deltalake can."""
    rows = store.open(uri).table(table).to_pylist()
    for row in rows:
        if not name or row["name"] == name:
            edit(row)
    write_deltalake(f"{uri}/{table}", _table(rows, table), mode="overwrite")


def _table(rows: list[dict[str, Any]], name: str) -> pa.Table:
    return pa.Table.from_pylist(rows, SIDE_TABLES[name].schema)


def forged(uri: str) -> None:
    """One episode changed, its digest, its file and the log made anew; certificate and row as they were."""
    kept = {name: shutil.move(f"{uri}/{name}", f"{uri}-{name}") for name in ("released", "releases")}
    shutil.rmtree(uri)
    lie = dataclasses.replace(episode(3), seed=77)
    archive(uri, [lie if n == 3 else episode(n) for n in range(NODES)])
    for name, place in kept.items():
        shutil.move(place, f"{uri}/{name}")


def certified_anew(uri: str) -> dict[str, Any]:
    """What a certificate says of the episodes that are there now."""
    corpus = store.open(uri)
    rows = corpus.to_arrow(columns=["episode_id", "content_digest"])
    files = [
        {"path": file["path"], "size": file["size_bytes"], "rows": file["num_records"],
         "sha256": hashlib.sha256(Path(uri, "episodes", file["path"]).read_bytes()).hexdigest()}
        for file in corpus.files()
    ]  # fmt: skip
    return {
        "table_version": corpus.version,
        "files": files,
        "files_digest": digest_of(f"{file['sha256']}  {file['path']}" for file in files),
        "content_digest": digest_of(rows.column("content_digest").to_pylist()),
        "merkle_root": merkle_root(rows),
        "tables": tables.row_digests(corpus),
    }


REWRITTEN: dict[str, tuple[Callable[[str], Any], str]] = {
    "card": (lambda uri: write(uri, "README.md", "# Nothing but the best"), "README.md: the file was changed"),
    "schema": (lambda uri: write(uri, "SCHEMA.md", ""), "SCHEMA.md: the file was changed"),
    "croissant": (lambda uri: write(uri, "croissant.json", "{}"), "croissant.json: the file was changed"),
    "verifier": (lambda uri: write(uri, "verify_corpus.py", "print('1 true')"), "verify_corpus.py: the file was"),
    "file gone": (lambda uri: Path(uri, "released/first/SCHEMA.md").unlink(), "SCHEMA.md: "),
    "signature gone": (lambda uri: Path(uri, "released/first/certificate.sig").unlink(), "is missing"),
    "signature empty": (lambda uri: write(uri, "certificate.sig", "{}"), "certificate.sig"),
    "certificate": (
        lambda uri: rewrite_certificate(uri, lambda one: one.update(note="x"), False, None), "did not sign this"
    ),
    "certificate and row": (
        lambda uri: rewrite_certificate(uri, lambda one: one.update(note="x"), True, None), "did not sign this"
    ),
    "root": (lambda uri: rewrite_certificate(uri, lambda one: one.update(merkle_root="0" * 64), True, None), "Merkle"),
    "row of runs": (lambda uri: set_rows(uri, "runs", lambda row: row.update(host="there")), "runs: 1 rows"),
    "row of policies": (lambda uri: set_rows(uri, "policies", lambda row: row.update(digest="e" * 64)), "policies: 1"),
    "another's signature": (
        lambda uri: shutil.copy(f"{uri}/released/first/certificate.json", f"{uri}/released/first/certificate.sig"),
        "certificate.sig",
    ),
    "another's certificate": (
        lambda uri: shutil.copy(f"{uri}/released/bare/certificate.json", f"{uri}/released/first/certificate.json"), ""
    ),
    "episodes": (forged, "all rows together do not have the certified content digest"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REWRITTEN)
def test_rewritten_in_part_it_is_false(copy: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, kind: str) -> None:
    edit, words = REWRITTEN[kind]
    edit(copy)
    lies, _ = said(copy)
    assert lies and any(words in lie for lie in lies), lies
    if kind in ("episodes", "root", "another's certificate"):
        told = alone(copy, monkeypatch, capsys)
        assert told["code"] == 1 and told["falsehoods"], told
    else:
        assert stands(copy)


def test_without_its_folder_it_is_false(
    copy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.move(f"{copy}/released/first/certificate.json", tmp_path / "c.json")
    shutil.rmtree(f"{copy}/released")
    told = alone(copy, monkeypatch, capsys, "--certificate", str(tmp_path / "c.json"))
    assert (told["code"], told["true"]) == (1, NODES)
    assert {lie["reason"] for lie in told["falsehoods"]} == {"the file is missing", "certificate.sig is missing"}


def test_rewritten_as_a_whole_it_is_signed_by_another(
    copy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    own = signing.own()
    forged(copy)
    new = certified_anew(copy)
    rewrite_certificate(copy, lambda one: one.update(new), True, None)
    set_rows(copy, "releases", lambda one: one.update(table_version=new["table_version"]), "first")
    assert own is not None and {lie.partition(":")[0] for lie in said(copy)[0]} == {"certificate.sig"}
    assert [one["subject"] for one in alone(copy, monkeypatch, capsys)["falsehoods"]] == ["certificate.json"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "thief"))
    thief = signing.make()
    rewrite_certificate(copy, lambda one: None, True, thief)
    assert said(copy) == (set(), f"Merkle root {new['merkle_root']}; signed by {thief.name} (not compared with a key "
                                 "that you gave: --key)")  # fmt: skip
    assert alone(copy, monkeypatch, capsys)["code"] == 0
    assert said(copy, own.name)[0] == {f"release first: it is signed by {thief.name}, not by {own.name}"}
    assert alone(copy, monkeypatch, capsys, "--key", own.name)["code"] == 1
    rewrite_certificate(copy, lambda one: one.update(key=None), True, None)
    Path(copy, "released/first/certificate.sig").unlink()
    assert said(copy)[0] == set() and "no signature" in said(copy)[1]
    assert said(copy, own.name)[0] == {f"release first: it is not signed, and was to be by {own.name}"}
    assert alone(copy, monkeypatch, capsys, "--key", own.name)["code"] == 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.column}: {case.words}")
def test_an_edited_row_of_releases_is_false(copy: str, case: Case) -> None:
    set_rows(copy, "releases", case.edit, "first")
    if case.code == 2:
        with pytest.raises(UserError, match=case.words):
            said(copy)
    else:
        assert any(case.words in lie for lie in said(copy)[0])
    assert any(subject == "releases" for subject, _ in stands(copy))


def test_a_release_has_one_row(copy: str, capsys: Any) -> None:
    rows = [row for row in store.open(copy).table("releases").to_pylist() if row["name"] == "first"]
    write_deltalake(f"{copy}/releases", _table([*rows, {**rows[0], "created_at": None}], "releases"), mode="overwrite")
    assert call(["corpus", "verify", copy, "--release", "first"]) == 2
    assert "has 2 rows of release first" in capsys.readouterr().err
    assert stands(copy)


def test_every_column_of_releases_has_a_case() -> None:
    assert {case.column.partition(".")[0] for case in CASES} == set(SIDE_TABLES["releases"].schema.names)


def test_a_release_of_before_still_verifies(copy: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def older(certificate: dict[str, Any]) -> None:
        for name in ("merkle_root", "key", "tables"):
            del certificate[name]
        certificate["format"] = 1

    rewrite_certificate(copy, older, True, None)
    Path(copy, "released/first/certificate.sig").unlink()
    assert said(copy) == (set(), "it has no Merkle root and no signature: it was made before there were any")
    told = alone(copy, monkeypatch, capsys)
    assert (told["code"], told["true"]) == (0, NODES) and "made before" in told["standing"]
    with pytest.raises(UserError, match="made before releases had a Merkle root"):
        proof.prove(*released_version(store.open(copy), "first"), "run/a/1000/0")


HOSTILE: dict[str, Any] = {
    "not JSON": "{", "nested": "[" * 100_000, "a list": [], "no files": {"files": None}, "a number": {"note": 3},
    "files": {"files": [3]}, "paths": {"files": [{"path": 1, "sha256": "", "size": 1, "rows": 1}]},
    "tables": {"tables": [1]}, "rows": {"tables": {"runs": [1]}}, "root": {"merkle_root": 5}, "key": {"key": []},
    "digests": {"release_files": {"README.md": None}}, "version": {"table_version": True},
}  # fmt: skip


def test_a_hostile_certificate_ends_in_a_sentence(copy: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    honest = json.loads(read(copy, "certificate.json"))
    for kind, change in HOSTILE.items():
        text = change if isinstance(change, str) else json.dumps(
            {**honest, **change} if isinstance(change, dict) else change)  # fmt: skip
        with pytest.raises(UserError, match="certificate.json"):
            parsed(text.encode())
        write(copy, "certificate.json", text)
        try:
            assert stands(copy), kind
        except ValueError as error:
            assert len(str(error).splitlines()) == 1, kind
    assert call(["corpus", "verify", copy, "--release", "first"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    told = alone(copy, monkeypatch, capsys)
    assert told["code"] == 2 and len(told["err"].strip().splitlines()) == 1


def test_nothing_outside_is_read_for_a_certificate(copy: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    secret = Path(copy).parent / "secret"
    secret.write_text("x")
    listed = {"../../../secret": hashlib.sha256(b"x").hexdigest(), "..": ""}
    rewrite_certificate(copy, lambda one: one["release_files"].update(listed), True, None)
    lies, _ = said(copy)
    assert all(any(name in lie and "no name" in lie for lie in lies) for name in listed)
    told = alone(copy, monkeypatch, capsys)
    assert {lie["reason"] for lie in told["falsehoods"] if lie["subject"] in listed} == {
        "that is no name of a file of a release"
    }
    rewrite_certificate(copy, lambda one: one.update(release="../first"), False, None)
    assert alone(copy, monkeypatch, capsys)["code"] == 2


def test_a_row_has_one_digest_in_both(made: str) -> None:
    rows = store.open(made).table("runs")
    (row,) = rows.to_pylist()
    (digest,) = tables.digests(rows)
    assert digest == signed.row_digest(row) == signed.row_digest({**row, "column_of_later": None})
    assert tables.digests(rows.append_column("column_of_later", pa.nulls(1, pa.string()))) == [digest]


def test_a_time_that_no_date_can_be_ends_in_a_sentence(copy: str, capsys: Any) -> None:
    for name in ("runs", "releases"):
        rows = store.open(copy).table(name)
        column = {"releases": "created_at", "runs": "started_at"}[name]
        times = pa.array([2**62] * rows.num_rows, pa.int64()).cast(pa.timestamp("us", "UTC"))
        rows = rows.set_column(rows.schema.get_field_index(column), column, times)
        write_deltalake(f"{copy}/{name}", rows, mode="overwrite")
        assert call(["corpus", "verify", copy, "--release", "first", "--processes", "1"]) in (1, 2)
        assert len(capsys.readouterr().err.strip().splitlines()) <= 1
