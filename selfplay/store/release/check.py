"""Does a release hold what its certificate says? Its row, its signature, its files, its episodes, its side tables.

A rewritten row of `releases` contradicts the certificate, a rewritten certificate the signature; and a release that
somebody has rewritten as a whole is signed by another key, or by none. So all of it is compared with all of it, and who
gives the key that he expects knows whose release it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selfplay.errors import Damaged, UserError
from selfplay.io import storage
from selfplay.store.release import carried, signature
from selfplay.store.release.certificate import digest_of, merkle_root, summary
from selfplay.store.release.job import FOLDER, Released, release_rows, released
from selfplay.store.release.tables import missing
from selfplay.store.table.snapshot import Snapshot, open
from selfplay.store.table.table import check_name, episodes_uri
from selfplay.store.verify.verify import FALSE, Check

CERTIFICATE = "certificate.json"
#: Of a certificate, and of any other file of a release.
MOST_BYTES = 256 * 2**20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: What a certificate must hold for its release to be compared with it.
_FIELDS: dict[str, type] = {
    "release": str, "note": str, "created_at": str, "table_version": int, "episodes": int, "content_digest": str,
    "files_digest": str, "release_files": dict, "files": list, "verification": dict,
}  # fmt: skip
_FILE_FIELDS: dict[str, type] = {"path": str, "sha256": str, "size": int, "rows": int}


@dataclass(frozen=True)
class Standing:
    """What a release stands on. merkle_root: hex; None in releases made before there were any.

    named: the key that the certificate names, if any. key: the same, where its signature is good. compared: whether
    it is the key that the caller asked for.
    """

    release: str
    merkle_root: str | None
    certificate_sha256: str
    named: str | None
    key: str | None
    compared: bool

    @property
    def said(self) -> str:
        """All of it, in words."""
        stands = self.uncovered or f"signed by {self.key}"
        return stands if self.merkle_root is None else f"Merkle root {self.merkle_root}; {stands}"

    @property
    def uncovered(self) -> str | None:
        """What was not checked of the release as such; None where nothing is left."""
        if self.merkle_root is None:
            return "it has no Merkle root and no signature: it was made before there were any"
        if self.key is None and self.named is not None:
            return "its signature does not hold"
        if self.key is None:
            return "it has no signature: who can rewrite the corpus can rewrite the certificate, too"
        return None if self.compared else f"signed by {self.key} (not compared with a key that you gave: --key)"


def find(corpus: Snapshot, name: str) -> Released:
    """The release of that name. Raises `UserError` where there is none."""
    check_name("release", name)
    everything = released(corpus)
    found = [one for one in everything if one.name == name]
    if not found:
        some = ", ".join(sorted({str(one.name) for one in everything})) or "nothing"
        raise UserError(f"{corpus.uri} has no release {name}; released is {some}")
    if len(found) > 1:
        raise UserError(f"the table of releases of {corpus.uri} has {len(found)} rows of release {name}")
    return found[0]


def check_release(corpus: Snapshot, one: Released, key: str | None = None) -> tuple[list[Check], Standing]:
    """What is false of a release, and what it stands on. Whether each episode is true is `verify_corpus`'s to say.

    corpus: at the released version. key: who must have signed it, "ed25519:…"; None: whoever did. All data files are
    read. Raises `UserError` where the certificate is none.
    """
    place = storage.join(corpus.uri, FOLDER, one.name)
    data = _read(storage.join(place, CERTIFICATE))
    if isinstance(data, str):
        raise UserError(f"the certificate of release {one.name} {data}")
    certified = parsed(data)
    sha256 = hashlib.sha256(data).hexdigest()
    lies = list(_row(corpus, one.name, certified, sha256))
    signer, told = _signer(place, certified, sha256, key)
    lies += told
    lies += _release_files(place, certified, signed=certified.get("key") is not None)
    lies += _data_files(corpus, certified)
    lies += _episodes(corpus, certified)
    for table, count in missing(corpus, certified.get("tables", {})):
        lies.append(Check(table, FALSE, f"{count:,} rows that this table had at the release were changed or are gone"))
    compared = key is not None and signer == key
    return lies, Standing(one.name, certified.get("merkle_root"), sha256, certified.get("key"), signer, compared)


def parsed(data: bytes) -> dict[str, Any]:
    """A stranger's certificate. Raises `UserError` unless all that is compared with it has the right type."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError("certificate.json is not JSON") from None
    if not isinstance(found, dict):
        raise UserError("certificate.json is not an object")
    _typed("certificate.json", found, _FIELDS)
    for file in found["files"]:
        _typed("an entry of files in certificate.json", file, _FILE_FIELDS)
    tables = found.setdefault("tables", {})
    rows = list(tables.values()) if isinstance(tables, dict) else [None]
    digests = (*found["release_files"].values(), *(one for some in rows if isinstance(some, list) for one in some))
    known = all(found.get(name) is None or isinstance(found[name], str) for name in ("merkle_root", "key"))
    if not known or not all(isinstance(some, list) for some in rows) or not all(isinstance(o, str) for o in digests):
        raise UserError("certificate.json has a digest or a key that is no text")
    return found


def _typed(what: str, found: Any, fields: dict[str, type]) -> None:
    for name, kind in fields.items():
        if not isinstance(found, dict) or type(found.get(name)) is not kind:
            raise UserError(f"{what} has no field {name} that is a {kind.__name__}")


