"""What the side tables say of the episodes: of which run, by which settings, code, rules and policies they were made.

A run of the factory enters its row, its environment and every version of its policy before anybody plays with them.
Runs that have no row, made by other writers or older ones, are not covered by this, and it is said.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from selfplay.store.corpus.kept_settings import configuration, pseudonym
from selfplay.store.coverage import CONFIG, FALSE, RUN, TIMES, WHOLE_CONFIG, Check

#: Policies that have no weights, and no row: random moves, and texts that no policy of the run wrote.
_WEIGHTLESS = re.compile(r"random|none|solver|teacher|human|expert|mcts-?[0-9]+|endpoint:.*", re.DOTALL)
#: Openings of random moves that a version of the run's own policy chose among.
_CHOSEN = "random-evenest"
#: How far two times of one machine may contradict each other without a word, and those of two machines, or of one whose
#: clock was set meanwhile, at all. Microseconds. A clock may be set by hours, as when a machine finds its network late.
SAME_CLOCK, OTHER_CLOCK = 600 * 10**6, 24 * 3600 * 10**6
#: Rows of the table of runs that are called false one by one; of more it is said how many they are.
MOST_TOLD = 10_000


class Named(NamedTuple):
    """A policy as spans name it. run, origin: of the episode."""

    run: str
    policy_id: Any
    version: Any
    digest: Any
    origin: Any


class Combination(NamedTuple):
    """What many episodes have in common. driver: the epoch of the run's driver."""

    run: str
    driver: int
    env_id: Any
    ruleset_digest: Any
    config_digest: Any
    code_commit: Any
    package_version: Any
    host: Any


