"""Is every episode of this release true? One file that needs only pyarrow, deltalake and open_spiel.

    python verify_corpus.py                              beside certificate.json, in the released corpus
    python verify_corpus.py s3://bucket/corpus           from a copy of both files anywhere
    python verify_corpus.py CORPUS --sample 1000 --json

What "true" means here:
- a file is one that the certificate lists, and its sha256 is the certified one (and the one in its name);
- a row has the content digest that follows from all its other columns (`content_digest` below);
- a game has only steps that the rules of OpenSpiel allow, the rules say along the way what its replay digest holds,
  and what the record says of searches, of the end and of the returns agrees with them (`game_lies` below);
- all rows together have the certified content digest: none is missing, none came later, none is there twice.

Where the certificate says "redacted", rows lack host names, paths and the like, and their digests were computed after
these were left out: they prove what was released, not what was sealed. README.md tells what is missing.

"not checkable" is what this machine cannot decide, with what is missing. Values are from the point of view of the seat
to act, returns from each seat's own, in the game's utility units.

Exit codes: 0 all that could be checked is true; 1 something is false; 2 it cannot be read. S3 keys and endpoint come
from the usual variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...). Read the table through its log only, never by a
pattern of file names: files of other versions lie in the same folders.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import struct
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler

Row = dict[str, Any]
BATCH_ROWS = 256
#: Stored priors are in 1/UNITS, stored values in value_scale/UNITS.
UNITS = 32767
CHANCE, SIMULTANEOUS = -1, -2
#: What a file may hold: an honest row group is far below these, and honest columns shrink by two to twenty.
SMALL_GROUP_BYTES, MOST_GROUP_BYTES, MOST_RATIO = 256 * 2**20, 4 * 2**30, 100
MOST_FILE_BYTES, MOST_CERTIFICATE_BYTES = 8 * 2**30, 256 * 2**20
PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._=-]*/)*[A-Za-z0-9_][A-Za-z0-9._+-]*\.parquet")
#: Games that can end a process, or take minutes, with parameters of small numbers.
FRAGILE = ("blotto", "bridge_uncontested_bidding", "gomoku", "hanabi", "negotiation", "universal_poker", "yacht")
STATUS_OF = {"terminal": "ok", "resignation": "ok", "ply_limit": "truncated", "aborted": "aborted"}
#: What the content digest covers in schema version 1: these columns, in this order.
COLUMNS = """episode_id kind run_id schema_version slot epoch number status trainable error origin parents licence
env_id env_version ruleset_digest seed code_commit config_digest package_version host started_at wall_ms seats n_steps
returns policy_spans verdicts game reasoning control""".split()


class Lie(Exception):
    """What is false, in words."""


class Unknown(Exception):
    """Why something cannot be decided here, in words."""


# The content digest of a row: sha256 over all its other columns ---------------------------------------------------


def content_digest(row: Row, schema: pa.Schema) -> str:
    """sha256 (hex) of the row's values, column after column; `content_digest` itself is left out."""
    return hashlib.sha256(b"".join(encoded(schema.field(name).type, [row[name]]) for name in COLUMNS)).hexdigest()


def encoded(kind: pa.DataType, values: list[Any]) -> bytes:
    """The bytes of some values of one type, depth first; numbers little endian.

    Integers, booleans, timestamps (microseconds): int64, null -2**63. Floats: float64, null and NaN one fixed NaN.
    Strings: all lengths in bytes (null -1), then all bytes (UTF-8). Lists: all lengths (null -1), then all elements.
    Structs: 1 or 0 (null) for each, then the values of those present, field after field.
    """
    if pa.types.is_struct(kind):
        present = [value for value in values if value is not None]
        fields = [encoded(field.type, [value[field.name] for value in present]) for field in kind] if present else []
        return whole([value is not None for value in values]) + b"".join(fields)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        elements = [element for value in values if value is not None for element in value]
        return whole([-1 if value is None else len(value) for value in values]) + encoded(kind.value_type, elements)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = [None if value is None else value.encode() for value in values]
        return whole([-1 if text is None else len(text) for text in texts]) + b"".join(text or b"" for text in texts)
    if pa.types.is_floating(kind):
        nan = struct.pack("<Q", 0x7FF8000000000000)
        return b"".join(nan if value is None or value != value else struct.pack("<d", value) for value in values)
    return whole([-(2**63) if value is None else int(value) for value in values])


