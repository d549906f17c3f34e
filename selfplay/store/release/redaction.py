"""What a redacted release leaves out of its tables: host names, user names, absolute paths, addresses, configuration.

Three kinds of columns. Some are replaced or emptied as a whole (`host`, `runs.config`, …). Free text that our code and
an author's code wrote (errors, reasons) loses what looks like a path or an address, and the names of the machines and
users that the corpus tells of. What remains is searched: names such as a run's id must hold no path, no address and no
such name; texts that are data (dialogues, sources, labels) must hold none of the paths and names that are known. Where
they do, nothing is released: data is not rewritten.

A host or user name that is a plain lower-case word ("chess") is replaced in free text and in its own columns, and not
searched for elsewhere: nothing tells it from the word.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selfplay.episode import content_digests
from selfplay.episode.digest import seal
from selfplay.episode.schema import EPISODES, SCHEMA_VERSION
from selfplay.errors import UserError
from selfplay.store.corpus.kept_settings import pseudonym, settings_alone
from selfplay.store.table.snapshot import Snapshot

#: An address, or an absolute path of two parts or more, or one below somebody's home.
_ADDRESS = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>)\]}]*[^\s\"'<>)\]},.;:]")
_BELOW = r"(?:/(?:[\w.@+~=-]|,(?=\w))*)"
_PATH = re.compile(rf"(?<![\w.)\]}}/~-])(?:~[\w.-]*|/[\w.@+~-]+){_BELOW}+")
_SERVER = re.compile(r"[a-z0-9+.-]+://(?:[^/@]*@)?([^/:@]+)", re.IGNORECASE)
_HOME = re.compile(r"/(?:home|Users)/([^/]+)")
#: Accounts and machines whose names tell nothing.
_COMMON = ("root", "user", "nobody", "ubuntu", "admin", "ec2-user", "runner", "localhost", "")
#: Texts that are data: what an agent, an author or the releaser wrote.
DATA = ("episodes.reasoning.turns.text", "episodes.reasoning.answer", "environments.source", "annotations.value",
        "releases.note", "tokenizers.files")  # fmt: skip
#: Side tables that go along. `uses` names versions of the original table, and is left out.
SIDE = ("environments", "runs", "closings", "deletions", "policies", "tokenizers", "annotations")

SAID = """\
This is a redacted copy of a corpus. It leaves out:

- host names: each machine has a number, `machine-1`, `machine-2`, …, in the order of their first episodes;
- the configuration of runs but for those settings in `runs.config` by which searches become targets and episodes are
  checked: of search, self-play, sampling and levels, and the seed; and the folders of runs and weights (`runs.run_uri`,
  `policies.uri`), which are null; `config_digest` is the sha256 of `configuration 1`, `configuration 2`, …: equal where
  the settings were;
- absolute paths, addresses, host names and user names in errors and in the reasons of verdicts, which read `[path]`,
  `[address]`, `[host]` and `[user]`;
- the names of the authors of labels, who are numbered, too, and the table `uses`;
- tokenizers whose files name such a path or machine: their digests, by which rows name them, would be others.

