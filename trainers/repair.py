"""Repair of a run's folder: which of its files are damaged, what stands in for each, and where the run goes on from.

The next `selfplay run` passes damaged files over by itself. Here a person sees it before; and what a start cannot
settle, as there is no whole record of the settings or of the run's id, is taken from the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from selfplay.errors import Damaged, UserError
from selfplay.io import run_files, sealed, storage
from selfplay.nets import weights
from selfplay.store import open as open_corpus
from selfplay.store.table.lease import holder_of
from selfplay.store.table.repair import SET_ASIDE, Repair, Step
from trainers.kinds import from_data, kind_in
from trainers.run.kind import RunKind
from trainers.run.run_folder import run_id_of
from trainers.run.run_state import SCHEMA, state_from

RESTORE = "restore"
_ONCE = ((run_files.CONFIG_FILE, "config"), (run_files.RUN_FILE, "run"), (run_files.AGENT_FILE, "agent"))


def is_run(uri: str) -> bool:
    """Whether there is, or was, a run in the folder."""
    names = set(storage.names(uri))
    return any(name in names for name, _ in _ONCE) or bool(run_files.state_epochs(uri) or run_files.begun_epochs(uri))


def plan(run_uri: str, corpus: str | None) -> Repair:
    """What would make the folder of a run whole; changes nothing. `untouched` says also where the run goes on from.

    corpus: where its episodes are, for what only they tell. Raises `UserError` for files of a newer version.
    """
    uri = storage.normalise(run_uri)
    begun = run_files.read_begun(uri)
    record = {**_from_corpus(uri, corpus), **{part: begun[part] for _, part in _ONCE if _holds(begun, part, uri)}}
    steps = [step for name, part in _ONCE for step in _written_once(uri, name, part, record.get(part))]
    kind = _kind(uri, record).state
    states = [run_files.state_uri(uri, epoch) for epoch in run_files.state_epochs(uri)]
    beginnings = [run_files.begun_uri(uri, epoch) for epoch in run_files.begun_epochs(uri)]
    checkpoints = [run_files.checkpoint_uri(uri, name) for name in run_files.checkpoints(uri)]
    nets = [run_files.weights_uri(uri, version) for version in run_files.versions(uri)]
    status = storage.join(uri, run_files.STATUS_FILE)
    loaders: tuple[tuple[list[str], Callable[[str], Any]], ...] = (
        (beginnings, sealed.read),
        (checkpoints, weights.load),
        (nets, weights.load),
        (states, lambda place: state_from(kind, sealed.read(place, SCHEMA), place)),
        ([status] if storage.exists(status) else [], sealed.read),
    )
    bad: set[str] = set()
    for places, load in loaders:
        for error in (error for place in places for error in sealed.load_newest_valid([place], load).damaged):
            bad.add(error.uri)
            steps.append(_set_aside(uri, error, f"it goes to {run_files.DAMAGED_FOLDER}"))
    return Repair(corpus or uri, tuple(steps), tuple(_outlook(uri, bad, checkpoints, nets, states)))


def _set_aside(uri: str, error: Damaged, result: str) -> Step:
    def do() -> None:
        run_files.set_aside(uri, error.uri)

    return Step(SET_ASIDE, error.uri, error.reason, result, do)


def _check(part: str, data: dict[str, Any], source: str) -> None:
    """Raises `Damaged` for what a start would not take for this part of the run's record."""
    if part == "run":
        run_id_of(data, source)
    elif part == "config":
        try:
            from_data(data, source)
        except UserError as error:
            raise Damaged(source, str(error).removeprefix(f"{source}: ")) from None


def _holds(record: dict[str, Any], part: str, source: str) -> bool:
    """Whether the record of a start has a part that another start would take."""
    try:
        _check(part, record[part], source)
    except (Damaged, KeyError, TypeError, AttributeError):
        return False
    return isinstance(record[part], dict)


def _written_once(uri: str, name: str, part: str, record: Any) -> Iterator[Step]:
    """For a file that every driver writes when it begins. record: what it held; None where nothing tells."""
    place = storage.join(uri, name)

    def load(place: str) -> dict[str, Any]:
        data = sealed.read(place, SCHEMA if part == "run" else None)
        _check(part, data, place)
        return data

    found = sealed.load_newest_valid([place], load)
    if found.value is not None:
        return
    (error,) = found.damaged
    if record is not None:

        def do() -> None:
            if storage.exists(place):
                run_files.set_aside(uri, place)
            if name == run_files.CONFIG_FILE:
                storage.write(place, json.dumps(record, indent=2).encode(), durable=True)
            else:
                sealed.write(place, record)

        aside = f"it goes to {run_files.DAMAGED_FOLDER}, and " if storage.exists(place) else ""
        yield Step(RESTORE, place, error.reason, f"{aside}it is written again as the last start had it", do)
    elif storage.exists(place):
        again = "the next start writes it again" if name == run_files.AGENT_FILE else "nothing tells what it held"
        yield _set_aside(uri, error, f"it goes to {run_files.DAMAGED_FOLDER}; {again}")


def _from_corpus(uri: str, corpus: str | None) -> dict[str, Any]:
    """Settings and identity of the run as the corpus holds them; empty where it does not tell, or tells of several."""
    if corpus is None:
        return {}
    try:
        rows = open_corpus(corpus).rows("runs")
    except UserError:
        return {}
    mine = [row for row in rows if row["run_uri"] == uri] or rows
    if len({row["run_id"] for row in mine}) != 1:
        return {}
    try:
        newest = max(mine, key=lambda row: int(row["epoch"]))
        config = sealed.loads(newest["config"], f"{corpus}/runs")
    except (Damaged, TypeError):
        return {}
    return {"run": {"schema": SCHEMA, "run_id": newest["run_id"]}, "config": config}


def _kind(uri: str, record: dict[str, Any]) -> RunKind[Any]:
    """Of the run."""
    try:
        settings = sealed.read(storage.join(uri, run_files.CONFIG_FILE))
    except (Damaged, FileNotFoundError):
        settings = record.get("config", {})
    return kind_in(settings)


def _outlook(uri: str, bad: set[str], *kinds: list[str]) -> Iterator[str]:
    """Where the run goes on from, and what is lost by that, where the newest of a kind is damaged.

    kinds: places of checkpoints, weights and states, oldest first.
    """
    if holder_of(uri) is None and storage.names(storage.join(uri, "lease")):
        yield f"{uri}/lease: the newest lease is damaged; the run is free when no heartbeat has come for a while"
    consequences = (
        ("the learner", "what it learned after that is learned again from the archive"),
        ("the players", "newer weights are made again"),
        ("the counts", "what was measured after that is forgotten, and the archive is complete"),
    )
    for places, (what, lost) in zip(kinds, consequences, strict=True):
        if places and places[-1] in bad:
            whole = [place.removeprefix(uri + "/") for place in places if place not in bad]
            start = whole[-1] if whole else "a checkpoint" if what == "the counts" else "the beginning"
            yield f"the run goes on, {what} from {start}: {lost}"
