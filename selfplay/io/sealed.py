"""Files that show whether they are whole, and reading the newest one that is.

A sealed JSON object carries the sha256 of its other fields, so that half a file, another file and a changed file are
all told from what was written. Objects without a seal, of earlier versions or written by hand, are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from selfplay.errors import Damaged, UserError
from selfplay.io import storage

_SEAL = "sha256"
#: The largest sealed object that is read.
MOST_BYTES = 256 * 2**20
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Found(Generic[_Value]):
    """What `load_newest_valid` found.

    value, place: of the first whole candidate; None where there is none. damaged: the candidates before it.
    """

    value: _Value | None
    place: str | None
    damaged: tuple[Damaged, ...]


def dumps(data: Mapping[str, Any], indent: int | None = None) -> str:
    """The object as JSON, with its seal."""
    plain = json.loads(json.dumps(data))  # as a reader will have it: keys are text
    return json.dumps({**plain, _SEAL: _digest(plain)}, indent=indent)


def loads(text: str | bytes, source: str, schema: int | None = None) -> dict[str, Any]:
    """The inverse of `dumps`; `source` names the place in errors.

    schema: the newest that is known here. Raises `UserError` for what states a newer one, otherwise `Damaged`.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Damaged(source, "it is empty" if not text else "it is not JSON") from None
    if not isinstance(data, dict):
        raise Damaged(source, "it is JSON, but not an object")
    stated = data.get("schema")
    if schema is not None and not isinstance(stated, int):
        raise Damaged(source, "it does not state its schema")
    if schema is not None and int(stated or 0) > schema:
        raise UserError(f"{source} has schema {stated}, newer than the {schema} known here; upgrade the package")
    seal = data.pop(_SEAL, None)
    if seal is not None and seal != _digest(data):
        raise Damaged(source, "it does not have the sha256 that it states")
    return data


def read(uri: str, schema: int | None = None) -> dict[str, Any]:
    """The object at a place. Raises `FileNotFoundError`, and what `loads` raises."""
    return loads(storage.read(uri, MOST_BYTES), uri, schema)


def write(uri: str, data: Mapping[str, Any], indent: int | None = None) -> None:
    """Writes the object with its seal, so that a power cut does not undo it."""
    storage.write(uri, dumps(data, indent).encode(), durable=True)


def load_newest_valid(places: Iterable[str], load: Callable[[str], _Value]) -> Found[_Value]:
    """Loads the first of the places that holds what was written there.

    places: newest first. load: raises `Damaged` or `FileNotFoundError` for what is none; all else goes through.
    """
    damaged: list[Damaged] = []
    for place in places:
        try:
            return Found(load(place), place, tuple(damaged))
        except Damaged as error:
            damaged.append(error)
        except FileNotFoundError:
            damaged.append(Damaged(place, "it is missing"))
        except OSError as error:  # a bad sector, a folder in its place
            damaged.append(Damaged(place, f"it cannot be read ({error.strerror or error})"))
    return Found(None, None, tuple(damaged))


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
