"""Making a release: verify, count, write its files, and last of all the row that makes it one.

Its files lie in `released/NAME` beside the tables (`releases` is the table). Until the row is there, nothing is
released, and the next attempt writes over what a killed one left. From then on `vacuum` keeps the files of its version.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deltalake.exceptions import CommitFailedError, DeltaError

from selfplay import signing
from selfplay.environments import archived
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.coverage import Tally
from selfplay.store.release import carried, signature
from selfplay.store.release.card import card
from selfplay.store.release.carried import Carried, Source, carry
from selfplay.store.release.certificate import Facts, Verified, certificate, facts, summary
from selfplay.store.release.croissant import croissant
from selfplay.store.release.schema_md import schema_md
from selfplay.store.release.verifier import one_file
from selfplay.store.release.weights_file import weights_file
from selfplay.store.table.lease import acquire
from selfplay.store.table.snapshot import Snapshot, refuse_links
from selfplay.store.table.table import append, check_name, episodes_uri, first_line, open_table, pause
from selfplay.store.verify.prompts import Renders
from selfplay.store.verify.verify import verify_corpus

FOLDER = "released"
#: The files of a release; the certificate holds the digests of the others. `signature.FILE` lies beside a signed one.
FILES = ("README.md", "croissant.json", "SCHEMA.md", "verify_corpus.py", "verify_weights.py", "certificate.json")
#: delta-rs deletes log entries older than 30 days by itself, and with them the way to older versions.
_KEEP_LOG = {"delta.enableExpiredLogCleanup": "false"}
_SHOWN = 3


@dataclass(frozen=True)
class Released:
    """place: URI of the folder of its files. certificate_sha256: of certificate.json. The rest: see `certificate`.

    merkle_root: None in releases that were made before there were any; key: None where it is not signed. weights:
    how many files of them it carries.
    """

    name: str
    table_version: int
    created_at: datetime
    note: str
    place: str
    episodes: int
    true: int
    not_checkable: int
    reasons: dict[str, int]
    sample: int | None
    seed: int | None
    content_digest: str
    files_digest: str
    certificate_sha256: str
    merkle_root: str | None
    key: str | None
    weights: int

    @property
    def statement(self) -> signature.Statement | None:
        """What the signature is of; None where there is no Merkle root."""
        if self.merkle_root is None:
            return None
        return signature.Statement(
            self.name, self.table_version, self.episodes, self.merkle_root, self.certificate_sha256
        )


def released(corpus: Snapshot) -> list[Released]:
    """All releases, oldest first."""
    return [_released(corpus, row) for row in release_rows(corpus)]


def release_rows(corpus: Snapshot) -> list[dict[str, Any]]:
    """The rows of the table of releases, oldest first. Raises `UserError` for a time that no date can be."""
    try:
        return list(corpus.table("releases").sort_by("created_at").to_pylist())
    except (ValueError, OverflowError):
        raise UserError(f"the table of releases of {corpus.uri} holds a time that no date can be") from None


def refuse_taken(corpus: Snapshot, name: str) -> None:
    """Raises `UserError` where `name` cannot name a new release."""
    check_name("release", name)
    for row in release_rows(corpus):
        if row["name"] == name:
            raise UserError(
                f"{name} is released already, as version {row['table_version']}; a release never changes: choose "
                "another name"
            )


def release(
    corpus: Snapshot,
    name: str,
    note: str = "",
    sample: int | None = None,
    seed: int = 0,
    processes: int = 1,
    progress: Callable[[], None] = lambda: None,
    key: Callable[[], signing.Key] | None = None,
    renders: Renders | None = None,
    weights: Source | None = None,
) -> Released:
    """Releases this version of the corpus. progress: called once for every answer of the check.

    key: gives the key to sign it with, and is asked when all is true; None: it is not signed. renders: as of
    `verify_corpus`. weights: gives those that it is to carry; None: it carries none.
    sample: check only so many episodes; the certificate says so. Raises `UserError`, with nothing written, where the
    name is taken or anything is false; of several that release one name at once, all but one are told so.
    """
    refuse_links(corpus.uri)
    refuse_taken(corpus, name)
    if not corpus.count():
        raise UserError(f"nothing was released: version {corpus.version} of {corpus.uri} holds no episode")
    found = facts(corpus, name, note, verified(corpus, sample, seed, processes, progress, renders))
    with _alone(corpus, name):
        refuse_taken(corpus, name)
        _keep_log(corpus)
        created_at = storage.now()
        refuse_links(corpus.uri)  # checking took its time
        row = described(corpus, found, created_at, None if key is None else key(), weights)
        _refuse_vacuumed(corpus, found)
        storage.fault("before_release")
        if not append(corpus.uri, "releases", [row]):
            raise UserError(f"another process released {name} at the same time; `--list` shows what it holds")
    return _released(corpus, row)


def described(
    corpus: Snapshot, found: Facts, created_at: datetime, key: signing.Key | None, weights: Source | None
) -> dict[str, Any]:
    """Writes the files of a release of the corpus, signed where there is a key; returns its row for the table."""
    name = None if key is None else key.name
    place = storage.join(corpus.uri, FOLDER, found.name)
    with_it = carry(corpus, place, weights)
    texts = _texts(corpus, found, name, with_it)
    others = {file: hashlib.sha256(data).hexdigest() for file, data in texts.items()}
    if with_it is not None:
        others |= with_it.files
    certified = certificate(found, created_at, others, name, with_it)
    texts["certificate.json"] = _json(certified)
    sha256 = hashlib.sha256(texts["certificate.json"]).hexdigest()
    for file in FILES:
        storage.write(storage.join(place, file), texts[file], durable=True)
    if key is None:
        storage.delete(storage.join(place, signature.FILE))  # of an attempt that was killed
    else:
        told = signature.Statement(found.name, found.table_version, found.episodes, found.merkle_root, sha256)
        signed = _json(signature.sign(told, key))
        storage.write(storage.join(place, signature.FILE), signed, durable=True)
    return {
        "name": found.name,
        "table_version": corpus.version,
        "created_at": created_at,
        "note": found.note,
        "certificate": summary(certified, sha256),
    }


def verified(
    corpus: Snapshot,
    sample: int | None,
    seed: int,
    processes: int,
    progress: Callable[[], None],
    renders: Renders | None = None,
) -> Verified:
    """What a check of the corpus finds. Raises `UserError` where anything is false."""
    tally = Tally()
    for check in verify_corpus(corpus, sample, seed, processes, renders):
        progress()
        tally.add(check)
    lies = tally.lies
    if lies:
        shown = "; ".join(f"{lie.subject}: {lie.reason}" for lie in sorted(lies, key=lambda lie: lie.subject)[:_SHOWN])
        more = f" and {len(lies) - _SHOWN:,} more" if len(lies) > _SHOWN else ""
        raise UserError(f"nothing was released: version {corpus.version} is not true ({shown}{more})")
    whole = sample is None or sample >= corpus.count()
    return Verified(
        true=tally.true,
        not_checkable=tally.not_checkable,
        reasons=tally.by_reason,
        sample=None if whole else sample,
        seed=None if whole else seed,
        classes=tally.by_class,
        uncovered=dict(sorted(tally.uncovered.items())),
    )


def _texts(corpus: Snapshot, found: Facts, key: str | None, with_it: Carried | None) -> dict[str, bytes]:
    """The files of the release but for the certificate and weights. key: whose signature will lie beside it.

    with_it: the weights.
    """
    first = next(corpus.episodes(columns=["episode_id"]), None)
    episode_id = None if first is None else first.column("episode_id")[0].as_py()
    return {
        "README.md": card(found, episode_id, key, with_it).encode(),
        "croissant.json": _json(croissant(found)),
        "SCHEMA.md": schema_md().encode(),
        "verify_corpus.py": one_file().encode(),
        "verify_weights.py": weights_file(_seat_planes(found)).encode(),
    }


def _seat_planes(found: Facts) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Of the games that are installed here: how each seat's view is laid out for a net."""
    planes = {}
    for one in found.rulesets:
        with contextlib.suppress(UserError):
            spec = archived.find_game(one["env_id"], one["game_string"])
            if spec.seat_planes is not None:
                planes[spec.id] = spec.seat_planes
    return planes


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