def whole(numbers: list[Any]) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *numbers)


def harmless(text: str) -> bool:
    """Whether a stranger's game string may be loaded: its game needs no file or other game, and no value is large.

    `selfplay corpus verify` knows more games and larger ones.
    """
    import pyspiel

    found = re.fullmatch(r"([a-z0-9_]+)(?:\(((?:[a-z0-9_]+=[A-Za-z0-9.-]+(?:,(?!\Z))?)*)\))?", text[:300])
    games = {kind.short_name: kind for kind in pyspiel.registered_games() if kind.default_loadable}
    if found is None or found[0] != text or found[1] not in games or (found[2] and found[1] in FRAGILE):
        return False
    declared = games[found[1]].parameter_specification
    given = [part.split("=") for part in (found[2] or "").split(",") if part]
    for name, value in given:
        default = declared.get(name)
        number = re.fullmatch(r"-?[0-9]{1,6}(\.[0-9]{1,6})?", value) is not None
        small = number and (value == str(default) or min(1, default or 0) <= float(value) <= max(20, default or 0))
        if not (value.lower() in ("true", "false") if isinstance(default, bool)
                else small if isinstance(default, int | float) else value == default):  # fmt: skip
            return False
    return len({name for name, _ in given}) == len(given)


# The game of a row, against the rules -----------------------------------------------------------------------------


class Rules:
    """The games of OpenSpiel as installed here, each loaded once."""

    def __init__(self, certificate: Row) -> None:
        self.installed = metadata.version("open_spiel")
        self.certified = certificate["packages"].get("open_spiel", self.installed)
        self.rulesets = {(one["env_id"], one["ruleset_digest"]): one for one in certificate["rulesets"]}
        self.games: dict[str, Any] = {}

    def find(self, row: Row) -> Any:
        import pyspiel

        text, ruleset = row["game"]["game_string"], self.rulesets.get((row["env_id"], row["ruleset_digest"]))
        if ruleset is None or ruleset.get("game_string") != text:
            raise Lie(f"it names the game {text}, and that is not {row['env_id']} in the certificate")
        if text not in self.games:
            try:
                self.games[text] = pyspiel.load_game(text) if harmless(text) else None
            except RuntimeError:
                self.games[text] = None
        if self.games[text] is None:
            package = ruleset.get("package") or "the package that brings it"
            raise Unknown(f"the rules of {row['env_id']} are not in OpenSpiel, or not loaded by a stranger's word: "
                          f"install {package} and what made this corpus, and run `selfplay corpus verify`")  # fmt: skip
        return self.games[text]

    def doubt(self, reason: str) -> None:
        """A contradiction to the rules is a lie only where the rules are those that the release was checked with."""
        if self.installed != self.certified:
            raise Unknown(f"it contradicts the rules of open_spiel {self.installed}, and the release was checked with "
                          f"{self.certified}: install open_spiel=={self.certified}")  # fmt: skip
        raise Lie(reason)