Before a row was copied it was checked against the digest that it was sealed with. The copy is not what was sealed, so
its digests were computed anew: they, the Merkle root over them and the signature prove what was released, and differ
from those of the original corpus. So were the links between the episodes of a writer, and the ends of these chains in
the table `closings`, where they fitted. A signature tells nothing of a machine, and the same key signs all releases of
its owner. Moves, searches, texts, tokens, scores, seeds and policies are unchanged."""


@dataclass(frozen=True)
class Secrets:
    """What a corpus tells of the machines that made it. hosts, configs, authors: each with what takes its place.

    users: names of accounts. places: absolute paths and addresses that the tables name.
    """

    hosts: dict[str, str]
    configs: dict[str, str]
    authors: dict[str, str]
    users: frozenset[str]
    places: frozenset[str]

    def scrubbed(self, text: str) -> str:
        """Free text without paths, addresses and names of machines and users."""
        text = _ADDRESS.sub("[address]", text)
        found = ((self._below, "[path]"), (_PATH, "[path]"), (self._hosts, "[host]"), (self._users, "[user]"))
        for pattern, instead in found:
            text = text if pattern is None else pattern.sub(instead, text)
        return text

    def found_in(self, text: str, data: bool) -> str | None:
        """What of it a text holds that was not scrubbed; None: nothing. data: see `DATA`."""
        patterns = [self._known, self._telling, *(() if data else (_ADDRESS, _PATH))]
        found = (pattern.search(text) for pattern in patterns if pattern is not None)
        return next((one[0] for one in found if one), None)

    @cached_property
    def _known(self) -> re.Pattern[str] | None:
        return _any_of(place for place in self.places if place.strip("/").count("/"))

    @cached_property
    def _below(self) -> re.Pattern[str] | None:
        """A place that is known, spaces in its name and all, with what follows below it."""
        return None if self._known is None else re.compile(rf"{self._known.pattern}{_BELOW}*")

    @cached_property
    def _hosts(self) -> re.Pattern[str] | None:
        return _any_of(_named(self.hosts))

    @cached_property
    def _users(self) -> re.Pattern[str] | None:
        return _any_of(_named(self.users))

    @cached_property
    def _telling(self) -> re.Pattern[str] | None:
        names = [*_named(self.hosts), *_named(self.users)]
        return _any_of(name for name in names if not re.fullmatch(r"[a-z]+", name))


def _named(names: Any) -> Iterator[str]:
    """Names worth looking for; of a host with its domain also the first part."""
    for name in names:
        for form in {name, name.split(".")[0]}:
            if form not in _COMMON and (not form.replace(".", "").isdigit() or form.count(".") == 3):
                yield form


def _any_of(words: Any) -> re.Pattern[str] | None:
    """Finds any of some words or paths, whole; None where there are none."""
    some = sorted(set(words), key=len, reverse=True)
    if not some:
        return None
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, some))})(?![A-Za-z0-9])")


def secrets_of(corpus: Snapshot) -> Secrets:
    """Everything that this version of the corpus, and this process, know of machines, users and places."""
    rows = corpus.to_arrow(columns=["host", "config_digest", "started_at"])
    runs, policies = corpus.rows("runs"), corpus.rows("policies")
    hosts = [*_by_age(rows, "host"), *(row["host"] for row in runs), socket.gethostname(), os.uname().nodename]
    configs = [*_by_age(rows, "config_digest"), *(row["config_digest"] for row in runs)]
    authors = corpus.table("annotations").sort_by("recorded_at").column("author").to_pylist()
    places = {corpus.uri, str(Path.home()), os.getcwd(), *(row["run_uri"] for row in runs)}
    places |= {row["uri"] for row in policies}
    for row in runs:
        places |= set(_places_in(row["config"] or ""))
    places = {place.removeprefix("file://") for place in places if place}
    hosts += sorted(found[1] for place in places if (found := _SERVER.match(place)))
    users = {found[1] for place in places if (found := _HOME.match(place))} | {_account()}
    return Secrets(
        hosts={name: f"machine-{n}" for n, name in enumerate(_once(hosts), 1)},
        configs={old: pseudonym(n) for n, old in enumerate(_once(configs), 1)},
        authors={name: f"author-{n}" for n, name in enumerate(_once(authors), 1)},
        users=frozenset(users),
        places=frozenset(places),
    )


def _places_in(config: str) -> Iterator[str]:
    """Paths and addresses among the values of a configuration."""
    try:
        todo: list[Any] = [json.loads(config)] if config else []
    except (ValueError, RecursionError):
        return
    while todo:
        one = todo.pop()
        if isinstance(one, dict | list):
            todo += one.values() if isinstance(one, dict) else one
        elif isinstance(one, str) and (_ADDRESS.fullmatch(one) or (one.startswith("/") and "\n" not in one)):
            yield one


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        return ""


def _by_age(rows: pa.Table, column: str) -> list[str]:
    """The values of a column in the order in which they came first."""
    first = rows.group_by(column).aggregate([("started_at", "min")])
    return list(first.sort_by([("started_at_min", "ascending"), (column, "ascending")]).column(column).to_pylist())


def _once(values: list[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


@dataclass
class Heads:
    """Of each writer (run, slot, epoch) the content digest of its last episode so far, and that of its copy."""

    of: dict[tuple[str, str, int], tuple[str, str]] = field(default_factory=dict)

    def copied(self, writer: tuple[str, str, int], digest: str | None) -> str | None:
        """What a digest of the original is in the copy, where it is the last of the writer there; else itself."""
        old, new = self.of.get(writer, (None, None))
        return new if digest is not None and digest == old else digest


def episodes(rows: pa.Table, secrets: Secrets, heads: Heads) -> pa.Table:
    """The rows without what is left out, their digests computed anew, and linked as they were.

    rows: all columns, each writer's by number. heads: of what came before them; they are added. A link that did not
    fit is left as it is: it will not fit in the copy, either. Raises `UserError` for a row whose digest does not fit:
    it would get one that does.
    """
    rows = rows.cast(EPISODES).combine_chunks()
    newest = pc.max(rows.column("schema_version")).as_py()
    if newest is not None and newest > SCHEMA_VERSION:
        raise UserError(f"nothing was released: episodes have schema version {newest}; update this package")
    digests = pa.array(_digests(rows), pa.string())
    wrong = rows.column("episode_id").filter(pc.not_equal(digests, rows.column("content_digest")))
    if len(wrong):
        raise UserError(f"nothing was released: episode {wrong[0]} was changed after sealing: its digest does not fit")
    for name, change in (
        ("host", lambda value: secrets.hosts.get(value, value)),
        ("config_digest", lambda value: secrets.configs.get(value, value)),
        ("error", lambda value: _texts(value, ("kind", "message"), secrets.scrubbed)),
        ("verdicts", lambda value: _texts(value, ("error", "reason"), secrets.scrubbed)),
    ):
        rows = _with(rows, name, change)
    return _linked(rows, heads)


def _linked(rows: pa.Table, heads: Heads) -> pa.Table:
    """Seals changed rows in their order. Their digests and links are still those of the original."""
    columns = {name: rows.column(name).combine_chunks() for name in EPISODES.names}
    writers = list(zip(*(columns[name].to_pylist() for name in ("run_id", "slot", "epoch")), strict=True))
    old, links = columns["content_digest"].to_pylist(), columns["previous_digest"].to_pylist()
    follows = [False] * len(writers)
    for row, writer in enumerate(writers):
        follows[row] = row > 0 and writer == writers[row - 1] and links[row] is not None and links[row] == old[row - 1]
        if not follows[row]:
            links[row] = heads.copied(writer, links[row])
    for name, values in seal(columns, links, follows).items():
        rows = _with_column(rows, name, values)
    heads.of |= dict(zip(writers, zip(old, rows.column("content_digest").to_pylist(), strict=True), strict=True))
    return rows


def _digests(rows: pa.Table) -> list[str]:
    return content_digests({name: rows.column(name).combine_chunks() for name in EPISODES.names})


def side_table(name: str, rows: pa.Table, secrets: Secrets, heads: Heads) -> pa.Table:
    """The rows of a side table of `SIDE` without what is left out. heads: of all episodes of the copy."""
    if name == "closings":
        rows = _with_column(rows, "writers", pa.array(_ends(rows, heads), rows.schema.field("writers").type))
    changes: dict[str, dict[str, Callable[[Any], Any]]] = {
        "environments": {},
        "tokenizers": {},
        "runs": {
            "host": lambda value: secrets.hosts.get(value, value),
            "config_digest": lambda value: secrets.configs.get(value, value),
            "config": settings_alone,
            "run_uri": lambda value: None,
        },
        "closings": {"table_version": lambda value: 0},
        "deletions": {"table_version": lambda value: 0, "reason": secrets.scrubbed},
        "policies": {"uri": lambda value: None, "net": secrets.scrubbed, "metrics": secrets.scrubbed},
        "annotations": {"author": lambda value: secrets.authors[value], "source": secrets.scrubbed},
    }
    for column, change in changes[name].items():
        rows = _with(rows, column, change)
    return rows


def _ends(closings: pa.Table, heads: Heads) -> list[list[dict[str, Any]] | None]:
    """The column `writers` of the table of closings, with digests of the copy."""
    ends: list[list[dict[str, Any]] | None] = []
    for row in closings.select(["run_id", "writers"]).to_pylist():
        writers = row["writers"]
        for one in writers or ():
            one["head"] = heads.copied((row["run_id"], one["slot"], one["epoch"]), one["head"])
        ends.append(writers)
    return ends


def refuse_leaks(table: str, rows: pa.Table, secrets: Secrets) -> None:
    """Raises `UserError` where any text of the rows, whatever its column, still tells of a machine or a place."""
    for name in rows.schema.names:
        for path, values in _leaves(f"{table}.{name}", rows.column(name).combine_chunks()):
            for value in pc.unique(values).to_pylist():
                found = None if value is None else secrets.found_in(value, path in DATA)
                if found is not None:
                    raise UserError(
                        f"nothing was released: {path.partition('.')[2]} of the table {table} holds {found!r}, which "
                        "tells of the machines that made it, and cannot be left out there"
                    )


def _leaves(path: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """All texts in a column, by the path of the field."""
    kind = array.type
    if pa.types.is_struct(kind):
        for part, values in zip(kind, array.flatten(), strict=True):
            yield from _leaves(f"{path}.{part.name}", values)
    elif pa.types.is_list(kind):
        yield from _leaves(path, array.flatten())
    elif pa.types.is_string(kind):
        yield path, array


def _with(rows: pa.Table, name: str, change: Callable[[Any], Any]) -> pa.Table:
    """The same rows with every value of a column changed that is not null."""
    column = rows.column(name)
    if column.null_count == len(column):
        return rows
    if pa.types.is_string(column.type):
        coded = column.combine_chunks().dictionary_encode()
        values = [change(value) for value in coded.dictionary.to_pylist()]
        return _with_column(rows, name, pa.array(values, column.type).take(coded.indices))
    values = [None if value is None else change(value) for value in column.to_pylist()]
    return _with_column(rows, name, pa.array(values, column.type))


def _with_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)


def _texts(value: Any, names: tuple[str, ...], change: Callable[[str], str]) -> Any:
    """A nested value with the texts of some fields changed, wherever they are in it."""
    if isinstance(value, list):
        return [_texts(one, names, change) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: change(one) if key in names and isinstance(one, str) else _texts(one, names, change)
        for key, one in value.items()
    }
