"""What a release says of its episodes: counted from one version of the corpus, with the digests of its files and rows.

`facts` reads the version once; the card, the Croissant file and the certificate are written from what it found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from selfplay._version import VERSION
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.corpus.query import query
from selfplay.store.coverage import meaning
from selfplay.store.release import merkle
from selfplay.store.release.carried import Carried
from selfplay.store.release.diversity import diversity
from selfplay.store.release.tables import row_digests
from selfplay.store.table.snapshot import Snapshot
from selfplay.store.table.table import episodes_uri, open_table
from selfplay.store.verify.verify import NOT_CHECKABLE, TRUE

#: 1 had no Merkle root, no rows of side tables and no signature.
FORMAT = 2
#: Columns by whose values the episodes are counted.
COUNTED = ("kind", "env_id", "status", "origin", "run_id", "licence")


@dataclass(frozen=True)
class Verified:
    """The answer of the check: number of episodes by state, and for those not checkable how many by reason.

    sample: how many were drawn with `seed`; both None if all were checked. classes: those not checkable, by class.
    uncovered: what could not be looked at -> in how many episodes; see `selfplay.store.coverage`.
    """

    true: int
    not_checkable: int
    reasons: dict[str, int]
    sample: int | None
    seed: int | None
    classes: dict[str, int] = field(default_factory=dict)
    uncovered: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """One version of the corpus, counted.

    committed_at: when that version was committed. files: path below the episodes table, size (bytes), rows, sha256.
    counts: by column of `COUNTED`, rows of value, episodes, steps, trainable. policies, rulesets, errors: rows as in
    the certificate. diversity: see `selfplay.store.release.diversity`. content_digest, files_digest: see `certificate`.
    merkle_root: hex, see `selfplay.store.release.merkle`. tables: see `selfplay.store.release.tables`.
    redacted: whether it is a copy that leaves things out (`selfplay.store.release.redaction`).
    """

    name: str
    note: str
    table_version: int
    committed_at: datetime
    episodes: int
    steps: int
    bytes: int
    files: list[dict[str, Any]]
    counts: dict[str, list[dict[str, Any]]]
    policies: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    rulesets: list[dict[str, Any]]
    diversity: dict[str, list[dict[str, Any]]]
    content_digest: str
    files_digest: str
    merkle_root: str
    tables: dict[str, list[str]]
    verified: Verified
    redacted: bool = False

    @property
    def licences(self) -> list[str]:
        """SPDX ids, sorted."""
        return sorted(row["value"] for row in self.counts["licence"] if row["value"])


def _committed_at(table: DeltaTable) -> datetime:
    """When the version was committed, as its entry in the log says. Raises `UserError` where that is not a time."""
    said: Any = table.history(1)[0].get("timestamp")
    try:
        return datetime.fromtimestamp(said / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise UserError(
            f"nothing was released: the log of {table.table_uri} gives {said!r} as the time of its version "
            f"{table.version()}"
        ) from None


def facts(corpus: Snapshot, name: str, note: str, verified: Verified, redacted: bool = False) -> Facts:
    """Counts the episodes and reads every file. Raises `UserError` where a file or the rows contradict the log."""
    rows = corpus.to_arrow(columns=["episode_id", "content_digest", "n_steps", "trainable", *COUNTED])
    ids = rows.column("episode_id")
    if pc.count_distinct(ids).as_py() != rows.num_rows:
        twice = next(one["values"] for one in pc.value_counts(ids).to_pylist() if one["counts"] > 1)
        raise UserError(f"nothing was released: episode {twice} is in version {corpus.version} more than once")
    files = sorted(_files(corpus), key=lambda file: str(file["path"]))
    table = open_table(episodes_uri(corpus.uri), corpus.version)
    return Facts(
        name=name,
        note=note,
        table_version=corpus.version,
        committed_at=_committed_at(table),
        episodes=rows.num_rows,
        steps=pc.sum(rows.column("n_steps")).as_py() or 0,
        bytes=sum(file["size"] for file in files),
        files=files,
        counts={column: _counted(rows, column) for column in COUNTED},
        policies=_rows(corpus, _POLICIES),
        errors=_rows(corpus, _ERRORS),
        rulesets=_rulesets(corpus),
        diversity=diversity(corpus),
        content_digest=digest_of(rows.column("content_digest").to_pylist()),
        files_digest=digest_of(f"{file['sha256']}  {file['path']}" for file in files),
        merkle_root=merkle_root(rows),
        tables=row_digests(corpus),
        verified=verified,
        redacted=redacted,
    )


def certificate(
    facts: Facts, created_at: datetime, others: dict[str, str], key: str | None, carried: Carried | None
) -> dict[str, Any]:
    """The certificate. others: sha256 of the release's other files, by name. key: whose signature will lie beside it.

    carried: the weights among them; None: none were asked for.

    content_digest: sha256 over the content digests (hex) of all episodes, sorted, a newline after each; it names the
    content whatever files it lies in. merkle_root: of the tree over the episodes' ids and content digests; by it one
    episode can be proved without the others. files_digest: as content_digest, over lines "sha256  path" of all data
    files. tables: digests of the rows that the side tables had. `release_files` and `files` are all files of the
    release but the certificate itself and its signature.
    """
    verified = facts.verified
    return {
        "format": FORMAT,
        "release": facts.name,
        "note": facts.note,
        "created_at": created_at.isoformat(),
        "table_version": facts.table_version,
        "redacted": facts.redacted,
        "committed_at": facts.committed_at.isoformat(),
        "episodes": facts.episodes,
        "steps": facts.steps,
        "bytes": facts.bytes,
        "content_digest": facts.content_digest,
        "merkle_root": facts.merkle_root,
        "files_digest": facts.files_digest,
        "key": key,
        "verification": {
            TRUE: verified.true,
            "false": 0,
            NOT_CHECKABLE: verified.not_checkable,
            "reasons": verified.reasons,
            "classes": verified.classes,
            "uncovered": verified.uncovered,
            "meaning": meaning(verified.uncovered),
            "sample": verified.sample,
            "seed": verified.seed,
        },
        "counts": facts.counts,
        "policies": facts.policies,
        "errors": facts.errors,
        "diversity": facts.diversity,
        "rulesets": facts.rulesets,
        "packages": {
            "selfplay-factory": VERSION,
            **{package: metadata.version(package) for package in ("open_spiel", "pyarrow", "deltalake")},
        },
        "tables": facts.tables,
        "weights": None if carried is None else {"said": carried.said, **carried.as_fields()},
        "release_files": others,
        "files": facts.files,
    }


def summary(certificate: dict[str, Any], sha256: str) -> str:
    """What the table of releases keeps of a certificate, JSON. sha256: of certificate.json."""
    kept = ("episodes", "content_digest", "merkle_root", "files_digest", "key", "verification", "release_files")
    told = {name: certificate[name] for name in kept if name in certificate}
    return json.dumps({"sha256": sha256, **told}, sort_keys=True)


def merkle_root(rows: pa.Table) -> str:
    """The root (hex) over episodes. rows: episode_id, content_digest. Raises `UserError` for what is no digest."""
    try:
        names = zip(*(rows.column(name).to_pylist() for name in ("episode_id", "content_digest")), strict=True)
        return merkle.root(merkle.leaves(names)).hex()
    except (ValueError, TypeError) as error:
        raise UserError(f"its episodes make no Merkle tree: {error}") from None


def digest_of(lines: Iterable[str]) -> str:
    """sha256 (hex) of the lines, sorted, a newline after each: what `sort | sha256sum` says."""
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def _files(corpus: Snapshot) -> Iterable[dict[str, Any]]:
    for file in corpus.files():
        path = file["path"]
        try:
            data = storage.read(storage.join(episodes_uri(corpus.uri), path))
        except FileNotFoundError:
            raise UserError(f"nothing was released: the file {path} is missing") from None
        sha256 = hashlib.sha256(data).hexdigest()
        if len(data) != file["size_bytes"] or (named := path[-72:-8]) != sha256 and _is_digest(named):
            raise UserError(f"nothing was released: the file {path} was changed after it was written")
        yield {"path": path, "size": len(data), "rows": file["num_records"], "sha256": sha256}


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _counted(rows: pa.Table, column: str) -> list[dict[str, Any]]:
    """Episodes, steps and trainable episodes by value, most episodes first."""
    groups = rows.group_by(column).aggregate([("n_steps", "count"), ("n_steps", "sum"), ("trainable", "sum")])
    found = [
        {
            "value": group[column],
            "episodes": group["n_steps_count"],
            "steps": group["n_steps_sum"],
            "trainable": group["trainable_sum"] or 0,
        }
        for group in groups.to_pylist()
    ]
    return sorted(found, key=lambda group: (-group["episodes"], str(group["value"])))


_POLICIES = """
    SELECT s.policy_id AS policy_id, min(s.version) AS first_version, max(s.version) AS last_version,
           count(DISTINCT s.digest) AS weights, count(DISTINCT episode_id) AS episodes
    FROM (SELECT episode_id, unnest(policy_spans) AS s FROM episodes) GROUP BY 1 ORDER BY episodes DESC, 1"""
_ERRORS = """
    SELECT status, error.kind AS error, count(*) AS episodes FROM episodes WHERE status <> 'ok'
    GROUP BY 1, 2 ORDER BY episodes DESC, 1, 2"""
_RULESETS = """
    SELECT env_id, ruleset_digest, game.game_string AS game_string, count(*) AS episodes
    FROM episodes GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""


def _rows(corpus: Snapshot, sql: str) -> list[dict[str, Any]]:
    names, rows = query(corpus, sql)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _rulesets(corpus: Snapshot) -> list[dict[str, Any]]:
    """One row for each environment and its rules; package: what brings them, None where OpenSpiel has them itself."""
    known = {(row["env_id"], row["ruleset_digest"]): row for row in corpus.environments()}
    found: list[dict[str, Any]] = []
    for row in _rows(corpus, _RULESETS):
        if found and all(row[name] == found[-1][name] for name in ("env_id", "ruleset_digest")):
            games = f"{found[-1]['game_string']} and {row['game_string']}"
            raise UserError(f"nothing was released: {row['env_id']} has two games under one digest, {games}")
        environment = known.get((row["env_id"], row["ruleset_digest"]), {})
        names = ("package", "package_version", "source_digest", "licence")
        found.append({**row, **{name: environment.get(name) for name in names}})
    return found
