"""Whatever a stranger writes into a corpus or a run folder, reading it opens, imports and runs nothing by that name.

The schemas are walked: every text of every table, and of every file of a run, holds hostile values in turn, so that a
column that comes later is covered by itself.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from selfplay import store
from selfplay.agent import describe
from selfplay.environments.game import load
from selfplay.environments.registry import find
from selfplay.episode.digest import content_digests
from selfplay.episode.schema import EPISODES, PARTITION_BY
from selfplay.io import storage
from selfplay.io.run_files import AGENT_FILE, STATUS_FILE, weights_uri
from selfplay.nets import NetConfig, build, to_arrays, weights
from selfplay.search import SearchConfig
from selfplay.store.table.table import EPISODES_TABLE, SIDE_TABLES, open_or_create, open_or_create_episodes
from trainers.recipe import load_recipe

GOLDEN = Path(__file__).parents[1] / "golden" / "corpus_v1"
READER = Path(__file__).with_name("reads_everything.py")
#: In values, PLACE stands for the folder of the canary files, and the working directory of the reader.
VALUES = (
    "./canary.py", "PLACE/canary.py", "canary.py", "~/canary.py", "../here/canary.py", "file://PLACE/canary.py",
    "jsonl:canary.jsonl", "./canary.jsonl?question=q", "canary", "canary-v0", "canary/a-v0\n", "jsonl/canary-v0",
    "openspiel:nfg_game(filename=PLACE/canary.py)", "nfg_game(filename=canary.py)",
    "efg_game(filename=PLACE/canary.py)", "misere(game=nfg_game(filename=canary.py))",
    "bargaining(instances_file=canary.py)", "hex(board_size=30000)",
)  # fmt: skip
#: Texts that decide what is looked up: these get every value, the rest few, where a test must be quick.
LOOKED_UP = ("env_id", "game.game_string", "env.id", "env.reference", "env.source")
FEW = 1
#: Texts by which files and rows are found: a corpus of such names may be refused as a whole, so they have their own.
KEYS = (*PARTITION_BY, "slot")
Path_ = tuple[str, ...]


def values(place: Path) -> list[str]:
    return [value.replace("PLACE", str(place)) for value in VALUES]


def texts(kind: pa.DataType, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all texts in a type; lists are passed through."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from texts(field.type, (*path, field.name))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from texts(kind.value_type, path)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield path


def put(value: Any, path: Path_, text: str) -> bool:
    """Writes `text` at a path into a row, into every element of lists on the way. False where there is nothing."""
    if isinstance(value, list):
        return any([put(element, path, text) for element in value])
    if not isinstance(value, dict):
        return False
    if len(path) == 1:
        value[path[0]] = text
        return True
    return put(value.get(path[0]), path[1:], text)


def chosen(path: Path_, at: int, hostile: list[str], everything: bool) -> list[str]:
    if everything or ".".join(path) in LOOKED_UP:
        return hostile
    return [hostile[(at + i * 7) % len(hostile)] for i in range(FEW)]


def hostile_rows(hostile: list[str], everything: bool) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Episodes of every kind, each with one text that is hostile; their digests fit."""
    golden = store.open(str(GOLDEN)).to_arrow().to_pylist()
    golden = [next(row for row in golden if row["kind"] == kind) for kind in ("game", "reasoning", "control")]
    number = 0
    for at, path in enumerate(texts(pa.struct(list(EPISODES)))):
        for text in chosen(path, at, hostile, everything):
            for row in copy.deepcopy(golden):
                row.update(number=number, episode_id=f"{row['run_id']}/{row['slot']}/{row['epoch']}/{number}")
                row["error"], row["parents"] = {"kind": "a", "message": "b"}, [{"episode_id": "a", "relation": "fork"}]
                if put(row, path, text):
                    number += 1
                    yield path, row


def write_corpus(place: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, EPISODES)
    digests = content_digests({name: table.column(name).combine_chunks() for name in EPISODES.names})
    if all(row["content_digest"] == "" for row in rows):
        table = table.set_column(EPISODES.names.index("content_digest"), "content_digest", pa.array(digests))
    open_or_create_episodes(str(place))
    write_deltalake(storage.join(str(place), EPISODES_TABLE), table, mode="append")


def write_side_tables(place: Path, hostile: list[str], everything: bool) -> None:
    for name, side in SIDE_TABLES.items():
        rows = []
        for at, path in enumerate(texts(pa.struct(list(side.schema)))):
            for text in chosen(path, at, hostile, everything):
                row = {field.name: _plain(field.type) for field in side.schema}
                assert put(row, path, text), (name, path)
                rows.append(row)
        open_or_create(storage.join(str(place), name), side.schema)
        write_deltalake(storage.join(str(place), name), pa.Table.from_pylist(rows, side.schema), mode="append")


def _plain(kind: pa.DataType) -> Any:
    if pa.types.is_struct(kind):
        return {field.name: _plain(field.type) for field in kind}
    if pa.types.is_list(kind):
        return [_plain(kind.value_type)]
    return "{}" if pa.types.is_string(kind) else 1