def row_lies(row: Row, schema: pa.Schema, rules: Rules) -> None:
    """Raises `Lie` or `Unknown` unless the row is true."""
    if row["schema_version"] > 1:
        raise Unknown(f"it has schema version {row['schema_version']}, and this verifier knows 1")
    if content_digest(row, schema) != row["content_digest"]:
        raise Lie("the row was changed after sealing: its content digest does not fit")
    if row["episode_id"] != f"{row['run_id']}/{row['slot']}/{row['epoch']}/{row['number']}":
        raise Lie("its id contradicts its run, slot, epoch and number")
    if [kind for kind in ("game", "reasoning", "control") if row[kind] is not None] != [row["kind"]]:
        raise Lie("its kind contradicts its payload")
    if row["kind"] != "game":
        raise Unknown(f"nothing here can check episodes of kind {row['kind']}: the project that made this corpus can, "
                      "with `selfplay corpus verify`")  # fmt: skip
    if row["n_steps"] != len(row["game"]["steps"]):
        raise Lie("its number of steps is not that of its steps")
    game = rules.find(row)
    for span in row["policy_spans"] or ():
        if not 0 <= span["first_step"] <= span["last_step"] < row["n_steps"] or not 0 <= span["seat"] < row["seats"]:
            raise Lie(f"a policy span is of seat {span['seat']}, steps {span['first_step']} to {span['last_step']}")
    game_lies(row, game, rules)