class Described:
    """Collects what episodes say of themselves, and compares it with the side tables."""

    def __init__(
        self,
        runs: Iterable[Mapping[str, Any]],
        policies: Iterable[Mapping[str, Any]],
        environments: Iterable[Mapping[str, Any]],
    ) -> None:
        self._runs = {(row["run_id"], row["epoch"]): row for row in runs}
        self._known = {run for run, _ in self._runs}
        self._policies = {(row["policy_id"], row["version"], row["digest"]): row for row in policies}
        self._rules = {(row["env_id"], row["ruleset_digest"]) for row in environments}
        self._named: dict[tuple[Named, Any], int] = {}
        self._made: dict[Combination, int] = {}
        self._lacking: dict[str, set[str]] = {}
        self._settings: dict[tuple[str, int], dict[str, Any] | None] = {}

    def add(self, how: Combination, started: int, policies: Iterable[Named], ended: int) -> None:
        """An episode, that began and ended at these times (microseconds); of those alike, the first counts."""
        self._made[how] = min(started, self._made.get(how, started))
        for policy in policies:
            kept = self._named.get((policy, how.host))
            if kept is None or ended < kept:
                self._named[policy, how.host] = ended

    def lacks(self, run: str, what: str) -> None:
        """Notes that something is not covered in the episodes of a run; what: see `coverage.UNCOVERED`."""
        self._lacking.setdefault(run, set()).add(what)

    def settings(self, run: str, driver: int) -> dict[str, Any] | None:
        """The configuration under which a driver of the run worked; None where it is not here."""
        key = (run, driver)
        if key not in self._settings:
            row = self._runs.get(key)
            self._settings[key] = None if row is None else configuration(row["config"])
        return self._settings[key]

    def uncovered(self) -> dict[str, tuple[str, ...]]:
        """By run, what could not be looked at; after `lies`."""
        for run in {how.run for how in self._made} - self._known:
            self.lacks(run, RUN)
        return {run: tuple(sorted(what)) for run, what in self._lacking.items()}

    def lies(self) -> Iterator[Check]:
        """What is wrong with the rows of runs themselves; after all episodes."""
        false = 0
        for run, epoch in sorted(self._runs, key=str):
            if (reason := self._configuration_lies(run, self._runs[run, epoch])) is not None:
                false += 1
                if false <= MOST_TOLD:
                    yield Check(f"run {run}, epoch {epoch}", FALSE, reason)
        if false > MOST_TOLD:
            yield Check("table runs", FALSE, f"{false - MOST_TOLD:,} more of its rows are false, as the others told")

    def contradicted(self) -> bool:
        """Whether the side tables contradict any episode; then `contradiction` says of each whether it is one."""
        return any(self._making_lies(how, started) is not None for how, started in self._made.items()) or any(
            self._policy_lies(policy, ended, host) is not None for (policy, host), ended in self._named.items()
        )

    def contradiction(self, how: Combination, started: int, policies: Iterable[Named], ended: int) -> str | None:
        """What the side tables contradict in one episode; None where nothing."""
        reasons = (self._policy_lies(policy, ended, how.host) for policy in policies)
        return self._making_lies(how, started) or next((reason for reason in reasons if reason is not None), None)

    @cached_property
    def _pseudonyms(self) -> set[str]:
        most = len(self._runs) + len({how.config_digest for how in self._made})
        return {pseudonym(number) for number in range(1, most + 1)}

    def _configuration_lies(self, run: str, row: Mapping[str, Any]) -> str | None:
        """A configuration has the digest that its row gives. In redacted copies both were replaced."""
        digest = row["config_digest"]
        if digest is None or row["config"] is None:
            self.lacks(run, CONFIG)
            return None
        if digest in self._pseudonyms:
            self.lacks(run, WHOLE_CONFIG)
            return None
        found = configuration(row["config"])
        if found is None:
            return "its configuration is no JSON"
        canonical = json.dumps(found, sort_keys=True, separators=(",", ":"))
        if hashlib.sha256(canonical.encode()).hexdigest() != digest:
            return "its configuration does not have its digest"
        return None

    def _making_lies(self, how: Combination, started: int) -> str | None:
        if how.run not in self._known:
            return None
        row = self._runs.get((how.run, how.driver))
        if row is None:
            return f"its run has no driver {how.driver} in the table of runs"
        if row["config_digest"] is None:
            return None
        for name in ("config_digest", "env_id", "code_commit", "package_version"):
            if getattr(how, name) != row[name] and (row[name] is not None or name == "code_commit"):
                return f"its {name} is {getattr(how, name)!r}, and that of its run {row[name]!r}"
        if (how.env_id, how.ruleset_digest) not in self._rules:
            return f"the table of environments has no {how.env_id} with its rules"
        if row["started_at"] is not None and started > 0:
            early = _micros(row["started_at"]) - started
            if self._out_of_order(how.run, early, row["host"] == how.host):
                return f"it began {early / 3.6e9:,.1f} hours before its run"
        return None

    def _policy_lies(self, policy: Named, ended: int, host: Any) -> str | None:
        name = policy.policy_id
        if policy.run not in self._known:
            return None
        if name != policy.run and (_WEIGHTLESS.fullmatch(str(name)) or name == policy.origin):
            return None if policy.digest is None else f"a policy span gives {name} weights, and it has none"
        row = self._policies.get((policy.run if name == _CHOSEN else name, policy.version, policy.digest))
        if row is None:
            weights = str(policy.digest)[:12]
            return f"the table of policies has no version {policy.version} of {name} with the weights {weights}…"
        published, hosts = row["created_at"], self._hosts.get(policy.run, set())
        if published is not None and ended > 0:
            early = _micros(published) - ended
            if self._out_of_order(policy.run, early, hosts == {host}):
                hours = f"{early / 3.6e9:,.1f} hours"
                return f"it ended {hours} before version {policy.version} of {name} was published, which played in it"
        return None

    def _out_of_order(self, run: str, early: int, one_machine: bool) -> bool:
        """Whether something was so much before what it follows that no clock explains it; notes what a clock may."""
        if one_machine and early > SAME_CLOCK:
            self.lacks(run, TIMES)
        return early > OTHER_CLOCK

    @cached_property
    def _hosts(self) -> dict[str, set[Any]]:
        """By run, the machines of its drivers."""
        hosts = defaultdict[str, set[Any]](set)
        for (run, _), row in self._runs.items():
            hosts[run].add(row["host"])
        return dict(hosts)


def _micros(time: datetime | int) -> int:
    """Microseconds since 1970; what is a number is that already."""
    return time if isinstance(time, int) else int(time.timestamp() * 1e6)
