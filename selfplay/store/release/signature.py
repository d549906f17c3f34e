"""certificate.sig: who stands for a release.

What is signed is a short text that follows from the certificate, so that a proof of one episode can carry it without
the certificate's lists of files (`Statement.text`):

    selfplay-factory release 1
    release NAME
    version N
    episodes N
    root HEX
    certificate HEX

Each line ends in a newline; `version` is that of the episodes table, `root` the Merkle root over its episodes
(`selfplay.store.release.merkle`), `certificate` the sha256 of certificate.json. The file is a JSON object:

    algorithm     "ed25519" (RFC 8032)
    public_key    "ed25519:" and the 32 bytes in hex
    signature     of the text in UTF-8, 64 bytes in hex
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from selfplay import signing

FILE = "certificate.sig"
MOST_BYTES = 4096
_ALGORITHM = "ed25519"


@dataclass(frozen=True)
class Statement:
    """What a signature is of. merkle_root, certificate_sha256: hex."""

    release: str
    table_version: int
    episodes: int
    merkle_root: str
    certificate_sha256: str

    @property
    def text(self) -> bytes:
        """The bytes that are signed."""
        lines = (
            "selfplay-factory release 1",
            f"release {self.release}",
            f"version {self.table_version}",
            f"episodes {self.episodes}",
            f"root {self.merkle_root}",
            f"certificate {self.certificate_sha256}",
        )
        return "".join(f"{line}\n" for line in lines).encode()


def sign(statement: Statement, key: signing.Key) -> dict[str, str]:
    """The object of certificate.sig."""
    return {"algorithm": _ALGORITHM, "public_key": key.name, "signature": key.sign(statement.text).hex()}


def loads(data: bytes) -> Any:
    """What certificate.sig holds, whatever it is. Raises `ValueError`."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def lie(statement: Statement, signature: Any) -> str | None:
    """What is wrong with a signature, as the end of a sentence; None where its own key made it.

    signature: the object of certificate.sig, as a stranger gave it.
    """
    if not isinstance(signature, dict) or signature.get("algorithm") != _ALGORITHM:
        return "the signature is not an object with the algorithm ed25519"
    key, made = signature.get("public_key"), signature.get("signature")
    if not isinstance(key, str) or not signing.is_name(key) or not isinstance(made, str):
        return "the signature names no ed25519 key"
    try:
        good = signing.is_signed(key, bytes.fromhex(made), statement.text)
    except ValueError:
        return "the signature is not written in hexadecimal digits"
    return None if good else f"the key {key} did not sign this"


def differs(key: str | None, wanted: str | None) -> str | None:
    """The same for a key that is not the wanted one. key: who signed; None: nobody did. wanted: None: any."""
    if wanted is None or key == wanted:
        return None
    return f"it is not signed, and was to be by {wanted}" if key is None else f"it is signed by {key}, not by {wanted}"