def json_texts(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from json_texts(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value[:1]:
            yield from json_texts(inner, path) if isinstance(inner, dict) else ()
    elif isinstance(value, str) or value is None:
        yield path


def write_runs(place: Path, hostile: list[str], everything: bool) -> None:
    """Run folders as a run leaves them, each with one hostile text in one of its files."""
    game = load(find("tic_tac_toe"))
    net = NetConfig(game.encoder.shape, game.num_actions, game.outcomes is not None, channels=8, blocks=1)
    data = weights.to_bytes(to_arrays(build(net, 0)), {"kind": "weights", "version": 0})
    status = {"phase": "playing", "episodes": 1, "positions_per_s": 1.0, "lost": {"count": 0}, "version": 0,
              "strength": [], "messages": ["m"], "activity": "a", "elapsed_s": 1.0, "total_s": 2.0}  # fmt: skip
    files: dict[str, Any] = {
        AGENT_FILE: json.loads(describe(game, net, SearchConfig(), "a-run")),
        "config.json": json.loads(load_recipe("tic_tac_toe").to_json()),
        "run.json": {"schema": 2, "run_id": "a-run"},
        "state/000001.json": {"schema": 2, "checkpoint": None, "digest": "d", "wandb_id": None},
        "lease/000001.json": {"owner": "o", "epoch": 1, "host": "h"},
        STATUS_FILE: {"schema": 1, "kind": "self_play", "written_at": "2026-01-01T00:00:00+00:00", "every_s": 2.0,
                      "status": status},
        "corpus.uri": "corpus",
    }  # fmt: skip
    count = 0
    for name, content in files.items():
        for at, path in enumerate(json_texts(content) if isinstance(content, dict) else [("",)]):
            for text in chosen(path, at, hostile, everything):
                folder = place / f"{name.replace('/', '_')}-{'.'.join(path)}-{count}"
                changed = copy.deepcopy(files)
                if path == ("",):
                    changed[name] = text
                else:
                    put(changed[name], path, text)
                for each, value in changed.items():
                    if each == "corpus.uri" and each != name:
                        continue
                    (folder / each).parent.mkdir(parents=True, exist_ok=True)
                    (folder / each).write_text(value if isinstance(value, str) else json.dumps(value))
                weights_file = Path(weights_uri(str(folder), 0))
                weights_file.parent.mkdir()
                weights_file.write_bytes(data)
                count += 1


def write_certificates(place: Path, hostile: list[str], everything: bool) -> None:
    """Certificates of releases, each with one hostile text."""
    digest = "0" * 64
    ruleset = {"env_id": "tic_tac_toe-v0", "ruleset_digest": digest, "game_string": "tic_tac_toe()", "package": "p",
               "package_version": "1", "source_digest": digest, "licence": "CC0-1.0"}  # fmt: skip
    certificate: dict[str, Any] = {
        "format": 1, "release": "first", "note": "n", "created_at": "t", "table_version": 1, "episodes": 1,
        "content_digest": digest, "files_digest": digest, "packages": {"open_spiel": "1"}, "rulesets": [ruleset],
        "release_files": {"README.md": digest}, "files": [{"path": "kind=game/a.parquet", "sha256": digest}],
    }  # fmt: skip
    place.mkdir()
    for at, path in enumerate(json_texts(certificate)):
        for number, text in enumerate(chosen(path, at, hostile, everything)):
            changed = copy.deepcopy(certificate)
            put(changed, path, text)
            (place / f"{'.'.join(path)}-{number}.json").write_text(json.dumps(changed))


def write_spaces(place: Path, hostile: list[str]) -> None:
    """What `selfplay tune` is to try: a hostile value for settings that name environments and places."""
    place.mkdir()
    for number, text in enumerate(hostile):
        lines = (f"{json.dumps(key)} = [{json.dumps(text)}]" for key in ("env.id", "run.corpus"))
        (place / f"{number}.toml").write_text("\n".join(lines))


def read_everything(tmp_path: Path, everything: bool) -> dict[str, Any]:
    place = tmp_path / "here"
    place.mkdir()
    code = f"open({str(place / 'RUN')!r}, 'w')\n"
    (place / "canary.py").write_text("# A description\n" + code)
    (place / "canary.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    hostile = [*values(place), code + "canary = 1\n"]
    rows = list(hostile_rows(hostile, everything))
    inside = [row for path, row in rows if path[0] not in KEYS]
    write_corpus(place / "corpora" / "texts", [{**row, "content_digest": ""} for row in inside])
    write_side_tables(place / "corpora" / "texts", hostile, everything)
    write_corpus(place / "corpora" / "keys", [row for path, row in rows if path[0] in KEYS])
    write_runs(place / "runs", hostile, everything)
    write_certificates(place / "certificates", hostile, everything)
    write_spaces(place / "spaces", hostile)
    environment = {**os.environ, "HOME": str(place), "OMP_NUM_THREADS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, str(READER), str(place), "everything" if everything else "quickly"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if (place / "RUN").exists():
        found["seen"].append("the canary has run")
    return found


def test_no_name_in_data_is_a_path_or_code(tmp_path: Path) -> None:
    found = read_everything(tmp_path, everything=False)
    assert found["seen"] == []
    assert found["faults"] == []
    exports = {path.name for path in (tmp_path / "here" / "out" / "texts").iterdir()}
    assert exports >= {"minari", "rllib", "atif"}, "something is exported, or nothing was tried"
    done = found["done"]
    wanted = ("corpus verify", "show", "Agent.load", "to_torch", "play", "bench", "tune", "main")
    assert min(done[kind] for kind in wanted) > 0


@pytest.mark.slow
def test_no_name_in_data_is_a_path_or_code_for_every_text_and_value(tmp_path: Path) -> None:
    found = read_everything(tmp_path, everything=True)
    assert (found["seen"], found["faults"]) == ([], [])
