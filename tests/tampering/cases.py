"""What a case of the tampering suite is: one value of an honest corpus, edited, and what is to be said of it.

An edit is self-consistent: the content digest of the row is made anew, and the row lies in a file that is written and
committed like any other. So only what the value means can give it away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

TRUE, FALSE, NOT_CHECKABLE = "true", "false", "not checkable"
#: What catches an edit after which an episode is still true. CHAIN: the episodes that its writer sealed later, and the
#: closing of its run. SIGNATURE: root, manifest and signature of a release. WEIGHTS: a check with the weights.
#: FREELY: nobody can know; whoever seals says what he likes.
CHAIN, SIGNATURE, WEIGHTS, FREELY = "chain", "signature", "weights", "as the writer said"


@dataclass(frozen=True)
class Case:
    """column: path of the edited column, `[]` for the elements of a list, such as "game.steps[].seat".

    victim: which episode of the honest corpus, a name in `corpus.Honest.victims`; of a side table, which row. edit:
    changes the row, a plain dict, in place. package, one_file: the verdict of `corpus verify` and of the released
    verify_corpus.py. words: stand in the package's reason, where there is one. caught: of an edit after which the
    episode is true: what catches it.
    """

    column: str
    victim: str
    edit: Callable[[dict[str, Any]], None]
    package: str
    one_file: str
    words: str = ""
    caught: str = ""

    def __post_init__(self) -> None:
        if (self.caught != "") != (self.package == TRUE):
            raise ValueError(f"{self.column}: what is true after an edit says what catches it, and only that")


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """An edit: sets the value at a path with the indices of lists, such as "game.steps.0.seat".

    value: a function is asked for the new one, and is given the old one.
    """
    *keys, last = (int(key) if key.lstrip("-").isdigit() else key for key in path.split("."))

    def edit(row: dict[str, Any]) -> None:
        place: Any = row
        for key in keys:
            place = place[key]
        place[last] = value(place[last]) if callable(value) else value

    return edit


def both(*edits: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Several edits, as one."""

    def edit(row: dict[str, Any]) -> None:
        for one in edits:
            one(row)

    return edit


def leaves(schema: pa.Schema) -> Iterator[str]:
    """Every column that holds values, those nested in lists and structs, too."""
    for field in schema:
        yield from _below(field.name, field.type)


def _below(path: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _below(f"{path}.{field.name}", field.type)
    elif pa.types.is_list(kind):
        yield from _below(f"{path}[]", kind.value_type)
    else:
        yield path
