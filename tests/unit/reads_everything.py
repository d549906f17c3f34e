"""Reads hostile corpora and run folders by every command there is, and reports what was opened, imported or run.

    python reads_everything.py PLACE everything|quickly

PLACE holds the canary files and is the working directory; one JSON object is printed.

It is a program of its own, since an audit hook stays for the life of a process. `inotify` sees what C++ opens, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

IN_ACCESS, IN_OPEN = 0x1, 0x20
WORD = "canary"
EVERYTHING = sys.argv[2:] == ["everything"]
seen: list[str] = []
doing = ""


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes what nobody may do by a name that data gives."""
    if event == "import" and WORD in str(arguments[0]):
        seen.append(f"{doing}: import {arguments[0]}")
    elif event == "exec" and WORD in arguments[0].co_filename:
        seen.append(f"{doing}: exec {arguments[0].co_filename}")
    elif event == "compile" and WORD in f"{arguments[0]!r:.2000} {arguments[1]!r}":
        seen.append(f"{doing}: compile {arguments[1]!r}")
    elif event == "open" and str(arguments[0]).endswith(("canary.py", "canary.jsonl")):
        seen.append(f"{doing}: open {arguments[0]!r}")
    elif event == "os.mkdir" and WORD in str(arguments[0]) and not Path(arguments[0]).is_relative_to(Path.cwd()):
        seen.append(f"{doing}: a folder {arguments[0]}")
    elif event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen") and WORD in repr(arguments):
        seen.append(f"{doing}: {event} {arguments!r:.200}")


