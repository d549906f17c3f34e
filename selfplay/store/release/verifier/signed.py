"""What a release stands on as a whole: its Merkle root, its own files, its side tables, its signature."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pyarrow as pa

from selfplay.store.release.verifier.rows import MOST_CERTIFICATE_BYTES, MOST_FILE_BYTES, Lie, Row
from selfplay.store.release.verifier.table import read, shown, side_table

KEY = re.compile(r"ed25519:[0-9a-f]{64}")
MOST_SIGNATURE_BYTES = 4096


def leaf(episode_id: str, digest: str) -> bytes:
    """H(0x00, the id in UTF-8, the 32 bytes of the content digest); leaves are sorted by id."""
    return hashlib.sha256(b"\0" + episode_id.encode() + bytes.fromhex(digest)).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def half(size: int) -> int:
    """The largest power of two below `size`: how many leaves are left of the root (RFC 6962 section 2.1)."""
    return 1 << (size - 1).bit_length() - 1


def tree_root(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    k = half(len(leaves))
    return node(tree_root(leaves[:k]), tree_root(leaves[k:]))


def root_above(start: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root of a tree of `size` leaves whose leaf `index` is `start`; path: its neighbours, lowest first."""
    if size == 1:
        if path:
            raise Lie("the path to the Merkle root is too long")
        return start
    if not path:
        raise Lie("the path to the Merkle root is too short")
    k = half(size)
    if index < k:
        return node(root_above(start, index, k, path[:-1]), path[-1])
    return node(path[-1], root_above(start, index - k, size - k, path[:-1]))


def root_lies(digests: dict[str, str], certificate: Row) -> None:
    """digests: the content digests of all episodes by id."""
    try:
        found = tree_root([leaf(episode_id, digests[episode_id]) for episode_id in sorted(digests)]).hex()
    except ValueError:
        raise Lie("a content digest is no sha256: the episodes have no Merkle root") from None
    if found != certificate["merkle_root"]:
        raise Lie("the Merkle root over all episodes is not the certified one")


def signed_text(told: Row, sha256: str) -> bytes:
    """What is signed. told: a certificate, or a proof. sha256: of certificate.json."""
    version = {"release": told["release"], "version": told["table_version"], "episodes": told["episodes"]}
    lines = {**version, "root": told["merkle_root"], "certificate": sha256}
    return b"selfplay-factory release 1\n" + "".join(f"{name} {value}\n" for name, value in lines.items()).encode()


def signer(told: Row, sha256: str, signature: Any, wanted: str | None) -> tuple[str | None, str]:
    """Who signed, if that can be told here, and what to say of it. wanted: who must have. Raises `Lie`."""
    if signature is None:
        if wanted is not None:
            raise Lie(f"it is not signed, and was to be by {wanted}")
        return None, "not signed: who can rewrite the release can rewrite the certificate, too"
    given = signature if isinstance(signature, dict) else {}
    key, made = str(given.get("public_key")), str(given.get("signature"))
    if given.get("algorithm") != "ed25519" or not KEY.fullmatch(key) or not re.fullmatch("[0-9a-f]{128}", made):
        raise Lie("the signature is not one by an ed25519 key")
    if wanted not in (None, key):
        raise Lie(f"it is signed by {key}, not by {wanted}")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        if wanted is not None:
            raise ValueError("the signature cannot be checked without: pip install cryptography") from None
        return None, "signature not checked: pip install cryptography"
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.partition(":")[2]))
        public.verify(bytes.fromhex(made), signed_text(told, sha256))
    except InvalidSignature:
        raise Lie(f"the key {key} did not sign this") from None
    return key, f"signed by {key}{'' if wanted else ' (not compared with a key that you gave: --key)'}"


def certificate_signer(corpus: str, certificate: Row, data: bytes, wanted: str | None) -> tuple[str | None, str]:
    """The same of certificate.json, whose bytes are `data`; certificate.sig lies in the release."""
    if certificate.get("merkle_root") is None:
        if wanted is not None:
            raise Lie(f"it is not signed, and was to be by {wanted}")
        return None, "no Merkle root, no signature: made before there were any"
    signature = None
    if certificate.get("key") is not None:
        try:
            signature = json.loads(read(f"{corpus}/released/{certificate['release']}", "certificate.sig",
                                        MOST_SIGNATURE_BYTES))  # fmt: skip
        except FileNotFoundError:
            raise Lie("certificate.sig is missing") from None
        except (ValueError, RecursionError):
            raise Lie("certificate.sig is not a signature") from None
        if not isinstance(signature, dict) or signature.get("public_key") != certificate["key"]:
            raise Lie("certificate.sig is not by the key that certificate.json names")
    return signer(certificate, hashlib.sha256(data).hexdigest(), signature, wanted)


def release_lies(corpus: str, certificate: Row, data: bytes) -> list[tuple[str, str]]:
    """What is false of the files of the release, of the side tables, and of the release's row in `releases`."""
    place = f"{corpus}/released/{certificate['release']}"
    found: list[tuple[str, str]] = []
    files = {"certificate.json": hashlib.sha256(data).hexdigest(), **certificate["release_files"]}
    for name, sha256 in files.items():
        try:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
                raise Lie("that is no name of a file of a release")
            most = MOST_FILE_BYTES if name.endswith(".safetensors") else MOST_CERTIFICATE_BYTES
            if hashlib.sha256(read(place, name, most)).hexdigest() != sha256:
                raise Lie("the file was changed: its sha256 is not the certified one")
        except (Lie, OSError, ValueError) as lie:
            found.append((name, "the file is missing" if isinstance(lie, FileNotFoundError) else str(lie)))
    for name, listed in certificate["tables"].items():
        gone = set(listed) - {row_digest(row) for row in side_table(corpus, name)} if listed else set()
        if gone:
            found.append((name, f"{len(gone):,} rows that this table had at the release were changed or are gone"))
    mine = [row for row in side_table(corpus, "releases") if row["name"] == certificate["release"]]
    if len(mine) != 1:
        found.append(("releases", f"the table has {len(mine)} rows of this release"))
    elif row_contradicts(mine[0], certificate, files["certificate.json"]):
        found.append(("releases", "the row of this release contradicts certificate.json"))
    return found


def row_contradicts(row: Row, certificate: Row, sha256: str) -> bool:
    """Whether the row of the table of releases says otherwise than the certificate."""
    try:
        kept = json.loads(row["certificate"])
        sealed = kept.pop("sha256")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return True
    said = ("episodes", "content_digest", "merkle_root", "files_digest", "key", "verification", "release_files")
    expected = {name: certificate[name] for name in said if name in certificate}
    columns = [(row["table_version"], "table_version"), (row["note"] or "", "note")]
    when = row["created_at"].isoformat() if row["created_at"] is not None else None
    return sealed != sha256 or kept != expected or any(
        held != certificate.get(name) for held, name in [*columns, (when, "created_at")])  # fmt: skip


def row_digest(row: Row) -> str:
    """sha256 (hex) of a row as JSON without blanks, keys sorted, nulls left out, times in microseconds since 1970."""
    told = {name: value for name, value in row.items() if value is not None}
    for name, value in told.items():
        if hasattr(value, "isoformat"):
            told[name] = pa.scalar(value, pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py()
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def key_of(text: str | None) -> str | None:
    """The key that was asked for. Raises `ValueError` for what is none."""
    if text is not None and not KEY.fullmatch(text):
        raise ValueError(f"{shown(text)} is no key; give ed25519: and 64 hexadecimal digits")
    return text