def game_lies(row: Row, game: Any, rules: Rules) -> None:
    """Replays the game. The replay digest is a sha256 over what the rules say, all numbers int64, little endian:

    a decision: b"d", seat, number of legal actions, those ascending, the action taken;
    all seats at once: b"s", number of seats, for each the number of legal actions, those, and its action;
    chance: b"c", number of outcomes, each outcome and round(1e9 * its probability), the outcome taken;
    the end: b"t" if the game is over, else b"o"; length in bytes of str(state) and it; if over, the number of seats
    and round(1e9 * return) of each.
    """
    if str(game) != row["game"]["game_string"] or game.num_players() != row["seats"]:
        rules.doubt(f"it names {row['game']['game_string']} with {row['seats']} seats, and the game is {game}")
    state, digest = game.new_initial_state(), hashlib.sha256()
    for ply, step in enumerate(row["game"]["steps"]):
        if state.is_terminal():
            rules.doubt(f"step {ply}: the game was over before it")
        if state.is_simultaneous_node():
            legal_of = [state.legal_actions(seat) for seat in range(game.num_players())]
            joint = step["joint"]
            if step["seat"] != SIMULTANEOUS or joint is None or len(joint) != len(legal_of):
                rules.doubt(f"step {ply}: all seats move at once here, and the record holds seat {step['seat']}")
            flat = [len(legal_of)]
            for seat, (legal, action) in enumerate(zip(legal_of, joint, strict=True)):
                if legal and action not in legal:
                    rules.doubt(f"step {ply}: action {action} is not legal for seat {seat}")
                flat += [len(legal), *legal, action]
            digest.update(b"s" + whole(flat))
            state.apply_actions(joint)
            continue
        seat, action, legal = state.current_player(), step["action"], state.legal_actions()
        if state.is_chance_node():
            seat = CHANCE
        if step["seat"] != seat:
            rules.doubt(f"step {ply}: seat {seat} is to move, and the record holds seat {step['seat']}")
        if action not in legal:
            rules.doubt(f"step {ply}: action {action} is not legal")
        if seat == CHANCE:
            odds = [number for outcome, p in state.chance_outcomes() for number in (outcome, round(p * 1_000_000_000))]
            digest.update(b"c" + whole([len(odds) // 2, *odds, action]))
        else:
            search_lies(ply, step, legal, rules)
            digest.update(b"d" + whole([seat, len(legal), *legal, action]))
        state.apply_action(action)
    text = str(state).encode()
    digest.update((b"t" if state.is_terminal() else b"o") + whole([len(text)]) + text)
    if state.is_terminal():
        digest.update(whole([game.num_players(), *(round(value * 1_000_000_000) for value in state.returns())]))
    if digest.hexdigest() != row["game"]["replay_digest"]:
        rules.doubt("replayed, the rules say otherwise than its replay digest")
    end_lies(row, game, state, rules)


def search_lies(ply: int, step: Row, legal: list[int], rules: Rules) -> None:
    """What a step says of its search; steps without one have no candidates."""
    candidates = step["candidates"] or []
    if not candidates:
        return
    if [one["action"] for one in candidates] != legal:
        rules.doubt(f"step {ply}: the candidates are not the legal actions")
    visits = [one["visits"] for one in candidates]
    if min(visits) < 0 or sum(visits) > step["simulations"]:
        raise Lie(f"step {ply}: the visits ({sum(visits)}) are more than the {step['simulations']} simulations")
    if any((one["q"] is None) != (one["visits"] == 0) for one in candidates):
        raise Lie(f"step {ply}: a candidate has visits without a value, or a value without visits")
    prior = sum(one["prior"] for one in candidates) / UNITS
    if abs(prior - 1) > 1e-3 + len(legal) / (2 * UNITS):
        raise Lie(f"step {ply}: the priors sum to {prior:.4f}")


def end_lies(row: Row, game: Any, state: Any, rules: Rules) -> None:
    """What the row says of its end. Only a game that was over, or in which a seat resigned, has returns."""
    ended_by, returns, resigned = row["game"]["ended_by"], row["returns"], row["game"]["resigned_seat"]
    if row["status"] in STATUS_OF.values() and row["status"] != STATUS_OF.get(ended_by):
        raise Lie(f"its status is {row['status']}, and it ended by {ended_by}")
    if row["trainable"] and row["status"] not in ("ok", "truncated"):
        raise Lie(f"it is marked trainable with status {row['status']}")
    if state.is_terminal() != (ended_by == "terminal"):
        rules.doubt(f"it ended by {ended_by}, and the game {'was' if state.is_terminal() else 'was not'} over")
    if (resigned is not None) != (ended_by == "resignation"):
        raise Lie("its resigned seat contradicts how it ended")
    if ended_by in ("ply_limit", "aborted"):
        if returns is not None:
            raise Lie("it has returns without an outcome")
    elif returns is None or len(returns) != row["seats"]:
        raise Lie("it has no return for every seat")
    elif ended_by == "terminal":
        if not all(abs(told - true) <= 1e-9 for told, true in zip(returns, state.returns(), strict=True)):
            rules.doubt(f"its returns are {returns}, and the rules give {list(state.returns())}")
    elif not 0 <= resigned < row["seats"] or returns[resigned] != min(returns):
        raise Lie("the seat that resigned did not get the lowest return")
    elif not all(game.min_utility() <= value <= game.max_utility() for value in returns):
        raise Lie("a return lies outside the utilities of the game")


# The table, at the released version -------------------------------------------------------------------------------


def options() -> dict[str, str]:
    plain = any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    return {"AWS_ALLOW_HTTP": "true"} if plain else {}


def refuse_outside(table: DeltaTable) -> None:
    """A log that names files outside its table (an absolute path, "..", a scheme) would have others' files verified."""
    for path in pa.table(table.get_add_actions()).column("path").to_pylist():
        if not PLAIN_PATH.fullmatch(path):
            raise ValueError(f"the log names a data file that is not plainly inside the table: {path!r}")


def located(place: str) -> str:
    return place.rstrip("/") if "://" in place else os.path.abspath(os.path.expanduser(place))


def read(folder: str, path: str, most: int) -> bytes:
    """The bytes of a file below a folder, local or s3://. Raises `OSError`, and `ValueError` for more than `most`."""
    place = pafs.PyFileSystem(DeltaStorageHandler(folder, options()))
    with place.open_input_stream(path) as stream:
        data = bytes(stream.read(most + 1))
    if len(data) > most:
        raise ValueError(f"{path} has more than {most:,} bytes")
    return data


def certificate_of(data: bytes) -> Row:
    """The certificate, whose fields are what this file relies on. Raises `ValueError`."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("the certificate is nested too deeply") from None
    kinds = {"table_version": int, "episodes": int, "release": str, "content_digest": str, "packages": dict,
             "rulesets": list, "files": list}  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(found, dict) or type(found.get(name)) is not kind:
            raise ValueError(f"the certificate has no field {name} that is {kind.__name__}")
    texts = {"rulesets": ("env_id", "ruleset_digest"), "files": ("path", "sha256")}
    for name, needed in texts.items():
        for one in found[name]:
            if not isinstance(one, dict) or not all(isinstance(one.get(field), str) for field in needed):
                raise ValueError(f"an entry of the certificate's {name} lacks {' or '.join(needed)}")
    if found["table_version"] < 0:
        raise ValueError("the certificate's table_version is below 0")
    return dict(found)


def shown(value: object) -> str:
    """A stranger's value as one line in which a terminal finds nothing to obey; at most 1000 characters."""
    text = " ".join(str(value)[:1000].split())
    return "".join(one if one.isprintable() else "?" for one in text).encode("utf-8", "replace").decode()


def file_lies(data: bytes, path: str, certified: Row | None) -> None:
    sha256, named = hashlib.sha256(data).hexdigest(), re.search(r"([0-9a-f]{64})\.parquet\Z", path)
    if certified is None:
        raise Lie("the certificate does not list this file")
    if certified["sha256"] != sha256:
        raise Lie("the file was changed: its sha256 is not the certified one")
    if named and named.group(1) != sha256:
        raise Lie("the file was changed after it was written: its sha256 is not its name")


def rows_of(data: bytes, partition: Row, schema: pa.Schema, chosen: set[int] | None) -> Iterator[Row]:
    """The rows of a Parquet file, all or those with the `chosen` indices; two columns are in its path, not in it."""
    before = 0
    file = pq.ParquetFile(pa.BufferReader(data))
    for number in range(file.num_row_groups):
        size = file.metadata.row_group(number).total_byte_size
        if size > SMALL_GROUP_BYTES and size > min(MOST_GROUP_BYTES, MOST_RATIO * len(data)):
            raise ValueError(f"{len(data):,} bytes of it unpack to {size:,} at once")
    for batch in file.iter_batches(BATCH_ROWS):
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns |= {name: pa.array([value] * batch.num_rows, pa.string()) for name, value in partition.items()}
        columns["started_at"] = columns["started_at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        kinds = [pa.int64() if name == "started_at" else schema.field(name).type for name in columns]
        arrays = [columns[name].cast(kind) for name, kind in zip(columns, kinds, strict=True)]
        inside = [i for i in range(batch.num_rows) if chosen is None or before + i in chosen]
        yield from pa.Table.from_arrays(arrays, list(columns)).take(pa.array(inside, pa.int64())).to_pylist()
        before += batch.num_rows


class Report:
    """Counts of episodes; `lies` also holds what is false of files and of the whole."""

    def __init__(self) -> None:
        self.true = self.unknown = self.false = 0
        self.lies: list[tuple[str, str]] = []
        self.missing: dict[str, int] = {}
        self.digests: list[str] = []
        self.seen: set[str] = set()

    def row(self, row: Row, schema: pa.Schema, rules: Rules) -> None:
        try:
            if row["episode_id"] in self.seen:
                raise Lie("the episode is there twice")
            self.seen.add(row["episode_id"])
            self.digests.append(row["content_digest"])
            row_lies(row, schema, rules)
            self.true += 1
        except Lie as lie:
            self.false += 1
            self.lies.append((row["episode_id"], str(lie)))
        except Unknown as reason:
            self.unknown += 1
            self.missing[str(reason)] = self.missing.get(str(reason), 0) + 1
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            self.false += 1
            self.lies.append((str(row["episode_id"]), f"the row is not an episode: {str(error).splitlines()[0]}"))


def verify(corpus: str, certificate: Row, sample: int | None, seed: int) -> Report:
    """Checks the released version of the corpus, all of it or `sample` rows and the files that hold them."""
    table = DeltaTable(f"{corpus}/episodes", version=certificate["table_version"], storage_options=options())
    refuse_outside(table)
    schema = pa.schema(table.schema().to_arrow())
    files = sorted(pa.table(table.get_add_actions(flatten=True)).to_pylist(), key=lambda file: str(file["path"]))
    certified = {file["path"]: file for file in certificate["files"]}
    report, rules = Report(), Rules(certificate)
    total = sum(file["num_records"] for file in files)
    drawn = None if sample is None else set(random.Random(seed).sample(range(total), min(sample, total)))
    before = 0
    for number, file in enumerate(files):
        chosen = None if drawn is None else {i - before for i in drawn if before <= i < before + file["num_records"]}
        before += file["num_records"]
        if chosen is not None and not chosen:
            continue
        path, told = file["path"], False
        partition = {key.removeprefix("partition."): file[key] for key in file if key.startswith("partition.")}
        try:
            data = read(f"{corpus}/episodes", path, MOST_FILE_BYTES)
            try:
                file_lies(data, path, certified.get(path))
            except Lie as lie:
                told = True
                report.lies.append((path, str(lie)))
            for row in rows_of(data, partition, schema, chosen):
                report.row(row, schema, rules)
        except FileNotFoundError:
            report.lies.append((path, "the file is missing"))
        except (OSError, MemoryError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            if not told:
                report.lies.append((path, f"the file cannot be read: {str(error).splitlines()[0]}"))
        if sys.stderr.isatty() or number + 1 == len(files):
            print(f"\r{number + 1:,} of {len(files):,} files, {report.true:,} true", end="", file=sys.stderr)
    print(file=sys.stderr)
    for path in sorted(set(certified) - {file["path"] for file in files}):
        report.lies.append((path, "the certificate lists this file, and the table does not hold it"))
    if drawn is None and not report.lies and whole_digest(report.digests) != certificate["content_digest"]:
        report.lies.append(("corpus", "all rows together do not have the certified content digest"))
    return report


def whole_digest(digests: list[str]) -> str:
    """sha256 (hex) of all content digests in hex, sorted, a newline after each: `sort | sha256sum`."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(digests)).encode()).hexdigest()


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Checks that every episode of a release is true.")
    parser.add_argument("corpus", nargs="?", default=os.path.dirname(os.path.dirname(here)), help="folder or s3://...")
    parser.add_argument("--certificate", default=os.path.join(here, "certificate.json"), help="default: beside me")
    parser.add_argument("--sample", type=int, metavar="N", help="only N episodes, drawn evenly, and their files")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    try:
        folder, _, name = located(asked.certificate).rpartition("/")
        certificate = certificate_of(read(folder, name, MOST_CERTIFICATE_BYTES))
        report = verify(located(asked.corpus), certificate, asked.sample, asked.seed)
    except Exception as error:
        print(f"cannot be read: {shown((str(error) or type(error).__name__).splitlines()[0])}", file=sys.stderr)
        return 2
    counts = {"true": report.true, "false": report.false, "not checkable": report.unknown}
    if asked.json:
        lies = [{"subject": subject, "reason": reason} for subject, reason in report.lies]
        version = certificate["table_version"]
        print(json.dumps({"version": version, **counts, "falsehoods": lies, "missing": report.missing}))
    else:
        for subject, reason in report.lies:
            print(f"false {shown(subject)}: {shown(reason)}")
        for reason, count in report.missing.items():
            print(f"not checkable ({count:,} episodes): {shown(reason)}")
        print(f"{', '.join(f'{count:,} {state}' for state, count in counts.items())} of {certificate['episodes']:,} "
              f"episodes of release {shown(certificate['release'])} (version {certificate['table_version']})"
              f"{', redacted' if certificate.get('redacted') is True else ''}"
              f"{', a sample' if asked.sample else ''}")  # fmt: skip
    return 1 if report.lies else 0


if __name__ == "__main__":
    sys.exit(main())
