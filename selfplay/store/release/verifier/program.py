"""Is every episode of this release true? One file that needs only pyarrow, deltalake and open_spiel.

    python verify_corpus.py                              beside certificate.json, in the released corpus
    python verify_corpus.py s3://bucket/corpus           from a copy of both files anywhere
    python verify_corpus.py CORPUS --sample 1000 --json
    python verify_corpus.py --key ed25519:...            and it must be this key that signed the release
    python verify_corpus.py --proof FILE                 is one episode in a release? Needs nothing else of it

What "true" means here:
- a file is one that the certificate lists, and its sha256 is the certified one (and the one in its name);
- a row has the content digest that follows from all its other columns (`content_digest` below);
- a game agrees with itself (`played_lies` below): the visits of a search sum to its simulations, its value is the mean
  of what was backed up, the move played follows from both, every move was made by one policy; where the table `runs`
  has the settings of its search, also its length and its surprise, within what rounding hides;
- a game has only steps that the rules of OpenSpiel allow, the rules say along the way what its replay digest holds,
  and its end, its returns and its unit of values agree with them (`game_lies` below);
- a dialogue and a walk agree with themselves (`dialogue_lies`, `walk_lies` below): turns, tokens, masks, spans,
  verdicts, returns; a tokenizer that the corpus keeps spells each text. Whether an answer is right needs the task: such
  rows are false here, or not checkable;
- all rows together have the certified content digest: none is missing, none came later, none is there twice; and the
  Merkle root over them is the certified one (it is computed as RFC 6962 says, see `leaf`);
- each row names the content digest of the one that its writer sealed before (from schema version 2 on), down to the
  first, and each writer has as many as it ended with, but for what the table `deletions` names; where a later driver of
  a run has gone on, the table `closings` says how much each earlier one had archived (`Chains` below);
- the release's other files and the rows of side tables are the certified ones, and the row of the table `releases`
  says what the certificate says;
- the key that the certificate names has signed it: certificate.sig. Whoever rewrites all of a release can sign it with
  a key of his own, so ask its owner for the key, and give it as --key. `pip install cryptography` is needed for that;
  without it everything else is checked;
- numbers of a writer have no gaps, its times and versions never go back, its groups are whole, its seeds are those that
  it drew, and its settings, code, rules and policies are those that the side tables have for its run (`Neighbours`).

Where the certificate says "redacted", rows lack host names, paths and the like, and their digests were computed after
these were left out: they prove what was released, not what was sealed. README.md tells what is missing.

"not checkable" is what this machine cannot decide, with what is missing. Values are from the point of view of the seat
to act, returns from each seat's own, in the game's utility units.

Exit codes: 0 all that could be checked is true; 1 something is false; 2 it cannot be read; 3 with --strict, something
is not checkable. S3 keys and endpoint come from the usual variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...). Read
the table through its log only, never by a pattern of file names: files of other versions lie in the same folders.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import sys
from typing import NoReturn

import pyarrow as pa

from selfplay.store.release.verifier.chain import Chains
from selfplay.store.release.verifier.dialogues import Tokenizers
from selfplay.store.release.verifier.episodes import row_lies
from selfplay.store.release.verifier.games import Rules
from selfplay.store.release.verifier.neighbours import Neighbours
from selfplay.store.release.verifier.proofs import MOST_PROOF_BYTES, proof_of, prove
from selfplay.store.release.verifier.rows import (
    COLUMNS,
    LINK,
    MOST_CERTIFICATE_BYTES,
    MOST_FILE_BYTES,
    Lie,
    Row,
    Unknown,
)
from selfplay.store.release.verifier.searches import settings_of
from selfplay.store.release.verifier.signed import certificate_signer, key_of, release_lies, root_lies
from selfplay.store.release.verifier.table import (
    certificate_of,
    file_lies,
    located,
    opened,
    read,
    refuse_outside,
    rows_of,
    shown,
    side_table,
)

#: Lines of one kind that are printed.
MOST_LINES = 1000


class Report:
    """Counts of episodes; `lies` also holds what is false of files and of the whole.

    unset: true games whose searches could not be held against the settings of their run.
    """

    def __init__(self, tokenizers: Tokenizers) -> None:
        self.tokenizers = tokenizers
        self.true = self.unknown = self.false = self.unset = 0
        self.lies: list[tuple[str, str]] = []
        self.missing: dict[str, int] = {}
        self.digests: list[str] = []
        self.seen: set[str] = set()
        self.chains = Chains()
        self.open: set[str] = set()  # what is not checkable
        self.neighbours = Neighbours()
        self.sealed: dict[str, str] = {}  # content digests by id
        self.key: str | None = None
        self.standing = ""

    def row(self, row: Row, schema: pa.Schema, rules: Rules, newest: int) -> None:
        """newest: schema version that the table states."""
        try:
            if not 1 <= row["schema_version"] <= newest:
                raise Lie(f"its schema version is {row['schema_version']}, and that of its table {newest}")
            if row["episode_id"] in self.seen:
                raise Lie("the episode is there twice")
            self.seen.add(row["episode_id"])
            self.digests.append(row["content_digest"])
            self.chains.add(row)
            self.neighbours.add(row)
            self.sealed[row["episode_id"]] = row["content_digest"]
            row_lies(row, schema, rules, self.tokenizers)
            self.true += 1
            self.unset += row["config_digest"] not in rules.searches and any(
                step["candidates"] for step in (row["game"] or {"steps": ()})["steps"]
            )
        except Lie as lie:
            self.false += 1
            self.lies.append((row["episode_id"], str(lie)))
        except Unknown as reason:
            self.unknown += 1
            self.open.add(row["episode_id"])
            self.missing[str(reason)] = self.missing.get(str(reason), 0) + 1
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            self.false += 1
            self.lies.append((str(row["episode_id"]), f"the row is not an episode: {str(error).splitlines()[0]}"))

    def together(self, found: list[tuple[str, str]]) -> None:
        """Adds what is false of rows together; a row that was true or unknown by itself is false then."""
        told = {subject for subject, _ in self.lies}
        for subject, reason in found:
            if subject in told:
                continue
            told.add(subject)
            self.lies.append((subject, reason))
            if subject in self.seen:
                self.true, self.unknown = self.true - (subject not in self.open), self.unknown - (subject in self.open)
                self.false += 1


def verify(corpus: str, certificate: Row, sample: int | None, seed: int) -> Report:
    """Checks the released version of the corpus, all of it or `sample` rows and the files that hold them."""
    table = opened(f"{corpus}/episodes", certificate["table_version"])
    refuse_outside(table)
    schema = pa.schema(table.schema().to_arrow())
    files = sorted(pa.table(table.get_add_actions(flatten=True)).to_pylist(), key=lambda file: str(file["path"]))
    certified = {file["path"]: file for file in certificate["files"]}
    stated = re.search(r"schema_version=([0-9]{1,18})", table.metadata().description or "")
    tokenizers = Tokenizers({row["digest"]: row["files"] for row in side_table(corpus, "tokenizers")})
    report, rules, newest = Report(tokenizers), Rules(certificate), int(stated[1]) if stated else 1
    rules.searches = settings_of(side_table(corpus, "runs"))
    if set(schema.names) - {*COLUMNS, LINK, "content_digest"}:  # of a version that this file does not know
        newest = sys.maxsize
    report.lies += tokenizers.lies()
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
                report.row(row, schema, rules, newest)
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
    if drawn is None and not report.lies:
        whole_lies(report, certificate)
    if drawn is None:
        names = ("runs", "policies", "environments", "closings", "deletions")
        tables = {name: side_table(corpus, name) for name in names}
        damaged = any(path in certified for path, _ in report.lies)
        try:
            found = list(report.neighbours.lies(tables, certificate))
            found += () if damaged else report.chains.lies(tables, certificate["table_version"])
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            found = [("corpus", f"its side tables are none: {str(error).splitlines()[0]}")]
        report.together(found)
    return report


def whole_lies(report: Report, certificate: Row) -> None:
    """What is false of all episodes together."""
    if len(report.digests) != certificate["episodes"]:
        report.lies.append(("corpus", f"it holds {len(report.digests):,} episodes, not {certificate['episodes']:,}"))
    if whole_digest(report.digests) != certificate["content_digest"]:
        report.lies.append(("corpus", "all rows together do not have the certified content digest"))
    if certificate.get("merkle_root") is not None:
        try:
            root_lies(report.sealed, certificate)
        except Lie as lie:
            report.lies.append(("corpus", str(lie)))


def stand(report: Report, corpus: str, certificate: Row, data: bytes, wanted: str | None) -> None:
    """Checks what the release stands on. data: the bytes of certificate.json. wanted: who must have signed it."""
    report.lies += release_lies(corpus, certificate, data)
    try:
        report.key, report.standing = certificate_signer(corpus, certificate, data, wanted)
    except Lie as lie:
        report.lies.append(("certificate.json", str(lie)))


def whole_digest(digests: list[str]) -> str:
    """sha256 (hex) of all content digests in hex, sorted, a newline after each: `sort | sha256sum`."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(digests)).encode()).hexdigest()


