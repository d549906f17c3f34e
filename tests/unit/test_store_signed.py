"""What a release stands on: its Merkle root, its manifest, its signature; and proofs of single episodes.

The package and the one-file verifier are asked about every way to rewrite a release.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyspiel
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay import registry, signing, storage, store
from selfplay.cli.main import call
from selfplay.episode import EPISODES, Episode, Provenance, random_episode, to_batch
from selfplay.errors import UserError
from selfplay.playthrough import ruleset_digest
from selfplay.store import release as releases
from selfplay.store.release import merkle, proof, signature, tables
from selfplay.store.release.certificate import digest_of, merkle_root, summary
from selfplay.store.release.check import check_release, parsed, released_version
from selfplay.store.release.verifier import one_file, program, proofs, signed
from selfplay.store.release.verifier.rows import COLUMNS, Lie
from selfplay.store.release.verifier.table import certificate_of
from selfplay.store.table import SIDE_TABLES
from tests.tampering.releases import CASES, Case

NODES = 9


@pytest.fixture(scope="module", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of its own for the key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def episode(number: int) -> Episode:
    spec = registry.find("tic_tac_toe")
    origin = Provenance("run", spec.id, spec.version, ruleset_digest(spec), None, "0.1.0", "here", "CC0-1.0")
    game = pyspiel.load_game("tic_tac_toe")
    return random_episode(game, number, origin, slot="a", epoch=1000, number=number)


def archive(uri: str, episodes: list[Episode]) -> store.Corpus:
    committer = store.Committer(uri, "run", 1)
    committer.register("a")
    committer.commit([store.write_block(uri, to_batch(episodes), "a", 1000, 0)])
    now = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    store.append(uri, "runs", [{"run_id": "run", "epoch": 1, "started_at": now, "env_id": "tic_tac_toe-v0"}])
    store.append(uri, "policies", [{"policy_id": "run", "version": 0, "digest": "d" * 64, "run_id": "run"}])
    return store.open(uri)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A corpus with a signed release, `first`, and an unsigned one, `bare`."""
    uri = str(tmp_path_factory.mktemp("made") / "corpus")
    corpus = archive(uri, [episode(n) for n in range(NODES)])
    releases.release(corpus, "first", "To test with.", key=signing.make)
    releases.release(corpus, "bare")
    return uri


@pytest.fixture
def copy(made: str, tmp_path: Path) -> str:
    return shutil.copytree(made, tmp_path / "corpus").as_posix()


def said(uri: str, key: str | None = None, name: str = "first") -> tuple[set[str], str]:
    """What both say that is false of a release, "subject: reason", and what the package says it stands on."""
    opened, one = released_version(store.open(uri), name)
    lies, standing = check_release(opened, one, key)
    return {f"{lie.subject}: {lie.reason}" for lie in lies}, standing.said


def alone(uri: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str, name: str = "first") -> dict[str, Any]:
    """What the one-file verifier says; `code` is its exit code."""
    words = (uri, "--certificate", f"{uri}/released/{name}/certificate.json", *words) if uri else words
    monkeypatch.setattr(sys, "argv", ["verify_corpus.py", *words, "--json"])
    capsys.readouterr()
    code = program.main()
    out, err = capsys.readouterr()
    return {"code": code, "err": err, **(json.loads(out) if out else {})}


def stands(uri: str, name: str = "first") -> list[tuple[str, str]]:
    """What the one file says that is false of a release but for its episodes."""
    data, report = Path(uri, "released", name, "certificate.json").read_bytes(), program.Report()
    program.stand(report, uri, certificate_of(data), data, None)
    return report.lies


def plain_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + plain_root(leaves[:k]) + plain_root(leaves[k:])).digest()


def some_leaves(count: int) -> list[bytes]:
    digests = (hashlib.sha256(bytes([n])).hexdigest() for n in range(count))
    return merkle.leaves((f"run/a/1000/{n}", digest) for n, digest in enumerate(digests))


@pytest.mark.parametrize("count", range(1, 10))
def test_each_leaf_has_a_proof(count: int) -> None:
    leaves = some_leaves(count)
    root = merkle.root(leaves)
    assert root == plain_root(leaves) == signed.tree_root(leaves)
    for index, start in enumerate(leaves):
        path = merkle.path(leaves, index)
        assert merkle.climbed(start, index, count, path) == root == signed.root_above(start, index, count, path)


def test_a_leaf_is_what_is_documented() -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    by_hand = hashlib.sha256(b"\0" + b"run/\xc3\xa9/1/2" + bytes.fromhex(digest)).digest()
    assert merkle.leaf("run/é/1/2", digest) == by_hand == merkle.root(merkle.leaves([("run/é/1/2", digest)]))
    assert merkle.root([]) == hashlib.sha256().digest()
    for wrong in ("", digest[:-2], f"{digest[:-2]} 1", "g" * 64, f"{digest} "):
        with pytest.raises(ValueError):
            merkle.leaf("run/a/1/2", wrong)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), data=st.data())
