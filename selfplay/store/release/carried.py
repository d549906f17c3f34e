"""The weights that a release carries: of each version that its episodes name one file, named by the weights' digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.store.corpus.query import query
from selfplay.store.table.snapshot import Snapshot

#: (digest, version) -> a safetensors file of the weights of that digest; None where they were not kept.
Source = Callable[[str, int], bytes | None]

ENDING = ".safetensors"
MOST_BYTES = 8 * 2**30
_DIGEST = re.compile("[0-9a-f]{64}")
_NAMED = """
    SELECT s.digest, min(s.policy_id), min(s.version) FROM (SELECT unnest(policy_spans) AS s FROM episodes)
    WHERE s.digest IS NOT NULL GROUP BY 1 ORDER BY 2, 3, 1"""
_SHOWN = 8


@dataclass(frozen=True)
class Carried:
    """files: name -> sha256 of the file. named: how many weights the episodes name. gone: those that were not kept, as
    (policy id, version, digest).
    """

    named: int
    files: dict[str, str] = field(default_factory=dict)
    gone: tuple[tuple[str, int, str], ...] = ()

    @property
    def said(self) -> str:
        """A sentence."""
        here = f"the weights of {len(self.files):,} of the {self.named:,} versions that its episodes name"
        if not self.gone:
            return f"it carries {here}"
        listed = ", ".join(f"version {version} of {policy}" for policy, version, _ in self.gone[:_SHOWN])
        more = f" and {len(self.gone) - _SHOWN:,} more" if len(self.gone) > _SHOWN else ""
        return f"it carries {here}; not kept were those of {listed}{more}"

    def as_fields(self) -> dict[str, Any]:
        """What the certificate says of it, JSON."""
        gone = [{"policy_id": policy, "version": version, "digest": digest} for policy, version, digest in self.gone]
        return {"named": self.named, "carried": len(self.files), "gone": gone}


def carry(corpus: Snapshot, place: str, source: Source | None) -> Carried | None:
    """Writes the weights that episodes name to `place`, the folder of a release; None: none were asked for.

    What a release that was killed left there goes. Raises `UserError` where not one of them was kept.
    """
    for name in list(storage.names(place)):
        if name.endswith(ENDING):
            storage.delete(storage.join(place, name))
    if source is None:
        return None
    named, files, gone = list(_named(corpus)), dict[str, str](), []
    for digest, policy, version in named:
        data = source(digest, version) if _DIGEST.fullmatch(digest) else None
        if data is None:
            gone.append((policy, version, digest))
            continue
        if len(data) > MOST_BYTES:
            raise UserError(f"nothing was released: version {version} of {policy} has more than 8 GiB of weights")
        storage.write(storage.join(place, digest + ENDING), data, durable=True)
        files[digest + ENDING] = hashlib.sha256(data).hexdigest()
    if not named:
        raise UserError("nothing was released: its episodes name no weights, which a release could carry")
    if not files:
        wanted = f"of the {len(named):,} versions that its episodes name no weights are on hand"
        raise UserError(f"nothing was released: {wanted}; --weights-from FOLDER says where they are")
    return Carried(len(named), files, tuple(gone))


def _named(corpus: Snapshot) -> Iterator[tuple[str, str, int]]:
    """Digest, policy id and version of all weights that episodes name, each digest once."""
    for digest, policy, version in query(corpus, _NAMED)[1]:
        yield str(digest), str(policy), int(version or 0)