def read_at(place: str, most: int) -> bytes:
    folder, _, name = located(place).rpartition("/")
    return read(folder, name, most)


def proved(place: str, wanted: str | None, as_json: bool) -> int:
    """Says whether the proof at a place holds. Raises `ValueError` for what is none."""
    try:
        true, said = True, prove(proof_of(read_at(place, MOST_PROOF_BYTES)), wanted)
    except Lie as lie:
        true, said = False, str(lie)
    print(json.dumps({"true": true, "said": said}) if as_json else said if true else f"false: {said}")
    return 0 if true else 1


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Checks that every episode of a release is true.")
    parser.add_argument("corpus", nargs="?", default=os.path.dirname(os.path.dirname(here)), help="folder or s3://...")
    parser.add_argument("--certificate", default=os.path.join(here, "certificate.json"), help="default: beside me")
    parser.add_argument("--sample", type=int, metavar="N", help="only N episodes, drawn evenly, and their files")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--strict", action="store_true", help="end with code 3 unless all episodes are true")
    parser.add_argument("--key", metavar="ed25519:...", help="who must have signed it; needs cryptography")
    parser.add_argument("--proof", metavar="FILE", help="check a proof that one episode is in a release, and no corpus")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    try:
        wanted = key_of(asked.key)
        if asked.proof is not None:
            return proved(asked.proof, wanted, asked.json)
        data = read_at(asked.certificate, MOST_CERTIFICATE_BYTES)
        certificate = certificate_of(data)
        report = verify(located(asked.corpus), certificate, asked.sample, asked.seed)
        stand(report, located(asked.corpus), certificate, data, wanted)
        place, own = located(asked.certificate), f"{located(asked.corpus)}/released/"
        if place.startswith(own) and place != f"{own}{certificate['release']}/certificate.json":
            report.lies.append(("certificate.json", "it is the certificate of another release"))
    except Exception as error:
        print(f"cannot be read: {shown((str(error) or type(error).__name__).splitlines()[0])}", file=sys.stderr)
        return 2
    counts = {"true": report.true, "false": report.false, "not checkable": report.unknown}
    if asked.json:
        lies = [{"subject": subject, "reason": reason} for subject, reason in report.lies]
        version = certificate["table_version"]
        told = {"key": report.key, "standing": report.standing, "merkle_root": certificate.get("merkle_root")}
        told |= {"without_settings": report.unset, "without_closing": report.chains.unended,
                 "runs_with_times_that_go_back": len(report.neighbours.set)}  # fmt: skip
        print(json.dumps({"version": version, **counts, "falsehoods": lies, "missing": report.missing, **told}))
    else:
        for subject, reason in report.lies[:MOST_LINES]:
            print(f"false {shown(subject)}: {shown(reason)}")
        if len(report.lies) > MOST_LINES:
            print(f"and {len(report.lies) - MOST_LINES:,} more are false; --json names them all")
        for reason, count in report.missing.items():
            print(f"not checkable ({count:,} episodes): {shown(reason)}")
        if report.unset:
            print(f"not covered ({report.unset:,} episodes): length and surprise of searches: the table runs does not "
                  "tell their settings")  # fmt: skip
        if report.neighbours.set:
            print(f"not covered: when episodes of {len(report.neighbours.set):,} runs were made: their times go back "
                  "by more than ten minutes, as where a clock was set")  # fmt: skip
        if report.chains.unended:
            print(f"not covered ({report.chains.unended:,} episodes): whether episodes are missing at the end of their "
                  "writers: the table closings does not say how much their driver had archived")  # fmt: skip
        print(f"{', '.join(f'{count:,} {state}' for state, count in counts.items())} of {certificate['episodes']:,} "
              f"episodes of release {shown(certificate['release'])} (version {certificate['table_version']})"
              f"{', redacted' if certificate.get('redacted') is True else ''}"
              f"{', a sample' if asked.sample else ''}")  # fmt: skip
        if certificate.get("merkle_root") is not None:
            compared = " (not compared: a sample)" if asked.sample else ""
            print(f"Merkle root {shown(certificate['merkle_root'])}{compared}")
        if report.standing:
            print(report.standing)
    return 1 if report.lies else 3 if asked.strict and report.unknown else 0


def leave(code: int) -> NoReturn:
    """Ends the process at once. Threads of pyarrow may still hold something of Python's when all is said; one that lets
    go of it while the interpreter is taken down ends the process with SIGABRT, and another code than this one.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # whoever read what was said is gone
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    leave(main())