def test_no_other_path_leads_to_the_root(count: int, data: st.DataObject) -> None:
    leaves = some_leaves(count)
    root, index = merkle.root(leaves), data.draw(st.integers(0, count - 1))
    path = merkle.path(leaves, index)
    at, size = data.draw(st.integers(-1, 2 * count)), data.draw(st.integers(0, 2 * count))
    other = data.draw(st.lists(st.sampled_from(leaves), max_size=7) | st.just(path))
    start = data.draw(st.sampled_from(leaves))
    ours = (at, size, other, start) == (index, count, path, leaves[index])
    for climb in (merkle.climbed, _alone_climbed):
        try:
            reached = climb(start, at, size, other) == root
        except (ValueError, Lie):
            reached = False
        assert reached or not ours
        assert not reached or other == merkle.path(leaves, leaves.index(start))


def _alone_climbed(start: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    if not 0 <= index < size:
        raise ValueError
    return signed.root_above(start, index, size, path)


def test_an_honest_release_holds(made: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    own = signing.own()
    assert own is not None
    one = next(one for one in releases.released(store.open(made)) if one.name == "first")
    rows = store.open(made).to_arrow(columns=["episode_id", "content_digest"])
    pairs = sorted(zip(*(rows.column(name).to_pylist() for name in rows.column_names), strict=True))
    assert one.merkle_root == plain_root([merkle.leaf(*pair) for pair in pairs]).hex() and one.key == own.name
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


def _nothing(certificate: dict[str, Any]) -> None:
    pass


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


@pytest.fixture(scope="module")
def proven(made: str) -> dict[str, Any]:
    return proof.prove(*released_version(store.open(made), "first"), "run/a/1000/4")


def checked(given: dict[str, Any], **wanted: str) -> str | None:
    return proof.check(proof.loads(json.dumps(given).encode()), **wanted).lie


def test_one_episode_is_proved(
    made: str, proven: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    own = signing.own()
    assert own is not None
    place = tmp_path / "proof.json"
    assert call(["corpus", "prove", "run/a/1000/4", made, "--release", "first", "--out", str(place)]) == 0
    assert json.loads(place.read_text()) == proven and len(proven["path"]) == 4
    for words in ([], ["--key", own.name], ["--root", proven["merkle_root"]]):
        assert call(["corpus", "prove", "--check", str(place), *words]) == 0
        assert "number 4 (from 0) of 9" in capsys.readouterr().out
    assert call(["corpus", "prove", "--check", str(place), "--key", f"ed25519:{'0' * 64}"]) == 1
    assert call(["corpus", "prove", "--check", str(place), "--root", "0" * 64]) == 1
    for key, code in ((own.name, 0), (f"ed25519:{'0' * 64}", 1)):
        assert alone("", monkeypatch, capsys, "--proof", str(place), "--key", key)["code"] == code
    bare = proof.prove(*released_version(store.open(made), "bare"), "run/a/1000/4", with_row=False)
    assert bare["row"] is None and checked(bare) is None and "not signed" in str(checked(bare, key=own.name))
    assert call(["corpus", "prove", "run/a/1000/40", made]) == 2
    (batch,) = to_batch([episode(4)]).select([name for name in EPISODES.names if name in proven["row"]]).to_pylist()
    assert {**batch, "started_at": 0} == {**proven["row"], "started_at": 0}


def test_every_part_of_a_proof_counts(proven: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: Any) -> None:  # fmt: skip
    zero = "0" * 64
    row = proven["row"]
    edits = [
        {"episode_id": "run/a/1000/5"}, {"content_digest": zero}, {"index": 5}, {"index": -1}, {"episodes": 8},
        {"episodes": 10**30}, {"path": proven["path"][1:]}, {"path": [*proven["path"], zero]}, {"merkle_root": zero},
        {"path": [zero, *proven["path"][1:]]}, {"release": "second"}, {"table_version": 7},
        {"certificate_sha256": zero}, {"signature": {**proven["signature"], "signature": "0" * 128}},
        {"signature": {**proven["signature"], "public_key": f"ed25519:{zero}"}}, {"signature": {"algorithm": "none"}},
    ]  # fmt: skip
    changes: list[dict[str, Any]] = [
        {"seed": row["seed"] + 1}, {"more": 1}, {"seed": "1"}, {"schema_version": 99}, {"seats": 1e300},
        {"returns": [[]]}, {"error": {"kind": "a", "x": "b"}},
    ]  # fmt: skip
    rows = [{}, *({**row, **change} for change in changes)]
    assert checked(proven) is None
    for edit in (*edits, *({"row": one} for one in rows)):
        assert checked({**proven, **edit}) is not None, edit
    place = tmp_path / "proof.json"
    for edit in (*edits, *({"row": one} for one in rows)):
        place.write_text(json.dumps({**proven, **edit}))
        assert alone("", monkeypatch, capsys, "--proof", str(place))["code"] == 1, edit


@pytest.mark.parametrize("text", [
    "", "[" * 100_000, "[]", "{}", '{"format": "selfplay-factory proof 1"}', "1" * 5000, b"\xff\xfe\x00\xd8",
    {"path": "x"}, {"path": ["0" * 64] * 65}, {"path": [3]}, {"index": True}, {"episodes": 1.5}, {"row": []},
    {"signature": 3}, {"release": None}, {"format": "2"},
])  # fmt: skip
def test_a_hostile_proof_ends_in_a_sentence(
    proven: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, text: Any
) -> None:
    place = tmp_path / "proof.json"
    if isinstance(text, dict):
        text = json.dumps({**proven, **text})
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="proof") as refused:
        proof.loads(place.read_bytes())
    assert len(str(refused.value).splitlines()) == 1
    told = alone("", monkeypatch, capsys, "--proof", str(place))
    assert "Traceback" not in told["err"] and told["code"] in (1, 2)


def test_the_one_file_knows_what_a_row_holds() -> None:
    def shape(kind: pa.DataType) -> Any:
        if pa.types.is_struct(kind):
            return {field.name: shape(field.type) for field in kind}
        if pa.types.is_list(kind):
            return [shape(kind.value_type)]
        return "text" if pa.types.is_string(kind) else "float" if pa.types.is_floating(kind) else "whole"

    for name in COLUMNS:
        assert json.dumps(proofs.SHAPES[name]) == json.dumps(shape(EPISODES.field(name).type)), name  # in this order


def test_the_key_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert signing.own() is None and call(["corpus", "key"]) == 2
    key = signing.make()
    place = signing.place()
    assert signing.make() == key or signing.make().name == key.name
    assert place.stat().st_mode & 0o777 == 0o600 and [one.name for one in place.parent.iterdir()] == [signing.FILE]
    capsys.readouterr()
    assert call(["corpus", "key"]) == 0 and capsys.readouterr().out == f"{key.name}\n"
    assert call(["corpus", "key", "--pem"]) == 0
    public = tmp_path / "public.pem"
    public.write_text(capsys.readouterr().out)
    named = tmp_path / "name.txt"
    named.write_text(f"{key.name}\n")
    assert signing.named(str(public)) == signing.named(str(named)) == signing.named(key.name) == key.name
    for wrong in (str(place), str(tmp_path), "ed25519:0", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match="give ed25519: and 64"):
            signing.named(wrong)
    place.chmod(0o640)
    with pytest.raises(UserError, match="others can read"):
        signing.own()
    place.chmod(0o600)
    for damaged in (b"", b"x", place.read_bytes()[:-60], public.read_bytes()):
        place.write_bytes(damaged)
        with pytest.raises(UserError, match="is not an Ed25519 key"):
            signing.make()
        assert place.read_bytes() == damaged  # releases name it: it is not replaced


@pytest.mark.slow
def test_the_command_signs_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    uri = str(tmp_path / "corpus")
    archive(uri, [episode(n) for n in range(2)])
    assert call(["corpus", "release", "none", uri, "--no-sign"]) == 0 and signing.own() is None
    assert "not signed" in capsys.readouterr().out
    assert call(["corpus", "release", "one", uri]) == 0
    own = signing.own()
    out, err = capsys.readouterr()
    assert own is not None and f"made a key to sign releases with, {own.name}" in err and f"signed by {own.name}" in out
    one = releases.released(store.open(uri))[-1]
    assert one.merkle_root is not None and all(word in out for word in (one.merkle_root, one.certificate_sha256))
    assert call(["corpus", "release", "two", uri, "--redact-to", str(tmp_path / "copy")]) == 0
    assert "made a key" not in capsys.readouterr().err
    for place, name in ((uri, "one"), (str(tmp_path / "copy"), "two")):
        assert call(["corpus", "verify", place, "--release", name, "--key", own.name]) == 0
        assert f"signed by {own.name}\n" in capsys.readouterr().out
    both = ["--release", "one", "--version", "1"]
    for words in (both, ["--key", own.name], ["--release", "no"], ["--release", ".."]):
        assert call(["corpus", "verify", uri, *words]) == 2
    assert storage.names(f"{uri}/released/none") == sorted(releases.FILES)


def test_no_part_of_the_one_file_takes_a_name_of_another() -> None:
    names = [node.name for node in ast.parse(one_file()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def test_a_row_has_one_digest_in_both(made: str) -> None:
    for row in store.open(made).table("runs").to_pylist():
        assert tables.row_digest(row) == signed.row_digest(row)
        later = {**row, "column_of_later": None}
        assert tables.row_digest(later) == signed.row_digest(later) == tables.row_digest(row)