def _row(corpus: Snapshot, name: str, certified: dict[str, Any], sha256: str) -> Iterator[Check]:
    """The row of the table of releases against the certificate: all of its columns."""
    row = next(row for row in release_rows(corpus) if row["name"] == name)
    kept = json.loads(row["certificate"] or "{}")
    created_at = None if row["created_at"] is None else row["created_at"].isoformat()
    expected = {
        "name": (row["name"], certified["release"]),
        "table_version": (row["table_version"], certified["table_version"]),
        "created_at": (created_at, certified["created_at"]),
        "note": (row["note"] or "", certified["note"]),
        "certificate": (kept, json.loads(summary(certified, sha256))),
    }
    for column, (held, said) in expected.items():
        if held != said:
            if column == "certificate":
                names = [key for key in sorted({*kept, *said}) if kept.get(key) != said.get(key)]
                column = f"{column}.{names[0]}" if names else column
            yield Check(f"release {name}", FALSE, f"{column} of its row in `releases` contradicts certificate.json")


def _signer(
    place: str, certified: dict[str, Any], sha256: str, wanted: str | None
) -> tuple[str | None, list[Check]]:
    """Who signed the certificate, if the signature is good, and what is wrong with it."""
    subject, key = f"release {certified['release']}", certified.get("key")
    root = certified.get("merkle_root")
    if key is None or root is None:
        wrong = signature.differs(None, wanted)
        return None, [] if wrong is None else [Check(subject, FALSE, wrong)]
    data = _read(storage.join(place, signature.FILE), signature.MOST_BYTES)
    if isinstance(data, str):
        return None, [Check(signature.FILE, FALSE, data)]
    made = signature.Statement(
        release=certified["release"],
        table_version=certified["table_version"],
        episodes=certified["episodes"],
        merkle_root=root,
        certificate_sha256=sha256,
    )
    try:
        given = signature.loads(data)
    except ValueError:
        return None, [Check(signature.FILE, FALSE, "it is not JSON")]
    wrong = signature.lie(made, given)
    if wrong is None and given["public_key"] != key:
        wrong = f"it is by {given['public_key']}, and certificate.json says by {key}"
    if wrong is not None:
        return None, [Check(signature.FILE, FALSE, wrong)]
    wrong = signature.differs(key, wanted)
    return key, [] if wrong is None else [Check(subject, FALSE, wrong)]


def _release_files(place: str, certified: dict[str, Any], signed: bool) -> Iterator[Check]:
    listed = certified["release_files"]
    own = {CERTIFICATE, signature.FILE} if signed else {CERTIFICATE}
    for name in storage.names(place):
        if name not in listed and name not in own and not name.startswith("."):
            yield Check(f"{certified['release']}/{name}", FALSE, "the certificate does not list this file")
    for name, sha256 in sorted(listed.items()):
        subject = f"{certified['release']}/{name}"
        if not _FILE_NAME.fullmatch(name):
            yield Check(subject, FALSE, "that is no name of a file of a release")
            continue
        data = _read(storage.join(place, name), carried.MOST_BYTES if name.endswith(carried.ENDING) else MOST_BYTES)
        if isinstance(data, str):
            yield Check(subject, FALSE, data)
        elif hashlib.sha256(data).hexdigest() != sha256:
            yield Check(subject, FALSE, "the file was changed: its sha256 is not the certified one")


def _data_files(corpus: Snapshot, certified: dict[str, Any]) -> Iterator[Check]:
    """The files that the log names at this version against those of the certificate, and their bytes."""
    root = episodes_uri(corpus.uri)
    listed = {file["path"]: file for file in certified["files"]}
    held = {file["path"]: file for file in corpus.files()}
    if digest_of(f"{file['sha256']}  {file['path']}" for file in certified["files"]) != certified["files_digest"]:
        yield Check(CERTIFICATE, FALSE, "its files_digest is not that of its files")
    for path in sorted(held.keys() | listed.keys()):
        file = listed.get(path)
        if file is None:
            yield Check(path, FALSE, "the certificate does not list this file")
        elif path not in held:
            yield Check(path, FALSE, "the certificate lists this file, and the table does not hold it")
        elif (file["size"], file["rows"]) != (held[path]["size_bytes"], held[path]["num_records"]):
            yield Check(path, FALSE, "its size or its number of episodes is not the certified one")
        else:
            data = _read(storage.join(root, path), file["size"])
            if isinstance(data, str):
                yield Check(path, FALSE, data)
            elif hashlib.sha256(data).hexdigest() != file["sha256"]:
                yield Check(path, FALSE, "the file was changed: its sha256 is not the certified one")


def _episodes(corpus: Snapshot, certified: dict[str, Any]) -> Iterator[Check]:
    """All rows together: their number, their digest, and the root over them."""
    subject = f"release {certified['release']}"
    try:
        rows = corpus.to_arrow(columns=["episode_id", "content_digest"])
        if rows.num_rows != certified["episodes"]:
            yield Check(subject, FALSE, f"it holds {rows.num_rows:,} episodes, not {certified['episodes']:,}")
        if digest_of(rows.column("content_digest").to_pylist()) != certified["content_digest"]:
            yield Check(subject, FALSE, "all rows together do not have the certified content digest")
        root = certified.get("merkle_root")
        if root is not None and merkle_root(rows) != root:
            yield Check(subject, FALSE, "the Merkle root over its episodes is not the certified one")
    except UserError as error:
        yield Check(subject, FALSE, str(error))


def _read(uri: str, most: int = MOST_BYTES) -> bytes | str:
    """The bytes of a file, or why it has none."""
    try:
        return storage.read(uri, most)
    except FileNotFoundError:
        return "is missing"
    except Damaged as error:
        return f"cannot be read: {error.reason}"
    except (UserError, OSError) as error:
        return f"cannot be read: {str(error).splitlines()[0]}"


def released_version(corpus: Snapshot, name: str) -> tuple[Snapshot, Released]:
    """The corpus as it was released under that name."""
    one = find(corpus, name)
    return open(corpus.uri, one.table_version), one
