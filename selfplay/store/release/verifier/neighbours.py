"""What follows from other rows and from the side tables: none is missing, doubled, out of order, or of no run."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfplay.store.release.verifier.rows import Row, parsed

#: Rows of the table of runs that are called false one by one; of more it is said how many they are.
MOST_TOLD = 10_000
#: Writers 1000 e to 1000 e + 999 belong to driver e of their run.
DRIVER = 1000
#: Microseconds. Times of one machine that contradict each other by more than CLOCK are told: its clock may have been
#: set. By more than CLOCKS no times may.
CLOCK, CLOCKS = 600_000_000, 86_400_000_000
WEIGHTLESS = re.compile(r"random|none|solver|teacher|human|expert|mcts-?[0-9]+|endpoint:.*", re.DOTALL)


@dataclass(slots=True)
class Told:
    """What is kept of a row. version: of its run's policy, -1 for none. sampled: for learning, by that policy."""

    number: int
    ended: int
    version: int
    seed: int
    kind: str
    group: str | None
    index: int | None
    sampled: bool


class Neighbours:
    """Collects what rows say, and compares it when all are there."""

    def __init__(self) -> None:
        self.writers: dict[tuple[str, str, int], list[Told]] = {}
        self.policies: dict[tuple[Any, ...], tuple[str, int, Any]] = {}
        self.made: dict[tuple[Any, ...], tuple[str, int]] = {}
        self.contents: dict[bytes, str] = {}
        self.copies: list[tuple[str, str]] = []
        self.parents: list[tuple[str, str]] = []
        self.set: set[str] = set()  # runs of which a clock may have been set
        self.longest: dict[tuple[str, int], int] = {}
        self.cut: dict[tuple[str, int], dict[int, str]] = {}  # by length, the first game of self-play that was cut

    def add(self, row: Row) -> None:
        run, epoch, started = row["run_id"], row["epoch"], row["started_at"] or 0
        ended, version = started + 1000 * (row["wall_ms"] or 0), -1
        for span in row["policy_spans"] or ():
            named = (run, span["policy_id"], span["version"], span["digest"], row["origin"])
            if named not in self.policies or self.policies[named][1] > ended:
                self.policies[named] = (row["episode_id"], ended, row["host"])
            if span["policy_id"] == run and row["status"] != "aborted":
                version = max(version, span["version"])
        how = (run, epoch // DRIVER, row["env_id"], row["ruleset_digest"], row["config_digest"], row["code_commit"],
               row["package_version"], row["host"])  # fmt: skip
        if how not in self.made or self.made[how][1] > started:
            self.made[how] = (row["episode_id"], started)
        self.parents += [(row["episode_id"], one["episode_id"]) for one in row["parents"] or ()]
        if row["game"] is not None and row["origin"] == "self_play" and row["config_digest"] is not None:
            driver, moves = (run, epoch // DRIVER), row["n_steps"]
            self.longest[driver] = max(moves, self.longest.get(driver, 0))
            if row["game"]["ended_by"] == "ply_limit":
                self.cut.setdefault(driver, {}).setdefault(moves, row["episode_id"])
        words = row["reasoning"] or {}
        kept = Told(row["number"], ended, version, row["seed"], row["kind"], words.get("group_id"),
                    words.get("sample_index"), row["origin"] == "cot_rl")  # fmt: skip
        self.writers.setdefault((run, row["slot"], epoch), []).append(kept)
        if row["game"] is not None and any(span["policy_id"] == run for span in row["policy_spans"] or ()):
            self.content(row["episode_id"], (run, row["env_id"], row["seed"], row["game"]))
        if started > 0:
            names = ("kind", "env_id", "seed", "returns", "policy_spans", "verdicts", "game", "reasoning", "control")
            self.content(row["episode_id"], (started, *(row[name] for name in names)))

    def content(self, name: str, content: Any) -> None:
        first = self.contents.setdefault(hashlib.sha256(repr(content).encode()).digest()[:16], name)
        if first != name:
            self.copies.append((name, f"it is episode {first} again, under another name"))

    def lies(self, tables: dict[str, list[Row]], certificate: Row) -> Iterator[tuple[str, str]]:
        """What is false, as (episode, writer or run; reason). tables: the side tables, by name."""
        runs, policies, environments = (tables[name] for name in ("runs", "policies", "environments"))
        deletions = tables["deletions"]
        redacted, said = certificate.get("redacted") is True, certificate.get("verification")
        gaps = isinstance(said, dict) and isinstance(said.get("uncovered"), dict) and "gaps" in said["uncovered"]
        open_runs = {row["run_id"] for row in deletions if row["writers"] is None}
        yield from dict(self.copies).items()
        for driver, cut in self.cut.items():
            for moves, name in cut.items():
                if moves < self.longest[driver]:
                    yield name, f"it was cut after {moves} moves, and a game of its run went on for longer"
        here = {run for run, _, _ in self.writers}
        wanted = {parent.rpartition("/")[0] for _, parent in self.parents}
        there = {f"{'/'.join(map(str, key))}/{one.number}" for key, rows in self.writers.items()
                 if "/".join(map(str, key)) in wanted for one in rows}  # fmt: skip
        gone: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
        for row in deletions:
            for one in row["writers"] or ():
                gone.setdefault((row["run_id"], one["slot"], one["epoch"]), []).append((one["first"], one["last"]))
        out = {"/".join(map(str, key)): sorted(spans, reverse=True) for key, spans in gone.items()}
        for name, parent in sorted(self.parents, key=lambda pair: number_of(pair[1])):  # ascending, as `covered` asks
            writer, number = parent.rpartition("/")[0], number_of(parent)
            held = parent in there or (number >= 0 and covered(number, number, out.get(writer, [])))
            if parent == name or (parent.split("/")[0] in here - open_runs and not held):
                yield name, f"it names the parent {parent}, which is not in the corpus, or it itself"
        of = {(row["run_id"], row["epoch"]): row for row in runs}
        known = {run for run, _ in of}
        settings = {key: parsed(row["config"]) for key, row in of.items()}
        for (run, slot, epoch), rows in sorted(self.writers.items()):
            taken, before = sorted(gone.get((run, slot, epoch), ()), reverse=True), -1
            for number in sorted({row.number for row in rows}):
                if number < 0 or not (gaps or run in open_runs or covered(before + 1, number - 1, taken)):
                    told = f"episodes {before + 1} to {number - 1} are missing, and later ones are there"
                    yield f"run {run}: slot {slot}, epoch {epoch}", told
                before = number
            yield from self.writer_lies(run, slot, epoch, rows, settings.get((run, epoch // DRIVER), {}))
        false = 0
        for (run, epoch), row in of.items():
            text = json.dumps(settings[run, epoch], sort_keys=True, separators=(",", ":"))
            if not redacted and row["config_digest"] not in (None, hashlib.sha256(text.encode()).hexdigest()):
                false += 1
                if false <= MOST_TOLD:
                    yield f"run {run}, epoch {epoch}", "its configuration does not have its digest"
        if false > MOST_TOLD:
            yield "table runs", f"{false - MOST_TOLD:,} more of its rows are false, as the others told"
        rules = {(row["env_id"], row["ruleset_digest"]) for row in environments}
        for how, (name, started) in self.made.items():
            if how[0] in known:
                yield from self.made_lies(name, how, started, of.get(how[:2]), rules)
        hosts: dict[str, set[Any]] = {}
        for row in runs:
            hosts.setdefault(row["run_id"], set()).add(row["host"])
        published = {(row["policy_id"], row["version"], row["digest"]): row["created_at"] for row in policies}
        for (run, policy, version, digest, origin), (name, ended, host) in self.policies.items():
            if run not in known:
                continue
            if policy != run and (WEIGHTLESS.fullmatch(policy) or policy == origin):
                if digest is not None:
                    yield name, f"a policy span gives {policy} weights, and it has none"
                continue
            named = (run if policy == "random-evenest" else policy, version, digest)
            if named not in published:
                yield name, f"the table of policies has no version {version} of {policy} with its weights"
            elif published[named] is not None and ended > 0:
                if self.contradicts(run, published[named].timestamp() * 1e6 - ended, hosts[run] == {host}):
                    yield name, f"it ended before version {version} of {policy} was published"

    def contradicts(self, run: str, early: float, one_machine: bool) -> bool:
        """Whether a time is before another that it follows, by more than a clock explains."""
        if one_machine and early > CLOCK:
            self.set.add(run)
        return early > CLOCKS

    def made_lies(
        self, name: str, how: tuple[Any, ...], started: int, row: Row | None, rules: set[Any]
    ) -> Iterator[Any]:
        """What is false of how an episode was made. row: of the table of runs, for its driver."""
        if row is None:
            yield name, f"its run has no driver {how[1]} in the table of runs"
        elif row["config_digest"] is not None:
            said = (how[2], *how[4:7])
            names = ("env_id", "config_digest", "code_commit", "package_version")
            for column, value in zip(names, said, strict=True):
                if row[column] != value and (row[column] is not None or column == "code_commit"):
                    yield name, f"its {column} is {value}, and that of its run {row[column]}"
            if (how[2], how[3]) not in rules:
                yield name, f"the table of environments has no {how[2]} with its rules"
            if row["started_at"] is not None and started > 0:
                early = row["started_at"].timestamp() * 1e6 - started
                if self.contradicts(how[0], early, row["host"] == how[7]):
                    yield name, "it began before its run"

    def writer_lies(self, run: str, slot: str, epoch: int, rows: list[Told], settings: Row) -> Iterator[Any]:
        """What is false of the episodes of one writer together. settings: of its run, {} where they are not here."""
        writer = f"{run}/{slot}/{epoch}"
        rows = sorted(rows, key=lambda row: row.number)
        for before, row in zip(rows, rows[1:], strict=False):
            if self.contradicts(run, before.ended - row.ended, True):
                yield f"{writer}/{row.number}", "it ended before the one that its writer had sealed before it"
        version = -1
        for row in rows:
            if 0 <= row.version < version:
                yield f"{writer}/{row.number}", "it was played by a version before that of the one sealed before it"
            version = row.version if row.version >= 0 else version
        yield from seeds_lie(writer, slot, epoch, rows, settings)
        groups: dict[str, list[Told]] = {}
        for row in rows:
            if row.group is not None and row.index is not None:
                groups.setdefault(row.group, []).append(row)
        whole = [row.number for row in rows] == list(range(len(rows)))  # else samples may be missing, too
        size = settings["generation"].get("group") if isinstance(settings.get("generation"), dict) else None
        for some in groups.values() if whole else ():
            times = Counter(row.index or 0 for row in some)
            if sorted(times) != list(range(len(times))) or len(set(times.values())) != 1:
                yield f"{writer}/{some[0].number}", "of its group some samples are missing, or there twice"
            elif some[0].sampled and size is not None and len(times) != size:
                yield f"{writer}/{some[0].number}", f"its group has {len(times)} samples, and by its run {size}"


def number_of(name: str) -> int:
    """The number at the end of an episode's id; -1 for none that is one."""
    found = re.search("/([0-9]{1,18})$", name)
    return int(found[1]) if found else -1


def covered(first: int, last: int, spans: list[tuple[int, int]]) -> bool:
    """Whether the spans, each with its ends, hold all numbers from first to last; of none they hold all.

    spans: descending; from their end those are taken that reach no further number, so ask for ascending ones.
    """
    while first <= last and spans and spans[-1][0] <= first:
        first = max(first, spans[-1][1] + 1)
        if first <= last:
            spans.pop()
    return first > last


def seeds_lie(writer: str, slot: str, epoch: int, rows: list[Told], settings: Row) -> Iterator[Any]:
    """A player draws the seeds of its games from one generator; of those begun so many are under way at a time."""
    found = re.fullmatch(r"p([0-9]{1,9})(?:\.([1-9][0-9]{0,8}))?", slot)
    begun, games = (settings[part].get(key) if isinstance(settings.get(part), dict) else None
                    for part, key in (("run", "seed"), ("selfplay", "games")))  # fmt: skip
    if not found or rows[0].kind != "game" or type(begun) is not int or type(games) is not int:
        return
    most = rows[-1].number + 1 + 2 * games
    if begun < 0 or epoch < 0 or not 0 < games <= 100_000 or not 0 < most <= len(rows) + 2_000_000:
        return
    entropy = [begun, int(found[1]), epoch, *([int(found[2])] if found[2] else [])]
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    turns = {seed: turn for turn, seed in enumerate(generator.integers(2**63, size=most).tolist())}
    for row in rows:
        turn = turns.pop(row.seed, None)
        if turn is None or turn >= row.number + 2 * games:
            yield f"{writer}/{row.number}", "its seed is none that its writer had drawn and not yet used"