class Watched:
    """Files of which the kernel tells whenever anybody opens them."""

    def __init__(self, paths: list[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        for path in paths:
            assert libc.inotify_add_watch(self._fd, os.fsencode(path), IN_OPEN | IN_ACCESS) >= 0, path

    def opened(self) -> int:
        try:
            return len(os.read(self._fd, 1 << 16)) // struct.calcsize("iIII")
        except BlockingIOError:
            return 0


class Reader:
    def __init__(self, canaries: list[Path]) -> None:
        self.watched = Watched(canaries)
        self.faults: list[str] = []
        self.faultless = True  # whether a crash is a fault here
        self.done: dict[str, int] = {}
        canaries[0].read_bytes()
        assert self.watched.opened(), "inotify says nothing here"
        sys.addaudithook(audit)

    def do(self, what: str, action: Callable[[], Any]) -> None:
        """Does one thing. What is wrong may be said by a `UserError`; anything else is a crash."""
        global doing
        from selfplay.errors import UserError

        doing = what
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                code = action()
            except UserError:
                code = 2
            except Exception as error:
                code = f"{type(error).__name__}: {error}"[:300]
        kind = what.partition(" of ")[0]
        self.done[kind] = self.done.get(kind, 0) + 1
        if self.faultless and (isinstance(code, str) or "traceback is in" in said.getvalue()):
            self.faults.append(f"{what} crashed: {code} {said.getvalue()[-300:]}")
        if self.watched.opened():
            seen.append(f"{doing}: the canary was opened")


def _telling(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the rows those that name different environments, and some of the others."""
    games = {(row["env_id"], row["game"] and row["game"]["game_string"]): row for row in rows}
    return [*games.values(), *rows[::8]]


def command(*words: object) -> Callable[[], int]:
    from selfplay.cli.main import call

    return lambda: call([str(word) for word in words])


def read_corpus(reader: Reader, corpus: Path, out: Path) -> None:
    from selfplay import store
    from selfplay.errors import UserError
    from selfplay.store.corpus import lineage
    from selfplay.store.export import formats
    from selfplay.store.release.verifier import program as portable
    from selfplay.store.table.table import SIDE_TABLES

    name = corpus.name
    plain: list[list[object]] = [
        ["verify", corpus, "--processes", 1], ["verify", corpus, "--json", "--processes", 1], ["stats", corpus],
        ["query", "select * exclude (game, reasoning, control) from episodes limit 5", corpus],
        ["tail", corpus, "--after", -1, "--seconds", 0], ["diff", 0, 1, corpus], ["show", "latest", corpus],
        ["release", "first", corpus, "--processes", 1], ["verify", corpus, "--release", "first", "--processes", 1],
        ["prove", "run/a/1000/0", corpus],
    ]  # fmt: skip
    for words in plain:
        reader.do(f"corpus {words[0]} of {name}", command("corpus", *words))
    for form in formats.FORMATS:
        reader.do(f"export {form} of {name}", command("corpus", "export", form, corpus, out / name / form))
    try:
        opened = store.open(str(corpus))
    except UserError:  # a partition named by a path: nothing of the table is read
        return
    rows = opened.to_arrow(columns=["episode_id", "env_id", "ruleset_digest", "game"]).to_pylist()
    for row in rows if EVERYTHING else _telling(rows):
        reader.do(f"show of {row['episode_id']}", command("corpus", "show", row["episode_id"], corpus))
        reader.do(f"lineage of {row['episode_id']}", lambda row=row: lineage.of_episode(opened, row["episode_id"]))
    for env_id in sorted({row["env_id"] for row in rows}):
        reader.do(f"to_torch of {env_id}", lambda env_id=env_id: list(opened.to_torch(env_id=env_id, batch=4)))
        words = ("npz", corpus, out / str(abs(hash(env_id))), "--option", f"env={env_id}")
        reader.do(f"export npz of {env_id}", command("corpus", "export", *words))
    for table in SIDE_TABLES:
        reader.do(f"table of {table}", lambda table=table: opened.table(table).to_pylist())
    for policy in opened.table("policies").to_pylist():
        reader.do(f"lineage of {policy['digest']}", lambda one=policy: lineage.of_weights(opened, one["digest"]))
    files = [{"path": file["path"], "sha256": ""} for file in opened.files()]
    for number, rulesets in enumerate(_batches(rows)):
        certificate = {"table_version": opened.version, "packages": {}, "rulesets": rulesets, "files": files,
                       "episodes": len(rows), "content_digest": "", "release": "first"}  # fmt: skip
        reader.do(f"verify_corpus.py of {number}", lambda one=certificate: portable.verify(str(corpus), one, None, 0))


def _batches(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rulesets of all games, in as few certificates as can be: of several for one environment the last counts."""
    batches: list[dict[tuple[str, str], dict[str, Any]]] = []
    games = {(row["env_id"], row["ruleset_digest"], row["game"]["game_string"]): None for row in rows if row["game"]}
    for env_id, digest, game in games:
        batch = next((one for one in batches if (env_id, digest) not in one), None)
        if batch is None:
            batches.append(batch := {})
        batch[env_id, digest] = {"env_id": env_id, "ruleset_digest": digest, "package": None, "game_string": game}
    return [list(batch.values()) for batch in batches]


def read_run(reader: Reader, run: Path) -> None:
    from selfplay.agent import Agent
    from selfplay.cli.run import configuration, environment

    name = run.name
    if EVERYTHING or name.startswith("agent"):
        reader.do(f"Agent.load of {name}", lambda: Agent.load(str(run)))
    if EVERYTHING or name.startswith(("config", "run", "state", "lease")):
        reader.do(f"resuming of {name}", lambda: environment(configuration(None, str(run), []), str(run)))
    if EVERYTHING or not name.startswith(("agent", "config")):
        reader.do(f"top of {name}", command("top", run, "--once"))
        reader.do(f"corpus stats of {name}", command("corpus", "stats", run))
    if name.endswith("-0"):  # the rest of these is Agent.load again, in a game or in a process
        sys.stdin = io.StringIO("quit\n")
        reader.do(f"play of {name}", command("play", run, "--simulations", 0))


def read_certificate(reader: Reader, file: Path, corpus: Path) -> None:
    """A release's certificate, by the verifier that lies beside it."""
    from selfplay.store.release.verifier import program as portable

    sys.argv = ["verify_corpus.py", str(corpus), "--certificate", str(file), "--sample", "1"]
    reader.do(f"main of verify_corpus.py of {file.name}", portable.main)


def read_space(reader: Reader, file: Path) -> None:
    from trainers.tuning import read_space

    reader.do(f"tune of {file.name}", lambda: read_space(str(file), "tic_tac_toe"))


def folders(place: Path, kind: str) -> Iterator[Path]:
    yield from sorted((place / kind).iterdir()) if (place / kind).is_dir() else ()


def main() -> None:
    from selfplay.cli import strength

    place = Path(sys.argv[1])
    reader = Reader([place / "canary.py", place / "canary.jsonl"])
    for corpus in folders(place, "corpora"):
        reader.faultless = corpus.name != "keys"  # such names may be refused in any words
        read_corpus(reader, corpus, place / "out")
    reader.faultless = True
    runs = list(folders(place, "runs"))
    for run in runs:
        read_run(reader, run)
    agents = [run for run in runs if run.name.startswith("agent.json-env.")]
    for run in agents if EVERYTHING else agents[::19]:  # what each process of `bench strength` does
        reader.do(f"bench of {run.name}", lambda run=run: strength._part(str(run), None, "random", 0, 2, 0, 1))
    for run in runs[:1] if EVERYTHING else ():
        reader.do(f"doctor of {run.name}", command("doctor", "--out", run))
    for file in folders(place, "certificates"):
        read_certificate(reader, file, place / "corpora" / "texts")
    for file in folders(place, "spaces"):
        read_space(reader, file)
    print(json.dumps({"seen": seen, "faults": reader.faults, "done": reader.done}))


if __name__ == "__main__":
    main()
