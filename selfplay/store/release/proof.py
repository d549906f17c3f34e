"""A proof that one episode is in a release, which can be checked without the corpus. A small JSON object:

    format               "selfplay-factory proof 1"
    episode_id           the episode
    content_digest       sha256 (hex) over the other columns of its row (`selfplay.episode.digest`)
    row                  the row itself, or null: the columns of the digest with it, nested as in the table; null for
                         NaN, times as microseconds since 1970 UTC
    index, path          its place among the leaves of the Merkle tree (`selfplay.store.release.merkle`), from 0, and
                         its neighbours on the way to the root (hex, lowest first)
    release, table_version, episodes, merkle_root, certificate_sha256
                         what is signed (`selfplay.store.release.signature`); `episodes` is the number of leaves
    signature            the object of certificate.sig; null where the release is not signed

Who checks it computes the digest of the row, climbs from the leaf to the root, and asks whose signature is under that
root, or whether it is the root that he has from elsewhere. That the episode itself is true is for `corpus verify`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selfplay.commands import command
from selfplay.episode import content_digests
from selfplay.episode.digest import CONTENT_COLUMNS
from selfplay.episode.schema import EPISODES
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.release import merkle, signature
from selfplay.store.release.job import FOLDER, Released
from selfplay.store.table.snapshot import Snapshot

FORMAT = "selfplay-factory proof 1"
MOST_BYTES = 64 * 2**20
_FIELDS: dict[str, type] = {
    "episode_id": str, "content_digest": str, "index": int, "path": list, "release": str, "table_version": int,
    "episodes": int, "merkle_root": str, "certificate_sha256": str,
}  # fmt: skip


@dataclass(frozen=True)
class Proved:
    """What a proof shows. lie: what is wrong with it; None where it holds. key: whose signature is under the root.

    row: whether it holds the row, and not its digest alone. The rest: as in the proof.
    """

    episode_id: str
    release: str
    index: int
    episodes: int
    merkle_root: str
    key: str | None
    row: bool
    lie: str | None


def prove(corpus: Snapshot, one: Released, episode_id: str, with_row: bool = True) -> dict[str, Any]:
    """The proof that an episode is in a release. corpus: at the released version.

    Raises `UserError` where the episode is not in it, and where the release does not hold what was certified.
    """
    if one.statement is None:
        raise UserError(f"release {one.name} was made before releases had a Merkle root; release a version anew")
    rows = corpus.to_arrow(columns=["episode_id", "content_digest"]).sort_by("episode_id")
    index = pc.index(rows.column("episode_id"), episode_id).as_py()
    if index < 0:
        raise UserError(f"episode {episode_id} is not in release {one.name}")
    ids, digests = (rows.column(name).to_pylist() for name in ("episode_id", "content_digest"))
    advice = f"`{command('corpus', 'verify', corpus.uri, '--release', one.name)}` tells what is false"
    try:
        level = merkle.leaves(zip(ids, digests, strict=True))
    except ValueError as error:
        raise UserError(f"release {one.name} does not hold what was certified ({error}); {advice}") from None
    if merkle.root(level).hex() != one.merkle_root:
        raise UserError(f"release {one.name} does not hold the episodes that were certified; {advice}")
    proof = {
        "format": FORMAT,
        "episode_id": episode_id,
        "content_digest": digests[index],
        "index": index,
        "path": [neighbour.hex() for neighbour in merkle.path(level, index)],
        **asdict(one.statement),
        "signature": _signature(corpus, one),
        "row": _row(corpus, episode_id) if with_row else None,
    }
    wrong = check(proof).lie
    if wrong is not None:
        raise UserError(f"release {one.name} cannot be proved: {wrong}; {advice}")
    return proof


def loads(data: bytes) -> dict[str, Any]:
    """A stranger's proof. Raises `UserError` for what is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError("the proof is not JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f'the proof is not an object with the format "{FORMAT}"')
    for name, kind in _FIELDS.items():
        if type(found.get(name)) is not kind:
            raise UserError(f"the proof has no field {name} that is a {kind.__name__}")
    for name in ("signature", "row"):
        if not isinstance(found.get(name), dict | None):
            raise UserError(f"the field {name} of the proof is neither an object nor null")
    if len(found["path"]) > merkle.MOST_LEVELS or not all(isinstance(one, str) for one in found["path"]):
        raise UserError("the path of the proof is not a list of at most 64 texts")
    return found


