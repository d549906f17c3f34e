"""The key with which a user signs releases: Ed25519 (RFC 8032), made once, kept where only this user can read it.

It lies in the user's own directories (XDG state, by default `~/.local/state/selfplay/signing_key.pem`), mode 0600, in
PKCS #8, so that other tools can use it; never in a corpus. It is not made anew where it is damaged: releases already
name it. A public key is written "ed25519:" and its 32 bytes in hex. It is as short as a fingerprint of it would be, so
it serves as that, too: what a person compares is the key itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from selfplay.errors import UserError
from selfplay.io import scratch, storage

FILE = "signing_key.pem"
_NAME = re.compile(r"ed25519:[0-9a-f]{64}")
_MOST_BYTES = 16 * 1024


@dataclass(frozen=True)
class Key:
    """A private key. name: its public key, "ed25519:…"."""

    private: Ed25519PrivateKey
    name: str

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes; the same for the same message."""
        return self.private.sign(message)


def place() -> Path:
    """Where this user's key lies, or would lie. Raises `UserError` where there is no directory to keep it in."""
    return scratch.kept() / FILE


def own() -> Key | None:
    """This user's key; None where none was made yet. Raises `UserError` for one that is damaged or open to others."""
    path = place()
    try:
        with storage.open_regular(str(path)) as file:
            others = os.fstat(file.fileno()).st_mode & 0o077
            data = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"the signing key {path} cannot be read: {error.strerror or error}") from None
    if others:
        raise UserError(f"others can read the signing key {path}; `chmod 600` closes it")
    try:
        private = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise UserError(
            f"{path} is not an Ed25519 key in PEM without a passphrase; put back a copy of it, or move it away and the "
            "next release makes another key"
        )
    return Key(private, _name(private.public_key()))


def make() -> Key:
    """This user's key, made if there is none; of several processes one makes it."""
    path = place()
    data = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    beside = path.with_name(f".{FILE}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    except OSError as error:
        raise UserError(f"no signing key could be made at {path}: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
    storage.sync([str(path)])
    found = own()
    assert found is not None
    return found


def is_signed(name: str, signature: bytes, message: bytes) -> bool:
    """Whether the key of that name signed the message. Raises `ValueError` for what cannot name a key."""
    try:
        _public(name).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def pem(name: str) -> str:
    """A public key as other tools read it (SubjectPublicKeyInfo)."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return _public(name).public_bytes(serialization.Encoding.PEM, form).decode()


def named(text: str) -> str:
    """The name of a public key that a user gave: itself, or a file that holds it or its PEM.

    Raises `UserError`, also for a private key: it is nobody's to hand around.
    """
    if _NAME.fullmatch(text):
        return text
    wanted = "give ed25519: and 64 hexadecimal digits, or a file that holds that or a public key in PEM"
    try:
        data = storage.read(text, _MOST_BYTES)
    except (OSError, ValueError, UserError):
        raise UserError(f"{text!r} is neither a public key nor a file that can be read; {wanted}") from None
    if b"PRIVATE KEY" in data:
        raise UserError(f"{text} holds a private key; {wanted}")
    found = data.decode("ascii", "replace").strip()
    if _NAME.fullmatch(found):
        return found
    try:
        public = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, Ed25519PublicKey):
        raise UserError(f"{text} holds no Ed25519 public key; {wanted}")
    return _name(public)


def is_name(text: str) -> bool:
    """Whether `text` is written as the name of a public key."""
    return _NAME.fullmatch(text) is not None


def _name(public: Ed25519PublicKey) -> str:
    return f"ed25519:{public.public_bytes_raw().hex()}"


def _public(name: str) -> Ed25519PublicKey:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(name.partition(":")[2]))
