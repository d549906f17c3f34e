"""Proofs that an episode is in a release, the Merkle tree that they climb, and the key that signs releases."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay import signing, store
from selfplay.cli.main import call
from selfplay.episode import EPISODES, to_batch
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store import release as releases
from selfplay.store.release import merkle, proof
from selfplay.store.release.check import released_version
from selfplay.store.release.verifier import one_file, proofs, signed
from selfplay.store.release.verifier.rows import COLUMNS, Lie
from tests.tampering import released
from tests.tampering.released import alone, archive, episode


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A corpus with a signed release, `first`, and an unsigned one, `bare`; the key lies in a place of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield released.made(str(tmp_path_factory.mktemp("made") / "corpus"))


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
    clock = {"started_at": 0, "wall_ms": 0, "previous_digest": None}  # of the clock, too
    assert {**batch, **clock} == {**proven["row"], **clock}


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
    with monkeypatch.context() as without:
        for name in ("XDG_STATE_HOME", "HOME"):
            without.delenv(name, raising=False)
        assert call(["corpus", "release", "one", uri]) == 2
        assert "--no-sign releases without a signature" in capsys.readouterr().err
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