def check(proof: Mapping[str, Any], key: str | None = None, root: str | None = None) -> Proved:
    """Whether a proof, as `loads` gives it, holds. key, root: who must have signed it, and what; None: anybody, any."""
    signer = None if proof["signature"] is None else proof["signature"].get("public_key")
    wrong = _lie(proof) or _signed(proof) or signature.differs(signer, key)
    if wrong is None and root is not None and proof["merkle_root"] != root:
        wrong = f"its Merkle root is not {root}"
    return Proved(
        episode_id=proof["episode_id"],
        release=proof["release"],
        index=proof["index"],
        episodes=proof["episodes"],
        merkle_root=proof["merkle_root"],
        key=None if wrong else signer,
        row=proof["row"] is not None,
        lie=wrong,
    )


def _lie(proof: Mapping[str, Any]) -> str | None:
    """What is wrong between the row and the root."""
    if proof["row"] is not None:
        wrong = _row_lie(proof["row"], proof["episode_id"], proof["content_digest"])
        if wrong is not None:
            return wrong
    try:
        start = merkle.leaf(proof["episode_id"], proof["content_digest"])
        path = [bytes.fromhex(one) for one in proof["path"]]
        if any(len(one) != 32 for one in path):
            return "a neighbour in its path is not a sha256 in hex"
        climbed = merkle.climbed(start, proof["index"], proof["episodes"], path)
    except ValueError as error:
        return f"its path leads nowhere: {error}"
    return None if climbed.hex() == proof["merkle_root"] else "its path leads to another Merkle root"


def _signed(proof: Mapping[str, Any]) -> str | None:
    if proof["signature"] is None:
        return None
    names = ("release", "table_version", "episodes", "merkle_root", "certificate_sha256")
    return signature.lie(signature.Statement(*(proof[name] for name in names)), proof["signature"])


def _row_lie(row: dict[str, Any], episode_id: str, digest: str) -> str | None:
    """What is wrong with a stranger's row: it must be what the schema holds, no more, and have its digest and id."""
    version = row.get("schema_version")
    names = CONTENT_COLUMNS.get(version) if type(version) is int else None
    if names is None or row.keys() != set(names):
        return "its row does not have the columns of an episode of a schema version that is known here"
    try:
        (batch,) = pa.Table.from_pylist([row], EPISODES).to_batches()
        if _json(batch.select(names)) != row:
            return "its row holds what no episode has"
        (found,) = content_digests(dict(zip(EPISODES.names, batch.columns, strict=True)))
    except (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError, KeyError, RecursionError):
        return "its row is not an episode"
    if found != digest:
        return "its row does not have its content digest"
    return None if row["episode_id"] == episode_id else "its row is of another episode"


def _row(corpus: Snapshot, episode_id: str) -> dict[str, Any]:
    run_id, slot = (*episode_id.split("/"), "")[:2]
    mine = (pc.field("run_id") == run_id) & (pc.field("slot") == slot)  # the log tells which files have none of them
    rows = corpus.to_arrow(mine & (pc.field("episode_id") == episode_id))
    if rows.num_rows != 1:
        raise UserError(f"episode {episode_id} does not have the run and the slot of its id")
    (version,) = rows.column("schema_version").to_pylist()
    if version not in CONTENT_COLUMNS:
        raise UserError(f"episode {episode_id} has schema version {version}; update this package, or prove its digest")
    names = CONTENT_COLUMNS[version]
    schema = pa.schema([EPISODES.field(name) for name in names])
    (batch,) = rows.select(names).cast(schema).combine_chunks().to_batches()
    return _json(batch)


def _json(batch: pa.RecordBatch) -> dict[str, Any]:
    """The row of a batch of one as JSON can hold it."""
    (row,) = batch.to_pylist()
    whole = batch.column("started_at").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    found: dict[str, Any] = _plain({**row, "started_at": whole[0].as_py()})
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _signature(corpus: Snapshot, one: Released) -> Any:
    if one.key is None:
        return None
    place = storage.join(corpus.uri, FOLDER, one.name, signature.FILE)
    try:
        found = signature.loads(storage.read(place, signature.MOST_BYTES))
    except (OSError, ValueError) as error:
        raise UserError(f"{place} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{place} is not a signature")
    return found