class _alone:
    """Of several processes that release one name only one writes its files."""

    def __init__(self, corpus: Snapshot, name: str) -> None:
        self._place = storage.join(corpus.uri, FOLDER, ".leases", name)
        self._name = name

    def __enter__(self) -> None:
        try:
            self._lease = acquire(self._place, f"release {self._name}")
        except UserError as error:
            if "is held by" not in str(error):
                raise
            raise UserError(
                f"another process is releasing {self._name} right now; if it fails, this name is free in half a minute"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._lease.release()


def _keep_log(corpus: Snapshot) -> None:
    """Makes the table keep its log for ever: without the log of its version a release cannot be opened."""
    for attempt in range(20):
        table = open_table(episodes_uri(corpus.uri))
        if (table.metadata().configuration or {}).items() >= _KEEP_LOG.items():
            return
        try:
            table.alter.set_table_properties(dict(_KEEP_LOG))
        except CommitFailedError:
            pause(attempt)
        except (DeltaError, OSError) as error:
            raise UserError(f"the corpus at {corpus.uri} could not be changed: {first_line(error)}") from error
    raise UserError(f"the corpus at {corpus.uri} is written by too many others at once; try again")


def _refuse_vacuumed(corpus: Snapshot, found: Facts) -> None:
    """A vacuum that began before the row is there knows nothing of the release."""
    for file in found.files:
        if not storage.exists(storage.join(episodes_uri(corpus.uri), file["path"])):
            raise UserError(f"version {corpus.version} was vacuumed while it was to be released; release a newer one")


def _released(corpus: Snapshot, row: dict[str, Any]) -> Released:
    try:
        kept = json.loads(row["certificate"] or "{}")
        verification = kept.get("verification", {})
        return _from_summary(corpus, row, kept, verification)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(f"the table of releases of {corpus.uri} has no valid certificate for {row['name']!r}") from None


def _from_summary(corpus: Snapshot, row: dict[str, Any], kept: Any, verification: Any) -> Released:
    return Released(
        name=row["name"],
        table_version=row["table_version"],
        created_at=row["created_at"],
        note=row["note"] or "",
        place=storage.join(corpus.uri, FOLDER, row["name"]),
        episodes=kept.get("episodes", 0),
        true=verification.get("true", 0),
        not_checkable=verification.get("not checkable", 0),
        reasons=verification.get("reasons", {}),
        sample=verification.get("sample"),
        seed=verification.get("seed"),
        content_digest=kept.get("content_digest", ""),
        files_digest=kept.get("files_digest", ""),
        certificate_sha256=kept.get("sha256", ""),
        merkle_root=kept.get("merkle_root"),
        key=kept.get("key"),
        weights=sum(file.endswith(carried.ENDING) for file in kept.get("release_files", ())),
    )
